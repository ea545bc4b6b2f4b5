//! The sink: writes results and moves images out of the folder.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use padim::line::{DriftConfig, DriftMonitor, LineResult, Outcome as What, SinkError};
use padim::preprocess::decode_bytes_with;
use padim::visualize::save_png;
use padim::{Detector, Prediction};
use serde_json::{Value, json};

use super::common::{self, InputOptions, Outcome, say, tell};
use super::folder::{Folder, Ticket};
use super::put_away::{free_name, put_away};
use super::{Work, drift};

/// Writes results.
pub struct Recorder {
    detector: Arc<Detector>,
    fingerprint: String,
    input: InputOptions,
    folder: Arc<Folder>,
    results: Lines,
    output: PathBuf,
    delete: bool,
    stopping: Arc<AtomicBool>,
    monitor: Arc<Mutex<DriftMonitor>>,
    written: u64,
}

/// Number of results between two saves of the drift monitor's state.
const SAVE_EVERY: u64 = 1000;

impl Recorder {
    pub fn new(
        detector: &Arc<Detector>,
        work: &Work,
        config: DriftConfig,
        folder: Arc<Folder>,
        stopping: Arc<AtomicBool>,
    ) -> Outcome<Self> {
        for name in ["overlays", "done", "failed"] {
            common::create_folder(&work.output.join(name))?;
        }
        let fingerprint = drift::fingerprint(detector)?;
        let monitor = drift::load(&work.output, detector, &fingerprint, config)?;
        Ok(Self {
            detector: Arc::clone(detector),
            fingerprint,
            input: work.input.clone(),
            folder,
            results: Lines::open(&work.output.join("results.jsonl"))?,
            output: work.output.clone(),
            delete: work.delete,
            stopping,
            monitor: Arc::new(Mutex::new(monitor)),
            written: 0,
        })
    }

    pub fn monitor(&self) -> Arc<Mutex<DriftMonitor>> {
        Arc::clone(&self.monitor)
    }

    /// Writes a result. Tries again after a failure, until the program is stopped; then the image stays
    /// in the folder for the next run.
    pub fn record(&mut self, result: LineResult<Ticket>) -> Result<(), SinkError> {
        let ticket = result.id.clone();
        if matches!(result.outcome, What::Failed(_)) && !self.folder.is_final(&ticket) {
            self.folder.wait_for_change(&ticket);
            return Ok(());
        }
        if let What::Predicted(prediction) = &result.outcome {
            self.observe(prediction.image_score);
        }
        let mut steps = Steps::default();
        let mut told = false;
        let outcome = loop {
            let error = match self.try_record(&result, &mut steps) {
                Ok(()) => break Ok(()),
                Err(error) => error,
            };
            let name = ticket.name.to_string_lossy();
            if self.stopping.load(Ordering::Relaxed) {
                tell!("not written: {name}: {error}");
                break Err(error.to_string().into());
            }
            if !std::mem::replace(&mut told, true) {
                tell!("cannot write the result of {name}, trying again: {error}");
            }
            std::thread::sleep(Duration::from_millis(200));
        };
        if told && outcome.is_ok() {
            tell!("it was written; going on");
        }
        self.folder.forget(&ticket);
        self.written += 1;
        if self.written.is_multiple_of(SAVE_EVERY) {
            self.save_monitor();
        }
        outcome
    }

    fn observe(&self, score: f32) {
        let mut monitor = self.monitor.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(alarm) = monitor.observe(score) {
            say!(
                "DRIFT: good parts score {:?} since part {} or so (seen at part {}, 1 in {:.0})",
                alarm.direction,
                alarm.since,
                alarm.part,
                alarm.statistic
            );
        }
    }

    fn save_monitor(&self) {
        let monitor = self.monitor.lock().unwrap_or_else(PoisonError::into_inner);
        drift::save(&self.output, &self.fingerprint, &monitor);
    }

    /// Writes the picture, writes the line and moves the image; each step can be repeated.
    fn try_record(&mut self, result: &LineResult<Ticket>, steps: &mut Steps) -> Outcome {
        let path = self.folder.path_of(&result.id);
        let name = result.id.name.to_string_lossy();
        let value = match &result.outcome {
            What::Predicted(prediction) => self.describe(prediction, &result.id, steps)?,
            What::Failed(error) => json!({ "error": common::advice(error) }),
            _ => return Ok(()),
        };
        if !steps.line {
            let mut line = json!({
                "id": name,
                "latency_ms": (result.latency.as_secs_f64() * 1e5).round() / 1e2,
            });
            if let (Value::Object(line), Value::Object(more)) = (&mut line, value) {
                line.extend(more);
            }
            self.results.write(&format!("{line}\n"))?;
            steps.line = true;
        }
        let scored = result.id.bytes.get().map(Vec::as_slice);
        match result.outcome {
            What::Failed(_) => put_away(&path, scored, Some(&self.output.join("failed"))),
            _ if self.delete => put_away(&path, scored, None),
            _ => put_away(&path, scored, Some(&self.output.join("done"))),
        }
    }

    fn describe(
        &self,
        prediction: &Prediction,
        ticket: &Ticket,
        steps: &mut Steps,
    ) -> Outcome<Value> {
        let mut value = json!({
            "score": prediction.image_score,
            "p_value": prediction.p_value,
            "defective": prediction.is_defective,
        });
        let warnings = prediction.input.warnings();
        if !warnings.is_empty() {
            value["warnings"] = json!(warnings);
        }
        if prediction.is_defective == Some(true) {
            if self.detector.thresholds().is_some_and(|d| d.pixel.is_some()) {
                let regions = self.detector.anomaly_regions(prediction)?;
                let regions = regions.iter().map(|d| {
                    json!({ "top": d.top, "left": d.left, "height": d.height, "width": d.width,
                        "area": d.area, "peak": d.peak })
                });
                value["regions"] = regions.collect();
            }
            if steps.overlay.is_none() {
                steps.overlay = Some(self.draw(prediction, ticket)?);
            }
            value["overlay"] = json!(steps.overlay);
        }
        Ok(value)
    }

    /// Draws the bytes that were scored; returns the picture's name.
    fn draw(&self, prediction: &Prediction, ticket: &Ticket) -> Outcome<String> {
        let name = ticket.name.to_string_lossy();
        let bytes = ticket.bytes.get().ok_or("the file was not read")?;
        let options = self.input.decode(self.detector.preprocessor().decode_options());
        let image = decode_bytes_with(bytes, &name, options)?;
        let stem = common::stem(Path::new(&ticket.name));
        let target = free_name(&self.output.join("overlays"), &format!("{stem}.png"));
        save_png(&self.detector.overlay(&image, prediction)?, &target)?;
        Ok(target.file_name().unwrap_or_default().to_string_lossy().into_owned())
    }
}

/// The finished steps of a result, so that another try does not repeat them.
#[derive(Default)]
struct Steps {
    /// The name of the overlay.
    overlay: Option<String>,
    line: bool,
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.save_monitor();
    }
}

/// A file that has only whole lines, even if the disk becomes full while a line is written.
struct Lines {
    path: PathBuf,
    file: File,
    /// The length of the whole lines, in bytes.
    len: u64,
}

impl Lines {
    /// Opens a file and removes an incomplete last line of a killed program.
    fn open(path: &Path) -> Outcome<Self> {
        let failed = |e| format!("cannot open {}: {e}", path.display());
        let options =
            || OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
        let mut file = options().map_err(failed)?;
        let mut len = file.metadata().map_err(failed)?.len();
        let mut byte = [0];
        while len > 0 {
            file.seek(SeekFrom::Start(len - 1)).map_err(failed)?;
            file.read_exact(&mut byte).map_err(failed)?;
            if byte[0] == b'\n' {
                break;
            }
            len -= 1;
        }
        let mut lines = Self { path: path.to_owned(), file, len };
        lines.write("")?;
        Ok(lines)
    }

    fn write(&mut self, line: &str) -> Outcome {
        let written = (|| {
            // Overwrite an incomplete line.
            self.file.set_len(self.len)?;
            self.file.seek(SeekFrom::Start(self.len))?;
            self.file.write_all(line.as_bytes())
        })();
        written.map_err(|e| format!("cannot write {}: {e}", self.path.display()))?;
        self.len += line.len() as u64;
        Ok(())
    }
}

//! The sink: writes results and moves images out of the folder.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use padim::line::{DriftConfig, DriftMonitor, LineResult, Outcome as What, SinkError};
use padim::preprocess::{decode_file, to_rgb8};
use padim::visualize::{ScoreRange, overlay, save_png};
use padim::{Detector, Prediction};
use serde_json::{Value, json};

use super::Work;
use super::common::{self, Outcome};
use super::folder::{Folder, Ticket};

/// Writes results.
pub struct Recorder {
    detector: Arc<Detector>,
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
        drift: DriftConfig,
        folder: Arc<Folder>,
        stopping: Arc<AtomicBool>,
    ) -> Outcome<Self> {
        for name in ["overlays", "done", "failed"] {
            common::create_folder(&work.output.join(name))?;
        }
        // Continue from the state of the last run.
        let monitor = match std::fs::read(work.output.join("drift.json")) {
            Ok(saved) => serde_json::from_slice(&saved)
                .map_err(|e| format!("drift.json is damaged ({e}); delete it to begin anew"))?,
            Err(_) => DriftMonitor::new(drift, detector.thresholds())?,
        };
        Ok(Self {
            detector: Arc::clone(detector),
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
        let mut line_written = false;
        let mut told = false;
        let outcome = loop {
            let error = match self.try_record(&result, &mut line_written) {
                Ok(()) => break Ok(()),
                Err(error) => error,
            };
            let name = ticket.name.to_string_lossy();
            if self.stopping.load(Ordering::Relaxed) {
                eprintln!("not written: {name}: {error}");
                break Err(error.to_string().into());
            }
            if !std::mem::replace(&mut told, true) {
                eprintln!("cannot write the result of {name}, trying again: {error}");
            }
            std::thread::sleep(Duration::from_millis(200));
        };
        if told && outcome.is_ok() {
            eprintln!("it was written; going on");
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
            println!(
                "DRIFT: good parts score {:?} since part {} or so (seen at part {}, 1 in {:.0})",
                alarm.direction, alarm.since, alarm.part, alarm.statistic
            );
        }
    }

    fn save_monitor(&self) {
        let monitor = self.monitor.lock().unwrap_or_else(PoisonError::into_inner);
        let (path, new) = (self.output.join("drift.json"), self.output.join(".drift.tmp"));
        let saved = serde_json::to_vec(&*monitor).map_err(std::io::Error::other);
        let written = saved.and_then(|saved| std::fs::write(&new, saved));
        if let Err(error) = written.and_then(|()| std::fs::rename(&new, &path)) {
            eprintln!("cannot write {}: {error}", path.display());
        }
    }

    /// Writes the picture, writes the line and moves the image; each step can be repeated.
    fn try_record(&mut self, result: &LineResult<Ticket>, line_written: &mut bool) -> Outcome {
        let path = self.folder.path_of(&result.id);
        let name = result.id.name.to_string_lossy();
        let value = match &result.outcome {
            What::Predicted(prediction) => self.describe(prediction, &path)?,
            What::Failed(error) => json!({ "error": error.to_string() }),
            _ => return Ok(()),
        };
        if !*line_written {
            let mut line = json!({
                "id": name,
                "latency_ms": (result.latency.as_secs_f64() * 1e5).round() / 1e2,
            });
            if let (Value::Object(line), Value::Object(more)) = (&mut line, value) {
                line.extend(more);
            }
            self.results.write(&format!("{line}\n"))?;
            *line_written = true;
        }
        match result.outcome {
            What::Failed(_) => put_away(&path, &self.output.join("failed"))?,
            _ if self.delete => remove(&path)?,
            _ => put_away(&path, &self.output.join("done"))?,
        }
        Ok(())
    }

    fn describe(&self, prediction: &Prediction, path: &Path) -> Outcome<Value> {
        let mut value = json!({
            "score": prediction.image_score,
            "p_value": prediction.p_value,
            "defective": prediction.is_defective,
        });
        if prediction.is_defective == Some(true) {
            if self.detector.thresholds().is_some_and(|d| d.pixel.is_some()) {
                let regions = self.detector.anomaly_regions(prediction)?;
                let regions = regions.iter().map(|d| {
                    json!({ "top": d.top, "left": d.left, "height": d.height, "width": d.width,
                        "area": d.area, "peak": d.peak })
                });
                value["regions"] = regions.collect();
            }
            self.draw(prediction, path)?;
        }
        Ok(value)
    }

    fn draw(&self, prediction: &Prediction, path: &Path) -> Outcome {
        let picture = to_rgb8(&decode_file(path)?, &self.detector.config().preprocess)?;
        let map = prediction.map_in_original()?;
        let threshold = self.detector.thresholds().and_then(|decision| decision.pixel);
        let middle = threshold.unwrap_or(map.max());
        let range = ScoreRange { min: 0.5 * middle, max: 1.5 * middle };
        let target = self.output.join("overlays").join(format!("{}.png", common::stem(path)));
        Ok(save_png(&overlay(&picture, &map, range, threshold)?, target)?)
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.save_monitor();
    }
}

/// Moves a file to a folder; uses another name if the name is taken.
fn put_away(path: &Path, folder: &Path) -> Outcome {
    let name = path.file_name().unwrap_or_default();
    let mut target = folder.join(name);
    let mut number = 1;
    while target.exists() {
        target = folder.join(format!("{number}-{}", name.to_string_lossy()));
        number += 1;
    }
    match std::fs::rename(path, &target) {
        // Another file system: first copy completely, then delete the image.
        Err(error) if error.kind() == std::io::ErrorKind::CrossesDevices => {
            let copied = std::fs::copy(path, &target);
            if let Err(error) = copied {
                let _ = std::fs::remove_file(&target);
                return Err(format!("cannot copy it to {}: {error}", target.display()).into());
            }
            remove(path)
        }
        // Another program has removed the image.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && !path.exists() => Ok(()),
        Err(error) => Err(format!("cannot move it to {}: {error}", target.display()).into()),
        Ok(()) => Ok(()),
    }
}

fn remove(path: &Path) -> Outcome {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
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

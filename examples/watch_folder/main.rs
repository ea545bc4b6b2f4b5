//! Watches a folder that another program fills with images. Scores them as they come, writes the
//! results as lines of JSON, and writes pictures of the defective ones.
//!
//!     cargo run --release --example watch_folder -- --detector part.padim --watch DIR --output DIR
//!     cargo run --release --example watch_folder -- --soak 1
//!
//! A file is taken when its size and time stay the same between two looks, so half-written files are
//! not read. Names that begin with a dot or end in `.tmp` or `.part` are ignored. A file that cannot be
//! decoded is tried again when it changes, and once more after `--patience`; then it is moved to
//! `failed`. If a result cannot be written (because the disk is full), it is tried again until it
//! succeeds, while images wait in the folder. A file is moved only after its line is written, so if the
//! program is killed, no image is lost, but one may be scored twice.
//!
//! What lies in `done` and `failed` is byte for byte what was scored. A file that is replaced while it waits
//! is scored again. What is no image (by its ending, a folder, a link that leads nowhere) stays, and is told
//! once on stderr. Links to images are followed. `drift.json` belongs to one detector; with another one, it
//! is put aside.

#[path = "../common/mod.rs"]
mod common;
mod drift;
mod feed;
mod folder;
mod put_away;
mod record;
mod soak;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use burn::tensor::Device;
use clap::{Args, Parser};
use common::parts::{SIDE, draw};
use common::{DeviceOption, InputOptions, Outcome, say, tell};
use folder::Folder;
use padim::line::{DriftConfig, Line, LineConfig, LineStatistics, Percentiles};
use padim::{CalibrationConfig, Detector, ImageInput, Padim, PadimConfig, ResNet18};
use record::Recorder;

/// Scores the images that arrive in a folder.
#[derive(Parser)]
struct Options {
    /// The detector file; `thresholds --save` makes one with thresholds, `quickstart` one without.
    #[arg(long, required_unless_present_any = ["demo", "soak", "feed"])]
    detector: Option<PathBuf>,
    /// Fits a detector to drawn parts instead.
    #[arg(long)]
    demo: bool,
    /// The folder that another program fills.
    #[arg(long, default_value = "watch-in")]
    watch: PathBuf,
    #[command(flatten)]
    work: Work,
    /// Stops when the folder is empty.
    #[arg(long)]
    once: bool,
    /// Stops after this number of seconds.
    #[arg(long)]
    seconds: Option<f64>,
    /// Stops when this file exists [default: `stop` in the output folder]
    #[arg(long)]
    stop_file: Option<PathBuf>,
    /// Soak test: fills the folder at full speed for this number of minutes, also with damaged and
    /// half-written files, then checks that no image was lost and that memory did not grow.
    #[arg(long)]
    soak: Option<f64>,
    /// Internal, for a soak test: fills the folder for this number of seconds.
    #[arg(long, hide = true)]
    feed: Option<f64>,
}

/// The processing of images.
#[derive(Args, Clone)]
struct Work {
    /// The folder for `results.jsonl`, `overlays`, `done`, `failed` and `drift.json`.
    #[arg(long, default_value = "watch-out")]
    output: PathBuf,
    /// Deletes images that were scored instead of moving them to `done`.
    #[arg(long)]
    delete: bool,
    /// The interval between looks at the folder, in milliseconds.
    #[arg(long, default_value_t = 50)]
    poll: u64,
    /// The time for which an undecodable file must not change until it counts as damaged, in
    /// milliseconds.
    #[arg(long, default_value_t = 3000)]
    patience: u64,
    /// The interval between progress reports, in seconds.
    #[arg(long, default_value_t = 10.0)]
    report: f64,
    /// Largest number of images that wait to be decoded.
    #[arg(long, default_value_t = 32)]
    queue: usize,
    /// Number of threads that decode images.
    #[arg(long, default_value_t = 2)]
    decoders: usize,
    /// Largest number of images that go through the network at once.
    #[arg(long, default_value_t = 8)]
    batch: usize,
    /// The average number of good parts until a false drift alarm is at least this.
    #[arg(long, default_value_t = 100_000.0)]
    parts_per_false_alarm: f64,
    #[command(flatten)]
    input: InputOptions,
    #[command(flatten)]
    on: DeviceOption,
}

fn main() {
    let options = Options::parse();
    let unwritten = match (options.soak, options.feed) {
        (_, Some(seconds)) => common::report(feed::feed(&options.watch, seconds)),
        (Some(minutes), None) => common::report(soak::soak(&options.work, minutes)),
        (None, None) => common::report(run(&options)),
    };
    if unwritten > 0 {
        tell!("{unwritten} image(s) could not be written down; they are still in the folder");
        std::process::exit(2);
    }
}

fn run(options: &Options) -> Outcome<u64> {
    let detector = match &options.detector {
        Some(path) => Detector::load(path, &options.work.on.device)?,
        None => demo_detector(&options.work.on.device)?,
    };
    common::create_folder(&options.work.output)?;
    let default = options.work.output.join("stop");
    let stop_file = options.stop_file.clone().unwrap_or(default);
    let begin = Instant::now();
    let seconds = options.seconds.unwrap_or(f64::INFINITY);
    let stop = move || begin.elapsed().as_secs_f64() >= seconds || stop_file.exists();
    let statistics = watch(detector, &options.watch, &options.work, stop, || options.once, |_| ())?;
    Ok(statistics.sink_failures)
}

/// Processes images until `stop` returns `true`, or until there is nothing to do and `done_when_idle`
/// returns `true`. `sample` gets the resident memory every second.
fn watch(
    detector: Detector,
    watched: &Path,
    work: &Work,
    stop: impl Fn() -> bool + Send + 'static,
    done_when_idle: impl Fn() -> bool,
    mut sample: impl FnMut(u64),
) -> Outcome<LineStatistics> {
    common::create_folder(watched)?;
    let detector = Arc::new(detector.with_decode_limits(work.input.limits()));
    let config = LineConfig::default()
        .with_queue(work.queue)
        .with_decoders(work.decoders)
        .with_batch(work.batch);
    let drift =
        DriftConfig::default().with_parts_per_false_alarm(work.parts_per_false_alarm).with_seed(0);
    let patience = Duration::from_millis(work.patience);
    let folder = Arc::new(Folder::new(watched, patience)?);
    let stopping = Arc::new(AtomicBool::new(false));
    let recorder =
        Recorder::new(&detector, work, drift, Arc::clone(&folder), Arc::clone(&stopping))?;
    let monitor = recorder.monitor();
    let mut sink = recorder;
    let line = Line::start(Arc::clone(&detector), config, move |result| sink.record(result))?;

    // A separate thread, because this one may block on a full line if the disk is full.
    let stop_thread = {
        let stopping = Arc::clone(&stopping);
        std::thread::spawn(move || {
            while !stopping.load(Ordering::Relaxed) {
                stopping.fetch_or(stop(), Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(100));
            }
        })
    };
    let (mut last_report, mut last_sample) = (Instant::now(), Instant::now());
    let begin = Instant::now();
    loop {
        let idle = folder.look(|ticket, path| {
            let (name, bytes) = (path.display().to_string(), Arc::clone(&ticket.bytes));
            let input = work.input.clone();
            let open = move |options| folder::open(&path, &bytes, input.decode(options));
            line.submit(ticket, ImageInput::deferred(name, open))?;
            Ok(!stopping.load(Ordering::Relaxed))
        })?;
        if last_sample.elapsed() >= Duration::from_secs(1) {
            last_sample = Instant::now();
            sample(common::memory("VmRSS").unwrap_or(0));
        }
        if last_report.elapsed().as_secs_f64() >= work.report {
            last_report = Instant::now();
            let recent = monitor.lock().map_or(0.5, |monitor| monitor.recent_p_value());
            say!("{}", progress(begin, &line.statistics(), recent));
        }
        if stopping.load(Ordering::Relaxed) || (idle && done_when_idle()) {
            break;
        }
        std::thread::sleep(Duration::from_millis(work.poll));
    }
    folder.tell_rest();
    let statistics = line.finish().statistics;
    stopping.store(true, Ordering::Relaxed);
    stop_thread.join().map_err(|_| "the thread that looks for the stop file panicked")?;
    say!("{}", summary(begin, &statistics, &folder));
    Ok(statistics)
}

fn progress(begin: Instant, s: &LineStatistics, recent: f64) -> String {
    let seconds = begin.elapsed().as_secs_f64();
    let ms = |d: Duration| d.as_secs_f64() * 1e3;
    let Percentiles { p50, p90, p99, max, .. } = s.latency.total;
    format!(
        "{seconds:6.0} s: {} scored, {} failed, {:.0}/s, in the line {}; latency p50 {:.0} p90 {:.0} \
         p99 {:.0} max {:.0} ms; memory {:.1} MB; mean p-value of late {recent:.2}",
        s.predicted,
        s.failed,
        s.predicted as f64 / seconds,
        s.in_flight,
        ms(p50),
        ms(p90),
        ms(p99),
        ms(max),
        common::memory("VmRSS").unwrap_or(0) as f64 / 1e6
    )
}

fn summary(begin: Instant, s: &LineStatistics, folder: &Folder) -> String {
    let mut text = progress(begin, s, f64::NAN);
    text.truncate(text.rfind("; mean p-value").unwrap_or(text.len()));
    text += &format!(
        "\n         {} submitted ({} of them tried again), {} dropped, at most {} at once, {:.1} a batch; \
         {} other file(s) left out\n",
        s.submitted,
        folder.retried(),
        s.dropped,
        s.most_in_flight,
        s.predicted as f64 / s.batches.max(1) as f64,
        folder.left_out()
    );
    text += "         milliseconds      mean    p50    p90    p99    max\n";
    let l = &s.latency;
    let stages = [
        ("waiting", l.waiting),
        ("decoding", l.decoding),
        ("batching", l.batching),
        ("predicting", l.predicting),
        ("ordering", l.ordering),
        ("sinking", l.sinking),
        ("submit to sink", l.total),
    ];
    for (name, percentiles) in stages {
        let Percentiles { mean, p50, p90, p99, max, .. } = percentiles;
        let [mean, p50, p90, p99, max] = [mean, p50, p90, p99, max].map(|d| d.as_secs_f64() * 1e3);
        text += &format!("         {name:14}{mean:8.1}{p50:7.1}{p90:7.1}{p99:7.1}{max:7.1}\n");
    }
    text
}

/// Fits and calibrates a detector with drawn parts and an untrained network.
fn demo_detector(device: &Device) -> Outcome<Detector> {
    let config = PadimConfig::default().with_input_size([SIDE as usize; 2]);
    let padim = Padim::new(config, ResNet18::untrained(0, device)?)?;
    let good = |seeds: std::ops::Range<u64>| seeds.map(|seed| draw(seed, None).0);
    let mut detector = padim.fit(good(0..60))?;
    let rates = CalibrationConfig::default().with_image_false_alarm_rate(0.02);
    detector.calibrate(good(1000..1100), &rates)?;
    Ok(detector)
}

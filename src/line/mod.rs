//! Inspection of parts as they come: a bounded pipeline around a [`Detector`], its latencies, and a monitor
//! that tells when good parts no longer look as they did.
//!
//! ```text
//! submit -> waiting -> decoders -> batch -> network -> sink
//! ```
//!
//! A [`Line`] loses nothing silently: each image that was submitted reaches the sink once, in the order of
//! submission, as a prediction, as the error of a bad image, or as dropped. The sink may write, move parts
//! or feed a [`DriftMonitor`].
//!
//! ```
//! use std::sync::{Arc, mpsc};
//! use padim::line::{DriftConfig, DriftMonitor, Line, LineConfig, LineResult, Outcome};
//! # use padim::*;
//! # let device = burn::tensor::Device::flex();
//! # let small = PreprocessConfig { resize: Resize::square(64), crop: None, ..Default::default() };
//! # let config = PadimConfig { preprocess: small, ..Default::default() };
//! # let part = |i: u8| image::RgbImage::from_pixel(80, 60, image::Rgb([100 + i, 90, 80]));
//! # let detector = Padim::new(config, ResNet18::untrained(0, &device)?)?.fit((0..4).map(part), |_| ())?;
//!
//! let mut monitor = DriftMonitor::new(DriftConfig::default(), detector.decision())?;
//! let (results, received) = mpsc::channel();
//! let sink = move |result: LineResult<u32>| {
//!     if let Outcome::Predicted(prediction) = &result.outcome
//!         && let Some(alarm) = monitor.observe(prediction.image_score)
//!     {
//!         println!("good parts have changed: {alarm:?}");
//!     }
//!     Ok(results.send((result.id, result.outcome))?)
//! };
//! let line = Line::start(Arc::new(detector), LineConfig::default(), sink)?;
//! for i in 0..6 {
//!     line.submit(i, part(i as u8))?;
//! }
//! let report = line.finish();
//! assert_eq!(report.statistics.predicted, 6);
//! assert_eq!(received.iter().map(|(id, _)| id).collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5]);
//! println!("{:?}", report.statistics.latency.total); // p50, p90, p99
//! # Ok::<(), padim::Error>(())
//! ```

mod drift;
mod histogram;
mod pipeline;
mod queue;
mod statistics;

pub use drift::{DriftAlarm, DriftConfig, DriftDirection, DriftMonitor};
pub use histogram::{LatencyHistogram, Percentiles};
pub use pipeline::{Line, LineReport, SinkError};
pub use statistics::{LineLatency, LineStatistics};

use std::time::Duration;

#[cfg(doc)]
use crate::detector::Detector;
use crate::detector::Prediction;
use crate::error::{Error, Result};

/// What an image that finds the line full does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum DropPolicy {
    /// [`Line::submit`] waits until there is room: nothing is dropped.
    #[default]
    Wait,
    /// The image that has waited longest is dropped for it: the newest parts count.
    DropOldest,
    /// It is dropped itself: what is in the line is finished.
    DropNewest,
}

/// What a line does after its sink has failed or panicked. That result counts as given to the sink.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum SinkFailure {
    /// Goes on with the next result; the failure is counted and its message kept.
    #[default]
    GoOn,
    /// Takes no more images; all that are in the line are dropped, and named in the [`LineReport`].
    Stop,
}

/// How a line works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LineConfig {
    /// How many images may wait to be decoded. Default: 32.
    pub queue: usize,
    /// How many threads decode and resize. Default: 2.
    pub decoders: usize,
    /// How many images go through the network at once, at most. Default: 8.
    pub batch: usize,
    /// How long the first image of a batch waits for others. Default: 5 ms. While the network works, the
    /// next batch gathers anyway, so this matters only where few images come.
    pub batch_wait: Duration,
    /// What an image that finds the queue full does. Default: it waits.
    pub drop: DropPolicy,
    /// What happens after the sink has failed. Default: the line goes on.
    pub sink_failure: SinkFailure,
}

impl Default for LineConfig {
    fn default() -> Self {
        Self {
            queue: 32,
            decoders: 2,
            batch: 8,
            batch_wait: Duration::from_millis(5),
            drop: DropPolicy::Wait,
            sink_failure: SinkFailure::GoOn,
        }
    }
}

impl LineConfig {
    /// Checks the settings.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidConfig`] names the first that cannot be, and why.
    pub fn validate(&self) -> Result<()> {
        let settings = [
            ("queue", self.queue, 1 << 20),
            ("decoders", self.decoders, 256),
            ("batch", self.batch, 4096),
        ];
        match settings.iter().find(|(_, value, most)| !(1..=*most).contains(value)) {
            Some(&(field, value, most)) => {
                Err(Error::config(field, format!("must be in 1..={most}, got {value}")))
            }
            None if self.batch_wait > Duration::from_secs(3600) => {
                let reason = format!("must be an hour at most, is {:?}", self.batch_wait);
                Err(Error::config("batch_wait", reason))
            }
            None => Ok(()),
        }
    }

    /// How many images are in the line at most, from their submission until the sink is done with them:
    /// those that wait, one for each decoder, and three batches (one gathers, one is in the network, one
    /// waits for the sink). That bounds the memory.
    pub fn most_in_flight(&self) -> usize {
        self.queue + self.most_begun()
    }

    /// Of these, how many do not wait any more.
    pub(crate) fn most_begun(&self) -> usize {
        self.decoders + 3 * self.batch
    }
}

/// What became of an image.
#[derive(Debug)]
pub enum Outcome {
    /// It was scored.
    Predicted(Prediction),
    /// It could not be: damaged, of another size, ...
    Failed(Error),
    /// It was left out, because the line was full.
    Dropped,
}

/// What a line says of an image.
#[derive(Debug)]
pub struct LineResult<T> {
    /// How many images were submitted before it.
    pub number: u64,
    /// What it was submitted as.
    pub id: T,
    /// What became of it.
    pub outcome: Outcome,
    /// From its submission until now.
    pub latency: Duration,
}

/// What became of a submission.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Submitted {
    /// The image is in the line.
    Accepted,
    /// It is, and the one that had waited longest was dropped for it.
    DroppedOldest,
    /// It was dropped.
    Dropped,
}

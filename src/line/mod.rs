//! Inspection on a production line: a bounded pipeline around a [`Detector`](crate::Detector), its latencies, and a
//! monitor that detects when the look of good parts changes.
//!
//! ```text
//! submit -> waiting -> decoders -> batch -> network -> sink
//! ```
//!
//! A [`Line`] loses no image silently: each submitted image reaches the sink once, in the order of
//! submission, as a prediction, an error, or dropped. The sink may write files, move parts or feed
//! a [`DriftMonitor`].
//!
//! ```
//! use std::sync::{Arc, mpsc};
//! use padim::line::{DriftConfig, DriftMonitor, Line, LineConfig, LineResult, Outcome};
//! # use padim::{Padim, PadimConfig, ResNet18, burn, image};
//! # use padim::preprocess::{PreprocessConfig, Resize};
//! # let device = burn::tensor::Device::flex();
//! # let small = PreprocessConfig::default().with_resize(Resize::square(64)).with_crop(None);
//! # let config = PadimConfig::default().with_preprocess(small);
//! # let part = |i: u8| image::RgbImage::from_pixel(80, 60, image::Rgb([100 + i, 90, 80]));
//! # let detector = Padim::new(config, ResNet18::untrained(0, &device)?)?.fit((0..4).map(part))?;
//!
//! let mut monitor = DriftMonitor::new(DriftConfig::default(), detector.thresholds())?;
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

mod config;
mod drift;
mod histogram;
mod pipeline;
mod queue;
mod statistics;

pub use config::{DropPolicy, LineConfig, LineResult, Outcome, SinkFailure, Submitted};
pub use drift::{DriftAlarm, DriftConfig, DriftDirection, DriftMonitor};
pub use histogram::{LatencyHistogram, Percentiles};
pub use pipeline::{Line, LineReport, SinkError};
pub use statistics::{LineLatency, LineStatistics};

//! Evaluating a detector on a test set: predictions, truth and metrics in one call.

mod metrics;
mod report;
mod run;

pub use metrics::{Metric, Metrics, Undefined};
pub use report::{Decisions, FailedImage, ImageReport, Report};
pub use run::{Evaluated, evaluate, evaluate_each, evaluate_with};

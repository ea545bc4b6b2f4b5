//! From scores to decisions: thresholds, and what they guarantee.

mod calibration;
mod histogram;
mod pixels;
mod regions;
mod thresholds;

pub use calibration::{Calibration, CalibrationConfig, images_needed};
pub use regions::AnomalyRegion;
pub use thresholds::Thresholds;

pub(crate) use histogram::PixelHistogram;
pub(crate) use pixels::HighestPixels;
pub(crate) use regions::anomaly_regions;

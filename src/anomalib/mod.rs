//! Converts PaDiM models that were fitted by anomalib to detectors of this crate.
//!
//! anomalib saves a Lightning checkpoint: a pickle with the tensors of the whole model and, since 2.7,
//! its settings as plain data. Only these are read; nothing in the pickle is executed.

mod checkpoint;
mod scores;
mod settings;

pub use checkpoint::AnomalibCheckpoint;
pub use scores::AnomalibScores;

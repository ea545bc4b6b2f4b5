//! PaDiMs that anomalib has fitted, as detectors of this crate.
//!
//! anomalib saves a Lightning checkpoint: a pickle with the tensors of the whole model and, since 2.7,
//! its settings as plain data. Both are read; whatever else is in it is neither looked up nor called.

mod checkpoint;
mod scores;
mod settings;

pub use checkpoint::AnomalibCheckpoint;
pub use scores::AnomalibScores;

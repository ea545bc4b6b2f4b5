//! Progress of a fit, and cancellation.

use std::ops::ControlFlow;

use crate::error::{Error, Result};

/// The progress of a fit or a calibration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct FitProgress {
    /// The current stage.
    pub stage: FitStage,
    /// Number of finished images or positions.
    pub done: usize,
    /// Total number of images or positions, if known.
    pub total: Option<usize>,
}

/// The stages of a fit, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FitStage {
    /// Embeds images to compute a projection; counted in images.
    Projecting,
    /// Embeds images; counted in images.
    Embedding,
    /// Factorizes covariances; counted in positions of the grid.
    Factorizing,
    /// Scores good images to compute thresholds; counted in images.
    Calibrating,
}

/// A callback that receives the progress and decides whether to continue.
pub(crate) type Report<'a> = dyn FnMut(FitProgress) -> ControlFlow<()> + 'a;

/// Calls `progress`; fails if it stops the fit.
pub(crate) fn report(
    progress: &mut Report<'_>,
    stage: FitStage,
    done: usize,
    total: Option<usize>,
) -> Result<()> {
    match progress(FitProgress { stage, done, total }) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(Error::Cancelled),
    }
}

/// A progress callback that does nothing.
pub(crate) fn silent(_: FitProgress) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

/// Converts the progress of a factorization to that of a fit.
pub(crate) fn factorizing<'a>(
    progress: &'a mut Report<'_>,
) -> impl FnMut(usize, usize) -> ControlFlow<()> + 'a {
    |done, total| progress(FitProgress { stage: FitStage::Factorizing, done, total: Some(total) })
}

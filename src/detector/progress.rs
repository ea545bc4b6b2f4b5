//! How far a fit has come, and how to stop it.

use std::ops::ControlFlow;

use crate::error::{Error, Result};

/// How far a fit has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct FitProgress {
    /// What is being done.
    pub stage: FitStage,
    /// How many images or positions are done.
    pub done: usize,
    /// Of how many, where that is known.
    pub total: Option<usize>,
}

/// What a fit does, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FitStage {
    /// Images go through the network to find a projection; counted in images.
    Projecting,
    /// Images go through the network; counted in images.
    Embedding,
    /// Covariances are factorized; counted in positions of the grid.
    Factorizing,
    /// Good images are scored to find thresholds; counted in images.
    Calibrating,
}

/// What is told of the progress, and says whether to go on.
pub(crate) type Report<'a> = dyn FnMut(FitProgress) -> ControlFlow<()> + 'a;

/// Tells how far the fit is. Fails if it is to stop.
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

/// For those who do not want to know.
pub(crate) fn silent(_: FitProgress) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

/// The progress of a factorization as that of a fit.
pub(crate) fn factorizing<'a>(
    progress: &'a mut Report<'_>,
) -> impl FnMut(usize, usize) -> ControlFlow<()> + 'a {
    |done, total| progress(FitProgress { stage: FitStage::Factorizing, done, total: Some(total) })
}

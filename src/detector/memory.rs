//! The memory of a detector.

use std::fmt;

/// The memory that a detector holds, in bytes. It does not include the engine's working memory per
/// thread and a device's copy of the Gaussians.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DetectorMemory {
    /// Means and covariances. Clones of the detector share them.
    pub gaussians: usize,
    /// The statistics of the training images, if kept. Clones share them, too.
    pub statistics: usize,
    /// The part of the backbone that is specific to this selection of channels.
    pub backbone_own: usize,
    /// The part of the backbone that all detectors with the same backbone share
    /// ([`BackboneCache`](crate::BackboneCache)): the weights and the engine's prepared data.
    pub backbone_shared: usize,
}

impl DetectorMemory {
    /// The sum.
    pub fn total(&self) -> usize {
        self.own() + self.backbone_shared
    }

    /// The additional memory of another detector with the same backbone.
    pub fn own(&self) -> usize {
        self.gaussians + self.statistics + self.backbone_own
    }
}

impl fmt::Display for DetectorMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mega = |bytes: usize| format!("{:.1} MB", bytes as f64 / 1e6);
        write!(
            f,
            "{} (Gaussians {}, statistics {}, backbone {} and shared {})",
            mega(self.total()),
            mega(self.gaussians),
            mega(self.statistics),
            mega(self.backbone_own),
            mega(self.backbone_shared)
        )
    }
}

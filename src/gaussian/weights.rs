//! The number of images and their weights.

use serde::{Deserialize, Serialize};

/// The largest number of images. A file that claims more is damaged, and sums with such numbers could
/// overflow.
pub(super) const MOST_IMAGES: usize = u32::MAX as usize;

/// The number of images and their weights.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct ImageWeights {
    pub count: usize,
    /// The weights of the samples.
    pub weights: Vec<f64>,
    /// The weight in the sums.
    pub folded: f64,
    /// The sum of the squared weights of all images.
    pub squared: f64,
}

impl ImageWeights {
    pub fn weight(&self) -> f64 {
        self.folded + self.weights.iter().sum::<f64>()
    }

    /// Whether these weights are possible; if not, the file is damaged. `summed`: whether there are
    /// sums.
    pub fn is_sound(&self, summed: bool) -> bool {
        let positive = |w: f64| w.is_finite() && w > 0.0;
        (summed || !self.weights.is_empty())
            && self.count <= MOST_IMAGES
            && self.weights.iter().all(|&w| positive(w))
            && self.count >= self.weights.len()
            && (if summed { positive(self.folded) } else { self.folded == 0.0 })
            && positive(self.squared)
    }

    /// The effective sample size: the number of images of equal weight that carry as much information.
    pub fn effective_count(&self) -> f64 {
        if self.squared > 0.0 { self.weight().powi(2) / self.squared } else { 0.0 }
    }
}

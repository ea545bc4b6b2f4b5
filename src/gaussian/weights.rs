//! The number of images and their weights.

use serde::{Deserialize, Serialize};

/// More images than anybody has. A file that claims more is damaged, and sums with such numbers could
/// overflow.
pub(super) const MOST_IMAGES: usize = u32::MAX as usize;

/// How many images there are and what they weigh.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct ImageWeights {
    pub count: usize,
    /// Of the samples.
    pub weights: Vec<f64>,
    /// The weight that has gone into sums.
    pub folded: f64,
    /// The sum of the squared weights of all images.
    pub squared: f64,
}

impl ImageWeights {
    pub fn weight(&self) -> f64 {
        self.folded + self.weights.iter().sum::<f64>()
    }

    /// Whether these can be the weights of some images, or the file that holds them is damaged.
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

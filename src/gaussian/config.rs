//! How the Gaussians are estimated and kept.

use serde::{Deserialize, Serialize};

use super::shrinkage::Shrinkage;
use super::storage::Storage;
use crate::error::{Error, Result};
use crate::names::builders;
use crate::names::named;

/// The divisor of the covariance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum CovarianceDivisor {
    /// `N - 1`: unbiased, the paper's equation 1.
    Unbiased,
    /// `N`: the maximum likelihood estimate.
    Biased,
}

named!(
    CovarianceDivisor,
    "divisor",
    [("unbiased", CovarianceDivisor::Unbiased), ("biased", CovarianceDivisor::Biased)]
);

/// How the Gaussians are estimated and kept. Stored with every detector.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct GaussianConfig {
    /// Added to the variances, so that the covariance can be inverted. Default: 0.01 (paper: 0.01;
    /// anomalib: 0.01001). With fewer images than dimensions it decides how much a direction counts
    /// in which the good images do not vary at all.
    pub epsilon: f64,
    /// Default: `N - 1` (paper: the same).
    pub divisor: CovarianceDivisor,
    /// Default: none (paper: the same).
    pub shrinkage: Shrinkage,
    /// How many principal components are kept at each position, chosen for each position by itself;
    /// `None` for all dimensions. What lies across them is not looked at. Default: `None` (paper,
    /// Table II: 100 and 200 of ResNet18's 448 channels, worse than as many channels at random).
    pub components: Option<usize>,
    /// The form in which the Gaussians are kept. Default: chosen by the number of images and
    /// dimensions (paper: the full inverse).
    pub storage: Storage,
    /// One Gaussian for all positions instead of one for each. Default: `false` (paper: the same).
    ///
    /// Where a patch is then does not matter, only what it looks like: for textures, and for parts that
    /// lie anywhere. The model takes the memory of one position. What is good at one place and a defect at
    /// another is no longer told apart.
    pub pooled: bool,
}

builders!(GaussianConfig {
    with_epsilon: epsilon, f64;
    with_divisor: divisor, CovarianceDivisor;
    with_shrinkage: shrinkage, Shrinkage;
    with_components: components, Option<usize>;
    with_storage: storage, Storage;
    with_pooled: pooled, bool;
});

impl Default for GaussianConfig {
    fn default() -> Self {
        Self {
            epsilon: 0.01,
            divisor: CovarianceDivisor::Unbiased,
            shrinkage: Shrinkage::None,
            components: None,
            storage: Storage::Auto,
            pooled: false,
        }
    }
}

impl GaussianConfig {
    /// Checks the settings.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidConfig`] names the first setting that cannot be, and why.
    pub fn validate(&self) -> Result<()> {
        if !(self.epsilon.is_finite() && self.epsilon > 0.0) {
            let reason =
                format!("must be a positive number, got {}; the paper's is 0.01", self.epsilon);
            return Err(Error::config("epsilon", reason));
        }
        if self.components == Some(0) {
            return Err(Error::config("components", "must be at least 1, or none"));
        }
        let principal = matches!(self.storage, Storage::Principal(_));
        if self.storage != Storage::Auto && principal != self.components.is_some() {
            let reason = format!(
                "{} does not go with components {:?}; `auto` always does",
                self.storage, self.components
            );
            return Err(Error::config("storage", reason));
        }
        self.shrinkage.validate()
    }

    /// Checks the settings for embedding vectors of `dimension` components.
    pub(crate) fn check(&self, dimension: usize) -> Result<()> {
        self.validate()?;
        if dimension == 0 {
            return Err(Error::config("channels", "embedding vectors need at least 1 component"));
        }
        match self.components {
            Some(k) if k > dimension => {
                Err(Error::config("components", format!("cannot keep {k} of {dimension}")))
            }
            _ => Ok(()),
        }
    }
}

//! The settings of the Gaussians.

use serde::{Deserialize, Serialize};

use super::shrinkage::Shrinkage;
use super::storage::Storage;
use crate::error::{Error, Result};
use crate::names::builders;
use crate::names::named;

/// The divisor of the sample covariance.
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

/// How the Gaussians are estimated and stored. Saved with every detector.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct GaussianConfig {
    /// Added to the diagonal of the covariance, so that it can be inverted. Default: 0.01 (paper:
    /// 0.01; anomalib: 0.01001). With fewer images than dimensions, the good images do not vary at
    /// all in some directions; there, epsilon is the whole variance.
    pub epsilon: f64,
    /// The divisor of the sample covariance. Default: `N - 1` (as in the paper).
    pub divisor: CovarianceDivisor,
    /// The shrinkage of the covariance. Default: none (as in the paper).
    pub shrinkage: Shrinkage,
    /// The number of principal components that are kept at each position; `None` keeps all
    /// dimensions. Each position has its own components. Deviations orthogonal to them are ignored.
    /// Default: `None`. In the paper's Table II, 100 and 200 components of ResNet18's 448 channels
    /// are worse than as many random channels.
    pub components: Option<usize>,
    /// The form in which the Gaussians are stored. Default: chosen by the number of images and of
    /// dimensions (paper: the full inverse).
    pub storage: Storage,
    /// One Gaussian for all positions instead of one per position. Default: `false` (as in the
    /// paper).
    ///
    /// Each patch is then compared with the patches of all positions: for textures, and for parts
    /// that can lie anywhere. The model takes the memory of one position. A defect is missed if it
    /// looks like a good patch of another position.
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
    /// [`Error::InvalidConfig`] names the first invalid setting and the reason.
    pub fn validate(&self) -> Result<()> {
        if !(self.epsilon.is_finite() && self.epsilon > 0.0) {
            let reason =
                format!("must be a positive number, got {}; the paper uses 0.01", self.epsilon);
            return Err(Error::config("epsilon", reason));
        }
        if self.components == Some(0) {
            return Err(Error::config("components", "must be at least 1, or none"));
        }
        let principal = matches!(self.storage, Storage::Principal(_));
        if self.storage != Storage::Auto && principal != self.components.is_some() {
            let reason = format!(
                "{} cannot be used with components {:?}; `auto` always can",
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

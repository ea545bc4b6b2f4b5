//! Shrinkage of the covariance toward a multiple of the identity.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Shrinkage of the sample covariance `S` toward a multiple of the identity: `(1 - s) S + s m I`,
/// where `m` is the mean variance. With few images, the sample covariance underestimates small
/// eigenvalues and overestimates large ones; shrinkage corrects this. Epsilon is added in any case.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Shrinkage {
    /// No shrinkage, only epsilon (as in the paper).
    None,
    /// The same `s` at all positions, in `[0, 1]`.
    Fixed(f64),
    /// The `s` of Ledoit and Wolf (2004), "A well-conditioned estimator for large-dimensional
    /// covariance matrices", for each position.
    LedoitWolf,
    /// The oracle approximating shrinkage of Chen, Wiesel, Eldar and Hero (2010), for each position.
    Oas,
}

/// The moments that determine the intensity. The covariance has the divisor `N` here.
pub(super) struct Spread {
    pub dimension: usize,
    /// The number of vectors; with weights, the effective number.
    pub count: f64,
    pub trace: f64,
    /// The sum of the squared elements of the covariance.
    pub squared_norm: f64,
    /// The mean of `|y|^4`, where `y` is a vector minus the mean.
    pub fourth: f64,
}

/// `none`, a number in 0..=1, `ledoit-wolf` or `oas`.
impl fmt::Display for Shrinkage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.pad("none"),
            Self::Fixed(s) => write!(f, "{s}"),
            Self::LedoitWolf => f.pad("ledoit-wolf"),
            Self::Oas => f.pad("oas"),
        }
    }
}

/// `none`, a number in 0..=1, `ledoit-wolf` or `oas`.
impl FromStr for Shrinkage {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let parsed = match text {
            "none" => Some(Self::None),
            "ledoit-wolf" => Some(Self::LedoitWolf),
            "oas" => Some(Self::Oas),
            _ => text.parse().ok().map(Self::Fixed),
        };
        let parsed = parsed.ok_or_else(|| {
            let reason =
                format!("expected none, a number in 0..=1, ledoit-wolf or oas, got {text:?}");
            Error::config("shrinkage", reason)
        })?;
        parsed.validate().map(|()| parsed)
    }
}

impl Shrinkage {
    pub(super) fn validate(self) -> Result<()> {
        match self {
            Self::Fixed(s) if !(0.0..=1.0).contains(&s) => {
                Err(Error::config("shrinkage", format!("must be in 0..=1, got {s}")))
            }
            _ => Ok(()),
        }
    }

    /// The intensity `s`, in `[0, 1]`.
    pub(super) fn intensity(self, spread: &Spread) -> f64 {
        let p = spread.dimension as f64;
        let mean = spread.trace / p;
        let intensity = match self {
            Self::None => 0.0,
            Self::Fixed(s) => s,
            Self::LedoitWolf => {
                let distance = spread.squared_norm - p * mean * mean;
                let error = (spread.fourth - spread.squared_norm) / spread.count;
                if error > 0.0 { error / distance } else { 0.0 }
            }
            Self::Oas => {
                let alpha = spread.squared_norm / (p * p);
                (alpha + mean * mean) / ((spread.count + 1.0) * (alpha - mean * mean / p))
            }
        };
        // 0 / 0 if all variances are 0: the covariance then equals the target.
        if intensity.is_nan() { 1.0 } else { intensity.clamp(0.0, 1.0) }
    }
}

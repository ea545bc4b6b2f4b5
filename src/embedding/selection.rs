//! The selection of channels for the embedding.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::draw::{python_sample, torch_randperm};
use crate::error::{Error, Result};

/// Which channels of the concatenated layers are kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
#[serde(rename_all = "kebab-case")]
pub enum ChannelSelection {
    /// All channels (paper: the most accurate and the slowest).
    All,
    /// The given channels, in this order.
    Indices(Vec<usize>),
    /// A random subset, drawn as `random.seed(seed); random.sample(range(channels), count)` in
    /// Python (paper: Rd100 for ResNet18, Rd550 for Wide-ResNet-50-2).
    Random {
        /// The number of channels to keep.
        count: usize,
        /// The seed of the draw.
        seed: u64,
    },
    /// A random subset, drawn as `torch.manual_seed(seed); torch.randperm(channels)[:count]`.
    RandomTorch {
        /// The number of channels to keep.
        count: usize,
        /// The seed of the draw. Torch's generator uses its lower 32 bits.
        seed: u64,
    },
}

/// `all`, or `seed:1024:100` for 100 channels drawn as Python's `random` does with the seed 1024.
impl FromStr for ChannelSelection {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if text == "all" {
            return Ok(Self::All);
        }
        let parts = text.strip_prefix("seed:").and_then(|draw| draw.split_once(':'));
        let draw = parts.and_then(|(seed, count)| Some((seed.parse().ok()?, count.parse().ok()?)));
        let (seed, count) = draw.ok_or_else(|| {
            let reason =
                format!("expected all or seed:N:COUNT, such as seed:1024:100, got {text:?}");
            Error::config("channels", reason)
        })?;
        Ok(Self::random(count, seed))
    }
}

impl ChannelSelection {
    /// A random subset of `count` channels.
    pub const fn random(count: usize, seed: u64) -> Self {
        Self::Random { count, seed }
    }

    /// The indices of the selected channels, out of `total` channels.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidConfig`] if no channel is selected, if `count` exceeds `total`, or if an index
    /// does not exist or appears twice.
    pub fn indices(&self, total: usize) -> Result<Vec<usize>> {
        let fail = |reason| Err(Error::config("channels", reason));
        let indices = match *self {
            Self::All => (0..total).collect(),
            Self::Indices(ref indices) => indices.clone(),
            Self::Random { count, .. } | Self::RandomTorch { count, .. } if count > total => {
                return fail(format!("cannot draw {count} of {total} channels"));
            }
            Self::Random { count, seed } => python_sample(seed, total, count),
            Self::RandomTorch { count, seed } => torch_randperm(seed, total, count),
        };
        if indices.is_empty() {
            return fail("selects no channel; keep at least one".to_owned());
        }
        let mut seen = vec![false; total];
        for &index in &indices {
            match seen.get_mut(index) {
                None => return fail(format!("index {index} is not below {total} channels")),
                Some(seen) if *seen => return fail(format!("index {index} comes twice")),
                Some(seen) => *seen = true,
            }
        }
        Ok(indices)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn impossible_selections_are_named() {
        let reason = |s: ChannelSelection| s.indices(10).unwrap_err().to_string();
        assert!(reason(ChannelSelection::random(11, 0)).contains("11 of 10"));
        assert!(reason(ChannelSelection::random(0, 0)).contains("at least one"));
        assert!(reason(ChannelSelection::Indices(vec![3, 10])).contains("index 10"));
        assert!(reason(ChannelSelection::Indices(vec![3, 3])).contains("twice"));
    }
}

//! How a blur continues a map beyond its border.

use serde::{Deserialize, Serialize};

use crate::names::named;

/// How a blur continues a map beyond its border.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
#[serde(rename_all = "kebab-case")]
pub enum Border {
    /// `c b a | a b c | c b a`: mirrored, the edge sample repeated (scipy's `reflect`, numpy's
    /// `symmetric`).
    EdgeRepeated,
    /// `c b | a b c | b a`: mirrored about the edge sample, which is not repeated (torch's, kornia's
    /// and numpy's `reflect`).
    EdgeNotRepeated,
}

named!(
    Border,
    "border",
    [("edge-repeated", Border::EdgeRepeated), ("edge-not-repeated", Border::EdgeNotRepeated)]
);

impl Border {
    /// The index of the sample for position `i`, which may be outside an axis of `len` samples.
    pub(crate) fn source(self, i: i64, len: usize) -> usize {
        let n = len as i64;
        let mirrored = match self {
            Self::EdgeRepeated => {
                let i = i.rem_euclid(2 * n);
                if i < n { i } else { 2 * n - 1 - i }
            }
            Self::EdgeNotRepeated if n == 1 => 0,
            Self::EdgeNotRepeated => {
                let i = i.rem_euclid(2 * n - 2);
                if i < n { i } else { 2 * n - 2 - i }
            }
        };
        mirrored as usize
    }
}

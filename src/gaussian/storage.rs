//! The forms in which Gaussians can be stored.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::names::named;

/// The floating point type of the numbers of a [`Storage`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Precision {
    /// 32 bits.
    F32,
    /// 16 bits (IEEE half precision), with a scale for each position that keeps the rounding error
    /// small.
    F16,
}

named!(Precision, "precision", [("f32", Precision::F32), ("f16", Precision::F16)]);

impl Precision {
    /// Bytes per number.
    pub const fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 => 2,
        }
    }
}

/// The form in which Gaussians are stored in memory and in files, and in which distances are
/// computed. For the same settings, all forms but [`Diagonal`](Self::Diagonal) give the same
/// distances, up to rounding.
///
/// As text, for command lines: `auto`, `full`, `triangle-f32`, `triangle-f16`, `low-rank-f32`,
/// `low-rank-f16`, `principal-f32`, `principal-f16`, `diagonal`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
#[non_exhaustive]
pub enum Storage {
    /// Chosen when the number of images is known. Low rank if it takes at most six tenths of a
    /// triangle's memory (up to about a third as many images as dimensions), otherwise the triangle.
    /// In 16 bits, unless this changes distances at some sample positions by more than a thousandth.
    /// [`GaussianModel::storage`](crate::gaussian::GaussianModel::storage) returns the choice.
    Auto,
    /// The whole inverse in f32, `d^2` numbers per position, by nalgebra: the form of the paper, and
    /// the reference for the others.
    FullInverse,
    /// The lower triangle of `W = L^-1`, where the covariance is `L L^T`: `d (d + 1) / 2` numbers. The
    /// distance is `|W (x - mean)|`.
    Triangle(Precision),
    /// For no more images than dimensions, and exact. The covariance is then a multiple of the
    /// identity (the floor) plus a matrix of rank `r = N - 1`. Its inverse root is
    /// `(I - Y^T Y) / sqrt(floor)`, where `Y` has `r` rows, rotated so that `r d - r (r - 1) / 2`
    /// numbers remain. In 16 bits, `2 d` more numbers correct the rounding error along the direction
    /// in which good images vary most.
    LowRank(Precision),
    /// Whitened principal components, for
    /// [`GaussianConfig::components`](crate::gaussian::GaussianConfig::components):
    /// `k d - k (k - 1) / 2` numbers.
    Principal(Precision),
    /// Only the variances, as if the components were independent: `d` numbers. This is another model,
    /// which loses what the method gains from correlations.
    Diagonal,
}

named!(
    Storage,
    "storage",
    [
        ("auto", Storage::Auto),
        ("full", Storage::FullInverse),
        ("triangle-f32", Storage::Triangle(Precision::F32)),
        ("triangle-f16", Storage::Triangle(Precision::F16)),
        ("low-rank-f32", Storage::LowRank(Precision::F32)),
        ("low-rank-f16", Storage::LowRank(Precision::F16)),
        ("principal-f32", Storage::Principal(Precision::F32)),
        ("principal-f16", Storage::Principal(Precision::F16)),
        ("diagonal", Storage::Diagonal),
    ]
);

impl From<Storage> for String {
    fn from(storage: Storage) -> Self {
        storage.to_string()
    }
}

impl TryFrom<String> for Storage {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl Storage {
    pub(crate) fn precision(self) -> Precision {
        match self {
            Self::Triangle(p) | Self::LowRank(p) | Self::Principal(p) => p,
            Self::Auto | Self::FullInverse | Self::Diagonal => Precision::F32,
        }
    }

    pub(crate) fn with_precision(self, precision: Precision) -> Self {
        match self {
            Self::Triangle(_) => Self::Triangle(precision),
            Self::LowRank(_) => Self::LowRank(precision),
            Self::Principal(_) => Self::Principal(precision),
            other => other,
        }
    }
}

/// The number of elements of a trapezoid of `rows` rows, where row `i` begins at column `i`. With as
/// many rows as columns, it is a triangle.
pub(crate) const fn trapezoid_len(columns: usize, rows: usize) -> usize {
    rows * columns - rows * rows.saturating_sub(1) / 2
}

/// The rows of a packed trapezoid: row `i` holds the elements from column `i` on.
pub(crate) fn trapezoid_rows<T>(packed: &[T], columns: usize) -> impl Iterator<Item = &[T]> {
    let mut rest = packed;
    (0..columns).map_while(move |i| {
        if rest.is_empty() {
            return None;
        }
        let (row, behind) = rest.split_at_checked(columns - i)?;
        rest = behind;
        Some(row)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        let names = [
            ("auto", Storage::Auto),
            ("full", Storage::FullInverse),
            ("triangle-f32", Storage::Triangle(Precision::F32)),
            ("triangle-f16", Storage::Triangle(Precision::F16)),
            ("low-rank-f32", Storage::LowRank(Precision::F32)),
            ("low-rank-f16", Storage::LowRank(Precision::F16)),
            ("principal-f32", Storage::Principal(Precision::F32)),
            ("principal-f16", Storage::Principal(Precision::F16)),
            ("diagonal", Storage::Diagonal),
        ];
        for (name, storage) in names {
            assert_eq!(storage.to_string(), name);
            assert_eq!(name.parse::<Storage>().unwrap(), storage);
        }
        let error = "f8".parse::<Storage>().unwrap_err().to_string();
        assert!(error.contains("triangle-f16"), "{error}");
    }

    #[test]
    fn trapezoids_have_the_length_of_their_rows() {
        for columns in 1..9 {
            for rows in 0..=columns {
                let packed: Vec<usize> = (0..trapezoid_len(columns, rows)).collect();
                let lengths: Vec<usize> =
                    trapezoid_rows(&packed, columns).map(<[usize]>::len).collect();
                assert_eq!(lengths, (0..rows).map(|i| columns - i).collect::<Vec<_>>());
            }
        }
    }
}

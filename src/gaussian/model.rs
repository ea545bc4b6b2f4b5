//! The fitted Gaussians.

use std::sync::Arc;

use faer::Mat;
use nalgebra::{DMatrix, DVector};
use rayon::prelude::*;

use super::covariance::{Covariance, SampleCovariance};
use super::device::{DeviceCopy, DeviceWindows};
use super::forms::Packed;
use super::numbers::Numbers;
use super::positions::Positions;
use super::storage::Storage;
use super::weights::MOST_IMAGES;
use crate::error::{Error, Result};
use crate::host::all_finite;

/// The spread of a covariance's eigenvalues. See [`GaussianModel::spectrum`].
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Spectrum {
    /// The effective number of dimensions in which the features vary: the exponential of the entropy
    /// of the eigenvalues, normalized to sum 1 (Roy, Vetterli 2007). Between 1 and the dimension.
    pub effective_rank: f64,
    /// The largest eigenvalue divided by the smallest. Epsilon limits it.
    pub condition_number: f64,
}

/// Mean and covariance of the embedding vectors at every position of the grid (paper, section III.B),
/// computed by a [`GaussianEstimator`](crate::gaussian::GaussianEstimator), or from the inverse
/// covariances of another program ([`from_inverses`](Self::from_inverses)).
///
/// The covariance is stored in one of several forms, see [`Storage`].
#[derive(Debug, Clone, PartialEq)]
pub struct GaussianModel {
    pub(super) storage: Storage,
    pub(super) dimension: usize,
    /// The number of packed rows, for forms that have rows.
    pub(super) rows: usize,
    pub(super) positions: Positions,
    pub(super) count: usize,
    /// `[positions, dimension]`
    pub(super) means: Arc<[f32]>,
    /// `[positions]`: the factors of the positions' numbers.
    pub(super) scales: Arc<[f32]>,
    pub(super) numbers: Arc<Numbers>,
    pub(super) on_device: DeviceCopy,
    pub(super) windows: DeviceWindows,
}

/// Everything in a model except its arrays.
#[derive(Debug, Clone)]
pub(crate) struct ModelShape {
    pub storage: Storage,
    pub dimension: usize,
    pub rows: usize,
    pub positions: Positions,
    pub count: usize,
}

impl ModelShape {
    /// The number of stored numbers per position; `None` for an invalid shape.
    pub fn numbers(&self) -> Option<usize> {
        self.storage.numbers(self.dimension, self.rows)
    }
}

impl GaussianModel {
    /// Builds a model from its parts, which may come from a file, and checks them.
    pub(crate) fn from_parts(
        shape: ModelShape,
        means: Vec<f32>,
        scales: Vec<f32>,
        numbers: Numbers,
    ) -> Result<Self> {
        let positions = shape.positions.gaussians();
        let each = shape.numbers().ok_or_else(|| {
            let reason = format!("got {} rows, dimension {}", shape.rows, shape.dimension);
            Error::config("storage", reason)
        })?;
        // 0 means that the number of images is unknown.
        if shape.positions.vectors(shape.count) == 1 || shape.count > MOST_IMAGES || each == 0 {
            let reason = format!("got {} images, {each} numbers per position", shape.count);
            return Err(Error::config("gaussians", reason));
        }
        let expected = [positions * shape.dimension, positions, positions * each];
        let actual = [means.len(), scales.len(), numbers.len()];
        if actual != expected {
            return Err(Error::shape("Gaussian model", format!("{expected:?} values"), actual));
        }
        if !(all_finite(&means) && all_finite(&scales) && numbers.all_finite()) {
            return Err(Error::NotFinite { what: "the Gaussian model".into() });
        }
        let ModelShape { storage, dimension, rows, positions, count } = shape;
        Ok(Self {
            storage,
            dimension,
            rows,
            positions,
            count,
            means: means.into(),
            scales: scales.into(),
            numbers: Arc::new(numbers),
            on_device: DeviceCopy::default(),
            windows: DeviceWindows::default(),
        })
    }

    pub(crate) fn shape(&self) -> ModelShape {
        ModelShape {
            storage: self.storage,
            dimension: self.dimension,
            rows: self.rows,
            positions: self.positions.clone(),
            count: self.count,
        }
    }

    /// The form in which the Gaussians are stored. Never [`Storage::Auto`].
    pub fn storage(&self) -> Storage {
        self.storage
    }

    /// The number of components of an embedding vector.
    pub fn dimension(&self) -> usize {
        self.dimension
    }

    /// The number of principal components per position; `None` if all dimensions are kept.
    pub(crate) fn components(&self) -> Option<usize> {
        matches!(self.storage, Storage::Principal(_)).then_some(self.rows)
    }

    /// The grid `[height, width]` of positions.
    pub fn grid(&self) -> [usize; 2] {
        self.positions.grid()
    }

    /// The number of positions that are scored: those inside the region of interest.
    pub fn position_count(&self) -> usize {
        self.positions.len()
    }

    /// Whether all positions share one Gaussian.
    pub fn is_pooled(&self) -> bool {
        self.positions.pooled()
    }

    /// Which positions of the grid are scored, row-major; `None` if all are.
    pub fn region(&self) -> Option<Vec<bool>> {
        self.positions.mask()
    }

    /// The number of images that the model was estimated from; 0 if unknown.
    pub fn image_count(&self) -> usize {
        self.count
    }

    /// The number of vectors that each Gaussian was estimated from.
    pub(crate) fn vectors_per_gaussian(&self) -> usize {
        self.positions.vectors(self.count)
    }

    /// The size of means and covariances in bytes, in memory and in a file.
    pub fn size_in_bytes(&self) -> usize {
        let numbers = self.numbers.len() * self.storage.precision().bytes();
        (self.means.len() + self.scales.len()) * 4 + numbers
    }

    /// The means `[positions, dimension]` of all positions that are scored, row-major;
    /// `[1, dimension]` if pooled.
    pub fn means(&self) -> &[f32] {
        &self.means
    }

    pub(crate) fn scales(&self) -> &[f32] {
        &self.scales
    }

    pub(crate) fn numbers(&self) -> &Numbers {
        &self.numbers
    }

    /// The covariance `[dimension, dimension]` at a position `row * grid_width + column`, with
    /// epsilon and shrinkage. With principal components, it covers only their span. `None` outside
    /// the grid or the region of interest.
    pub fn covariance(&self, position: usize) -> Option<DMatrix<f64>> {
        self.storage.covariance(self.inverse_covariance(position)?)
    }

    /// The inverse `[dimension, dimension]` of the covariance at a position. `None` outside the grid
    /// or the region of interest.
    pub fn inverse_covariance(&self, position: usize) -> Option<DMatrix<f64>> {
        let number = self.positions.gaussian(position)?;
        let values = self.numbers.to_f32(self.range(number));
        let scale = f64::from(self.scales[number]);
        Some(self.storage.inverse(&self.packed(&values))? * (scale * scale))
    }

    fn packed<'a>(&self, values: &'a [f32]) -> Packed<'a> {
        let Self { dimension, rows, storage, .. } = *self;
        Packed { values, dimension, rows, precision: storage.precision() }
    }

    /// The contribution of each component of a vector to its squared distance from the Gaussian at a
    /// place of the grid: `x * (inverse covariance x)` by component, where `x` is the vector minus
    /// the mean. It can be negative; the sum is the squared distance. `None` outside.
    pub(crate) fn contributions(&self, place: usize, vector: &[f32]) -> Option<Vec<f64>> {
        let number = self.positions.gaussian(place)?;
        let d = self.dimension;
        let mean = &self.means[number * d..(number + 1) * d];
        let centered = vector.iter().zip(mean).map(|(v, m)| f64::from(*v) - f64::from(*m));
        let x = DVector::from_iterator(d, centered);
        let values = self.numbers.to_f32(self.range(number));
        let product = self.storage.multiply(&self.packed(&values), &x)?;
        let scale = f64::from(self.scales[number]).powi(2);
        Some(x.iter().zip(&product).map(|(x, p)| scale * x * p).collect())
    }

    /// The spread of the eigenvalues at a position. Computing them takes milliseconds for 100
    /// dimensions and a tenth of a second for 550. `None` outside the grid or the region of interest.
    pub fn spectrum(&self, position: usize) -> Option<Spectrum> {
        let covariance = self.covariance(position)?;
        let d = self.dimension;
        let form = SampleCovariance::Dense(Mat::from_fn(d, d, |i, j| covariance[(i, j)]));
        let values = Covariance { form, keep: 1.0, floor: 0.0 }.eigenvalues()?;
        let values: Vec<f64> = values.into_iter().filter(|&v| v > 0.0).collect();
        let sum: f64 = values.iter().sum();
        let entropy: f64 = values.iter().map(|v| v / sum).map(|share| -share * share.ln()).sum();
        Some(Spectrum {
            effective_rank: entropy.exp(),
            condition_number: values.last()? / values.first()?,
        })
    }

    /// The same Gaussians in another storage.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidConfig`] for [`Storage::Auto`], for low rank if there are more images than
    /// dimensions or their number is unknown, and between principal components and other forms;
    /// [`Error::NotPositiveDefinite`] if rounding to 16 bits has made a covariance singular.
    pub fn convert(&self, storage: Storage) -> Result<Self> {
        let fail = |reason: String| Err(Error::config("storage", reason));
        if storage == self.storage {
            return Ok(self.clone());
        }
        // For these, only the precision changes. (Low rank must find the direction of its correction
        // again.)
        let vectors = self.positions.vectors(self.count);
        let same_form = matches!(
            (self.storage, storage),
            (Storage::Triangle(_), Storage::Triangle(_))
                | (Storage::Principal(_), Storage::Principal(_))
        );
        let rows = match storage {
            Storage::Auto => return fail("a conversion needs a specific form, not `auto`".into()),
            _ if same_form => self.rows,
            Storage::Principal(_) => {
                return fail("principal components can only be chosen in a fit".into());
            }
            _ if matches!(self.storage, Storage::Principal(_)) => {
                return fail("principal components cannot be converted to another form".into());
            }
            Storage::LowRank(_) if vectors < 2 => {
                return fail("low rank needs the number of images, which is not known here".into());
            }
            Storage::LowRank(_) if vectors > self.dimension => {
                return fail(format!(
                    "low rank takes at most as many images as dimensions, got {vectors} and {}",
                    self.dimension
                ));
            }
            Storage::LowRank(_) => vectors - 1,
            _ => self.dimension,
        };
        let shape = ModelShape { storage, rows, ..self.shape() };
        let each = shape.numbers().unwrap_or(0);
        let mut numbers = Numbers::zeros(storage.precision(), each * self.positions.gaussians());
        let mut scales = vec![0.0; self.positions.gaussians()];
        let correction = storage.correction(self.dimension);
        numbers.fill(
            0,
            storage,
            [each, correction],
            scales.par_iter_mut(),
            |number, scale, target, scratch| {
                if same_form {
                    target.copy_from_slice(&self.numbers.to_f32(self.range(number)));
                    *scale = self.scales[number];
                    return Ok(());
                }
                let failed = || self.not_positive_definite(number);
                let covariance =
                    self.covariance(self.positions.place(number)).ok_or_else(failed)?;
                let d = self.dimension;
                let mut lower = Mat::from_fn(d, d, |i, j| covariance[(i, j)]);
                let mut floor = 0.0;
                if matches!(storage, Storage::LowRank(_)) {
                    let values = lower.self_adjoint_eigenvalues(faer::Side::Lower);
                    floor = *values.map_err(|_| failed())?.first().ok_or_else(failed)?;
                    (0..d).for_each(|i| lower[(i, i)] -= floor);
                }
                let covariance =
                    Covariance { form: SampleCovariance::Dense(lower), keep: 1.0, floor };
                *scale = storage.write(&covariance, rows, target, scratch).ok_or_else(failed)?;
                Ok(())
            },
        )?;
        Self::from_parts(shape, self.means.to_vec(), scales, numbers)
    }

    fn not_positive_definite(&self, number: usize) -> Error {
        Error::NotPositiveDefinite { position: self.positions.place(number) }
    }

    /// The range of a Gaussian's numbers.
    pub(super) fn range(&self, number: usize) -> std::ops::Range<usize> {
        let each = self.numbers.len() / self.positions.gaussians();
        number * each..(number + 1) * each
    }
}

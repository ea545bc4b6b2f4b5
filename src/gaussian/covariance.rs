//! The regularised covariance of a position, and the numbers that are kept of it.

use faer::dyn_stack::{MemBuffer, MemStack};
use faer::linalg::cholesky::llt::factor::{
    LltRegularization, cholesky_in_place, cholesky_in_place_scratch,
};
use faer::linalg::triangular_inverse::invert_lower_triangular;
use faer::traits::RealField;
use faer::{Accum, Mat, MatRef, Par, Side, Spec};
use nalgebra::DMatrix;

use super::distance::LARGEST;
use super::storage::{Precision, Storage};
use super::sums::outer_products;
use super::whitening::{self, Whitening};

/// See [`Covariance::trapezoid`].
struct Trapezoid {
    matrix: Mat<f64>,
    /// The eigenvector of the largest eigenvalue.
    direction: Vec<f64>,
    largest: f64,
}

/// Matrices that a thread reuses from position to position: to allocate megabytes for each would
/// take longer than to factorise them.
pub(super) struct Scratch {
    whitening: Whitening,
    lower: Mat<f64>,
    inverse: Mat<f64>,
    stack: MemBuffer,
    /// Of the last low rank form: the eigenvector of the largest eigenvalue, and what `Y^T Y` makes
    /// of it.
    pub direction: Vec<f64>,
    pub share: f64,
}

impl Scratch {
    pub fn new() -> Self {
        Self {
            whitening: Whitening::default(),
            lower: Mat::new(),
            inverse: Mat::new(),
            stack: MemBuffer::new(faer::dyn_stack::StackReq::EMPTY),
            direction: Vec::new(),
            share: 0.0,
        }
    }
}

/// `keep * form + floor * identity`.
pub(super) struct Covariance {
    pub form: Form,
    pub keep: f64,
    /// At least epsilon.
    pub floor: f64,
}

/// A sample covariance.
pub(super) enum Form {
    /// `columns columns^T`, for few columns `[dimension, vectors]`.
    Outer(Mat<f64>),
    /// The lower triangle.
    Dense(Mat<f64>),
}

impl Form {
    pub fn dimension(&self) -> usize {
        match self {
            Self::Outer(matrix) | Self::Dense(matrix) => matrix.nrows(),
        }
    }

    pub fn variances(&self) -> Vec<f64> {
        match self {
            Self::Outer(columns) => columns.row_iter().map(|row| row.squared_norm_l2()).collect(),
            Self::Dense(lower) => (0..lower.nrows()).map(|i| lower[(i, i)]).collect(),
        }
    }

    /// The sum of the squares of all elements.
    pub fn squared_norm(&self) -> f64 {
        let of_lower = |lower: MatRef<'_, f64>| {
            let twice: f64 = lower
                .col_iter()
                .enumerate()
                .map(|(j, column)| column.iter().skip(j).map(|v| 2.0 * v * v).sum::<f64>())
                .sum();
            twice - (0..lower.nrows()).map(|i| lower[(i, i)].powi(2)).sum::<f64>()
        };
        match self {
            // That of the Gram matrix is the same.
            Self::Outer(columns) => of_lower(self::gram(columns).as_ref()),
            Self::Dense(lower) => of_lower(lower.as_ref()),
        }
    }
}

/// `factors^T columns^T`, or `factors^T`, as `rows` rows that are rotated so that row `i` begins at
/// column `i`: that changes nothing of `T^T T`.
fn rotated<T: RealField>(
    factors: MatRef<'_, T>,
    columns: Option<MatRef<'_, T>>,
    [rows, d]: [usize; 2],
) -> Mat<T> {
    let mut wide = Mat::zeros(rows, d);
    let used = wide.get_mut(..factors.ncols(), ..);
    match columns {
        Some(columns) => {
            let (left, right) = (factors.transpose(), columns.transpose());
            faer::linalg::matmul::matmul(
                used,
                Accum::Replace,
                left,
                right,
                T::one_impl(),
                Par::Seq,
            );
        }
        None => wide.get_mut(..factors.ncols(), ..).copy_from(factors.transpose()),
    }
    wide.qr().R().to_owned()
}

/// The lower triangle of `columns^T columns`.
fn gram(columns: &Mat<f64>) -> Mat<f64> {
    let n = columns.ncols();
    let mut gram = Mat::zeros(n, n);
    outer_products(&mut gram, Accum::Replace, columns.transpose());
    gram
}

impl Covariance {
    /// Writes the lower triangle; what is above it does not count.
    fn lower_into(&self, lower: &mut Mat<f64>) {
        let d = self.form.dimension();
        lower.resize_with(d, d, |_, _| 0.0);
        match &self.form {
            Form::Dense(dense) => lower.copy_from_triangular_lower(dense),
            Form::Outer(columns) => outer_products(lower, Accum::Replace, columns.as_ref()),
        }
        if self.keep != 1.0 {
            lower.col_iter_mut().for_each(|c| c.iter_mut().for_each(|v| *v *= self.keep));
        }
        (0..d).for_each(|i| lower[(i, i)] += self.floor);
    }

    fn lower(&self) -> Mat<f64> {
        let mut lower = Mat::new();
        self.lower_into(&mut lower);
        lower
    }

    /// The whole matrix.
    pub fn dense(&self) -> DMatrix<f64> {
        let lower = self.lower();
        let d = lower.nrows();
        DMatrix::from_fn(d, d, |i, j| lower[(i.max(j), i.min(j))])
    }

    /// Writes the numbers that `storage` keeps, `rows` rows where it has rows, but not those that
    /// correct their rounding; and gives the factor by which they are to be multiplied. `None` if the covariance cannot be inverted in f32.
    pub fn write(
        &self,
        storage: Storage,
        rows: usize,
        target: &mut [f32],
        scratch: &mut Scratch,
    ) -> Option<f32> {
        let d = self.form.dimension();
        match storage {
            Storage::Auto => None,
            Storage::FullInverse => {
                let inverse = self.dense().cholesky()?.inverse();
                target.iter_mut().zip(inverse.iter()).for_each(|(t, &v)| *t = v as f32);
                finite(target, 1.0)
            }
            Storage::Triangle(_) if d <= whitening::MOST => {
                let Scratch { whitening, lower, .. } = scratch;
                self.lower_into(lower);
                whitening.set(d, columns_of(lower));
                let scale = scale_of(whitening.invert()?);
                whitening.write(scale.recip(), target);
                finite(target, scale as f32)
            }
            Storage::Triangle(_) => {
                let Scratch { lower, inverse, stack, .. } = scratch;
                self.lower_into(lower);
                let needed = cholesky_in_place_scratch::<f64>(d, Par::Seq, Spec::default());
                if stack.len() < needed.unaligned_bytes_required() {
                    *stack = MemBuffer::new(needed);
                }
                let stack = MemStack::new(stack);
                let regularization = LltRegularization::default();
                cholesky_in_place(lower.as_mut(), regularization, Par::Seq, stack, Spec::default())
                    .ok()?;
                inverse.resize_with(d, d, |_, _| 0.0);
                invert_lower_triangular(inverse.as_mut(), lower.as_ref(), Par::Seq);
                let columns = columns_of(inverse).enumerate().map(|(j, column)| &column[j..]);
                let largest = |largest: f64, v: &f64| largest.max(v.abs());
                let largest = columns.clone().flatten().fold(0.0, largest);
                write_scaled(target, largest, columns.flatten())
            }
            Storage::LowRank(_) => {
                // Of an eigenvalue, what is lacking to 1 in the inverse root times that of the floor.
                let floor = self.floor;
                let lacking = |value: f64| {
                    let root = (floor + value).sqrt();
                    1.0 / (root * (root + floor.sqrt()))
                };
                let Trapezoid { matrix, direction, largest } =
                    self.trapezoid(rows, storage.precision(), lacking)?;
                scratch.direction = direction;
                scratch.share = largest * lacking(largest);
                let packed = matrix.row_iter().enumerate().flat_map(|(i, row)| row.iter().skip(i));
                let scale = f64::from(LARGEST);
                target.iter_mut().zip(packed).for_each(|(t, &v)| *t = (v * scale) as f32);
                finite(target, (1.0 / floor.sqrt()) as f32)
            }
            Storage::Principal(_) => {
                let whiten = |value: f64| 1.0 / (value * (value + self.floor));
                let Trapezoid { matrix, .. } = self.trapezoid(rows, storage.precision(), whiten)?;
                let packed = matrix.row_iter().enumerate().flat_map(|(i, row)| row.iter().skip(i));
                write_scaled(target, matrix.norm_max(), packed)
            }
            Storage::Diagonal => {
                let variances = self.form.variances();
                let deviations = variances.iter().map(|v| (v * self.keep + self.floor).sqrt());
                target.iter_mut().zip(deviations).for_each(|(t, s)| *t = (1.0 / s) as f32);
                finite(target, 1.0)
            }
        }
    }

    /// An upper trapezoid `T` of `rows` rows with `T^T T = sum v f(v) q q^T` over the largest
    /// eigenvalues `v` of `keep * form` and their eigenvectors `q`.
    fn trapezoid(
        &self,
        rows: usize,
        precision: Precision,
        f: impl Fn(f64) -> f64,
    ) -> Option<Trapezoid> {
        let d = self.form.dimension();
        let small = match &self.form {
            Form::Outer(columns) => gram(columns),
            Form::Dense(lower) => lower.clone(),
        };
        let size = small.nrows();
        let eigen = small.self_adjoint_eigen(Side::Lower).ok()?;
        let (values, vectors) = (eigen.S().column_vector(), eigen.U());
        let largest = (values[size - 1] * self.keep).max(0.0);
        // Eigenvalues rise. What is below is rounding, in whose direction there is nothing to tell.
        let negligible = largest * size as f64 * f64::EPSILON;
        let value = |row: usize| (values[size - 1 - row] * self.keep).max(0.0);
        let used = rows.min(size);
        let factors = Mat::from_fn(size, used, |i, row| {
            let v = value(row);
            let factor = match &self.form {
                _ if v <= negligible => 0.0,
                Form::Outer(_) => (f(v) * self.keep).sqrt(),
                Form::Dense(_) => (f(v) * v).sqrt(),
            };
            vectors[(i, size - 1 - row)] * factor
        });
        let columns = match &self.form {
            Form::Outer(columns) => Some(columns),
            Form::Dense(_) => None,
        };
        let matrix = match precision {
            Precision::F32 => rotated(factors.as_ref(), columns.map(Mat::as_ref), [rows, d]),
            // What is then rounded to 16 bits needs no more than 32 before, which is twice as fast.
            Precision::F16 => {
                let coarse = |m: &Mat<f64>| {
                    let mut coarse = Mat::<f32>::zeros(m.nrows(), m.ncols());
                    for (to, from) in coarse.col_iter_mut().zip(m.col_iter()) {
                        to.iter_mut().zip(from.iter()).for_each(|(t, &f)| *t = f as f32);
                    }
                    coarse
                };
                let columns = columns.map(coarse);
                let rotated = rotated(
                    coarse(&factors).as_ref(),
                    columns.as_ref().map(Mat::as_ref),
                    [rows, d],
                );
                let mut fine = Mat::zeros(rows, d);
                for (to, from) in fine.col_iter_mut().zip(rotated.col_iter()) {
                    to.iter_mut().zip(from.iter()).for_each(|(t, &f)| *t = f64::from(f));
                }
                fine
            }
        };
        let top = vectors.col(size - 1);
        let direction: Vec<f64> = match &self.form {
            Form::Outer(columns) => (columns * top).iter().copied().collect(),
            Form::Dense(_) => top.iter().copied().collect(),
        };
        let length = direction.iter().map(|v| v * v).sum::<f64>().sqrt().max(f64::MIN_POSITIVE);
        Some(Trapezoid {
            matrix,
            direction: direction.into_iter().map(|v| v / length).collect(),
            largest,
        })
    }

    /// A vector drawn from the Gaussian around 0, by independent noise of variance 1.
    pub fn draw(&self, noise: impl Fn(usize) -> f64) -> Option<Vec<f64>> {
        let d = self.form.dimension();
        let (mut drawn, columns, factor) = match &self.form {
            // What all dimensions have, and what the columns add.
            Form::Outer(columns) => {
                let floor = self.floor.sqrt();
                let drawn: Vec<f64> = (0..d).map(|i| noise(i) * floor).collect();
                (drawn, columns.clone(), self.keep.sqrt())
            }
            Form::Dense(_) => {
                (vec![0.0; d], self.lower().llt(Side::Lower).ok()?.L().to_owned(), 1.0)
            }
        };
        for (j, column) in columns.col_iter().enumerate() {
            let amount = noise(d + j) * factor;
            drawn.iter_mut().zip(column.iter()).for_each(|(x, c)| *x += amount * c);
        }
        Some(drawn)
    }

    /// The eigenvalues, rising.
    pub fn eigenvalues(&self) -> Option<Vec<f64>> {
        self.lower().self_adjoint_eigenvalues(Side::Lower).ok()
    }
}

/// The columns of a matrix.
fn columns_of(matrix: &Mat<f64>) -> impl Iterator<Item = &[f64]> + Clone {
    (0..matrix.ncols()).filter_map(|j| Some(matrix.col(j).try_as_col_major()?.as_slice()))
}

/// The power of two by which the largest of some numbers is divided to bring it near [`LARGEST`].
fn scale_of(largest: f64) -> f64 {
    let largest = largest / f64::from(LARGEST);
    if largest > 0.0 { largest.log2().ceil().exp2() } else { 1.0 }
}

/// Writes values divided by the power of two for their largest, and gives that.
pub(super) fn write_scaled<'a>(
    target: &mut [f32],
    largest: f64,
    values: impl Iterator<Item = &'a f64>,
) -> Option<f32> {
    let scale = scale_of(largest);
    target.iter_mut().zip(values).for_each(|(t, v)| *t = (v / scale) as f32);
    finite(target, scale as f32)
}

/// The scale, if it and all numbers are finite.
fn finite(numbers: &[f32], scale: f32) -> Option<f32> {
    (scale.is_finite() && numbers.iter().all(|v| v.is_finite())).then_some(scale)
}

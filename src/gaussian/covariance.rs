//! The regularized covariance of a position, and its decompositions.

use faer::dyn_stack::MemBuffer;
use faer::traits::RealField;
use faer::{Accum, Mat, MatRef, Par, Side};
use nalgebra::DMatrix;

use super::storage::Precision;
use super::sums::outer_products;
use super::whitening::Whitening;

/// The result of [`Covariance::trapezoid`].
pub struct Trapezoid {
    pub matrix: Mat<f64>,
    /// The eigenvector of the largest eigenvalue.
    pub direction: Vec<f64>,
    pub largest: f64,
}

/// Matrices that a thread reuses for other positions: allocating megabytes for each position would
/// take longer than the factorization.
pub struct Scratch {
    pub whitening: Whitening,
    pub lower: Mat<f64>,
    pub inverse: Mat<f64>,
    pub stack: MemBuffer,
    /// For the correction of the low rank form: the eigenvector of the largest eigenvalue.
    pub direction: Vec<f64>,
    /// The eigenvalue of `Y^T Y` for `direction`.
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
pub struct Covariance {
    pub form: SampleCovariance,
    pub keep: f64,
    /// In a fit, at least epsilon.
    pub floor: f64,
}

/// A sample covariance.
pub enum SampleCovariance {
    /// `columns columns^T`, with few columns: `[dimension, vectors]`.
    Outer(Mat<f64>),
    /// The lower triangle of the matrix.
    Dense(Mat<f64>),
}

impl SampleCovariance {
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

    /// The sum of the squared elements.
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
            // The same as for the Gram matrix, which is smaller.
            Self::Outer(columns) => of_lower(self::gram(columns).as_ref()),
            Self::Dense(lower) => of_lower(lower.as_ref()),
        }
    }
}

/// An upper trapezoid `T` of `rows` rows (row `i` begins at column `i`), so that `T^T T = M^T M` for
/// `M = factors^T columns^T`, or `M = factors^T` without columns.
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
    /// Writes the lower triangle. The elements above the diagonal have no meaning.
    pub fn lower_into(&self, lower: &mut Mat<f64>) {
        let d = self.form.dimension();
        lower.resize_with(d, d, |_, _| 0.0);
        match &self.form {
            SampleCovariance::Dense(dense) => lower.copy_from_triangular_lower(dense),
            SampleCovariance::Outer(columns) => {
                outer_products(lower, Accum::Replace, columns.as_ref())
            }
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

    /// An upper trapezoid `T` of `rows` rows with `T^T T = sum v f(v) q q^T`, over the `rows` largest
    /// eigenvalues `v` of `keep * form` and their eigenvectors `q`.
    pub fn trapezoid(
        &self,
        rows: usize,
        precision: Precision,
        f: impl Fn(f64) -> f64,
    ) -> Option<Trapezoid> {
        let d = self.form.dimension();
        let small = match &self.form {
            SampleCovariance::Outer(columns) => gram(columns),
            SampleCovariance::Dense(lower) => lower.clone(),
        };
        let size = small.nrows();
        let eigen = small.self_adjoint_eigen(Side::Lower).ok()?;
        let (values, vectors) = (eigen.S().column_vector(), eigen.U());
        let largest = (values[size - 1] * self.keep).max(0.0);
        // Eigenvalues are ascending. Smaller ones are rounding errors, without a defined eigenvector.
        let negligible = largest * size as f64 * f64::EPSILON;
        let value = |row: usize| (values[size - 1 - row] * self.keep).max(0.0);
        let used = rows.min(size);
        let factors = Mat::from_fn(size, used, |i, row| {
            let v = value(row);
            let factor = match &self.form {
                _ if v <= negligible => 0.0,
                SampleCovariance::Outer(_) => (f(v) * self.keep).sqrt(),
                SampleCovariance::Dense(_) => (f(v) * v).sqrt(),
            };
            vectors[(i, size - 1 - row)] * factor
        });
        let columns = match &self.form {
            SampleCovariance::Outer(columns) => Some(columns),
            SampleCovariance::Dense(_) => None,
        };
        let matrix = match precision {
            Precision::F32 => rotated(factors.as_ref(), columns.map(Mat::as_ref), [rows, d]),
            // The result is rounded to 16 bits later, so 32 bits are enough here, and twice as fast.
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
            SampleCovariance::Outer(columns) => (columns * top).iter().copied().collect(),
            SampleCovariance::Dense(_) => top.iter().copied().collect(),
        };
        let length = direction.iter().map(|v| v * v).sum::<f64>().sqrt().max(f64::MIN_POSITIVE);
        Some(Trapezoid {
            matrix,
            direction: direction.into_iter().map(|v| v / length).collect(),
            largest,
        })
    }

    /// A random vector from the Gaussian with mean 0. `noise`: independent, of variance 1.
    pub fn draw(&self, noise: impl Fn(usize) -> f64) -> Option<Vec<f64>> {
        let d = self.form.dimension();
        let (mut drawn, columns, factor) = match &self.form {
            // The floor adds to all dimensions; the columns are added below.
            SampleCovariance::Outer(columns) => {
                let floor = self.floor.sqrt();
                let drawn: Vec<f64> = (0..d).map(|i| noise(i) * floor).collect();
                (drawn, columns.clone(), self.keep.sqrt())
            }
            SampleCovariance::Dense(_) => {
                (vec![0.0; d], self.lower().llt(Side::Lower).ok()?.L().to_owned(), 1.0)
            }
        };
        for (j, column) in columns.col_iter().enumerate() {
            let amount = noise(d + j) * factor;
            drawn.iter_mut().zip(column.iter()).for_each(|(x, c)| *x += amount * c);
        }
        Some(drawn)
    }

    /// The eigenvalues, ascending.
    pub fn eigenvalues(&self) -> Option<Vec<f64>> {
        self.lower().self_adjoint_eigenvalues(Side::Lower).ok()
    }
}

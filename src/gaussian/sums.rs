//! Weighted sums of a position's vectors: mean, scatter matrix, and the moments for shrinkage.
//!
//! All sums are centered at the mean, in f64. The sums of two sets of vectors merge exactly (Chan,
//! Golub, LeVeque 1979). So a large common offset costs no precision, and the order of merging only
//! affects rounding.

use faer::linalg::matmul::triangular::{BlockStructure, matmul};
use faer::{Accum, Mat, MatRef, Par};

/// The vectors of a position minus their mean, each times the square root of its weight.
pub(super) struct Deviations {
    pub mean: Vec<f64>,
    /// `[dimension, vectors]`
    pub columns: Mat<f64>,
}

impl Deviations {
    /// `vectors`: as many as `weights`, each of `dimension` components.
    pub fn new<'a>(
        dimension: usize,
        vectors: impl Iterator<Item = &'a [f32]> + Clone,
        weights: &[f64],
    ) -> Self {
        let total: f64 = weights.iter().sum();
        let mut mean = vec![0.0; dimension];
        for (vector, weight) in vectors.clone().zip(weights) {
            mean.iter_mut().zip(vector).for_each(|(m, &v)| *m += weight * f64::from(v));
        }
        mean.iter_mut().for_each(|m| *m /= total);
        let mut columns = Mat::zeros(dimension, weights.len());
        for ((column, vector), weight) in columns.col_iter_mut().zip(vectors).zip(weights) {
            let root = weight.sqrt();
            let deviations = vector.iter().zip(&mean).map(|(&v, m)| (f64::from(v) - m) * root);
            column.iter_mut().zip(deviations).for_each(|(c, v)| *c = v);
        }
        Self { mean, columns }
    }

    /// See [`Sums::fourth`].
    pub fn fourth(&self, weights: &[f64]) -> f64 {
        let columns = self.columns.col_iter().zip(weights);
        columns.map(|(column, weight)| column.squared_norm_l2().powi(2) / weight).sum()
    }

    /// The sums of these vectors.
    pub fn sums(self, weights: &[f64]) -> Sums {
        let d = self.mean.len();
        let fourth = self.fourth(weights);
        let mut third = vec![0.0; d];
        for (column, weight) in self.columns.col_iter().zip(weights) {
            let factor = column.squared_norm_l2() / weight.sqrt();
            third.iter_mut().zip(column.iter()).for_each(|(t, y)| *t += factor * y);
        }
        let mut scatter = Mat::zeros(d, d);
        outer_products(&mut scatter, Accum::Replace, self.columns.as_ref());
        Sums { weight: weights.iter().sum(), mean: self.mean, scatter, third, fourth }
    }
}

/// Adds `columns columns^T` to the lower triangle of `target`, or replaces the triangle by it.
pub(super) fn outer_products(target: &mut Mat<f64>, accum: Accum, columns: MatRef<'_, f64>) {
    let whole = BlockStructure::Rectangular;
    matmul(
        target.as_mut(),
        BlockStructure::TriangularLower,
        accum,
        columns,
        whole,
        columns.transpose(),
        whole,
        1.0,
        Par::Seq,
    );
}

/// Weighted sums. `y` is a vector minus the mean, `w` its weight.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Sums {
    /// `sum w`
    pub weight: f64,
    pub mean: Vec<f64>,
    /// `sum w y y^T`. Only the lower triangle is used.
    pub scatter: Mat<f64>,
    /// `sum w |y|^2 y`
    pub third: Vec<f64>,
    /// `sum w |y|^4`
    pub fourth: f64,
}

impl Sums {
    /// Adds the vectors of other sums.
    pub fn merge(&mut self, mut other: Self) {
        let total = self.weight + other.weight;
        let apart: Vec<f64> = other.mean.iter().zip(&self.mean).map(|(o, s)| o - s).collect();
        let scaled = |factor: f64| apart.iter().map(|a| a * factor).collect::<Vec<f64>>();
        // Move both centers to the common mean.
        self.recenter(&scaled(other.weight / total));
        other.recenter(&scaled(-self.weight / total));
        self.weight = total;
        let d = self.mean.len();
        for j in 0..d {
            self.third[j] += other.third[j];
            for i in j..d {
                self.scatter[(i, j)] += other.scatter[(i, j)];
            }
        }
        self.fourth += other.fourth;
    }

    /// Moves the center of all sums by `shift`.
    fn recenter(&mut self, shift: &[f64]) {
        let d = shift.len();
        let squared: f64 = shift.iter().map(|s| s * s).sum();
        let trace: f64 = (0..d).map(|i| self.scatter[(i, i)]).sum();
        let product = symmetric_product(self.scatter.as_ref(), shift);
        let dot = |a: &[f64]| a.iter().zip(shift).map(|(a, s)| a * s).sum::<f64>();
        let weight = self.weight;
        self.fourth += 4.0 * dot(&product) + weight * squared * squared - 4.0 * dot(&self.third)
            + 2.0 * trace * squared;
        for ((third, p), s) in self.third.iter_mut().zip(&product).zip(shift) {
            *third -= 2.0 * p + (trace + weight * squared) * s;
        }
        for (j, column) in self.scatter.col_iter_mut().enumerate() {
            let factor = weight * shift[j];
            column.iter_mut().zip(shift).skip(j).for_each(|(c, s)| *c += factor * s);
        }
        self.mean.iter_mut().zip(shift).for_each(|(m, s)| *m += s);
    }
}

/// A symmetric matrix, given by its lower triangle, times a vector.
fn symmetric_product(lower: MatRef<'_, f64>, vector: &[f64]) -> Vec<f64> {
    let mut product = vec![0.0; vector.len()];
    for (j, column) in lower.col_iter().enumerate() {
        product[j] += column[j] * vector[j];
        for i in j + 1..vector.len() {
            product[i] += column[i] * vector[j];
            product[j] += column[i] * vector[i];
        }
    }
    product
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sums(vectors: &[Vec<f32>], weights: &[f64]) -> Sums {
        let d = vectors[0].len();
        Deviations::new(d, vectors.iter().map(Vec::as_slice), weights).sums(weights)
    }

    fn close(a: f64, b: f64, scale: f64) -> bool {
        (a - b).abs() <= 1e-11 * scale.max(1.0)
    }

    proptest! {
        #[test]
        fn merging_in_any_order_is_as_one(
            values in prop::collection::vec((-3.0_f32..3.0, -3.0_f32..3.0, 50.0_f32..51.0), 5..20),
            weights in prop::collection::vec(0.1_f64..2.0, 20),
            first in 1_usize..4,
        ) {
            let vectors: Vec<Vec<f32>> = values.iter().map(|&(a, b, c)| vec![a, b, c]).collect();
            let weights = &weights[..vectors.len()];
            let whole = sums(&vectors, weights);
            let [(v1, v2), _] = [vectors.split_at(first), vectors.split_at(0)];
            let (w1, w2) = weights.split_at(first);
            for swap in [false, true] {
                let (mut a, mut b) = (sums(v1, w1), sums(v2, w2));
                if swap { std::mem::swap(&mut a, &mut b); }
                a.merge(b);
                prop_assert!(close(a.weight, whole.weight, 1.0));
                // The reference: the definitions in `Sums`.
                let y = |v: &[f32]| (0..3).map(|i| f64::from(v[i]) - whole.mean[i]).collect::<Vec<_>>();
                let norm2 = |y: &[f64]| y.iter().map(|v| v * v).sum::<f64>();
                let fourth: f64 = vectors.iter().zip(weights).map(|(v, w)| w * norm2(&y(v)).powi(2)).sum();
                prop_assert!(close(a.fourth, fourth, fourth), "{} {fourth}", a.fourth);
                for i in 0..3 {
                    prop_assert!(close(a.mean[i], whole.mean[i], 50.0));
                    let third: f64 =
                        vectors.iter().zip(weights).map(|(v, w)| w * norm2(&y(v)) * y(v)[i]).sum();
                    prop_assert!(close(a.third[i], third, fourth), "{} {third}", a.third[i]);
                    for j in 0..=i {
                        let entry: f64 =
                            vectors.iter().zip(weights).map(|(v, w)| w * y(v)[i] * y(v)[j]).sum();
                        prop_assert!(close(a.scatter[(i, j)], entry, fourth));
                    }
                }
            }
        }
    }
}

//! The form for few images: a multiple of the identity plus a matrix of low rank.

use burn::tensor::Tensor;
use nalgebra::{DMatrix, DVector};
use pulp::Simd;

use super::device::{DeviceForm, DeviceSource, length, multiply};
use super::form::{Form, Measured, Packed, packed_rows};
use super::scaled::{finite, packed};
use crate::gaussian::covariance::{Covariance, Scratch, Trapezoid};
use crate::gaussian::half::{LARGEST, Number, NumbersRef, to_half};
use crate::gaussian::kernels::{Images, Rows, Step};
use crate::gaussian::storage::{Precision, trapezoid_rows};

/// See [`Storage::LowRank`](crate::gaussian::Storage::LowRank). The stored rows are `Y` times
/// [`LARGEST`]. In 16 bits, a direction `q` and a vector `c` follow, which correct the rounding error
/// along `q`.
pub struct LowRank;

impl Form for LowRank {
    fn numbers(dimension: usize, rows: usize, precision: Precision) -> Option<usize> {
        Some(packed_rows(dimension, rows)? + Self::correction(dimension, precision))
    }

    fn correction(dimension: usize, precision: Precision) -> usize {
        match precision {
            Precision::F16 => 2 * dimension,
            Precision::F32 => 0,
        }
    }

    fn write(
        covariance: &Covariance,
        rows: usize,
        precision: Precision,
        target: &mut [f32],
        scratch: &mut Scratch,
    ) -> Option<f32> {
        // `(1 - sqrt(floor / (floor + value))) / value`, without cancellation. `value` times this is
        // the eigenvalue of `Y^T Y` for an eigenvector with the eigenvalue `value`.
        let floor = covariance.floor;
        let lacking = |value: f64| {
            let root = (floor + value).sqrt();
            1.0 / (root * (root + floor.sqrt()))
        };
        let Trapezoid { matrix, direction, largest } =
            covariance.trapezoid(rows, precision, lacking)?;
        scratch.direction = direction;
        scratch.share = largest * lacking(largest);
        let scale = f64::from(LARGEST);
        target.iter_mut().zip(packed(&matrix)).for_each(|(t, &v)| *t = (v * scale) as f32);
        finite(target, (1.0 / floor.sqrt()) as f32)
    }

    fn correct(rounded: &[u16], scratch: &Scratch, correction: &mut [u16]) {
        write_correction(rounded, &scratch.direction, scratch.share, correction);
    }

    #[inline(always)]
    fn measure<S: Simd>(simd: S, measured: Measured<'_>) {
        let Measured { mut images, numbers, range, d, scale, distances, buffer } = measured;
        for b in 0..distances.len() {
            let (x, z) = images.of(b);
            z.copy_from_slice(x);
        }
        let kept = match numbers {
            NumbersRef::F32(_) => 0,
            NumbersRef::F16(_) => Self::correction(d, Precision::F16),
        };
        let correction = range.end - kept..range.end;
        let range = range.start..correction.start;
        images.by_rows::<S, Remove>(simd, numbers, range, d, buffer);
        if let NumbersRef::F16(bits) = numbers {
            add_correction(simd, &mut images, &bits[correction], d, buffer);
        }
        images.lengths(simd, d, scale, distances);
    }

    fn inverse(packed: &Packed<'_>) -> DMatrix<f64> {
        let d = packed.dimension;
        let rows = packed.upper() / f64::from(LARGEST);
        let mut root = DMatrix::identity(d, d) - rows.tr_mul(&rows);
        if let Some((direction, error)) = correction_of(packed) {
            root += error * direction.transpose();
        }
        root.tr_mul(&root)
    }

    fn multiply(packed: &Packed<'_>, x: &DVector<f64>) -> DVector<f64> {
        let rows = packed.upper() / f64::from(LARGEST);
        let correction = correction_of(packed);
        // The inverse root is symmetric, except for the correction.
        let remove = |x: &DVector<f64>| x - rows.tr_mul(&(&rows * x));
        let mut root = remove(x);
        if let Some((direction, error)) = &correction {
            root += error * direction.dot(x);
        }
        let mut product = remove(&root);
        if let Some((direction, error)) = &correction {
            product += direction * error.dot(&root);
        }
        product
    }

    fn on_device(source: &DeviceSource<'_>) -> Box<dyn DeviceForm> {
        let (d, count) = (source.dimension, source.gaussians.len());
        let kept = Self::correction(d, source.kept);
        let unscaled = |packed: &[f32], _: f32, target: &mut [f32]| {
            source.unpack(&packed[..packed.len() - kept], LARGEST.recip(), target);
        };
        // If there are no rows, one row of zeros, which has no effect.
        let rows = source.rows.max(1);
        let corrections = [0, 1].map(|which| {
            let part = move |packed: &[f32], _: f32, target: &mut [f32]| {
                let all = &packed[packed.len() - kept..];
                let half = all.iter().skip(which * d);
                target.iter_mut().zip(half).for_each(|(t, v)| *t = v / LARGEST);
            };
            (kept > 0).then(|| source.float(source.filled(d, &part), [count, d, 1]))
        });
        let [q, c] = corrections;
        let scales = source.scales[source.gaussians.clone()].to_vec();
        Box::new(OnDevice {
            rows: source.matrix(source.filled(rows * d, &unscaled), [count, rows, d]),
            correction: q.zip(c).map(|(q, c)| [q, c]),
            scales: source.float(scales, [count, 1, 1]),
        })
    }
}

/// The direction `q` of the correction, and the vector `c`.
fn correction_of(packed: &Packed<'_>) -> Option<(DVector<f64>, DVector<f64>)> {
    let d = packed.dimension;
    let kept = LowRank::correction(d, packed.precision);
    let correction = &packed.values[packed.values.len() - kept..];
    let vector =
        |part: &[f32]| DVector::from_iterator(d, part.iter().map(|&v| f64::from(v / LARGEST)));
    (!correction.is_empty()).then(|| (vector(&correction[..d]), vector(&correction[d..])))
}

/// `z -= Y^T Y x` for some rows of `Y`, which are stored times [`LARGEST`].
struct Remove;

impl Step for Remove {
    #[inline(always)]
    fn apply<S: Simd, T: Number, const N: usize>(
        simd: S,
        rows: &Rows<'_, T>,
        x: [&[f32]; N],
        z: [&mut [f32]; N],
    ) {
        let mut factors = rows.dots(simd, x);
        for factor in factors.iter_mut().flatten() {
            *factor *= -1.0 / (LARGEST * LARGEST);
        }
        rows.add(simd, factors, z);
    }
}

/// Adds the correction `c (q x)`. `bits`: `q`, then `c`, each times [`LARGEST`].
#[inline(always)]
fn add_correction<S: Simd>(
    simd: S,
    images: &mut Images<'_>,
    bits: &[u16],
    d: usize,
    buffer: &mut Vec<f32>,
) {
    buffer.resize(buffer.len().max(2 * images.padded), 0.0);
    let (q, c) = buffer[..2 * images.padded].split_at_mut(images.padded);
    for (target, bits) in [(&mut *q, &bits[..d]), (&mut *c, &bits[d..])] {
        target.fill(0.0);
        target.iter_mut().zip(bits).for_each(|(t, v)| *t = v.unpack());
    }
    let (q, _) = S::as_simd_f32s(q);
    let (c, _) = S::as_simd_f32s(c);
    for b in 0..images.result.len() / images.padded {
        let (x, z) = images.of(b);
        let (x, _) = S::as_simd_f32s(x);
        let mut sum = simd.splat_f32s(0.0);
        for (x, q) in x.iter().zip(q) {
            sum = simd.mul_add_e_f32s(*x, *q, sum);
        }
        let amount = simd.reduce_sum_f32s(sum) / (LARGEST * LARGEST);
        let amount = simd.splat_f32s(amount);
        let (z, _) = S::as_mut_simd_f32s(z);
        for (z, c) in z.iter_mut().zip(c) {
            *z = simd.mul_add_e_f32s(amount, *c, *z);
        }
    }
}

/// The distance is the length of `(x - Y^T Y x + c (q x)) / sqrt(floor)`. `Y`:
/// `[gaussians, rows, dimension]`.
#[derive(Debug)]
struct OnDevice {
    rows: Tensor<3>,
    /// `q` and `c`, `[gaussians, dimension, 1]`.
    correction: Option<[Tensor<3>; 2]>,
    /// `1 / sqrt(floor)`, `[gaussians, 1, 1]`.
    scales: Tensor<3>,
}

impl DeviceForm for OnDevice {
    fn distances(&self, x: Tensor<3>, precision: Precision) -> Tensor<3> {
        let Self { rows, correction, scales } = self;
        let along = multiply(rows.clone(), x.clone(), precision);
        let mut z = x.clone() - multiply(rows.clone().swap_dims(1, 2), along, precision);
        if let Some([q, c]) = correction {
            z = z + c.clone() * (q.clone() * x).sum_dim(1);
        }
        length(z) * scales.clone()
    }
}

/// Computes the correction of rounded rows along a unit vector `q`. Writes the bits of `q` and of the
/// rounding error `c = Y^T Y q - share q`: exact rows would give `Y^T Y q = share q`.
fn write_correction(rounded: &[u16], direction: &[f64], share: f64, bits: &mut [u16]) {
    let d = direction.len();
    let largest = f64::from(LARGEST);
    let mut product: Vec<f64> = direction.iter().map(|q| -share * q).collect();
    for (i, row) in trapezoid_rows(rounded, d).enumerate() {
        let values = || row.iter().map(|bits| f64::from(bits.unpack()) / largest);
        let dot: f64 = values().zip(&direction[i..]).map(|(y, q)| y * q).sum();
        product[i..].iter_mut().zip(values()).for_each(|(p, y)| *p += dot * y);
    }
    let scaled: Vec<f32> = direction.iter().chain(&product).map(|v| (v * largest) as f32).collect();
    to_half(&scaled, bits);
}

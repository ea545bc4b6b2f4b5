//! Code that all forms share on devices.

use std::fmt::Debug;
use std::ops::Range;

use burn::tensor::{DType, Device, Tensor, TensorData};

use crate::gaussian::numbers::Numbers;
use crate::gaussian::storage::{Precision, trapezoid_rows};
use crate::threads::for_each_chunk;

/// The Gaussians of some positions on a device.
pub trait DeviceForm: Debug + Send + Sync {
    /// The distances `[gaussians, 1, vectors]`. `x`: vectors minus the mean,
    /// `[gaussians, dimension, vectors]`.
    fn distances(&self, x: Tensor<3>, precision: Precision) -> Tensor<3>;
}

/// Converts a position's numbers and scale to the numbers for a device.
type Write<'a> = dyn Fn(&[f32], f32, &mut [f32]) + Sync + 'a;

/// The stored Gaussians of some positions, for copying to a device.
pub struct DeviceSource<'a> {
    pub gaussians: Range<usize>,
    pub dimension: usize,
    pub rows: usize,
    /// The precision of the stored numbers.
    pub kept: Precision,
    /// The stored numbers of all positions.
    pub numbers: &'a Numbers,
    pub scales: &'a [f32],
    pub device: &'a Device,
    /// The precision of products on the device.
    pub precision: Precision,
}

impl DeviceSource<'_> {
    /// A tensor in 32 bits on the device.
    pub fn float(&self, values: Vec<f32>, shape: [usize; 3]) -> Tensor<3> {
        Tensor::from_data(TensorData::new(values, shape), (self.device, DType::F32))
    }

    /// A matrix on the device, in the precision of products.
    pub fn matrix(&self, values: Vec<f32>, shape: [usize; 3]) -> Tensor<3> {
        self.lower(self.float(values, shape))
    }

    pub fn lower(&self, matrix: Tensor<3>) -> Tensor<3> {
        match self.precision {
            Precision::F32 => matrix,
            Precision::F16 => matrix.cast(DType::F16),
        }
    }

    /// `each` numbers for every position, written by several threads, but not by rayon
    /// (`threads.rs`).
    pub fn filled(&self, each: usize, write: &Write) -> Vec<f32> {
        let of_position = self.numbers.len() / self.scales.len();
        let mut values = vec![0.0; self.gaussians.len() * each];
        for_each_chunk(&mut values, each, |place, target| {
            let number = self.gaussians.start + place;
            let range = number * of_position..(number + 1) * of_position;
            write(&self.numbers.to_f32(range), self.scales[number], target);
        });
        values
    }

    /// Unpacks rows and multiplies them by a factor. The elements before the diagonal stay zero.
    pub fn unpack(&self, packed: &[f32], factor: f32, target: &mut [f32]) {
        let d = self.dimension;
        for (i, row) in trapezoid_rows(packed, d).take(self.rows).enumerate() {
            let target = &mut target[i * d + i..(i + 1) * d];
            target.iter_mut().zip(row).for_each(|(t, v)| *t = v * factor);
        }
    }
}

/// The product of a matrix and vectors, which are rounded to the matrix's precision.
pub fn multiply(matrix: Tensor<3>, vectors: Tensor<3>, precision: Precision) -> Tensor<3> {
    match precision {
        Precision::F32 => matrix.matmul(vectors),
        Precision::F16 => matrix.matmul(vectors.cast(DType::F16)).cast(DType::F32),
    }
}

/// The lengths of vectors `[gaussians, dimension, vectors]`.
pub fn length(z: Tensor<3>) -> Tensor<3> {
    z.square().sum_dim(1).sqrt()
}

/// The distance is the length of `M x`. `M`: `[gaussians, rows, dimension]`.
#[derive(Debug)]
pub struct Root(pub Tensor<3>);

impl DeviceForm for Root {
    fn distances(&self, x: Tensor<3>, precision: Precision) -> Tensor<3> {
        length(multiply(self.0.clone(), x, precision))
    }
}

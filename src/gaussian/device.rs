//! Gaussians in the memory of a device, where vectors are measured without leaving it.
//!
//! What is packed for a CPU is unpacked here: devices multiply whole matrices. They are cut by position
//! into parts that fit the buffers of every device.

use std::ops::Range;
use std::sync::Arc;

use burn::tensor::{DType, Device, Int, Tensor, TensorData};

use super::distance::LARGEST;
use super::positions::Positions;
use super::storage::{Precision, Storage, trapezoid_rows};
use super::{GaussianModel, reach_offsets};
use crate::host::{LARGEST_BUFFER, index_tensor};
use crate::latest::Latest;
use crate::threads::for_each_chunk;

/// The copy of a model on the device that was last asked for, in the precision in which it multiplies.
pub(super) type DeviceCopy = Latest<(Device, Precision), DeviceGaussians>;

/// The places of the windows of the reach that was asked for last, on a device.
pub(super) type DeviceWindows = Latest<(Device, usize), Vec<Window>>;

impl GaussianModel {
    /// The Gaussians on a device, multiplied there in this precision.
    pub(crate) fn on_device(&self, device: &Device, precision: Precision) -> Arc<DeviceGaussians> {
        self.on_device.get((device.clone(), precision), |(device, precision)| {
            DeviceGaussians::new(self, device, *precision, LARGEST_BUFFER)
        })
    }

    /// The distances `[batch, grid_height, grid_width]` of embeddings
    /// `[batch, dimension, grid_height, grid_width]` from the nearest Gaussian at most `reach` rows and
    /// columns away, measured on their device; 0 outside the region of interest. Shapes have been checked.
    pub(super) fn measured_on_device(
        &self,
        embeddings: Tensor<4>,
        reach: usize,
        precision: Precision,
    ) -> Tensor<3> {
        let device = embeddings.device();
        let there = self.on_device(&device, precision);
        if reach == 0 || self.positions.pooled() {
            return there.distances(embeddings, &[]);
        }
        let windows = self
            .windows
            .get((device, reach), |(device, reach)| Window::all(&self.positions, *reach, device));
        there.distances(embeddings, &windows)
    }
}

/// All Gaussians of a model, and where its positions lie.
#[derive(Debug)]
pub(crate) struct DeviceGaussians {
    device: Device,
    precision: Precision,
    positions: Positions,
    /// In a region of interest, the places `[positions]` that have numbers, and of each place `[places]`
    /// the number of its position and one more, or 0 outside.
    region: Option<[Tensor<1, Int>; 2]>,
    parts: Vec<Part>,
}

/// One place of the window around each position, seen by all Gaussians.
#[derive(Debug)]
pub(super) struct Window {
    /// The place that each Gaussian looks at; its own where there is none.
    seen: Tensor<1, Int>,
    /// The Gaussian that has looked at each place; behind them all stand the places' own.
    by: Tensor<1, Int>,
}

impl Window {
    /// The places of a window but its middle.
    pub fn all(positions: &Positions, reach: usize, device: &Device) -> Vec<Self> {
        let at = |offset: [isize; 2]| {
            let seen = |number: usize| {
                let place = positions.place(number);
                positions.moved(place, offset).map_or(place, |other| positions.place(other))
            };
            let back = offset.map(|o| -o);
            let by = |number: usize| {
                let other = positions.moved(positions.place(number), back);
                other.unwrap_or(positions.len() + number)
            };
            let indices = |of: &dyn Fn(usize) -> usize| {
                let indices: Vec<usize> = (0..positions.len()).map(of).collect();
                index_tensor(&indices, device)
            };
            Self { seen: indices(&seen), by: indices(&by) }
        };
        reach_offsets(reach).map(at).collect()
    }
}

/// Writes what a device needs of a position's numbers and scale.
type Write<'a> = dyn Fn(&[f32], f32, &mut [f32]) + Sync + 'a;

/// The Gaussians of some positions.
#[derive(Debug)]
struct Part {
    gaussians: Range<usize>,
    /// `[gaussians, dimension, 1]`
    means: Tensor<3>,
    form: Form,
}

/// What becomes of vectors `x` less the mean, `[gaussians, dimension, vectors]`. The distance is the
/// length of `z`.
// A tensor's handle is a few hundred bytes; beside what it stands for, that is nothing.
#[allow(clippy::large_enum_variant)]
#[derive(Debug)]
enum Form {
    /// `z = M x` with `M` `[gaussians, rows, dimension]`.
    Root(Tensor<3>),
    /// Of `M`, the whole inverse: the distance is the root of `x^T M x`.
    Inverse(Tensor<3>),
    /// `z = (x - Y^T Y x + c (q x)) / sqrt(floor)` with `Y` `[gaussians, rows, dimension]`.
    LowRank {
        rows: Tensor<3>,
        /// `q` and `c`, `[gaussians, dimension, 1]`.
        correction: Option<[Tensor<3>; 2]>,
        /// `1 / sqrt(floor)`, `[gaussians, 1, 1]`.
        scales: Tensor<3>,
    },
    /// `z = w x`, component by component, `[gaussians, dimension, 1]`.
    Diagonal(Tensor<3>),
}

impl DeviceGaussians {
    /// In parts of so many bytes at most, but of one Gaussian at least.
    pub(super) fn new(
        model: &GaussianModel,
        device: &Device,
        precision: Precision,
        largest: usize,
    ) -> Self {
        let rows = match model.storage {
            Storage::Diagonal => 1,
            _ => model.rows.max(1),
        };
        let together = (largest / (4 * rows * model.dimension)).max(1);
        let count = model.positions.gaussians();
        let parts = (0..count).step_by(together).map(|first| {
            let gaussians = first..count.min(first + together);
            Part::new(model, gaussians, device, precision)
        });
        let positions = model.positions.clone();
        let region = positions.mask().map(|mask| {
            let inside: Vec<usize> = (0..mask.len()).filter(|&place| mask[place]).collect();
            let source = |place| positions.number(place).map_or(0, |number| number + 1);
            let sources: Vec<usize> = (0..mask.len()).map(source).collect();
            [inside, sources].map(|indices| index_tensor(&indices, device))
        });
        Self { device: device.clone(), precision, positions, region, parts: parts.collect() }
    }

    /// The distances `[batch, grid_height, grid_width]` of embeddings
    /// `[batch, dimension, grid_height, grid_width]` from the nearest Gaussian of the places of a window
    /// around each position (none: from its own); 0 outside the region of interest. Shapes have been
    /// checked.
    pub(super) fn distances(&self, embeddings: Tensor<4>, windows: &[Window]) -> Tensor<3> {
        let [batch, dimension, height, width] = embeddings.dims();
        let vectors = embeddings.reshape([batch, dimension, height * width]).permute([2, 1, 0]);
        let distances = if self.positions.pooled() {
            self.to_only(vectors)
        } else if windows.is_empty() {
            self.to_own(self.inside(vectors))
        } else {
            self.to_nearest(vectors, windows)
        };
        self.spread_out(distances.swap_dims(0, 1)).reshape([batch, height, width])
    }

    /// Those of all `[places, dimension, batch]` that have numbers.
    fn inside(&self, vectors: Tensor<3>) -> Tensor<3> {
        match &self.region {
            None => vectors,
            Some([inside, _]) => vectors.select(0, inside.clone()),
        }
    }

    /// `[positions, batch]`, of the Gaussians at the vectors' own positions.
    fn to_own(&self, vectors: Tensor<3>) -> Tensor<2> {
        let measure = |part: &Part| {
            let Range { start, end } = part.gaussians;
            part.distances(vectors.clone().narrow(0, start, end - start), self.precision)
        };
        Tensor::cat(self.parts.iter().map(measure).collect(), 0)
    }

    /// `[positions, batch]`, of the only Gaussian.
    fn to_only(&self, vectors: Tensor<3>) -> Tensor<2> {
        let vectors = self.inside(vectors);
        let [positions, dimension, batch] = vectors.dims();
        let all = vectors.permute([1, 0, 2]).reshape([1, dimension, positions * batch]);
        self.to_own(all).reshape([positions, batch])
    }

    /// `[positions, batch]`, of the nearest Gaussians: each measures all vectors around it, one place of
    /// its window after the other.
    fn to_nearest(&self, vectors: Tensor<3>, windows: &[Window]) -> Tensor<2> {
        let own = self.to_own(self.inside(vectors.clone()));
        windows.iter().fold(own.clone(), |nearest, Window { seen, by }| {
            let around = self.to_own(vectors.clone().select(0, seen.clone()));
            let all = Tensor::cat(vec![around, own.clone()], 0);
            nearest.min_pair(all.select(0, by.clone()))
        })
    }

    /// Puts `[batch, positions]` at their places `[batch, places]`; 0 elsewhere.
    fn spread_out(&self, distances: Tensor<2>) -> Tensor<2> {
        let Some([_, sources]) = &self.region else { return distances };
        let [batch, _] = distances.dims();
        let zero = Tensor::zeros([batch, 1], (&self.device, DType::F32));
        Tensor::cat(vec![zero, distances], 1).select(1, sources.clone())
    }
}

impl Part {
    fn new(
        model: &GaussianModel,
        gaussians: Range<usize>,
        device: &Device,
        precision: Precision,
    ) -> Self {
        let (d, count) = (model.dimension, gaussians.len());
        let float = |values: Vec<f32>, shape: [usize; 3]| {
            Tensor::from_data(TensorData::new(values, shape), (device, DType::F32))
        };
        let scale = |number: usize| model.scales[number];
        // One buffer for all positions, filled by several threads.
        let filled = |each: usize, write: &Write| {
            let mut values = vec![0.0; count * each];
            for_each_chunk(&mut values, each, |place, target| {
                let number = gaussians.start + place;
                write(&model.numbers.to_f32(model.range(number)), scale(number), target);
            });
            values
        };
        // The packed rows of a position, with zeros before the diagonal.
        let rows = model.rows;
        let unpack = |packed: &[f32], factor: f32, target: &mut [f32]| {
            for (i, row) in trapezoid_rows(packed, d).take(rows).enumerate() {
                let target = &mut target[i * d + i..(i + 1) * d];
                target.iter_mut().zip(row).for_each(|(t, v)| *t = v * factor);
            }
        };
        let lower = |matrix: Tensor<3>| match precision {
            Precision::F32 => matrix,
            Precision::F16 => matrix.cast(DType::F16),
        };
        let form = match model.storage {
            Storage::Triangle(_) => {
                // The columns of W were packed as rows.
                let columns = float(filled(d * d, &unpack), [count, d, d]);
                Form::Root(lower(columns.swap_dims(1, 2)))
            }
            Storage::Principal(_) => {
                Form::Root(lower(float(filled(rows * d, &unpack), [count, rows, d])))
            }
            Storage::LowRank(_) => {
                let kept = model.storage.correction(d);
                let unscaled = |packed: &[f32], _: f32, target: &mut [f32]| {
                    unpack(&packed[..packed.len() - kept], LARGEST.recip(), target);
                };
                // One image's model has no row: a row of zeros removes nothing.
                let shape = [count, rows.max(1), d];
                let corrections = [0, 1].map(|which| {
                    let part = move |packed: &[f32], _: f32, target: &mut [f32]| {
                        let all = &packed[packed.len() - kept..];
                        let half = all.iter().skip(which * d);
                        target.iter_mut().zip(half).for_each(|(t, v)| *t = v / LARGEST);
                    };
                    (kept > 0).then(|| float(filled(d, &part), [count, d, 1]))
                });
                let [q, c] = corrections;
                Form::LowRank {
                    rows: lower(float(filled(rows.max(1) * d, &unscaled), shape)),
                    correction: q.zip(c).map(|(q, c)| [q, c]),
                    scales: float(gaussians.clone().map(scale).collect(), [count, 1, 1]),
                }
            }
            Storage::Diagonal => Form::Diagonal(float(
                filled(d, &|numbers, scale, target| {
                    target.iter_mut().zip(numbers).for_each(|(t, v)| *t = v * scale);
                }),
                [count, d, 1],
            )),
            Storage::FullInverse | Storage::Auto => {
                let inverse = |numbers: &[f32], scale: f32, target: &mut [f32]| {
                    target.iter_mut().zip(numbers).for_each(|(t, v)| *t = v * scale * scale);
                };
                Form::Inverse(lower(float(filled(d * d, &inverse), [count, d, d])))
            }
        };
        let means = model.means[gaussians.start * d..gaussians.end * d].to_vec();
        Self { means: float(means, [count, d, 1]), gaussians, form }
    }

    /// `[gaussians, vectors]` of `[gaussians, dimension, vectors]`.
    fn distances(&self, vectors: Tensor<3>, precision: Precision) -> Tensor<2> {
        let x = vectors - self.means.clone();
        // A matrix of either precision by vectors that are rounded for it.
        let multiply = |matrix: Tensor<3>, vectors: Tensor<3>| match precision {
            Precision::F32 => matrix.matmul(vectors),
            Precision::F16 => matrix.matmul(vectors.cast(DType::F16)).cast(DType::F32),
        };
        let length = |z: Tensor<3>| z.square().sum_dim(1).sqrt();
        let distances = match &self.form {
            Form::Root(root) => length(multiply(root.clone(), x)),
            Form::Inverse(inverse) => {
                let squared = (multiply(inverse.clone(), x.clone()) * x).sum_dim(1);
                // Rounding can make it negative; what is no number must stay none.
                let negative = squared.clone().lower_elem(0);
                squared.mask_fill(negative, 0).sqrt()
            }
            Form::LowRank { rows, correction, scales } => {
                let along = multiply(rows.clone(), x.clone());
                let mut z = x.clone() - multiply(rows.clone().swap_dims(1, 2), along);
                if let Some([q, c]) = correction {
                    z = z + c.clone() * (q.clone() * x).sum_dim(1);
                }
                length(z) * scales.clone()
            }
            Form::Diagonal(inverse_deviations) => length(x * inverse_deviations.clone()),
        };
        let [gaussians, _, vectors] = distances.dims();
        distances.reshape([gaussians, vectors])
    }
}

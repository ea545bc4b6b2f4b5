//! Gaussians in the memory of a device. Distances are computed there.
//!
//! Packed rows are unpacked to whole matrices, which devices multiply faster. The Gaussians are
//! divided into parts that fit into the buffers of every device.

use std::ops::Range;

use burn::tensor::{DType, Device, Int, Tensor};

use super::forms::{DeviceForm, DeviceSource};
use super::numbers::Numbers;
use super::positions::Positions;
use super::storage::{Precision, Storage};
use super::window::reach_offsets;
use crate::host::index_tensor;
use crate::latest::Latest;

/// The copy of a model on the device that was used last, in the precision of its products.
pub(super) type DeviceCopy = Latest<(Device, Precision), DeviceGaussians>;

/// The window of the reach that was used last, on a device.
pub(super) type DeviceWindows = Latest<(Device, usize), Vec<Window>>;

/// All Gaussians of a model on a device, and the places of its positions.
#[derive(Debug)]
pub(crate) struct DeviceGaussians {
    device: Device,
    precision: Precision,
    positions: Positions,
    /// With a region of interest: the place of each position, `[positions]`, and for each place,
    /// `[places]`, the number of its position plus 1, or 0 outside.
    region: Option<[Tensor<1, Int>; 2]>,
    parts: Vec<Part>,
}

/// One offset of the window, for all positions.
#[derive(Debug)]
pub(super) struct Window {
    /// The place at this offset from each Gaussian; its own place if there is no position.
    seen: Tensor<1, Int>,
    /// Which Gaussian measured each position; indices after all Gaussians mean its own.
    by: Tensor<1, Int>,
}

impl Window {
    /// All offsets of a window except its center.
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

/// The Gaussians of some positions.
#[derive(Debug)]
struct Part {
    gaussians: Range<usize>,
    /// `[gaussians, dimension, 1]`
    means: Tensor<3>,
    form: Box<dyn DeviceForm>,
}

/// The parts of a model, by reference.
pub(super) struct ModelNumbers<'a> {
    pub storage: Storage,
    pub dimension: usize,
    pub rows: usize,
    pub positions: &'a Positions,
    pub means: &'a [f32],
    pub scales: &'a [f32],
    pub numbers: &'a Numbers,
}

impl DeviceGaussians {
    /// Divides the Gaussians into parts of at most `largest` bytes, but at least one Gaussian.
    pub(super) fn new(
        model: &ModelNumbers<'_>,
        device: &Device,
        precision: Precision,
        largest: usize,
    ) -> Self {
        let each = model.storage.device_numbers(model.dimension, model.rows).unwrap_or(1);
        let together = (largest / (4 * each.max(1))).max(1);
        let count = model.positions.gaussians();
        let parts = (0..count).step_by(together).filter_map(|first| {
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
    /// `[batch, dimension, grid_height, grid_width]` from the nearest Gaussian of a window around each
    /// position; without windows, from its own. 0 outside the region of interest. The caller has
    /// checked the shapes.
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

    /// The vectors inside the region, from those of all places `[places, dimension, batch]`.
    fn inside(&self, vectors: Tensor<3>) -> Tensor<3> {
        match &self.region {
            None => vectors,
            Some([inside, _]) => vectors.select(0, inside.clone()),
        }
    }

    /// The distances `[positions, batch]` from the Gaussians at the vectors' own positions.
    fn to_own(&self, vectors: Tensor<3>) -> Tensor<2> {
        let measure = |part: &Part| {
            let Range { start, end } = part.gaussians;
            part.distances(vectors.clone().narrow(0, start, end - start), self.precision)
        };
        Tensor::cat(self.parts.iter().map(measure).collect(), 0)
    }

    /// The distances `[positions, batch]` from the pooled Gaussian.
    fn to_only(&self, vectors: Tensor<3>) -> Tensor<2> {
        let vectors = self.inside(vectors);
        let [positions, dimension, batch] = vectors.dims();
        let all = vectors.permute([1, 0, 2]).reshape([1, dimension, positions * batch]);
        self.to_own(all).reshape([positions, batch])
    }

    /// The distances `[positions, batch]` from the nearest Gaussians: for one offset of the window
    /// after the other, each Gaussian measures the vector at this offset.
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
        model: &ModelNumbers<'_>,
        gaussians: Range<usize>,
        device: &Device,
        precision: Precision,
    ) -> Option<Self> {
        let d = model.dimension;
        let source = DeviceSource {
            gaussians: gaussians.clone(),
            dimension: d,
            rows: model.rows,
            kept: model.storage.precision(),
            numbers: model.numbers,
            scales: model.scales,
            device,
            precision,
        };
        let means = model.means[gaussians.start * d..gaussians.end * d].to_vec();
        let means = source.float(means, [gaussians.len(), d, 1]);
        Some(Self { means, form: model.storage.on_device(&source)?, gaussians })
    }

    /// The distances `[gaussians, vectors]` of vectors `[gaussians, dimension, vectors]`.
    fn distances(&self, vectors: Tensor<3>, precision: Precision) -> Tensor<2> {
        let distances = self.form.distances(vectors - self.means.clone(), precision);
        let [gaussians, _, vectors] = distances.dims();
        distances.reshape([gaussians, vectors])
    }
}

//! Statistics of the embedding vectors at consecutive positions.

use std::ops::{Deref, Range};

use rayon::prelude::*;

use super::fold::{PositionSums, Workspace};
use super::positions::Positions;
use super::storage::trapezoid_len;
use super::sums::{Deviations, Sums};
use crate::embedding::PatchVectors;

/// Statistics of consecutive positions: the vectors themselves while there are few, which is exact
/// and smaller than their sums; later the sums, plus the vectors that came since.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Block {
    /// The number of the first position.
    pub first: usize,
    pub positions: usize,
    dimension: usize,
    /// `[images, positions, dimension]`
    pub samples: Samples,
    pub sums: Option<PackedSums>,
}

/// A growing array. New memory comes zeroed from the operating system and is written once.
/// `Vec::resize` would first fill it with zeros, which takes as long again.
#[derive(Debug, Clone, Default)]
pub(crate) struct Samples {
    values: Vec<f32>,
    len: usize,
}

impl Samples {
    /// How many more numbers fit into the memory.
    fn room(&self) -> usize {
        self.values.len() - self.len
    }

    /// Makes room for more numbers, if there is not enough.
    fn reserve(&mut self, additional: usize) {
        if self.room() < additional {
            let mut values = vec![0.0; self.len + additional];
            values[..self.len].copy_from_slice(self);
            self.values = values;
        }
    }

    /// Appends numbers, and returns them for writing.
    fn grow(&mut self, additional: usize) -> &mut [f32] {
        self.reserve(additional);
        let start = self.len;
        self.len += additional;
        &mut self.values[start..self.len]
    }

    fn append(&mut self, other: Self) {
        self.grow(other.len).copy_from_slice(&other);
    }

    /// Removes all numbers, and keeps room for at most `room` numbers.
    fn clear(&mut self, room: usize) {
        self.len = 0;
        if self.values.len() > room {
            self.values = vec![0.0; room];
        }
    }
}

impl From<Vec<f32>> for Samples {
    fn from(values: Vec<f32>) -> Self {
        Self { len: values.len(), values }
    }
}

impl Deref for Samples {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.values[..self.len]
    }
}

impl PartialEq for Samples {
    fn eq(&self, other: &Self) -> bool {
        self[..] == other[..]
    }
}

/// [`Sums`] of several positions: each array holds one position after the other.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct PackedSums {
    /// `[positions, dimension]`
    pub mean: Vec<f64>,
    /// `[positions, dimension]`
    pub third: Vec<f64>,
    /// `[positions]`
    pub fourth: Vec<f64>,
    /// `[positions, dimension * (dimension + 1) / 2]`, the lower triangles, column by column.
    pub scatter: Vec<f64>,
}

impl PackedSums {
    /// The arrays, in the order of the fields.
    pub fn arrays(&self) -> [&[f64]; 4] {
        [&self.mean, &self.third, &self.fourth, &self.scatter]
    }

    /// The lengths of the arrays, in the order of the fields.
    pub fn lengths(positions: usize, dimension: usize) -> [usize; 4] {
        let triangle = trapezoid_len(dimension, dimension);
        [positions * dimension, positions * dimension, positions, positions * triangle]
    }

    fn zeros(positions: usize, dimension: usize) -> Self {
        let [mean, third, fourth, scatter] = Self::lengths(positions, dimension);
        Self {
            mean: vec![0.0; mean],
            third: vec![0.0; third],
            fourth: vec![0.0; fourth],
            scatter: vec![0.0; scatter],
        }
    }
}

fn pack(sums: &Sums, target: &mut [f64]) {
    let columns = sums.scatter.col_iter().enumerate();
    let packed = columns.flat_map(|(j, column)| column.iter().skip(j));
    target.iter_mut().zip(packed).for_each(|(t, &v)| *t = v);
}

fn unpack(weight: f64, mean: Vec<f64>, third: Vec<f64>, fourth: f64, packed: &[f64]) -> Sums {
    let d = mean.len();
    let mut scatter = faer::Mat::zeros(d, d);
    let mut rest = packed;
    for (j, column) in scatter.col_iter_mut().enumerate() {
        let (values, behind) = rest.split_at(d - j);
        if let Some(column) = column.try_as_col_major_mut() {
            column.as_slice_mut()[j..].copy_from_slice(values);
        }
        rest = behind;
    }
    Sums { weight, mean, scatter, third, fourth }
}

/// The minimum size of a full block. Freed allocations of this size go back to the operating system
/// (glibc adapts its threshold for this, but not beyond 32 MiB). So a freed block makes room for the
/// part of the model that is computed from it.
const BLOCK_BYTES: usize = 33 << 20;
/// A block is full with this number of images, or with one image per dimension, if that is less.
const FULL: usize = 60;

impl Block {
    /// The number of positions per block.
    pub fn size(positions: usize, dimension: usize) -> usize {
        BLOCK_BYTES.div_ceil(4 * dimension * dimension.min(FULL)).min(positions)
    }

    /// Divides positions into blocks.
    pub fn cut(positions: usize, dimension: usize) -> Vec<Self> {
        let size = Self::size(positions, dimension);
        let block = |first| {
            let positions = size.min(positions - first);
            Self { first, positions, dimension, samples: Samples::default(), sums: None }
        };
        (0..positions).step_by(size).map(block).collect()
    }

    /// A block of one position with these vectors.
    pub fn of_vectors(dimension: usize, vectors: Vec<f32>) -> Self {
        Self { first: 0, positions: 1, dimension, samples: vectors.into(), sums: None }
    }

    /// The size of the vectors and sums in bytes.
    pub fn size_in_bytes(&self) -> usize {
        let sums: usize = match self.sums {
            Some(_) => PackedSums::lengths(self.positions, self.dimension).iter().sum(),
            None => 0,
        };
        4 * self.samples.len() + 8 * sums
    }

    /// Makes room for `room` more images, if there is no room for `needed`.
    pub fn make_room(&mut self, needed: usize, room: usize) {
        let image = self.positions * self.dimension;
        if self.samples.room() < needed * image {
            self.samples.reserve(room.max(needed) * image);
        }
    }

    /// Adds the vectors of some images.
    pub fn push(
        &mut self,
        vectors: &dyn PatchVectors,
        positions: &Positions,
        images: Range<usize>,
    ) {
        let (first, count) = (self.first, self.positions);
        let targets = self.samples.grow(images.len() * count * self.dimension);
        // In parallel, because there may be few blocks.
        let targets = targets.par_chunks_exact_mut(self.dimension).enumerate();
        targets.with_min_len(64).for_each(|(number, target)| {
            let place = positions.place(first + number % count);
            vectors.write(images.start + number / count, place, target);
        });
    }

    /// The vectors of a position.
    fn vectors(&self, position: usize) -> impl ExactSizeIterator<Item = &[f32]> + Clone {
        let d = self.dimension;
        let images = self.samples.chunks_exact(self.positions * d);
        images.map(move |image| &image[position * d..(position + 1) * d])
    }

    /// The vectors of a position minus their mean; `None` if earlier vectors are only in the sums.
    pub(super) fn deviations(&self, position: usize, weights: &[f64]) -> Option<Deviations> {
        match self.sums {
            None => Some(Deviations::new(self.dimension, self.vectors(position), weights)),
            Some(_) => None,
        }
    }

    /// The sums of all vectors of a position. `weights`: the samples' weights; `folded`: the weight
    /// in the sums so far.
    pub(super) fn sums(&self, position: usize, weights: &[f64], folded: f64) -> Sums {
        let d = self.dimension;
        let Some(packed) = &self.sums else {
            return Deviations::new(d, self.vectors(position), weights).sums(weights);
        };
        let run = position * d..(position + 1) * d;
        let triangle = trapezoid_len(d, d);
        let mut mean = packed.mean[run.clone()].to_vec();
        let mut third = packed.third[run].to_vec();
        let mut fourth = packed.fourth[position];
        let mut scatter = packed.scatter[position * triangle..(position + 1) * triangle].to_vec();
        let mut sums = PositionSums {
            mean: &mut mean,
            third: &mut third,
            fourth: &mut fourth,
            scatter: &mut scatter,
        };
        sums.fold(self.vectors(position), weights, folded, &mut Workspace::default());
        let total = folded + weights.iter().sum::<f64>();
        unpack(total, mean, third, fourth, &scatter)
    }

    /// Adds the samples to the sums. Keeps room for `room` further images.
    pub fn fold(&mut self, weights: &[f64], folded: f64, room: usize) {
        if self.samples.is_empty() {
            return;
        }
        let (d, samples) = (self.dimension, &self.samples);
        let image_len = self.positions * d;
        let sums = self.sums.get_or_insert_with(|| PackedSums::zeros(self.positions, d));
        let PackedSums { mean, third, fourth, scatter } = sums;
        let moments = mean.par_chunks_exact_mut(d).zip(third.par_chunks_exact_mut(d)).zip(fourth);
        moments.zip(scatter.par_chunks_exact_mut(trapezoid_len(d, d))).enumerate().for_each_init(
            Workspace::default,
            |workspace, (position, (((mean, third), fourth), scatter))| {
                let run = position * d..(position + 1) * d;
                let vectors = samples.chunks_exact(image_len).map(|image| &image[run.clone()]);
                let mut sums = PositionSums { mean, third, fourth, scatter };
                sums.fold(vectors, weights, folded, workspace);
            },
        );
        self.samples.clear(room * image_len);
    }

    /// Moves the samples of another block into this one.
    pub fn append(&mut self, other: &mut Self) {
        self.samples.append(std::mem::take(&mut other.samples));
    }

    /// Adds the sums of another block, which has no samples. `weight`, `other_weight`: the weights in
    /// the sums of both.
    pub fn merge(&mut self, weight: f64, other: &Self, other_weight: f64) {
        self.replace_sums(|block, position| {
            let mut sums = block.sums(position, &[], weight);
            sums.merge(other.sums(position, &[], other_weight));
            sums
        });
    }

    fn replace_sums(&mut self, sums: impl Fn(&Self, usize) -> Sums + Sync) {
        let d = self.dimension;
        // A few positions at a time: the new sums are computed from the old ones, then replace them.
        let mut target = self.sums.is_none().then(|| PackedSums::zeros(self.positions, d));
        let triangle = trapezoid_len(d, d);
        const RUN: usize = 32;
        for first in (0..self.positions).step_by(RUN) {
            let run: Vec<usize> = (first..(first + RUN).min(self.positions)).collect();
            let computed: Vec<Sums> =
                run.par_iter().map(|&position| sums(&*self, position)).collect();
            let Some(packed) = target.as_mut().or(self.sums.as_mut()) else { return };
            for (position, sums) in run.into_iter().zip(computed) {
                packed.mean[position * d..(position + 1) * d].copy_from_slice(&sums.mean);
                packed.third[position * d..(position + 1) * d].copy_from_slice(&sums.third);
                packed.fourth[position] = sums.fourth;
                pack(&sums, &mut packed.scatter[position * triangle..(position + 1) * triangle]);
            }
        }
        if target.is_some() {
            self.sums = target;
        }
    }

    /// Multiplies the weight in the sums by a factor. The means stay.
    pub fn scale_sums(&mut self, factor: f64) {
        if let Some(PackedSums { third, fourth, scatter, .. }) = &mut self.sums {
            for values in [third, fourth, scatter] {
                values.par_iter_mut().with_min_len(1 << 14).for_each(|v| *v *= factor);
            }
        }
    }
}

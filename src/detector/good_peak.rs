//! The highest score of a pixel in good images, from the images of the fit itself.

use std::collections::VecDeque;

use super::padim::Padim;
use crate::embedding::{DenseVectors, PartOfBatch, PatchVectors};
use crate::error::Result;
use crate::gaussian::GaussianModel;

/// More images are not needed to see how high a good map goes.
const IMAGES: usize = 8;
/// The most bytes of embeddings, if there is more than one image.
const BYTES: usize = 32 << 20;
/// The most of a model that a single image may account for. Without this limit, rounding could make a
/// distance infinite.
const MOST: f64 = 0.999;

/// The embeddings of the last images of a fit, each with the number of its model.
#[derive(Debug, Clone, Default)]
pub(crate) struct LastImages(VecDeque<(usize, DenseVectors)>);

impl LastImages {
    /// How many images are kept whose embeddings have so many bytes.
    pub fn most(bytes: usize) -> usize {
        IMAGES.min(BYTES / bytes.max(1)).max(1)
    }

    /// Whether one of the last images is among `done` images of `total`, if that is known.
    pub fn may_be_among(done: usize, total: Option<usize>) -> bool {
        total.is_none_or(|total| done.saturating_add(IMAGES) > total)
    }

    /// Adds the images of a batch.
    pub fn push(&mut self, model: usize, batch: &dyn PatchVectors) {
        let (count, most) = (batch.shape()[0], most_of(batch));
        for image in count.saturating_sub(most)..count {
            let one = PartOfBatch { vectors: batch, images: image..image + 1 };
            self.0.push_back((model, DenseVectors::copied(&one)));
        }
        self.keep(most);
    }

    /// Adds the last images of another fit.
    pub fn append(&mut self, other: Self) {
        self.0.extend(other.0);
        if let Some((_, vectors)) = self.0.back() {
            self.keep(most_of(vectors));
        }
    }

    fn keep(&mut self, most: usize) {
        let surplus = self.0.len().saturating_sub(most);
        self.0.drain(..surplus);
    }

    /// The highest value in the maps of these images, each scored as if it had not been in the fit. `None`
    /// without images, and if the fit had fewer than three.
    pub fn peak(
        &self,
        padim: &Padim,
        models: &[&GaussianModel],
        size: [usize; 2],
    ) -> Result<Option<f32>> {
        let mut peak: Option<f32> = None;
        for (number, vectors) in &self.0 {
            let Some(model) = models.get(*number) else { continue };
            let count = model.vectors_per_gaussian();
            if count < 3 {
                continue;
            }
            let mut distances = model.distances_of(vectors, 0)?;
            for distance in &mut distances {
                *distance = left_out(*distance, count);
            }
            let [rows, columns] = model.grid();
            let region = padim.region.as_ref();
            let scored = padim.scorer.score_host(&distances, [1, rows, columns], size, region)?;
            let highest = scored.iter().map(|scored| scored.map.max()).reduce(f32::max);
            peak = peak.into_iter().chain(highest).reduce(f32::max);
        }
        Ok(peak)
    }
}

/// How many images like those of a batch are kept.
fn most_of(batch: &dyn PatchVectors) -> usize {
    let [_, dimension, height, width] = batch.shape();
    LastImages::most(4 * dimension * height * width)
}

/// The distance of a vector to the Gaussian of the other vectors, from its distance to the Gaussian of all
/// `count` vectors, at least 3, of which it is one.
///
/// Without the vector `x`, the mean moves by `(x - mean) / (n - 1)`, and the scatter loses
/// `n / (n - 1) (x - mean)(x - mean)'`. The formula of Sherman and Morrison gives the inverse. The
/// regularization is taken as `(n - 1) / (n - 2)` times what it is.
fn left_out(distance: f32, count: usize) -> f32 {
    let (n, q) = (count as f64, f64::from(distance).powi(2));
    let share = (q * n / (n - 1.0).powi(2)).min(MOST);
    let squared = (n / (n - 1.0)).powi(2) * (n - 2.0) / (n - 1.0) * q / (1.0 - share);
    squared.sqrt() as f32
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::gaussian::{GaussianConfig, GaussianStatistics, Positions};

    const D: usize = 4;

    fn model(vectors: &[f32]) -> GaussianModel {
        let positions = Positions::of([1, 1], None, false).unwrap();
        let mut statistics = GaussianStatistics::new(D, positions);
        statistics.update(&DenseVectors::at_one_place(vectors.to_vec(), D)).unwrap();
        let config = GaussianConfig::default().with_epsilon(1e-4);
        statistics.model(&config).unwrap()
    }

    proptest! {
        #[test]
        fn a_vector_is_left_out_as_by_a_fit_without_it(
            values in prop::collection::vec(-1.0_f32..1.0, 12 * D..60 * D),
        ) {
            let values = &values[..values.len() / D * D];
            let (others, one) = values.split_at(values.len() - D);
            let vector = DenseVectors::at_one_place(one.to_vec(), D);
            let of = |values: &[f32]| model(values).distances_of(&vector, 0).unwrap()[0];
            let (with, without) = (of(values), of(others));
            let corrected = left_out(with, values.len() / D);
            prop_assert!((corrected - without).abs() < 0.01 * without, "{corrected} {without}");
        }
    }

    #[test]
    fn the_last_images_are_kept_in_any_batches() {
        let mut last = LastImages::default();
        let mut next = 0..20;
        for size in [3, 1, 12, 4] {
            let values = next.by_ref().take(size).map(|i| i as f32).collect();
            last.push(0, &DenseVectors::at_one_place(values, 1));
        }
        let mut other = LastImages::default();
        other.push(1, &DenseVectors::at_one_place(vec![99.0], 1));
        last.append(other);
        let value = |vectors: &DenseVectors| {
            let mut value = [0.0];
            vectors.write(0, 0, &mut value);
            value[0]
        };
        let kept: Vec<(usize, f32)> = last.0.iter().map(|(model, v)| (*model, value(v))).collect();
        let expected: Vec<_> = (13..20).map(|i| (0, i as f32)).chain([(1, 99.0)]).collect();
        assert_eq!(kept, expected);
    }
}

//! Chooses the storage when the number of images is known.

use rayon::prelude::*;

use super::config::GaussianConfig;
use super::covariance::Scratch;
use super::half::NumbersRef;
use super::measure::{Position, Workspace};
use super::statistics::GaussianStatistics;
use super::storage::{Precision, Storage, trapezoid_len};
use crate::embedding::DenseVectors;
use crate::error::{Error, Result};
use crate::instructions;

impl GaussianStatistics {
    /// The storage for these settings and the images so far, and its number of rows.
    pub(super) fn choose(&self, config: &GaussianConfig) -> Result<(Storage, usize)> {
        let count = self.positions.vectors(self.tally.count);
        // If the effective count is 1, the unbiased divisor is 0.
        if count < 2 || self.tally.effective_count() < 1.0 + 1e-9 {
            return Err(Error::TooFewImages { count: self.tally.count });
        }
        let (storage, rows) = Self::foreseen(config, self.dimension, count)?;
        match config.storage {
            Storage::Auto => self.probed(config, storage, rows),
            _ => Ok((storage, rows)),
        }
    }

    /// The storage for these settings and `count` vectors per Gaussian, and its number of rows. For
    /// [`Storage::Auto`], this assumes 16 bits.
    pub(crate) fn foreseen(
        config: &GaussianConfig,
        dimension: usize,
        count: usize,
    ) -> Result<(Storage, usize)> {
        config.check(dimension)?;
        let fail = |field, reason| Err(Error::config(field, reason));
        match (config.storage, config.components) {
            (_, Some(k)) if k >= count => fail(
                "components",
                format!("{count} images give at most {} components, not {k}", count.max(1) - 1),
            ),
            (Storage::Auto, Some(k)) => Ok((Storage::Principal(Precision::F16), k)),
            (storage, Some(k)) => Ok((storage, k)),
            (Storage::LowRank(_), _) if count > dimension => fail(
                "storage",
                format!(
                    "low rank takes at most as many images as dimensions, got {count} and {dimension}"
                ),
            ),
            (storage @ Storage::LowRank(_), _) => Ok((storage, count.max(1) - 1)),
            (Storage::Auto, None) => Ok(match automatic_rows(dimension, count) {
                Some(rows) => (Storage::LowRank(Precision::F16), rows),
                None => (Storage::Triangle(Precision::F16), dimension),
            }),
            (storage, None) => Ok((storage, dimension)),
        }
    }

    /// The storage in 16 bits; in 32 if 16 are too coarse at some sample positions, for random
    /// vectors from their Gaussians.
    fn probed(
        &self,
        config: &GaussianConfig,
        storage: Storage,
        rows: usize,
    ) -> Result<(Storage, usize)> {
        const POSITIONS: usize = 16;
        const PROBES: usize = 4;
        const TOLERANCE: f32 = 1e-3;
        let (d, total) = (self.dimension, self.positions.gaussians());
        let fine = storage.with_precision(Precision::F32);
        let each = fine.numbers(d, rows).unwrap_or(0);
        let sample: Vec<usize> =
            (0..POSITIONS.min(total)).map(|i| i * total / POSITIONS.min(total)).collect();
        let worst = sample.par_iter().map(|&number| {
            let block = self.blocks.iter().rfind(|block| block.first <= number);
            let Some(block) = block else { return Ok(0.0) };
            let (_, covariance) = self.covariance(config, block, number - block.first);
            let place = self.positions.place(number);
            let failed = || Error::NotPositiveDefinite { position: place };
            let mut exact = vec![0.0; each];
            let mut scratch = Scratch::new();
            let scale = fine.write(&covariance, rows, &mut exact, &mut scratch);
            let scale = scale.ok_or_else(failed)?;
            let mut coarse = vec![0; each + storage.correction(d)];
            storage.round(&exact, &scratch, &mut coarse);
            let mut vectors = vec![0.0; PROBES * d];
            for probe in 0..PROBES {
                let drawn = covariance.draw(|i| noise(probe * (d + self.tally.count) + i));
                let drawn = drawn.ok_or_else(failed)?;
                for (target, v) in vectors[probe * d..].iter_mut().zip(drawn) {
                    *target = v as f32;
                }
            }
            let vectors = DenseVectors::at_one_place(vectors, d);
            let measure = |storage, numbers, count| {
                let mut distances = [0.0; PROBES];
                instructions::arch().dispatch(Position {
                    storage,
                    mean: &vec![0.0; d],
                    numbers,
                    range: 0..count,
                    scale,
                    vectors: &vectors,
                    places: &[0],
                    distances: &mut distances,
                    workspace: &mut Workspace::default(),
                });
                distances
            };
            let expected = measure(fine, NumbersRef::F32(&exact), exact.len());
            let actual = measure(storage, NumbersRef::F16(&coarse), coarse.len());
            let error = |(a, e): (f32, f32)| if e > 0.0 { (a / e - 1.0).abs() } else { 0.0 };
            Ok(actual.into_iter().zip(expected).map(error).fold(0.0, f32::max))
        });
        let worst = worst.collect::<Result<Vec<f32>>>()?.into_iter().fold(0.0, f32::max);
        Ok((if worst <= TOLERANCE { storage } else { fine }, rows))
    }
}

/// The number of rows of the low rank form, if [`Storage::Auto`] chooses it.
fn automatic_rows(dimension: usize, images: usize) -> Option<usize> {
    let rows = images.saturating_sub(1);
    let pays = rows < dimension
        && 10 * trapezoid_len(dimension, rows) <= 6 * trapezoid_len(dimension, dimension);
    pays.then_some(rows)
}

/// Reproducible noise with mean 0 and variance 1.
fn noise(i: usize) -> f64 {
    let mut bits = (i as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    bits = (bits ^ (bits >> 31)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let uniform = ((bits ^ (bits >> 29)) >> 11) as f64 / (1_u64 << 53) as f64;
    (uniform - 0.5) * 12_f64.sqrt()
}

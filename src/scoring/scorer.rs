//! Computes maps and scores from distances.

use std::sync::Arc;

use burn::tensor::{Device, Tensor};
use rayon::prelude::*;

use super::config::{ScoringConfig, Upsampling};
use super::image_score::ImageScore;
use super::map::AnomalyMap;
use crate::error::{Error, Result};
use crate::host::{is_host, to_device, to_host};
use crate::latest::Latest;
use crate::preprocess::InputRegion;
use crate::resample::{Filter, Taps, resample};

/// The anomaly map of an image and its score.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct ScoredMap {
    /// The map, in the network's input size.
    pub map: AnomalyMap,
    /// The image's score, not normalized. Higher means more anomalous. A distance (not squared), at
    /// least 0 with bilinear upsampling; a fraction of pixels for `ImageScore::AreaAbove`.
    pub image_score: f32,
}

/// Computes anomaly maps and image scores from distances (paper, sections III.C and IV.A).
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use padim::scoring::{AnomalyScorer, ScoringConfig};
///
/// let scorer = AnomalyScorer::new(ScoringConfig::default())?;
/// let distances = Tensor::ones([1, 56, 56], &Device::flex());
/// let scored = scorer.score(distances, [224, 224])?;
/// assert_eq!(scored[0].map.size(), [224, 224]);
/// assert!((scored[0].image_score - 1.0).abs() < 1e-6);
/// # Ok::<(), padim::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct AnomalyScorer {
    config: ScoringConfig,
    /// A cache for the last grid size and map size: computing the taps takes longer than a map.
    taps: Latest<[[usize; 2]; 2], MapTaps>,
    /// A cache of the taps as matrices on the last device.
    on_device: Latest<(Device, [[usize; 2]; 2]), DeviceTaps>,
}

/// The resampling weights from one grid size to one map size.
#[derive(Debug)]
struct MapTaps {
    grid: [usize; 2],
    /// Along rows and columns.
    enlarge: [Taps; 2],
    /// Enlarging and blurring in one pass: both are linear along each axis.
    smooth: Option<[Taps; 2]>,
}

/// Enlarging and optional smoothing as matrices.
#[derive(Debug)]
struct DeviceTaps {
    enlarge: [Tensor<3>; 2],
    smooth: Option<[Tensor<3>; 2]>,
}

impl DeviceTaps {
    fn new(taps: &MapTaps, device: &Device) -> Self {
        // Rows `[1, height, grid_height]` and columns `[1, grid_width, width]`.
        let matrices = |[rows, columns]: &[Taps; 2]| {
            let matrix = |taps: &Taps, from: usize| {
                to_device(taps.matrix(), [1, taps.output_len(), from], device)
            };
            [matrix(rows, taps.grid[0]), matrix(columns, taps.grid[1]).swap_dims(1, 2)]
        };
        Self { enlarge: matrices(&taps.enlarge), smooth: taps.smooth.as_ref().map(matrices) }
    }
}

/// Resamples `[batch, grid_height, grid_width]` to maps `[batch, height, width]`.
fn resample_on_device(grids: Tensor<3>, [rows, columns]: &[Tensor<3>; 2]) -> Tensor<3> {
    let [batch, height, _] = grids.dims();
    let [_, from, width] = columns.dims();
    // One product for the columns of all images, because they have the same matrix.
    let wide = grids.reshape([1, batch * height, from]).matmul(columns.clone());
    let [_, to, _] = rows.dims();
    rows.clone().expand([batch, to, height]).matmul(wide.reshape([batch, height, width]))
}

impl AnomalyScorer {
    /// Creates a scorer and checks the configuration.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidConfig`] for an invalid blur or normalization.
    pub fn new(config: ScoringConfig) -> Result<Self> {
        config.validate()?;
        Ok(Self { config, taps: Latest::default(), on_device: Latest::default() })
    }

    /// The configuration.
    pub fn config(&self) -> &ScoringConfig {
        &self.config
    }

    /// Computes maps of `size` `[height, width]`, the network's input size in pixels.
    ///
    /// # Shapes
    ///
    /// `distances`: `[batch, grid_height, grid_width]`; the result: one map per image.
    ///
    /// # Errors
    ///
    /// [`Error::ShapeMismatch`] for an empty grid or size, [`Error::NotFinite`] for distances that
    /// are NaN or infinite.
    pub fn score(&self, distances: Tensor<3>, size: [usize; 2]) -> Result<Vec<ScoredMap>> {
        self.score_within(distances, size, None)
    }

    /// As [`score`](Self::score), but restricted to a region. A map is 0 outside the region, and the
    /// score uses only pixels inside. Smoothing uses only positions of the region; their weights are
    /// rescaled to a sum of 1.
    ///
    /// # Errors
    ///
    /// As [`score`](Self::score), and [`Error::ShapeMismatch`] for a region of another size.
    pub fn score_within(
        &self,
        distances: Tensor<3>,
        size: [usize; 2],
        region: Option<&InputRegion>,
    ) -> Result<Vec<ScoredMap>> {
        let shape = distances.dims();
        if is_host(&distances.device()) {
            self.score_host(&to_host(distances)?, shape, size, region)
        } else {
            self.score_on_device(distances, size, region)
        }
    }

    /// As [`score_within`](Self::score_within), for distances `[batch, grid_height, grid_width]` in
    /// host memory.
    pub(crate) fn score_host(
        &self,
        distances: &[f32],
        [batch, height, width]: [usize; 3],
        size: [usize; 2],
        region: Option<&InputRegion>,
    ) -> Result<Vec<ScoredMap>> {
        let (taps, inside) = self.prepare([batch, height, width], size, region)?;
        let MapTaps { enlarge, smooth, .. } = &*taps;
        let [rows, columns] = smooth.as_ref().unwrap_or(enlarge);
        let grids = distances.par_chunks_exact(height * width);
        grids
            .map(|grid| {
                let sharp = taps.scored_sharp(&self.config);
                let sharp = sharp.then(|| resample(grid, &enlarge[0], &enlarge[1]));
                finish(
                    resample(grid, rows, columns),
                    sharp,
                    self.config.image_score,
                    inside.as_ref(),
                    size,
                )
            })
            .collect()
    }

    /// As [`score_within`](Self::score_within), by tensor operations on the device of the distances.
    /// Only maps are copied from it.
    pub(crate) fn score_on_device(
        &self,
        distances: Tensor<3>,
        size: [usize; 2],
        region: Option<&InputRegion>,
    ) -> Result<Vec<ScoredMap>> {
        let device = distances.device();
        let (taps, inside) = self.prepare(distances.dims(), size, region)?;
        let key = (device, [taps.grid, size]);
        let there = self.on_device.get(key, |(device, _)| DeviceTaps::new(&taps, device));
        let maps = |taps: &[Tensor<3>; 2]| to_host(resample_on_device(distances.clone(), taps));
        let values = maps(there.smooth.as_ref().unwrap_or(&there.enlarge))?;
        let sharp = taps.scored_sharp(&self.config).then(|| maps(&there.enlarge)).transpose()?;
        let pixels = size[0] * size[1];
        values
            .par_chunks_exact(pixels)
            .enumerate()
            .map(|(image, values)| {
                let sharp = sharp.as_ref().map(|all| all[image * pixels..][..pixels].to_vec());
                finish(values.to_vec(), sharp, self.config.image_score, inside.as_ref(), size)
            })
            .collect()
    }

    /// Checks sizes and prepares what all images of a batch share.
    fn prepare<'a>(
        &self,
        [batch, height, width]: [usize; 3],
        size: [usize; 2],
        region: Option<&'a InputRegion>,
    ) -> Result<(Arc<MapTaps>, Option<Inside<'a>>)> {
        if let Some(region) = region.filter(|region| region.size() != size) {
            return Err(Error::shape("region of interest", format!("{size:?}"), region.size()));
        }
        if [batch, height, width, size[0], size[1]].contains(&0) {
            let expected = "[batch, grid_height, grid_width] and a map size, none of them 0";
            return Err(Error::shape("distances", expected, ([batch, height, width], size)));
        }
        let taps = self.taps([height, width], size);
        let inside = region.map(|region| {
            let share = |p: &bool| f32::from(u8::from(*p));
            let positions: Vec<f32> = region.positions([height, width]).iter().map(share).collect();
            let weights = |taps: &[Taps; 2]| resample(&positions, &taps[0], &taps[1]);
            let last = taps.smooth.as_ref().unwrap_or(&taps.enlarge);
            let enlarged = match taps.scored_sharp(&self.config) {
                true => weights(&taps.enlarge),
                false => Vec::new(),
            };
            Inside { region, last: weights(last), enlarged }
        });
        Ok((taps, inside))
    }

    fn taps(&self, grid: [usize; 2], size: [usize; 2]) -> Arc<MapTaps> {
        self.taps.get([grid, size], |_| {
            let enlarge = [0, 1].map(|axis| self.enlarging(grid[axis], size[axis]));
            let smooth = self.config.blur.map(|blur| {
                let blurred = |axis: usize| {
                    enlarge[axis].then(&Taps::gaussian(blur.sigma, blur.border, size[axis]))
                };
                [0, 1].map(blurred)
            });
            MapTaps { grid, enlarge, smooth }
        })
    }

    fn enlarging(&self, from: usize, to: usize) -> Taps {
        let filter = match self.config.upsampling {
            Upsampling::Bilinear => Filter::Bilinear,
            Upsampling::Bicubic => Filter::Bicubic,
        };
        Taps::interpolating(filter, from, to)
    }
}

impl MapTaps {
    /// Whether scores need maps without smoothing in addition to the smoothed maps.
    fn scored_sharp(&self, config: &ScoringConfig) -> bool {
        self.smooth.is_some() && config.image_score == ImageScore::MaxBeforeBlur
    }
}

/// Builds the map and the score of an image. `sharp`: the map without smoothing, if the score needs
/// it.
fn finish(
    mut values: Vec<f32>,
    sharp: Option<Vec<f32>>,
    image_score: ImageScore,
    inside: Option<&Inside>,
    size: [usize; 2],
) -> Result<ScoredMap> {
    if let Some(inside) = inside {
        inside.restrict(&mut values, &inside.last);
    }
    let sharp = sharp.map(|mut sharp| {
        if let Some(inside) = inside {
            inside.restrict(&mut sharp, &inside.enlarged);
        }
        sharp
    });
    let scored = sharp.as_ref().unwrap_or(&values);
    let image_score = match inside {
        Some(inside) => image_score.of(inside.of(scored)),
        None => image_score.of(scored.iter().copied()),
    };
    let map = AnomalyMap::new(size, values)?;
    Ok(ScoredMap { map, image_score })
}

/// A region, and the total weight of the region's positions in each pixel's value.
struct Inside<'a> {
    region: &'a InputRegion,
    last: Vec<f32>,
    enlarged: Vec<f32>,
}

impl Inside<'_> {
    /// Rescales pixels inside by the weight of the region, and sets pixels outside to 0.
    fn restrict(&self, values: &mut [f32], weights: &[f32]) {
        for ((value, weight), &inside) in values.iter_mut().zip(weights).zip(self.region.mask()) {
            // Every pixel inside lies in a position of the region, so its weight is above 0.
            *value = if inside && *weight > 1e-6 { *value / weight } else { 0.0 };
        }
    }

    /// The values of the pixels inside.
    fn of<'a>(&'a self, values: &'a [f32]) -> impl Iterator<Item = f32> + 'a {
        values
            .iter()
            .zip(self.region.mask())
            .filter(|(_, inside)| **inside)
            .map(|(value, _)| *value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::to_device;
    use crate::scoring::config::Blur;
    use crate::scoring::normalization::ScoreNormalization;
    use burn::tensor::Device;

    #[test]
    fn the_maximum_before_the_blur_is_higher() {
        let mut grid = vec![0.0; 64];
        grid[27] = 5.0;
        let score = |image_score| {
            let config = ScoringConfig { image_score, ..ScoringConfig::default() };
            let distances = to_device(grid.clone(), [1, 8, 8], &Device::flex());
            AnomalyScorer::new(config).unwrap().score(distances, [32, 32]).unwrap().remove(0)
        };
        let (sharp, smooth) = (score(ImageScore::MaxBeforeBlur), score(ImageScore::MaxOfMap));
        assert_eq!(sharp.map, smooth.map);
        assert_eq!(smooth.image_score, smooth.map.max());
        assert!(sharp.image_score > 3.0 && smooth.image_score < 1.0);
    }

    #[test]
    fn a_device_makes_the_same_maps() {
        let (grid, size) = ([5, 7], [23, 40]);
        let values: Vec<f32> = (0..2 * 35).map(|i| ((i * 37) % 23) as f32 / 3.0).collect();
        for upsampling in [Upsampling::Bilinear, Upsampling::Bicubic] {
            for blur in [None, Some(Blur::default())] {
                for image_score in [ImageScore::MaxOfMap, ImageScore::MaxBeforeBlur] {
                    let normalization = ScoreNormalization::None;
                    let config = ScoringConfig { upsampling, blur, image_score, normalization };
                    let scorer = AnomalyScorer::new(config).unwrap();
                    let shape = [2, grid[0], grid[1]];
                    let here = scorer.score_host(&values, shape, size, None).unwrap();
                    let distances = to_device(values.clone(), shape, &Device::flex());
                    let there = scorer.score_on_device(distances, size, None).unwrap();
                    for (here, there) in here.iter().zip(&there) {
                        let pairs = here.map.values().iter().zip(there.map.values());
                        assert!(pairs.into_iter().all(|(a, b)| (a - b).abs() < 1e-5));
                        assert!((here.image_score - there.image_score).abs() < 1e-5);
                    }
                }
            }
        }
    }

    #[test]
    fn impossible_settings_and_distances_are_refused() {
        for sigma in [0.0, -1.0, f64::NAN, 1e9] {
            let blur = Some(Blur { sigma, ..Blur::default() });
            assert!(
                AnomalyScorer::new(ScoringConfig { blur, ..ScoringConfig::default() }).is_err()
            );
        }
        let scorer = AnomalyScorer::new(ScoringConfig::default()).unwrap();
        let nan = to_device(vec![f32::NAN], [1, 1, 1], &Device::flex());
        assert!(matches!(scorer.score(nan, [4, 4]), Err(Error::NotFinite { .. })));
        let one = to_device(vec![1.0], [1, 1, 1], &Device::flex());
        assert!(matches!(scorer.score(one, [0, 4]), Err(Error::ShapeMismatch { .. })));
    }
}

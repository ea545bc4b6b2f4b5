//! Blends the maps of tiles into one map.

use super::layout::{TileAxis, TileLayout};
use crate::error::Result;
use crate::preprocess::ImageGeometry;
use crate::resample::{Taps, resample};
use crate::scoring::AnomalyMap;

/// Blends the maps of an image's tiles, added one by one. The result has the resolution of the
/// tiles' maps, but at most that of the image.
pub(crate) struct MapBlender {
    layout: TileLayout,
    /// `[height, width]`
    size: [usize; 2],
    /// For each row of tiles, and for each column.
    parts: [Vec<Part>; 2],
    values: Vec<f32>,
}

/// A tile's contribution along an axis of the map.
struct Part {
    start: usize,
    /// Interpolation times the blending weight.
    taps: Taps,
}

impl MapBlender {
    /// For tiles whose maps are of size `input` `[height, width]`.
    pub fn new(layout: TileLayout, input: [usize; 2]) -> Self {
        let (axes, size) = (layout.axes(), layout.map_size(input));
        let parts = [0, 1].map(|i| parts(axes[i], input[i], size[i]));
        Self { layout, size, parts, values: vec![0.0; size[0] * size[1]] }
    }

    /// Adds the map of a tile. Each tile must be added exactly once.
    pub fn add(&mut self, number: usize, map: &AnomalyMap) {
        let [row, column] = self.layout.place(number);
        let (rows, columns) = (&self.parts[0][row], &self.parts[1][column]);
        let part = resample(map.values(), &rows.taps, &columns.taps);
        let (width, whole) = (columns.taps.output_len(), self.size[1]);
        let targets = self.values.chunks_exact_mut(whole).skip(rows.start);
        for (source, target) in part.chunks_exact(width).zip(targets) {
            let target = &mut target[columns.start..columns.start + width];
            target.iter_mut().zip(source).for_each(|(t, s)| *t += s);
        }
    }

    /// The blended map, and its geometry in the image.
    pub fn finish(self) -> Result<(AnomalyMap, ImageGeometry)> {
        let geometry = ImageGeometry::new(self.layout.image(), self.size, None);
        Ok((AnomalyMap::new(self.size, self.values)?, geometry))
    }
}

/// The tiles' parts along an axis. The map has `size` samples, a tile's map has `input`.
fn parts(axis: TileAxis, input: usize, size: usize) -> Vec<Part> {
    let scale = axis.len as f64 / size as f64;
    let center = |sample: usize| (sample as f64 + 0.5) * scale;
    let part = |i: usize| {
        let origin = axis.origin(i);
        // One more sample at each end, because the ends are rounded.
        let first = (origin as f64 / scale) as usize;
        let end = ((origin + axis.tile) as f64 / scale).ceil() as usize;
        let near = first.saturating_sub(1)..(end + 1).min(size);
        let covered: Vec<usize> = near.filter(|&sample| axis.covers(i, center(sample))).collect();
        let samples = covered.iter().map(|&sample| {
            let place = center(sample);
            let inside = (place - origin as f64) * input as f64 / axis.tile as f64 - 0.5;
            (inside, axis.share(i, place))
        });
        // A sample of the map is never larger than a tile, so each tile covers at least one sample.
        Part { start: covered.first().copied().unwrap_or(0), taps: Taps::at(input, samples) }
    };
    (0..axis.count()).map(part).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::tiling::TilingConfig;

    proptest! {
        /// Reference: the definition, pixel by pixel and tile by tile.
        #[test]
        fn as_by_the_obvious_loops(
            tile in [1_usize..24, 1_usize..24],
            input in [1_usize..24, 1_usize..24],
            more in [0_usize..50, 0_usize..50],
            overlap in 0_usize..12,
        ) {
            let overlap = overlap.min(tile[0].min(tile[1]) / 2);
            let config = TilingConfig { tile, overlap, ..Default::default() };
            let image = [tile[0] + more[0], tile[1] + more[1]];
            let layout = config.layout(image).unwrap();
            let maps: Vec<AnomalyMap> = (0..layout.count())
                .map(|k| {
                    let value = |i: usize| ((i * 7 + k * 13) % 31) as f32;
                    AnomalyMap::new(input, (0..input[0] * input[1]).map(value).collect()).unwrap()
                })
                .collect();
            let mut blender = MapBlender::new(layout, input);
            maps.iter().enumerate().for_each(|(k, map)| blender.add(k, map));
            for (parts, axis) in blender.parts.iter().zip(layout.axes()) {
                prop_assert!(parts.iter().all(|part| part.taps.output_len() > 0), "{:?}", axis);
            }
            let (blended, geometry) = blender.finish().unwrap();
            prop_assert_eq!((geometry.original_size(), geometry.input_size()), (image, blended.size()));

            let [height, width] = blended.size();
            for (y, x) in (0..height).flat_map(|y| (0..width).map(move |x| (y, x))) {
                let place = [
                    (y as f64 + 0.5) * image[0] as f64 / height as f64,
                    (x as f64 + 0.5) * image[1] as f64 / width as f64,
                ];
                let (mut sum, mut weights) = (0.0, 0.0);
                for (map, origin) in maps.iter().zip(config.origins(image).unwrap()) {
                    let weight = weight(&config, image, origin, place);
                    let at = [0, 1].map(|i| {
                        (place[i] - origin[i] as f64) * input[i] as f64 / tile[i] as f64 - 0.5
                    });
                    weights += weight;
                    sum += weight * bilinear(map, at);
                }
                let found = f64::from(blended.at(y, x).unwrap());
                prop_assert!((found - sum / weights).abs() < 1e-4, "{} {}", found, sum / weights);
            }
        }
    }

    /// A tile's weight at a point of the image, before normalization.
    fn weight(
        config: &TilingConfig,
        image: [usize; 2],
        origin: [usize; 2],
        place: [f64; 2],
    ) -> f64 {
        let mut weight = 1.0;
        for axis in 0..2 {
            let begin = place[axis] - origin[axis] as f64;
            let end = config.tile[axis] as f64 - begin;
            if begin < 0.0 || end <= 0.0 {
                return 0.0;
            }
            let overlap = config.overlap as f64;
            let fade = |distance: f64| match (distance - overlap / 4.0) / (overlap / 2.0) {
                x if x < 0.0 => 0.0,
                x if x < 1.0 => 3.0 * x.powi(2) - 2.0 * x.powi(3),
                _ => 1.0,
            };
            if origin[axis] > 0 {
                weight *= fade(begin);
            }
            if origin[axis] + config.tile[axis] < image[axis] {
                weight *= fade(end);
            }
        }
        weight
    }

    fn bilinear(map: &AnomalyMap, at: [f64; 2]) -> f64 {
        let [height, width] = map.size();
        let value = |y: f64, x: f64| {
            let y = y.clamp(0.0, (height - 1) as f64) as usize;
            f64::from(map.at(y, x.clamp(0.0, (width - 1) as f64) as usize).unwrap())
        };
        let [y, x] = at.map(f64::floor);
        let [fy, fx] = [at[0] - y, at[1] - x];
        (1.0 - fy) * ((1.0 - fx) * value(y, x) + fx * value(y, x + 1.0))
            + fy * ((1.0 - fx) * value(y + 1.0, x) + fx * value(y + 1.0, x + 1.0))
    }
}

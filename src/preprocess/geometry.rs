//! How pixels of the original image correspond to pixels of the network's input.

use serde::{Deserialize, Serialize};

use crate::resample::Taps;

/// How an image was resized and cropped. All sizes are `[height, width]` in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageGeometry {
    original: [usize; 2],
    resized: [usize; 2],
    /// `[top, left]` of the crop in the resized image.
    offset: [usize; 2],
    input: [usize; 2],
}

impl ImageGeometry {
    /// The centered crop must fit into the resized image; the configuration check ensures it.
    pub(crate) fn new(original: [usize; 2], resized: [usize; 2], crop: Option<usize>) -> Self {
        let input = crop.map_or(resized, |side| [side, side]);
        let offset = [0, 1].map(|axis| round_half_to_even(resized[axis] - input[axis]));
        Self { original, resized, offset, input }
    }

    /// The geometry of an image that already has the network's input size.
    pub(crate) fn identity(size: [usize; 2]) -> Self {
        Self::new(size, size, None)
    }

    /// Size of the original image.
    pub fn original_size(&self) -> [usize; 2] {
        self.original
    }

    /// Size of the network's input.
    pub fn input_size(&self) -> [usize; 2] {
        self.input
    }

    /// The share of the original image's pixels that the crop has left, in `(0, 1]`.
    pub fn seen_share(&self) -> f64 {
        let pixels = |[height, width]: [usize; 2]| height as f64 * width as f64;
        pixels(self.input) / pixels(self.resized)
    }

    /// The rows and the columns of the original image whose centers the crop keeps.
    pub(crate) fn seen(&self) -> [std::ops::Range<usize>; 2] {
        [0, 1].map(|axis| {
            let sources = self.sources(axis);
            let first = sources.iter().position(Option::is_some).unwrap_or(0);
            first..sources.iter().rposition(Option::is_some).map_or(first, |last| last + 1)
        })
    }

    /// The taps `[rows, columns]` that resize an image of `[height, width]` and keep what the crop keeps.
    /// `axis`: gives those of a whole axis, by its length and its resized length.
    pub(crate) fn taps(&self, size: [usize; 2], axis: impl Fn(usize, usize) -> Taps) -> [Taps; 2] {
        [0, 1].map(|i| {
            let kept = self.offset[i]..self.offset[i] + self.input[i];
            axis(size[i], self.resized[i]).part(kept)
        })
    }

    /// Maps values of the network's input back to the original image, with bilinear interpolation.
    /// Pixels that the crop removed get `outside`.
    pub(crate) fn map_to_original(&self, map: &[f32], outside: f32) -> Vec<f32> {
        let rows = self.sources(0);
        let columns = self.sources(1);
        let width = self.input[1];
        let row = |y: usize| &map[y * width..(y + 1) * width];
        let mut out = Vec::with_capacity(self.original[0] * self.original[1]);
        for source_row in &rows {
            let Some((y0, y1, fy)) = *source_row else {
                out.resize(out.len() + columns.len(), outside);
                continue;
            };
            let (upper, lower) = (row(y0), row(y1));
            out.extend(columns.iter().map(|source| match *source {
                None => outside,
                Some((x0, x1, fx)) => {
                    let at = |line: &[f32]| line[x0] + (line[x1] - line[x0]) * fx;
                    at(upper) + (at(lower) - at(upper)) * fy
                }
            }));
        }
        out
    }

    /// The value of a map of the network's input at a point `[x, y]` of the original image; `None`
    /// if the crop removed it.
    pub(crate) fn value_at(&self, map: &[f32], [x, y]: [f64; 2]) -> Option<f32> {
        let (y0, y1, fy) = self.source(0, y)?;
        let (x0, x1, fx) = self.source(1, x)?;
        let at = |y: usize, x: usize| map[y * self.input[1] + x];
        let along = |y: usize| at(y, x0) + (at(y, x1) - at(y, x0)) * fx;
        Some(along(y0) + (along(y1) - along(y0)) * fy)
    }

    /// The point `[x, y]` of the original image at the center of a pixel of the network's input.
    pub(crate) fn original_of_input(&self, pixel: usize) -> [f64; 2] {
        let place = [pixel / self.input[1], pixel % self.input[1]];
        [1, 0].map(|axis: usize| {
            let scale = self.original[axis] as f64 / self.resized[axis] as f64;
            ((place[axis] + self.offset[axis]) as f64 + 0.5) * scale
        })
    }

    /// For each original coordinate of an axis: the two input samples around it and the weight of
    /// the second; `None` if the crop removed it.
    fn sources(&self, axis: usize) -> Vec<Option<(usize, usize, f32)>> {
        (0..self.original[axis]).map(|i| self.source(axis, i as f64 + 0.5)).collect()
    }

    /// The same for one position on an axis.
    fn source(&self, axis: usize, place: f64) -> Option<(usize, usize, f32)> {
        let scale = self.resized[axis] as f64 / self.original[axis] as f64;
        let (offset, len) = (self.offset[axis] as f64, self.input[axis]);
        let position = place * scale - offset;
        (0.0..=len as f64).contains(&position).then(|| {
            let sample = (position - 0.5).clamp(0.0, (len - 1) as f64);
            let first = sample as usize;
            (first, (first + 1).min(len - 1), (sample - first as f64) as f32)
        })
    }
}

/// Half of `margin`, with halves rounded to even as Python does, to match torchvision's center crop.
fn round_half_to_even(margin: usize) -> usize {
    let half = margin / 2;
    if margin % 2 == 1 { half + half % 2 } else { half }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_margins_round_as_python_does() {
        let offsets: Vec<usize> = (0..8).map(round_half_to_even).collect();
        // round(0.5) = 0, round(1.5) = 2, round(2.5) = 2, round(3.5) = 4
        assert_eq!(offsets, [0, 0, 1, 2, 2, 2, 3, 4]);
    }

    #[test]
    fn the_share_that_was_seen_is_that_of_the_crop() {
        assert_eq!(ImageGeometry::new([100, 200], [50, 100], Some(40)).seen_share(), 0.32);
        assert_eq!(ImageGeometry::identity([3, 7]).seen_share(), 1.0);
    }

    #[test]
    fn a_map_returns_to_where_it_came_from() {
        // 100x200 shrunk by half to 50x100, centered 40x40 kept: rows 5..45, columns 30..70.
        let geometry = ImageGeometry::new([100, 200], [50, 100], Some(40));
        let mut map = vec![0.0; 1600];
        map[20 * 40 + 10] = 1.0; // resized (25, 40), original around (51, 81)
        let original = geometry.map_to_original(&map, -1.0);
        assert_eq!(original.len(), 100 * 200);
        let peak =
            (0..original.len()).max_by(|&a, &b| original[a].total_cmp(&original[b])).unwrap();
        assert!([50, 51].contains(&(peak / 200)) && [80, 81].contains(&(peak % 200)));
        assert_eq!(original[0], -1.0);
        let unseen = original.iter().filter(|&&v| v == -1.0).count();
        assert_eq!(unseen, 100 * 200 - 80 * 80);
    }

    #[test]
    fn the_identity_changes_nothing() {
        let map: Vec<f32> = (0..35).map(|i| (i * i) as f32).collect();
        assert_eq!(ImageGeometry::identity([5, 7]).map_to_original(&map, 0.0), map);
    }
}

//! Draws a line around the pixels that reach a threshold.

use image::{Rgb, RgbImage};

use crate::scoring::AnomalyMap;

/// A hue that is not in the color map.
pub(super) const LINE: Rgb<u8> = Rgb([0, 255, 200]);
/// The rim of the line, which keeps the line visible on bright images.
const RIM: Rgb<u8> = Rgb([0, 0, 0]);

/// Draws a line around the pixels of `map` that are at least `threshold`. The line lies outside
/// these pixels, so that it does not hide a small defect; only along the edges of the picture it
/// lies on them. The picture must have the size of the map.
pub(super) fn draw(picture: &mut RgbImage, map: &AnomalyMap, threshold: f32) {
    let [height, width] = map.size();
    let inside: Vec<bool> = map.values().iter().map(|&v| v >= threshold).collect();
    if !inside.contains(&true) {
        return;
    }
    let line = line_width([height, width]);
    let reach = line + line.div_ceil(2);
    // d² ≤ r² + r rather than r² makes small discs rounder.
    let within = |squared: usize, radius: usize| squared <= radius * radius + radius;
    let in_row = distances_in_rows(&inside, width, reach + 1);

    for (index, pixel) in picture.pixels_mut().enumerate() {
        let (y, x) = (index / width, index % width);
        if inside[index] {
            let to_edge = y.min(x).min(height - 1 - y).min(width - 1 - x);
            if to_edge < line {
                *pixel = LINE;
            }
            continue;
        }
        let rows = y.saturating_sub(reach)..(y + reach + 1).min(height);
        let squared = rows.map(|row| row.abs_diff(y).pow(2) + in_row[row * width + x].pow(2)).min();
        match squared {
            Some(d) if within(d, line) => *pixel = LINE,
            Some(d) if within(d, reach) => *pixel = RIM,
            _ => {}
        }
    }
}

/// Grows with the picture, so that the line stays visible when a large picture is shrunk.
fn line_width([height, width]: [usize; 2]) -> usize {
    ((height.max(width) + 100) / 200).max(1)
}

/// For every pixel the distance to the nearest `true` of its row, at most `limit`.
fn distances_in_rows(inside: &[bool], width: usize, limit: usize) -> Vec<usize> {
    let mut distances = vec![limit; inside.len()];
    for (row, inside) in distances.chunks_exact_mut(width).zip(inside.chunks_exact(width)) {
        let mut last = limit;
        for (distance, &inside) in row.iter_mut().zip(inside) {
            last = if inside { 0 } else { (last + 1).min(limit) };
            *distance = last;
        }
        for distance in row.iter_mut().rev() {
            last = (last + 1).min(*distance);
            *distance = last;
        }
    }
    distances
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAPER: Rgb<u8> = Rgb([9, 9, 9]);

    fn drawn(size: [usize; 2], inside: impl Fn(usize, usize) -> bool) -> RgbImage {
        let [h, w] = size;
        let values = (0..h * w).map(|i| f32::from(u8::from(inside(i / w, i % w)))).collect();
        let map = AnomalyMap::new(size, values).unwrap();
        let mut picture = RgbImage::from_pixel(w as u32, h as u32, PAPER);
        draw(&mut picture, &map, 0.5);
        picture
    }

    #[test]
    fn surrounds_a_spot_without_hiding_it() {
        let picture = drawn([21, 31], |y, x| y == 10 && x == 15);
        assert_eq!(picture[(15, 10)], PAPER);
        for (x, y) in [(14, 10), (16, 10), (15, 9), (15, 11), (14, 9), (16, 11)] {
            assert_eq!(picture[(x, y)], LINE);
        }
        for (x, y) in [(13, 10), (17, 10), (15, 8), (15, 12)] {
            assert_eq!(picture[(x, y)], RIM);
        }
        assert_eq!(picture[(12, 10)], PAPER);
        assert_eq!(picture[(0, 0)], PAPER);
    }

    #[test]
    fn closes_at_the_edges() {
        let picture = drawn([9, 9], |_, _| true);
        for (x, y, pixel) in picture.enumerate_pixels() {
            let edge = x == 0 || y == 0 || x == 8 || y == 8;
            assert_eq!(*pixel, if edge { LINE } else { PAPER });
        }
        assert_eq!(drawn([1, 1], |_, _| true)[(0, 0)], LINE);
        assert_eq!(drawn([1, 1], |_, _| false)[(0, 0)], PAPER);
        assert_eq!(drawn([1, 7], |_, x| x == 3)[(3, 0)], LINE);
    }

    #[test]
    fn distances_agree_with_the_definition() {
        let inside: Vec<bool> = (0..60).map(|i| i % 7 == 3 && i < 50).collect();
        let found = distances_in_rows(&inside, 12, 4);
        for (i, &distance) in found.iter().enumerate() {
            let row = i / 12 * 12..(i / 12 + 1) * 12;
            let nearest = row.filter(|&j| inside[j]).map(|j| j.abs_diff(i)).min();
            assert_eq!(distance, nearest.unwrap_or(4).min(4), "{i}");
        }
    }

    #[test]
    fn the_line_grows_with_the_picture() {
        let widths = [[1, 1], [256, 256], [900, 512], [100, 2000]].map(line_width);
        assert_eq!(widths, [1, 1, 5, 10]);
    }
}

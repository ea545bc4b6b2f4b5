//! Colors of a camera's mosaic (Bayer), by bilinear interpolation.

/// The interleaved RGB values of a mosaic of `height` rows. `row` writes a row's values into a slice of
/// `width`; `red` is the `[row, column]` of the first red pixel. Both sides must have 2 pixels or more.
///
/// A pixel's own color stays. The others are the mean of its 2 or 4 neighbors that have them, rounded. The
/// borders are mirrored at the outermost pixels, so that the mosaic goes on.
pub(super) fn demosaic<T: Copy>(
    [height, width]: [usize; 2],
    red: [usize; 2],
    row: impl Fn(usize, &mut [u16]),
    value: impl Fn(u16) -> T,
) -> Vec<T> {
    // Rows with a mirrored pixel on either side.
    let padded = |y: usize, buffer: &mut Vec<u16>| {
        buffer.resize(width + 2, 0);
        row(y, &mut buffer[1..=width]);
        buffer[0] = buffer[2];
        buffer[width + 1] = buffer[width - 1];
    };
    let [mut above, mut own, mut below] = [const { Vec::new() }; 3];
    padded(1, &mut above);
    padded(0, &mut own);
    let mut out = Vec::with_capacity(height * width * 3);
    for y in 0..height {
        padded(if y + 1 < height { y + 1 } else { height - 2 }, &mut below);
        let in_red_row = y % 2 == red[0];
        for x in 1..=width {
            let mean = |values: &[u16]| {
                let sum: u32 = values.iter().map(|&v| u32::from(v)).sum();
                let count = values.len() as u32;
                ((sum + count / 2) / count) as u16
            };
            let center = own[x];
            let across = || mean(&[own[x - 1], own[x + 1]]);
            let down = || mean(&[above[x], below[x]]);
            let edges = || mean(&[own[x - 1], own[x + 1], above[x], below[x]]);
            let corners = || mean(&[above[x - 1], above[x + 1], below[x - 1], below[x + 1]]);
            let in_red_column = (x - 1) % 2 == red[1];
            let rgb = match (in_red_row, in_red_column) {
                (true, true) => [center, edges(), corners()],
                (true, false) => [across(), center, down()],
                (false, true) => [down(), center, across()],
                (false, false) => [corners(), edges(), center],
            };
            out.extend(rgb.map(&value));
        }
        std::mem::swap(&mut above, &mut own);
        std::mem::swap(&mut own, &mut below);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const REDS: [[usize; 2]; 4] = [[0, 0], [0, 1], [1, 0], [1, 1]];

    /// Which of red, green and blue a pixel has.
    fn color(red: [usize; 2], y: usize, x: usize) -> usize {
        usize::from(y % 2 != red[0]) + usize::from(x % 2 != red[1])
    }

    fn demosaiced(size: [usize; 2], red: [usize; 2], mosaic: &[u16]) -> Vec<u16> {
        let row = |y: usize, into: &mut [u16]| {
            into.copy_from_slice(&mosaic[y * size[1]..(y + 1) * size[1]]);
        };
        demosaic(size, red, row, |v| v)
    }

    #[test]
    fn one_color_everywhere_stays_itself() {
        for red in REDS {
            for size in [[2, 2], [3, 5], [8, 7]] {
                let [height, width] = size;
                let mosaic: Vec<u16> = (0..height * width)
                    .map(|i| [900, 40, 3][color(red, i / width, i % width)])
                    .collect();
                let rgb = demosaiced(size, red, &mosaic);
                assert!(rgb.chunks(3).all(|pixel| pixel == [900, 40, 3]), "{red:?} {size:?}");
            }
        }
    }

    /// The same as a weighted mean over all pixels of the color in the 3x3 neighborhood.
    #[test]
    fn a_gradient_equals_the_naive_oracle() {
        let size = [9, 10];
        let [height, width] = size.map(|side| side as i64);
        let mirrored = |i: i64, len: i64| {
            if i < 0 {
                -i
            } else if i < len {
                i
            } else {
                2 * len - 2 - i
            }
        };
        for red in REDS {
            let mosaic: Vec<u16> =
                (0..90).map(|i| (37 * (i / 10) + 101 * (i % 10) + i * i % 17) as u16).collect();
            let mut expected = Vec::new();
            for (y, x) in (0..height).flat_map(|y| (0..width).map(move |x| (y, x))) {
                for channel in 0..3 {
                    let (mut sum, mut weights) = (0.0, 0.0);
                    for (v, u) in (-1..2).flat_map(|v| (-1..2).map(move |u| (v, u))) {
                        let at =
                            [mirrored(y + v, height) as usize, mirrored(x + u, width) as usize];
                        if color(red, at[0], at[1]) == channel {
                            let weight =
                                f64::from((2 - i32::from(v != 0)) * (2 - i32::from(u != 0)));
                            sum += weight * f64::from(mosaic[at[0] * size[1] + at[1]]);
                            weights += weight;
                        }
                    }
                    // A pixel's own color is not smoothed.
                    let own = color(red, y as usize, x as usize) == channel;
                    let own = own.then(|| mosaic[y as usize * size[1] + x as usize]);
                    expected.push(own.unwrap_or((sum / weights).round() as u16));
                }
            }
            assert_eq!(demosaiced(size, red, &mosaic), expected, "{red:?}");
        }
    }
}

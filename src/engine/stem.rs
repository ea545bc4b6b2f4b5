//! The stem: 7x7 convolution of stride 2, ReLU, and 3x3 max pooling of stride 2, in one pass over the
//! image.
//!
//! Each 2x2 group of pixels becomes one pixel of twelve channels (four phases, three colors). This
//! turns the convolution into one of 4x4 taps and stride 1, which Winograd's algorithm computes in
//! tiles of 3x3.

use std::ops::Range;

use pulp::{Simd, WithSimd};

use super::activation::{Activation, BLOCK, Buffer, Window};
use super::filters::Filters;
use super::product::{Finish, Product};
use super::team::{Scratch, Team, fork};
use super::tile::{self, Tile, transform_filter};
use super::winograd::{transform_input, transform_output};

/// Channels of a phase pixel: 2x2 image pixels of three colors.
const PHASES: usize = 12;
/// `PHASES`, rounded up to whole vectors.
const PIXEL: usize = 16;
const POINTS: usize = tile::Stem::IN * tile::Stem::IN;
const OUT: usize = tile::Stem::OUT;
/// Rows in the ring buffers of the phases and of the convolution. They must hold the rows that a tile
/// reads and those that the pooling has not read yet. A power of two.
const RING: usize = 8;
/// Tiles that are processed together.
const TILES: usize = 14;
const PLANE: usize = TILES * PIXEL + 16;
const M_PLANE: usize = TILES * BLOCK + 16;

/// The stem with transformed weights.
#[derive(Debug)]
pub struct Stem {
    /// `[blocks, POINTS, PHASES, BLOCK]`
    weights: Buffer,
    /// `[blocks, BLOCK]`
    bias: Buffer,
}

/// The sizes `[height, width]` of an image and of its maps in the stem.
#[derive(Debug, Clone, Copy)]
struct Sizes {
    image: [usize; 2],
    /// After the convolution.
    conv: [usize; 2],
    /// After the pooling.
    pooled: [usize; 2],
    /// Tiles in a row.
    tiles: usize,
}

impl Sizes {
    fn of(image: [usize; 2]) -> Self {
        let conv = image.map(half);
        Self { image, conv, pooled: conv.map(half), tiles: conv[1].div_ceil(OUT) }
    }

    /// Length of a row of phases that the tiles read, in pixels.
    fn phase_columns(self) -> usize {
        self.tiles * OUT + OUT
    }

    /// Length of a row of the convolution in pixels, with one zero pixel at its start.
    fn conv_columns(self) -> usize {
        1 + self.tiles * OUT
    }
}

/// The output size of a symmetrically padded window of stride 2.
pub fn half(n: usize) -> usize {
    n.div_ceil(2)
}

impl Stem {
    pub fn new(filters: &Filters) -> Self {
        let [blocks, _] = filters.blocks();
        let mut weights = Buffer::zeros(blocks * POINTS * PHASES * BLOCK);
        for out in 0..filters.channels_out() {
            let (block, column) = (out / BLOCK, out % BLOCK);
            for (phase, color) in (0..4).flat_map(|p| (0..3).map(move |c| (p, c))) {
                let values = transform_filter::<tile::Stem>(|y, x| {
                    let (y, x) = (2 * y + phase / 2, 2 * x + phase % 2);
                    if y < 7 && x < 7 { f64::from(filters.at(out, color, y, x)) } else { 0.0 }
                });
                for (point, value) in values.into_iter().enumerate() {
                    let row = (block * POINTS + point) * PHASES + phase * 3 + color;
                    weights[row * BLOCK + column] = value as f32;
                }
            }
        }
        Self { weights, bias: filters.bias() }
    }

    /// The blocks of output channels.
    pub fn blocks(&self) -> usize {
        self.bias.len() / BLOCK
    }

    /// The bytes of the prepared weights.
    pub fn bytes(&self) -> usize {
        4 * self.weights.len()
    }

    /// The size `[height, width]` of an image's maps after the stem.
    pub fn output(image: [usize; 2]) -> [usize; 2] {
        Sizes::of(image).pooled
    }

    /// Runs the stem on an image `[3, height, width]` and writes the result to `target`.
    pub fn run(&self, values: &[f32], size: [usize; 2], target: &mut Activation, team: &Team) {
        let sizes = Sizes::of(size);
        let strides = target.strides;
        let rows = sizes.pooled[0];
        let blocks = target.shape.blocks;
        let cut = |row: usize| strides.at(0, 1 + row, 0);
        // Neighboring parts both compute the rows at their border, so there are few parts.
        fork(0..rows, team.threads, target.window(), &cut, &|rows, mut window| {
            let pass = Pass { values, sizes, stem: self, rows, blocks };
            team.lend(|scratch| pass.run(&mut window, scratch));
        });
    }
}

/// Computes some rows of the result.
struct Pass<'a> {
    values: &'a [f32],
    sizes: Sizes,
    stem: &'a Stem,
    /// Rows of the result.
    rows: Range<usize>,
    blocks: usize,
}

impl Pass<'_> {
    fn run(&self, window: &mut Window<'_>, scratch: &mut Scratch) {
        let Self { sizes, blocks, .. } = *self;
        let phase_row = sizes.phase_columns() * PIXEL;
        let conv_row = sizes.conv_columns() * blocks * BLOCK;
        let phases = scratch.v.at_least(RING * phase_row + POINTS * PLANE);
        let (phases, v) = phases.split_at_mut(RING * phase_row);
        let conv = scratch.m.at_least(RING * conv_row + POINTS * M_PLANE);
        let (conv, m) = conv.split_at_mut(RING * conv_row);
        // The padding before the first column. Zero never wins the maximum, because ReLU comes first.
        for row in conv.chunks_exact_mut(conv_row / blocks) {
            row[..BLOCK].fill(0.0);
        }
        let arch = scratch.arch;
        // Row r of the result is the maximum of rows 2r - 1, 2r and 2r + 1 of the convolution.
        let mut next = self.rows.start;
        // Tiles begin at the same rows as for the whole image, so that the number of threads does not
        // change the rounding.
        let mut y = (2 * next).saturating_sub(1) / OUT * OUT;
        let mut known = y;
        while next < self.rows.end {
            // Convolution rows y to y + OUT need rows of phases up to y + IN.
            for row in known..y + tile::Stem::IN {
                let start = row % RING * phase_row;
                self.take_apart(row, &mut phases[start..start + phase_row]);
            }
            known = y + tile::Stem::IN;
            let pass = self;
            arch.dispatch(TileRow { pass, y, phases, v, m, conv });
            y += OUT;
            while next < self.rows.end && (2 * next + 1 < y || sizes.conv[0] <= y) {
                let target = |block| [block, next + 1, 1];
                for block in 0..blocks {
                    let run = window.run(target(block), sizes.pooled[1]);
                    arch.dispatch(Maximum { pass, row: next, block, conv, target: run });
                }
                next += 1;
            }
        }
    }

    /// Writes row `row` of the phases; each pixel is `[row of two, column of two, color]`.
    fn take_apart(&self, row: usize, target: &mut [f32]) {
        let [height, width] = self.sizes.image;
        target.fill(0.0);
        for phase_row in 0..2 {
            // The convolution reaches three pixels beyond the edge.
            let y = 2 * row + phase_row;
            if y < 3 || y - 3 >= height {
                continue;
            }
            for color in 0..3 {
                let source = &self.values[(color * height + y - 3) * width..][..width];
                for phase_column in 0..2 {
                    let channel = (phase_row * 2 + phase_column) * 3 + color;
                    // Phase pixel j is image pixel 2 j + phase_column - 3.
                    let lead = 2 - phase_column;
                    let source = source.get(2 * lead + phase_column - 3..).unwrap_or_default();
                    let pixels = target.chunks_exact_mut(PIXEL).skip(lead);
                    pixels.zip(source.chunks(2)).for_each(|(pixel, pair)| pixel[channel] = pair[0]);
                }
            }
        }
    }
}

/// Computes the rows `y..y + OUT` of the convolution.
struct TileRow<'a> {
    pass: &'a Pass<'a>,
    y: usize,
    phases: &'a [f32],
    v: &'a mut [f32],
    m: &'a mut [f32],
    conv: &'a mut [f32],
}

impl WithSimd for TileRow<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { pass, y, phases, v, m, conv } = self;
        let Pass { sizes, stem, blocks, .. } = *pass;
        let phase_row = sizes.phase_columns() * PIXEL;
        let conv_row = sizes.conv_columns() * BLOCK;
        let vectors = BLOCK / S::F32_LANES;
        let zero = simd.splat_f32s(0.0);
        let groups = sizes.tiles.div_ceil(TILES);
        for group in 0..groups {
            let tiles = sizes.tiles * group / groups..sizes.tiles * (group + 1) / groups;
            for (number, tile) in tiles.clone().enumerate() {
                let row = |i: usize| {
                    let start = (y + i) % RING * phase_row + tile * OUT * PIXEL;
                    &phases[start..]
                };
                transform_input::<S, tile::Stem, PIXEL>(simd, row, v, PLANE, number * PIXEL);
            }
            for block in 0..blocks {
                let size = POINTS * PHASES * BLOCK;
                let weights = &stem.weights[block * size..(block + 1) * size];
                for (point, panel) in weights.chunks_exact(PHASES * BLOCK).enumerate() {
                    let product = Product {
                        a: &v[point * PLANE..],
                        segments: &[0],
                        panel,
                        rows: tiles.len(),
                        target: &mut m[point * M_PLANE..(point + 1) * M_PLANE],
                        finish: Finish::None,
                        passing: false,
                    };
                    product.compute::<S, PHASES, PIXEL>(simd);
                }
                let bias = S::as_simd_f32s(&stem.bias[block * BLOCK..(block + 1) * BLOCK]).0;
                for (number, tile) in tiles.clone().enumerate() {
                    for i in 0..vectors {
                        let out =
                            transform_output::<S, tile::Stem>(simd, m, M_PLANE, number * BLOCK, i);
                        for j in 0..OUT {
                            let row = ((y + j) % RING * blocks + block) * conv_row;
                            let start = row + (1 + tile * OUT) * BLOCK;
                            let run = &mut conv[start..start + OUT * BLOCK];
                            let run = S::as_mut_simd_f32s(run).0;
                            for x in 0..OUT {
                                let value = simd.add_f32s(out[j][x], bias[i]);
                                run[x * vectors + i] = simd.max_f32s(zero, value);
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Max pooling: computes one row of the result from rows of the convolution.
struct Maximum<'a> {
    pass: &'a Pass<'a>,
    row: usize,
    block: usize,
    conv: &'a [f32],
    target: &'a mut [f32],
}

impl WithSimd for Maximum<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { pass, row, block, conv, target } = self;
        let Pass { sizes, blocks, .. } = *pass;
        let conv_row = sizes.conv_columns() * BLOCK;
        let vectors = BLOCK / S::F32_LANES;
        // A row beyond the edge is replaced by another row of the same window.
        let rows = [(2 * row).saturating_sub(1), 2 * row, (2 * row + 1).min(sizes.conv[0] - 1)];
        let rows = rows.map(|row| {
            let start = (row % RING * blocks + block) * conv_row;
            S::as_simd_f32s(&conv[start..start + conv_row]).0
        });
        let (target, _) = S::as_mut_simd_f32s(target);
        let last = sizes.conv[1];
        for i in 0..vectors {
            // Column 0 is the zero padding.
            let mut left = largest(simd, rows, i);
            for column in 0..sizes.pooled[1] {
                let middle = largest(simd, rows, (2 * column + 1) * vectors + i);
                let right = match 2 * column + 2 {
                    next if next <= last => largest(simd, rows, next * vectors + i),
                    _ => middle,
                };
                target[column * vectors + i] = simd.max_f32s(left, simd.max_f32s(middle, right));
                left = right;
            }
        }
    }
}

#[inline(always)]
fn largest<S: Simd>(simd: S, rows: [&[S::f32s]; 3], place: usize) -> S::f32s {
    simd.max_f32s(rows[0][place], simd.max_f32s(rows[1][place], rows[2][place]))
}

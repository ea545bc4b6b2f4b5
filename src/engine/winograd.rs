//! 3x3 convolutions by Winograd's algorithm: tiles of the input are transformed, each of the `IN x IN`
//! points becomes a matrix product over the channels, and the products are transformed back. Bias,
//! shortcut and ReLU are applied before the result is written.

use std::marker::PhantomData;
use std::ops::Range;

use pulp::{Simd, WithSimd};

use super::activation::{Activation, BLOCK, Buffer, Order, Shape, Strides, Window};
use super::filters::Filters;
use super::product::{Epilogue, Finish, Product};
use super::team::{Scratch, Team, fork};
use super::tile::{Tile, transform_filter};
use crate::threads::for_each_chunk;

/// Extra numbers between planes, so that a tile's values in neighboring planes use different cache
/// sets.
const GAP: usize = 16;
/// Budgets in bytes: the transformed tiles of a group (`V_BYTES`) and the products of some blocks of
/// channels (`M_BYTES`) should stay together in a core's cache.
const V_BYTES: usize = 600 << 10;
const M_BYTES: usize = 512 << 10;
const MOST_TILES: usize = 64;
/// With fewer tiles in a group, reading the weights takes too large a part of the time.
const FEWEST_TILES: usize = 14;
/// Approximate scratch memory of a thread, in bytes.
pub const SCRATCH_BYTES: usize = 2 * (V_BYTES + M_BYTES);

/// A convolution with transformed weights.
#[derive(Debug)]
pub struct Winograd<T> {
    /// `[points, blocks_out, blocks_in, BLOCK, BLOCK]`
    weights: Buffer,
    blocks_in: usize,
    tile: PhantomData<T>,
}

/// The tiles of a feature map, numbered row by row.
#[derive(Debug, Clone, Copy)]
struct Tiles {
    rows: usize,
    columns: usize,
    side: usize,
}

impl Tiles {
    fn of(shape: Shape, side: usize) -> Self {
        let [rows, columns] = [shape.height, shape.width].map(|n| n.div_ceil(side));
        Self { rows, columns, side }
    }

    fn count(self) -> usize {
        self.rows * self.columns
    }

    /// The row and the column of a tile's first output.
    #[inline(always)]
    fn place(self, tile: usize) -> [usize; 2] {
        [tile / self.columns * self.side, tile % self.columns * self.side]
    }
}

impl<T: Tile + Send + Sync> Winograd<T> {
    pub const POINTS: usize = T::IN * T::IN;

    /// Prepares the weights. Does not use rayon, because threads of a pool may wait for the result.
    pub fn new(filters: &Filters) -> Self {
        let [blocks_out, blocks_in] = filters.blocks();
        let [outs, ins] = [filters.channels_out(), filters.channels_in()];
        // First transform each filter, `[out, point, input]`, then reorder.
        let mut transformed = vec![0.0; outs * Self::POINTS * ins];
        for_each_chunk(&mut transformed, Self::POINTS * ins, |out, target| {
            for input in 0..ins {
                let filter = |y, x| f64::from(filters.at(out, input, y, x));
                for (point, value) in transform_filter::<T>(filter).into_iter().enumerate() {
                    target[point * ins + input] = value as f32;
                }
            }
        });
        let panel = blocks_in * BLOCK * BLOCK;
        let mut weights = Buffer::zeros(Self::POINTS * blocks_out * panel);
        for_each_chunk(&mut weights, panel, |number, panel| {
            let (point, block) = (number / blocks_out, number % blocks_out);
            for (column, out) in (block * BLOCK..outs.min((block + 1) * BLOCK)).enumerate() {
                let values = &transformed[(out * Self::POINTS + point) * ins..][..ins];
                panel[column..].iter_mut().step_by(BLOCK).zip(values).for_each(|(w, &v)| *w = v);
            }
        });
        Self { weights, blocks_in, tile: PhantomData }
    }

    /// Bytes for the transformed tiles of a group. All weights are read for every group, so for large
    /// weights, larger groups are better, even if they exceed the cache.
    fn room(&self) -> usize {
        V_BYTES.max(4 * self.weights.len() / 6)
    }
    /// The bytes of the prepared weights.
    pub fn bytes(&self) -> usize {
        4 * self.weights.len()
    }

    /// Writes the convolution of `source` to `target`.
    ///
    /// If threads share the channels, each of them transforms all tiles. This is a small part of the
    /// work, and faster than waiting for each other and reading from another core's cache.
    pub fn run(
        &self,
        source: &Activation,
        target: &mut Activation,
        epilogue: Epilogue<'_>,
        team: &Team,
    ) {
        let (shape, strides) = (target.shape, target.strides);
        let tiles = Tiles::of(shape, T::OUT);
        let pass = Pass { convolution: self, tiles, source, shape, epilogue };
        let points = T::IN * T::IN;
        let most = self.room() / (4 * points * self.blocks_in * BLOCK);
        let most = most.clamp(FEWEST_TILES, MOST_TILES);
        let run = |range: Range<usize>, blocks: Range<usize>, mut window: Window<'_>| {
            team.lend(|scratch| {
                for range in pieces(range, most) {
                    pass.run(range, blocks.clone(), &mut window, scratch);
                }
            });
        };
        match shape.order {
            Order::Rows => {
                let cut = |row: usize| strides.at(0, 1 + row * T::OUT, 0);
                let parts = team.parts(tiles.rows.min(tiles.count() / FEWEST_TILES), 4);
                fork(0..tiles.rows, parts, target.window(), &cut, &|rows, window| {
                    let range = rows.start * tiles.columns..rows.end * tiles.columns;
                    run(range, 0..shape.blocks, window);
                });
            }
            Order::Channels => {
                let cut = |block: usize| strides.at(block, 0, 0);
                let blocks = 0..shape.blocks;
                fork(blocks, team.threads, target.window(), &cut, &|blocks, window| {
                    run(0..tiles.count(), blocks, window);
                });
            }
        }
    }
}

/// The arguments of a running convolution.
struct Pass<'a, T> {
    convolution: &'a Winograd<T>,
    tiles: Tiles,
    source: &'a Activation,
    shape: Shape,
    epilogue: Epilogue<'a>,
}

impl<T: Tile + Send + Sync> Pass<'_, T> {
    /// Computes a range of tiles for a range of channel blocks.
    fn run(
        &self,
        range: Range<usize>,
        blocks: Range<usize>,
        window: &mut Window<'_>,
        scratch: &mut Scratch,
    ) {
        let Self { convolution, tiles, source, shape, epilogue } = *self;
        let Winograd { weights, blocks_in, .. } = convolution;
        let blocks_in = *blocks_in;
        let Scratch { arch, v, m, segments, .. } = scratch;
        let points = T::IN * T::IN;
        let plane = range.len() * BLOCK + GAP;
        let v = v.at_least(blocks_in * points * plane);
        let (values, strides, tile) = (source.values(), source.strides, PhantomData::<T>);
        for (block, v) in v.chunks_exact_mut(points * plane).enumerate() {
            let range = range.clone();
            arch.dispatch(Input { values, strides, tiles, range, block, v, plane, tile });
        }
        segments.clear();
        segments.extend((0..blocks_in).map(|block| block * points * plane));
        let together = M_BYTES / (4 * points * plane);
        for blocks in pieces(blocks, together.max(1)) {
            let m = m.at_least(blocks.len() * points * plane);
            arch.dispatch(Multiply {
                v,
                segments,
                weights,
                points,
                blocks_out: shape.blocks,
                blocks: blocks.clone(),
                rows: range.len(),
                m,
                plane,
            });
            for (m, block) in m.chunks_exact(points * plane).zip(blocks) {
                let (range, window) = (range.clone(), &mut *window);
                arch.dispatch(Output {
                    m,
                    plane,
                    tiles,
                    range,
                    block,
                    shape,
                    epilogue,
                    window,
                    tile,
                });
            }
        }
    }
}

/// Splits a range evenly into pieces of at most `most`.
fn pieces(range: Range<usize>, most: usize) -> impl Iterator<Item = Range<usize>> {
    let (first, len) = (range.start, range.len());
    let count = len.div_ceil(most);
    (0..count).map(move |i| first + len * i / count..first + len * (i + 1) / count)
}

/// Transforms one channel block of some tiles to `[points, tiles, BLOCK]`; points are `plane` numbers
/// apart.
struct Input<'a, T> {
    values: &'a [f32],
    strides: Strides,
    tiles: Tiles,
    range: Range<usize>,
    block: usize,
    v: &'a mut [f32],
    plane: usize,
    tile: PhantomData<T>,
}

impl<T: Tile> WithSimd for Input<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { values, strides, tiles, range, block, v, plane, .. } = self;
        for (number, tile) in range.enumerate() {
            let [y, x] = tiles.place(tile).map(|place| place * T::STRIDE);
            let first = strides.at(block, y, x);
            transform_input::<S, T, BLOCK>(
                simd,
                |row| &values[first + row * strides.row..],
                v,
                plane,
                number * BLOCK,
            );
        }
    }
}

/// Transforms one input patch with `WIDTH` numbers per pixel. `row` gives its rows; the points of the
/// result are `plane` numbers apart.
#[inline(always)]
pub fn transform_input<'a, S: Simd, T: Tile, const WIDTH: usize>(
    simd: S,
    row: impl Fn(usize) -> &'a [f32],
    v: &mut [f32],
    plane: usize,
    first: usize,
) {
    let vectors = WIDTH / S::F32_LANES;
    let zero = simd.splat_f32s(0.0);
    let mut rows: [&[S::f32s]; 6] = [&[]; 6];
    for y in 0..T::IN {
        rows[y] = S::as_simd_f32s(&row(y)[..T::IN * WIDTH]).0;
    }
    let (v, _) = S::as_mut_simd_f32s(v);
    let (plane, first) = (plane / S::F32_LANES, first / S::F32_LANES);
    for i in 0..vectors {
        let mut half = [[zero; 6]; 6];
        for x in 0..T::IN {
            let mut d = [zero; 6];
            for y in 0..T::IN {
                d[y] = rows[y][x * vectors + i];
            }
            let d = T::input(simd, d);
            for y in 0..T::IN {
                half[y][x] = d[y];
            }
        }
        for y in 0..T::IN {
            let d = T::input(simd, half[y]);
            for x in 0..T::IN {
                v[(y * T::IN + x) * plane + first + i] = d[x];
            }
        }
    }
}

/// Multiplies each point by some blocks of weights: `[blocks, points, tiles, BLOCK]`, where points are
/// `plane` numbers apart. Point by point, so that the inputs of a point stay in the cache for all
/// blocks.
struct Multiply<'a> {
    v: &'a [f32],
    segments: &'a [usize],
    /// `[points, blocks_out, blocks_in, BLOCK, BLOCK]`
    weights: &'a [f32],
    points: usize,
    blocks_out: usize,
    blocks: Range<usize>,
    rows: usize,
    m: &'a mut [f32],
    plane: usize,
}

impl WithSimd for Multiply<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { v, segments, weights, points, blocks_out, blocks, rows, m, plane } = self;
        let size = segments.len() * BLOCK * BLOCK;
        for point in 0..points {
            let a = &v[point * plane..];
            for (place, block) in blocks.clone().enumerate() {
                let panel = &weights[(point * blocks_out + block) * size..][..size];
                let target = &mut m[(place * points + point) * plane..][..plane];
                let finish = Finish::None;
                let product = Product { a, segments, panel, rows, target, finish, passing: true };
                product.compute::<S, BLOCK, BLOCK>(simd);
            }
        }
    }
}

/// Transforms the products of some tiles back and applies the epilogue.
struct Output<'a, 'w, T> {
    m: &'a [f32],
    plane: usize,
    tiles: Tiles,
    range: Range<usize>,
    block: usize,
    shape: Shape,
    epilogue: Epilogue<'a>,
    window: &'a mut Window<'w>,
    tile: PhantomData<T>,
}

impl<T: Tile> WithSimd for Output<'_, '_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { m, plane, tiles, range, block, shape, epilogue, window, .. } = self;
        let vectors = BLOCK / S::F32_LANES;
        let zero = simd.splat_f32s(0.0);
        let bias = S::as_simd_f32s(&epilogue.bias[block * BLOCK..(block + 1) * BLOCK]).0;
        for (number, tile) in range.enumerate() {
            let [y0, x0] = tiles.place(tile);
            let columns = T::OUT.min(shape.width - x0);
            let rows = T::OUT.min(shape.height - y0);
            for i in 0..vectors {
                let out = transform_output::<S, T>(simd, m, plane, number * BLOCK, i);
                for y in 0..rows {
                    let place = [block, y0 + y + 1, x0 + 1];
                    let shortcut = match epilogue.shortcut {
                        Some(shortcut) => {
                            let [block, row, column] = place;
                            let start = shortcut.strides.at(block, row, column);
                            let run = &shortcut.values()[start..start + columns * BLOCK];
                            S::as_simd_f32s(run).0
                        }
                        None => &[],
                    };
                    let target = S::as_mut_simd_f32s(window.run(place, columns)).0;
                    for x in 0..columns {
                        let mut value = simd.add_f32s(out[y][x], bias[i]);
                        if !shortcut.is_empty() {
                            value = simd.add_f32s(value, shortcut[x * vectors + i]);
                        }
                        if epilogue.relu {
                            value = simd.max_f32s(zero, value);
                        }
                        target[x * vectors + i] = value;
                    }
                }
            }
        }
    }
}

/// The output transform of one tile: vector `i` of each output pixel.
#[inline(always)]
pub fn transform_output<S: Simd, T: Tile>(
    simd: S,
    m: &[f32],
    plane: usize,
    first: usize,
    i: usize,
) -> [[S::f32s; 4]; 4] {
    let zero = simd.splat_f32s(0.0);
    let (m, _) = S::as_simd_f32s(m);
    let (plane, first) = (plane / S::F32_LANES, first / S::F32_LANES + i);
    let mut half = [[zero; 6]; 4];
    for x in 0..T::IN {
        let mut column = [zero; 6];
        for y in 0..T::IN {
            column[y] = m[(y * T::IN + x) * plane + first];
        }
        let column = T::output(simd, column);
        for y in 0..T::OUT {
            half[y][x] = column[y];
        }
    }
    let mut out = [[zero; 4]; 4];
    for y in 0..T::OUT {
        out[y] = T::output(simd, half[y]);
    }
    out
}

//! 3x3 convolutions of stride 1 by Winograd's algorithm: tiles of the input are transformed, each of
//! the `IN x IN` points becomes a matrix product over the channels, and the products are transformed
//! back, with bias, shortcut and ReLU on the way out.

use std::marker::PhantomData;
use std::ops::Range;

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::activation::{Activation, BLOCK, Buffer, Order, Shape, Strides, Window};
use super::product::{Finish, Product};
use super::tile::{Tile, transform_filter};
use super::{Filters, Scratch, fork};

/// Numbers between planes, so that equal places of neighbouring planes do not share a cache set.
const GAP: usize = 16;

/// A convolution, its weights transformed.
#[derive(Debug)]
pub struct Winograd<T> {
    /// `[blocks_out, points, blocks_in, BLOCK, BLOCK]`
    weights: Buffer,
    blocks_in: usize,
    tile: PhantomData<T>,
}

/// What a convolution adds to its sums.
#[derive(Debug, Clone, Copy)]
pub struct Epilogue<'a> {
    /// `[blocks_out, BLOCK]`
    pub bias: &'a [f32],
    pub shortcut: Option<&'a Activation>,
    pub relu: bool,
}

/// The tiles of the maps of some images, numbered row by row.
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

    /// The image of a tile, and the row and the column of its first output.
    #[inline(always)]
    fn place(self, tile: usize) -> [usize; 3] {
        let row = tile / self.columns;
        [row / self.rows, row % self.rows * self.side, tile % self.columns * self.side]
    }
}

impl<T: Tile + Send + Sync> Winograd<T> {
    const POINTS: usize = T::IN * T::IN;
    /// Tiles that are worked on together: their transforms should stay in a core's cache.
    const V_BYTES: usize = 600 << 10;

    pub fn new(filters: &Filters) -> Self {
        let [blocks_out, blocks_in] = filters.blocks();
        let mut weights = Buffer::zeros(blocks_out * Self::POINTS * blocks_in * BLOCK * BLOCK);
        let block = Self::POINTS * blocks_in * BLOCK * BLOCK;
        weights.par_chunks_mut(block).enumerate().for_each(|(block, weights)| {
            let outputs = block * BLOCK..filters.channels_out().min((block + 1) * BLOCK);
            for (column, out) in outputs.enumerate() {
                for input in 0..filters.channels_in() {
                    let values =
                        transform_filter::<T>(|y, x| f64::from(filters.at(out, input, y, x)));
                    for (point, value) in values.into_iter().enumerate() {
                        let row = (point * blocks_in * BLOCK) + input;
                        weights[row * BLOCK + column] = value as f32;
                    }
                }
            }
        });
        Self { weights, blocks_in, tile: PhantomData }
    }

    /// The convolution of `source` into `target`, by as many threads as there are scratches.
    pub fn run(
        &self,
        source: &Activation,
        target: &mut Activation,
        epilogue: Epilogue<'_>,
        scratches: &mut [Scratch],
        shared: &mut Buffer,
    ) {
        let shape = target.shape;
        let tiles = Tiles::of(shape, T::OUT);
        let strides = target.strides;
        if scratches.len() > 1 && shape.order == Order::Channels {
            self.by_channels(source, target, epilogue, scratches, shared);
            return;
        }
        let rows = shape.images * tiles.rows;
        let cut = |row: usize| strides.at(0, 0, 1 + row * T::OUT, 0);
        fork(0..rows, scratches, target.window(), &cut, &|rows, mut window, scratch| {
            let range = rows.start * tiles.columns..rows.end * tiles.columns;
            self.by_tiles(range, tiles, source, shape, epilogue, &mut window, scratch);
        });
    }

    /// How many tiles fit the cache, given the number of input blocks.
    fn most_tiles(&self) -> usize {
        (Self::V_BYTES / (Self::POINTS * self.blocks_in * BLOCK * 4)).clamp(14, 64)
    }

    #[allow(clippy::too_many_arguments)]
    fn by_tiles(
        &self,
        range: Range<usize>,
        tiles: Tiles,
        source: &Activation,
        shape: Shape,
        epilogue: Epilogue<'_>,
        window: &mut Window<'_>,
        scratch: &mut Scratch,
    ) {
        let arch = Arch::new();
        for range in pieces(range, self.most_tiles()) {
            let plane = range.len() * BLOCK + GAP;
            let v = scratch.v.at_least(self.blocks_in * Self::POINTS * plane);
            for (block, v) in v.chunks_exact_mut(Self::POINTS * plane).enumerate() {
                let (values, strides) = (source.values(), source.strides);
                let tile = PhantomData::<T>;
                arch.dispatch(Input { values, strides, tiles, range: range.clone(), block, v, plane, tile });
            }
            let m = scratch.m.at_least(Self::POINTS * plane);
            let segments = &mut scratch.segments;
            for block in 0..shape.blocks {
                self.multiply(arch, v, plane, 0..range.len(), block, m, plane, segments);
                let range = range.clone();
                let tile = PhantomData::<T>;
                let window = &mut *window;
                arch.dispatch(Output { m, plane, tiles, range, block, shape, epilogue, window, tile });
            }
        }
    }

    /// First all tiles are transformed, then each thread makes some of the output channels: for maps so
    /// small that the weights are what takes time to read.
    fn by_channels(
        &self,
        source: &Activation,
        target: &mut Activation,
        epilogue: Epilogue<'_>,
        scratches: &mut [Scratch],
        shared: &mut Buffer,
    ) {
        let arch = Arch::new();
        let (shape, strides) = (target.shape, target.strides);
        let tiles = Tiles::of(shape, T::OUT);
        let count = shape.images * tiles.rows * tiles.columns;
        let plane = count * BLOCK + GAP;
        let v = shared.at_least(self.blocks_in * Self::POINTS * plane);
        v.par_chunks_exact_mut(Self::POINTS * plane).enumerate().for_each(|(block, v)| {
            let (values, strides) = (source.values(), source.strides);
            let tile = PhantomData::<T>;
            arch.dispatch(Input { values, strides, tiles, range: 0..count, block, v, plane, tile });
        });
        let v = &*v;
        let cut = |block: usize| strides.at(0, block, 0, 0);
        fork(0..shape.blocks, scratches, target.window(), &cut, &|blocks, mut window, scratch| {
            let Scratch { m, segments, .. } = scratch;
            for block in blocks {
                for range in pieces(0..count, 64) {
                    let m_plane = range.len() * BLOCK + GAP;
                    let m = m.at_least(Self::POINTS * m_plane);
                    self.multiply(arch, v, plane, range.clone(), block, m, m_plane, segments);
                    let tile = PhantomData::<T>;
                    let (plane, window) = (m_plane, &mut window);
                    arch.dispatch(Output { m, plane, tiles, range, block, shape, epilogue, window, tile });
                }
            }
        });
    }

    #[allow(clippy::too_many_arguments)]
    fn multiply(
        &self,
        arch: Arch,
        v: &[f32],
        v_plane: usize,
        range: Range<usize>,
        block: usize,
        m: &mut [f32],
        m_plane: usize,
        segments: &mut Vec<usize>,
    ) {
        let size = Self::POINTS * self.blocks_in * BLOCK * BLOCK;
        segments.clear();
        segments.extend((0..self.blocks_in).map(|b| b * Self::POINTS * v_plane));
        arch.dispatch(Multiply {
            v,
            v_plane,
            range,
            weights: &self.weights[block * size..(block + 1) * size],
            points: Self::POINTS,
            m,
            m_plane,
            segments,
        });
    }
}

/// Cuts a range evenly into pieces of at most `most`.
fn pieces(range: Range<usize>, most: usize) -> impl Iterator<Item = Range<usize>> {
    let (first, len) = (range.start, range.len());
    let count = len.div_ceil(most);
    (0..count).map(move |i| first + len * i / count..first + len * (i + 1) / count)
}

/// Transforms a block of some tiles: `[points, tiles, BLOCK]`, points `plane` apart.
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
            let [image, y, x] = tiles.place(tile);
            let first = strides.at(image, block, y, x);
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

/// Transforms the patch whose rows are given, of `WIDTH` numbers a pixel, to places `plane` apart.
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

/// The product of each point: `[points, tiles, BLOCK]`, points `m_plane` apart.
struct Multiply<'a> {
    v: &'a [f32],
    v_plane: usize,
    range: Range<usize>,
    weights: &'a [f32],
    points: usize,
    m: &'a mut [f32],
    m_plane: usize,
    segments: &'a [usize],
}

impl WithSimd for Multiply<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { v, v_plane, range, weights, points, m, m_plane, segments } = self;
        let panels = weights.chunks_exact(weights.len() / points);
        for ((point, panel), target) in panels.enumerate().zip(m.chunks_exact_mut(m_plane)) {
            let a = &v[point * v_plane + range.start * BLOCK..];
            let rows = range.len();
            let product = Product { a, segments, panel, rows, target, finish: Finish::None };
            product.compute::<S, BLOCK, BLOCK>(simd);
        }
    }
}

/// Transforms the products of some tiles back.
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
            let [image, y0, x0] = tiles.place(tile);
            let columns = T::OUT.min(shape.width - x0);
            let rows = T::OUT.min(shape.height - y0);
            for i in 0..vectors {
                let out = transform_output::<S, T>(simd, m, plane, number * BLOCK, i);
                for y in 0..rows {
                    let place = [image, block, y0 + y + 1, x0 + 1];
                    let shortcut = match epilogue.shortcut {
                        Some(shortcut) => {
                            let [image, block, row, column] = place;
                            let start = shortcut.strides.at(image, block, row, column);
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

/// The outputs of a tile: vector `i` of each.
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

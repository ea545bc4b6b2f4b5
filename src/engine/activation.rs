//! The memory layout of the engine's feature maps.
//!
//! Channels are grouped in blocks of [`BLOCK`]: a map is `[row, block, column, BLOCK]` or
//! `[block, row, column, BLOCK]`. Neighboring columns of a block are always [`BLOCK`] numbers apart,
//! so a kernel's strides are constants. Each map has a border of zeros, the padding of the 3x3
//! convolutions. The border is written once, at allocation; kernels write only inside it.

use std::ops::{Deref, DerefMut};

/// Channels per block: one row of a panel of weights, or two AVX-512 vectors.
pub const BLOCK: usize = 32;

/// A zero-initialized buffer, aligned to a cache line so that no vector crosses two lines.
#[derive(Debug, Default)]
pub struct Buffer {
    values: Vec<f32>,
    start: usize,
    len: usize,
}

impl Buffer {
    const LINE: usize = 64;

    pub fn zeros(len: usize) -> Self {
        let values = vec![0.0_f32; len + Self::LINE / size_of::<f32>()];
        // If `align_offset` has no answer, the buffer is not aligned: slower, but correct.
        let start = values.as_ptr().align_offset(Self::LINE).min(values.len() - len);
        Self { values, start, len }
    }

    /// The first `len` numbers. Grows if needed; the old contents are not cleared.
    pub fn at_least(&mut self, len: usize) -> &mut [f32] {
        if self.len < len {
            *self = Self::zeros(len);
        }
        &mut self[..len]
    }
}

impl Deref for Buffer {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.values[self.start..self.start + self.len]
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.values[self.start..self.start + self.len]
    }
}

/// The order of rows and blocks in a map. The convolution that writes the map chooses it, so that
/// each thread writes one contiguous part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// All blocks of a row are contiguous: threads share the rows.
    Rows,
    /// All rows of a block are contiguous: threads share the channels.
    Channels,
}

/// The size of an image's feature maps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    pub blocks: usize,
    pub height: usize,
    pub width: usize,
    pub order: Order,
}

impl Shape {
    /// The largest output tile; maps are padded to whole tiles.
    const TILE: usize = 4;

    fn padded_rows(self) -> usize {
        self.height.next_multiple_of(Self::TILE) + 2
    }

    fn pitch(self) -> usize {
        (self.width.next_multiple_of(Self::TILE) + 2) * BLOCK
    }

    fn len(self) -> usize {
        self.padded_rows() * self.pitch() * self.blocks
    }

    pub fn strides(self) -> Strides {
        let (rows, pitch) = (self.padded_rows(), self.pitch());
        match self.order {
            Order::Rows => Strides { row: pitch * self.blocks, block: pitch },
            Order::Channels => Strides { row: pitch, block: pitch * rows },
        }
    }
}

/// The distances between rows and between blocks in a map, in numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Strides {
    pub row: usize,
    pub block: usize,
}

impl Strides {
    /// The index at which a pixel's block begins. Row and column 0 are the border.
    #[inline(always)]
    pub fn at(self, block: usize, row: usize, column: usize) -> usize {
        block * self.block + row * self.row + column * BLOCK
    }
}

/// The feature maps of one image.
#[derive(Debug)]
pub struct Activation {
    pub shape: Shape,
    pub strides: Strides,
    values: Buffer,
}

impl Activation {
    pub fn zeros(shape: Shape) -> Self {
        Self { shape, strides: shape.strides(), values: Buffer::zeros(shape.len()) }
    }

    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// The whole map, for writing.
    pub fn window(&mut self) -> Window<'_> {
        Window { values: &mut self.values, origin: 0, strides: self.strides }
    }
}

/// A part of a map that one thread may write.
#[derive(Debug)]
pub struct Window<'a> {
    values: &'a mut [f32],
    origin: usize,
    strides: Strides,
}

impl<'a> Window<'a> {
    /// Splits at `place`, an index into the whole map.
    pub fn split_at(self, place: usize) -> (Self, Self) {
        let Self { values, origin, strides } = self;
        let (left, right) = values.split_at_mut(place - origin);
        (Self { values: left, origin, strides }, Self { values: right, origin: place, strides })
    }

    /// `columns` pixels of a block. Row and column 0 are the border.
    #[inline(always)]
    pub fn run(&mut self, [block, row, column]: [usize; 3], columns: usize) -> &mut [f32] {
        let start = self.strides.at(block, row, column) - self.origin;
        &mut self.values[start..start + columns * BLOCK]
    }
}

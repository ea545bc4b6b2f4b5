//! Feature maps as the engine keeps them.
//!
//! Channels stand in blocks of [`BLOCK`]: a map is `[row, block, column, BLOCK]` or
//! `[block, row, column, BLOCK]`, so that neighbouring columns of a block lie [`BLOCK`] numbers apart
//! whatever the number of channels, and a kernel's strides are constants. Around each map is a border
//! of zeros for the 3x3 convolutions. It is written once, when the memory comes: kernels write inside
//! only.

use std::ops::{Deref, DerefMut};

/// Channels that stand together: one row of a panel of weights, two AVX-512 vectors.
pub const BLOCK: usize = 32;

/// Zeros at a cache line's beginning, so that no vector lies across two lines.
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
        // Where the machine cannot say, alignment is only slower.
        let start = values.as_ptr().align_offset(Self::LINE).min(values.len() - len);
        Self { values, start, len }
    }

    /// The first `len` numbers, of whatever was there before.
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

/// What lies together in a map: decided by the convolution that writes it, so that what a thread
/// writes is one piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// All blocks of a row: threads share the rows.
    Rows,
    /// All rows of a block: threads share the channels.
    Channels,
}

/// The sizes of the maps of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    pub blocks: usize,
    pub height: usize,
    pub width: usize,
    pub order: Order,
}

impl Shape {
    /// The largest tile of outputs; maps are padded to whole ones.
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

/// How far things lie apart in a map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Strides {
    pub row: usize,
    pub block: usize,
}

impl Strides {
    /// Where a pixel's block begins. Row and column 0 are the border.
    #[inline(always)]
    pub fn at(self, block: usize, row: usize, column: usize) -> usize {
        block * self.block + row * self.row + column * BLOCK
    }
}

/// The maps of an image.
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

    /// All of it, to be written.
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
    /// The parts before and from `place` (counted in the whole map).
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

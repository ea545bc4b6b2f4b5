//! Direct convolution, for stride 1 or 2 and kernel size 1 or 3: each output row is a product of input
//! rows with the weights, without copying the input.

use pulp::{Simd, WithSimd};

use super::activation::{Activation, BLOCK, Buffer, Order, Shape, Window};
use super::product::{Epilogue, Finish, Product};

use super::filters::Filters;
use super::team::{Team, fork};

/// A convolution with packed weights.
#[derive(Debug)]
pub struct Direct {
    /// `[blocks_out, kernel, kernel, blocks_in, BLOCK, BLOCK]`
    weights: Buffer,
    blocks_in: usize,
    kernel: usize,
    stride: usize,
}

/// Size of the group of input rows that is reused for all output channels, in bytes.
const ROWS_BYTES: usize = 256 << 10;

impl Direct {
    pub fn new(filters: &Filters, stride: usize) -> Self {
        let [blocks_out, blocks_in] = filters.blocks();
        let kernel = filters.kernel();
        let len = blocks_out * kernel * kernel * blocks_in * BLOCK * BLOCK;
        let mut weights = Buffer::zeros(len);
        for out in 0..filters.channels_out() {
            let (block, column) = (out / BLOCK, out % BLOCK);
            for (y, x) in (0..kernel).flat_map(|y| (0..kernel).map(move |x| (y, x))) {
                let first = ((block * kernel + y) * kernel + x) * blocks_in * BLOCK;
                for input in 0..filters.channels_in() {
                    weights[(first + input) * BLOCK + column] = filters.at(out, input, y, x);
                }
            }
        }
        Self { weights, blocks_in, kernel, stride }
    }
    /// The bytes of the prepared weights.
    pub fn bytes(&self) -> usize {
        4 * self.weights.len()
    }

    /// Writes the convolution of `source` to `target`.
    pub fn run(
        &self,
        source: &Activation,
        target: &mut Activation,
        epilogue: Epilogue<'_>,
        team: &Team,
    ) {
        let (shape, strides) = (target.shape, target.strides);
        let by_channels = shape.order == Order::Channels;
        let (count, cut): (_, &(dyn Fn(usize) -> usize + Sync)) = if by_channels {
            (shape.blocks, &|block| strides.at(block, 0, 0))
        } else {
            (shape.height, &|row| strides.at(0, 1 + row, 0))
        };
        let parts = team.parts(count, if by_channels { 2 } else { 4 });
        fork(0..count, parts, target.window(), cut, &|range, mut window| {
            let (blocks, rows) =
                if by_channels { (range, 0..shape.height) } else { (0..shape.blocks, range) };
            let row_bytes = self.stride * self.blocks_in * shape.width * BLOCK * 4;
            let together = (ROWS_BYTES / row_bytes.max(1)).max(1);
            team.lend(|scratch| {
                self.reach(source, &mut scratch.segments);
                let (window, segments) = (&mut window, &scratch.segments[..]);
                for first in rows.clone().step_by(together) {
                    let rows = first..rows.end.min(first + together);
                    for block in blocks.clone() {
                        let (convolution, rows) = (self, rows.clone());
                        scratch.arch.dispatch(Rows {
                            convolution,
                            source,
                            shape,
                            segments,
                            block,
                            rows,
                            epilogue,
                            window: &mut *window,
                        });
                    }
                }
            });
        });
    }

    /// The offsets of an output's inputs, relative to its first input.
    fn reach(&self, source: &Activation, segments: &mut Vec<usize>) {
        segments.clear();
        for y in 0..self.kernel {
            for x in 0..self.kernel {
                segments.extend((0..self.blocks_in).map(|b| source.strides.at(b, y, x)));
            }
        }
    }
}

/// Computes some output rows of one block of channels.
struct Rows<'a, 'w> {
    convolution: &'a Direct,
    source: &'a Activation,
    shape: Shape,
    segments: &'a [usize],
    block: usize,
    rows: std::ops::Range<usize>,
    epilogue: Epilogue<'a>,
    window: &'a mut Window<'w>,
}

impl WithSimd for Rows<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { convolution, source, shape, segments, block, rows, epilogue, window } = self;
        let Direct { weights, kernel, stride, .. } = convolution;
        let size = segments.len() * BLOCK * BLOCK;
        let panel = &weights[block * size..(block + 1) * size];
        let bias = &epilogue.bias[block * BLOCK..(block + 1) * BLOCK];
        // The border is one pixel wide; a 1x1 kernel does not read it.
        let inset = 1 - kernel / 2;
        for y in rows {
            let first = source.strides.at(0, y * stride + inset, inset);
            let place = [block, y + 1, 1];
            let shortcut = epilogue.shortcut.map(|shortcut| {
                let start = shortcut.strides.at(block, y + 1, 1);
                &shortcut.values()[start..start + shape.width * BLOCK]
            });
            let product = Product {
                a: &source.values()[first..],
                segments,
                panel,
                rows: shape.width,
                target: window.run(place, shape.width),
                finish: Finish::Bias { bias, shortcut, relu: epilogue.relu },
                passing: false,
            };
            if *stride == 1 {
                product.compute::<S, BLOCK, BLOCK>(simd);
            } else {
                product.compute::<S, BLOCK, { 2 * BLOCK }>(simd);
            }
        }
    }
}

//! Narrows the rows of a picture with the instructions of AVX2, in the same arithmetic to the bit.
//!
//! The instruction multiplies 16-bit numbers and adds neighboring products, and weights have 23 bits. So
//! each weight is split: `weight = low + 2^15 * high`. Both sums are exact modulo `2^32`, as is the result.

use std::arch::x86_64::__m256i;

use pulp::x86::V3;
use pulp::{NullaryFnOnce, cast, i16x16, i32x4, u8x16};

use super::fixed::{FixedRun, ROUNDING, TOGETHER, from_fixed};

const LOW_BITS: u32 = 15;

/// Prepared weights of all output columns, for pictures of `C` channels: 1 or 3.
#[derive(Debug)]
pub struct Narrow<const C: usize> {
    simd: V3,
    runs: Vec<BlockRun>,
    /// For each block of pixels, with three channels: low, low, high, high; with one: low, high.
    weights: Vec<i16x16>,
}

/// A run of whole blocks of pixels. Its weights before and after the samples that count are 0.
#[derive(Debug)]
struct BlockRun {
    /// The index of the first byte in a row.
    start: usize,
    /// The index of the first weights.
    first: usize,
    blocks: usize,
}

impl<const C: usize> Narrow<C> {
    /// Pixels in a block.
    const PIXELS: usize = if C == 3 { 8 } else { 16 };
    /// Vectors of weights for a block.
    const VECTORS: usize = if C == 3 { 4 } else { 2 };

    /// `None` if the rows are shorter than a run of blocks, or the channels are neither 1 nor 3.
    pub fn new(simd: V3, columns: &[FixedRun], width: usize) -> Option<Self> {
        if C != 1 && C != 3 {
            return None;
        }
        let mut runs = Vec::with_capacity(columns.len());
        let mut weights = Vec::new();
        for run in columns {
            // Blocks must end inside the row. Those of the last columns begin before the run.
            let mut blocks = run.weights.len().div_ceil(Self::PIXELS);
            let start = loop {
                let start = run.start.min(width.checked_sub(blocks * Self::PIXELS)?);
                if run.end() <= start + blocks * Self::PIXELS {
                    break start;
                }
                blocks += 1;
            };
            runs.push(BlockRun { start: start * C, first: weights.len(), blocks });
            let weight = |pixel: usize| {
                let place = (start + pixel).checked_sub(run.start);
                place.and_then(|place| run.weights.get(place)).copied().unwrap_or(0)
            };
            for first in (0..blocks).map(|block| block * Self::PIXELS) {
                weights.extend(Self::vectors(|pixel| weight(first + pixel)));
            }
        }
        Some(Self { simd, runs, weights })
    }

    /// The vectors of a block, by the weights of its pixels.
    fn vectors(weight: impl Fn(usize) -> i32) -> Vec<i16x16> {
        let low = |weight: i32| (weight & ((1 << LOW_BITS) - 1)) as i16;
        let high = |weight: i32| (weight >> LOW_BITS) as i16;
        let vector = |part: &dyn Fn(i32) -> i16, pixel: &dyn Fn(usize) -> usize| {
            cast(std::array::from_fn::<i16, 16, _>(|lane| part(weight(pixel(lane)))))
        };
        if C == 1 {
            return vec![vector(&low, &|lane| lane), vector(&high, &|lane| lane)];
        }
        // Each half of a vector has two pixels for each of three channels; the fourth pair counts nothing.
        let first = |lane: usize| lane / 8 * 4 + lane % 2;
        let second = |lane: usize| first(lane) + 2;
        vec![
            vector(&low, &first),
            vector(&low, &second),
            vector(&high, &first),
            vector(&high, &second),
        ]
    }

    /// Narrows some rows. `target`: the narrow rows, one after the other.
    pub fn rows(&self, sources: [&[u8]; TOGETHER], target: &mut [u8]) {
        self.simd.vectorize(Rows { narrow: self, sources, target });
    }
}

struct Rows<'a, const C: usize> {
    narrow: &'a Narrow<C>,
    sources: [&'a [u8]; TOGETHER],
    target: &'a mut [u8],
}

#[inline(always)]
fn load(source: &[u8], at: usize) -> u8x16 {
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&source[at..at + 16]);
    cast(bytes)
}

impl<const C: usize> NullaryFnOnce for Rows<'_, C> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let Self { narrow, sources, target } = self;
        let Narrow { simd, runs, weights } = narrow;
        let (simd, avx2) = (*simd, simd.avx2);
        let stride = runs.len() * C;
        let zero = simd.splat_i32x8(0);
        // Where the bytes of an upper half begin in a block.
        const UPPER: usize = 8;
        // The bytes of a half with three channels: r r g g b b of its first and of its second two pixels,
        // as 16-bit numbers.
        const O: u8 = 0x80;
        let first: __m256i = cast([
            [0, O, 3, O, 1, O, 4, O, 2, O, 5, O, O, O, O, O],
            [4, O, 7, O, 5, O, 8, O, 6, O, 9, O, O, O, O, O],
        ]);
        let second: __m256i = cast([
            [6, O, 9, O, 7, O, 10, O, 8, O, 11, O, O, O, O, O],
            [10, O, 13, O, 11, O, 14, O, 12, O, 15, O, O, O, O, O],
        ]);
        for (number, run) in runs.iter().enumerate() {
            let mut low = [zero; TOGETHER];
            let mut high = [zero; TOGETHER];
            let size = Narrow::<C>::VECTORS;
            let weights = &weights[run.first..][..run.blocks * size];
            let mut at = run.start;
            for w in weights.chunks_exact(size) {
                for r in 0..TOGETHER {
                    let mut add = |x: i16x16, w_low: i16x16, w_high: i16x16| {
                        let product = simd.multiply_wrapping_add_adjacent_i16x16(x, w_low);
                        low[r] = simd.wrapping_add_i32x8(low[r], product);
                        let product = simd.multiply_wrapping_add_adjacent_i16x16(x, w_high);
                        high[r] = simd.wrapping_add_i32x8(high[r], product);
                    };
                    if C == 3 {
                        let block = &sources[r][at..at + 24];
                        let x: __m256i = cast([load(block, 0), load(block, UPPER)]);
                        add(cast(avx2._mm256_shuffle_epi8(x, first)), w[0], w[2]);
                        add(cast(avx2._mm256_shuffle_epi8(x, second)), w[1], w[3]);
                    } else {
                        add(simd.convert_u8x16_to_i16x16(load(sources[r], at)), w[0], w[1]);
                    }
                }
                at += Narrow::<C>::PIXELS * C;
            }
            let sum = |r: usize| -> __m256i {
                let high = simd.shl_const_i32x8::<{ LOW_BITS as i32 }>(high[r]);
                cast(simd.wrapping_add_i32x8(low[r], high))
            };
            let sums: [__m256i; TOGETHER] = [sum(0), sum(1), sum(2), sum(3)];
            if C == 3 {
                // Both halves have sums of r, g and b. Adds the halves of two rows at once.
                let both = |a: __m256i, b: __m256i| {
                    let lower = avx2._mm256_permute2x128_si256::<0x20>(a, b);
                    let upper = avx2._mm256_permute2x128_si256::<0x31>(a, b);
                    let sum = avx2._mm256_add_epi32(lower, upper);
                    avx2._mm256_srai_epi32::<22>(
                        avx2._mm256_add_epi32(sum, cast(simd.splat_i32x8(ROUNDING))),
                    )
                };
                // Packing clamps to 0 and 255. The order is row 0, 2, then in the upper half 1, 3.
                let packed =
                    avx2._mm256_packus_epi32(both(sums[0], sums[1]), both(sums[2], sums[3]));
                let bytes: [u8; 32] = cast(avx2._mm256_packus_epi16(packed, packed));
                for (r, at) in [0, 16, 4, 20].into_iter().enumerate() {
                    target[r * stride + number * C..][..C].copy_from_slice(&bytes[at..at + C]);
                }
            } else {
                let pairs = avx2._mm256_hadd_epi32(sums[0], sums[1]);
                let sums = avx2._mm256_hadd_epi32(pairs, avx2._mm256_hadd_epi32(sums[2], sums[3]));
                let [lower, upper]: [i32x4; 2] = cast(sums);
                let sums: [i32; TOGETHER] = cast(simd.wrapping_add_i32x4(lower, upper));
                for r in 0..TOGETHER {
                    target[r * stride + number] = from_fixed(sums[r].wrapping_add(ROUNDING));
                }
            }
        }
    }
}

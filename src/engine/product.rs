//! The kernel of all convolutions: rows times a panel of weights.

use pulp::Simd;

use super::activation::{Activation, BLOCK};
use crate::prefetch::{PAGE, prefetch};

/// Rows times a panel:
/// `target[r] = sum over segments s and k < K of a[s + r * STEP + k] * panel[s][k]`.
///
/// Each target row has [`BLOCK`] numbers, and the rows are contiguous. The sums of up to fourteen rows
/// stay in registers from the first segment to the last. All lengths in the innermost loop are
/// constants, so that the compiler can omit the bounds checks.
pub struct Product<'a> {
    pub a: &'a [f32],
    /// The indices in `a` at which the parts of the first row begin.
    pub segments: &'a [usize],
    /// `[segments, K, BLOCK]`
    pub panel: &'a [f32],
    pub rows: usize,
    pub target: &'a mut [f32],
    pub finish: Finish<'a>,
    /// Whether this panel is used only once and the next panel directly follows it in memory. If so,
    /// the next panel is prefetched.
    pub passing: bool,
}

/// The operations on a convolution's sums.
#[derive(Debug, Clone, Copy)]
pub struct Epilogue<'a> {
    /// `[blocks_out, BLOCK]`
    pub bias: &'a [f32],
    pub shortcut: Option<&'a Activation>,
    pub relu: bool,
}

/// Prefetch distance within a panel that is already in a cache, in bytes.
const NEAR: usize = 512;

/// The operation on sums before they are written.
#[derive(Debug, Clone, Copy)]
pub enum Finish<'a> {
    /// Nothing.
    None,
    /// Adds a bias `[BLOCK]` and a shortcut of the target's shape, if any; then applies ReLU, if
    /// `relu`.
    Bias { bias: &'a [f32], shortcut: Option<&'a [f32]>, relu: bool },
}

impl Product<'_> {
    #[inline(always)]
    pub fn compute<S: Simd, const K: usize, const STEP: usize>(mut self, simd: S) {
        // The sums must fit into the registers, with one row of the panel and one number of `a`.
        match (S::F32_LANES, S::REGISTER_COUNT) {
            (16, _) => self.split::<S, K, STEP, 14, 2>(simd),
            (8, _) => self.split::<S, K, STEP, 6, 2>(simd),
            (4, 32..) => self.split::<S, K, STEP, 6, 4>(simd),
            _ => self.split::<S, K, STEP, 4, 2>(simd),
        }
    }

    /// Splits the rows into pieces of nearly equal size.
    #[inline(always)]
    fn split<S: Simd, const K: usize, const STEP: usize, const ROWS: usize, const N: usize>(
        &mut self,
        simd: S,
    ) {
        let pieces = self.rows.div_ceil(ROWS);
        for piece in 0..pieces {
            let first = self.rows * piece / pieces;
            let rows = self.rows * (piece + 1) / pieces - first;
            macro_rules! of_rows {
                ($($n:literal)*) => {
                    match rows {
                        $($n if $n <= ROWS => {
                            self.rows::<S, K, STEP, $n, N>(simd, first, [piece, pieces]);
                        })*
                        _ => {}
                    }
                };
            }
            of_rows!(1 2 3 4 5 6 7 8 9 10 11 12 13 14);
        }
    }

    #[inline(always)]
    fn rows<S: Simd, const K: usize, const STEP: usize, const ROWS: usize, const N: usize>(
        &mut self,
        simd: S,
        first: usize,
        [piece, pieces]: [usize; 2],
    ) {
        let vectors = BLOCK / S::F32_LANES;
        let target = &mut self.target[first * BLOCK..(first + ROWS) * BLOCK];
        let (target, _) = S::as_mut_simd_f32s(target);
        let zero = simd.splat_f32s(0.0);
        // Each pass over the panel prefetches an equal part of the next panel: memory is too slow to
        // fetch it all during one pass.
        let (pass, passes) = (piece * vectors / N, pieces * vectors / N);
        let bytes = size_of_val(self.panel);
        let near = if self.passing { NEAR } else { PAGE };
        for (pass, column) in (pass..).zip((0..vectors).step_by(N)) {
            let mut ahead = bytes + bytes * pass / passes;
            let mut sums = [[zero; N]; ROWS];
            let panels = self.panel.chunks_exact(K * BLOCK);
            for (&segment, panel) in self.segments.iter().zip(panels) {
                let a = &self.a[segment + first * STEP..][..(ROWS - 1) * STEP + K];
                let (panel, _) = S::as_simd_f32s(panel);
                for k in 0..K {
                    for j in 0..N {
                        prefetch(&panel[k * vectors + column + j], near);
                    }
                    if self.passing {
                        prefetch(&self.panel[0], ahead);
                        ahead += size_of::<f32>() * BLOCK / passes;
                    }
                    let mut weights = [zero; N];
                    for j in 0..N {
                        weights[j] = panel[k * vectors + column + j];
                    }
                    for r in 0..ROWS {
                        let x = simd.splat_f32s(a[r * STEP + k]);
                        for j in 0..N {
                            sums[r][j] = simd.mul_add_e_f32s(x, weights[j], sums[r][j]);
                        }
                    }
                }
            }
            if let Finish::Bias { bias, shortcut, relu } = self.finish {
                let (bias, _) = S::as_simd_f32s(bias);
                for r in 0..ROWS {
                    for j in 0..N {
                        sums[r][j] = simd.add_f32s(sums[r][j], bias[column + j]);
                    }
                }
                if let Some(shortcut) = shortcut {
                    let shortcut = &shortcut[first * BLOCK..(first + ROWS) * BLOCK];
                    let (shortcut, _) = S::as_simd_f32s(shortcut);
                    for r in 0..ROWS {
                        for j in 0..N {
                            let other = shortcut[r * vectors + column + j];
                            sums[r][j] = simd.add_f32s(sums[r][j], other);
                        }
                    }
                }
                if relu {
                    for r in 0..ROWS {
                        for j in 0..N {
                            sums[r][j] = simd.max_f32s(zero, sums[r][j]);
                        }
                    }
                }
            }
            for r in 0..ROWS {
                for j in 0..N {
                    target[r * vectors + column + j] = sums[r][j];
                }
            }
        }
    }
}

//! Sums of outer products, in tiles that stay in registers. Most of the time of adding vectors to a
//! scatter matrix, and of factorizing a covariance, is spent here.

use pulp::Simd;

/// A multiple of the f64 lanes of every instruction set.
pub(super) const LANES: usize = 8;
/// Columns of a tile.
pub(super) const COLUMNS: usize = 8;
/// Rows of the largest tile.
const ROWS: usize = 3 * LANES;

/// `[columns, rows]`
pub(super) type Tile = [[f64; ROWS]; COLUMNS];

/// The distance between vectors of `d` numbers. It leaves room for tiles that extend beyond a
/// vector's end.
pub(super) fn stride(d: usize) -> usize {
    d.next_multiple_of(LANES) + LANES
}

/// Vectors that are `stride` numbers apart. Each is read from index `place` on.
#[derive(Clone, Copy)]
pub(super) struct Lines<'a> {
    pub values: &'a [f64],
    pub place: usize,
}

/// Computes `tile[j][i] = sum over k of across[k][j] * down[k][i]` for at most `rows` rows `i`.
/// Returns the number of rows, rounded up to whole SIMD vectors.
#[inline(always)]
pub(super) fn fill<S: Simd>(
    simd: S,
    tile: &mut Tile,
    across: Lines<'_>,
    down: Lines<'_>,
    rows: usize,
    stride: usize,
) -> usize {
    let vectors = rows.div_ceil(S::F64_LANES);
    // The sums must fit into the registers, together with one vector and one factor.
    if S::F64_LANES == 8 || S::REGISTER_COUNT >= 32 {
        match vectors {
            1 => products::<S, 1, COLUMNS>(simd, tile, across, down, stride),
            2 => products::<S, 2, COLUMNS>(simd, tile, across, down, stride),
            _ => products::<S, 3, COLUMNS>(simd, tile, across, down, stride),
        }
        vectors.min(3) * S::F64_LANES
    } else {
        const HALF: usize = COLUMNS / 2;
        let (first, second) = tile.split_at_mut(HALF);
        for (place, half) in [(across.place, first), (across.place + HALF, second)] {
            let across = Lines { place, ..across };
            match vectors {
                1 => products::<S, 1, HALF>(simd, half, across, down, stride),
                _ => products::<S, 2, HALF>(simd, half, across, down, stride),
            }
        }
        vectors.min(2) * S::F64_LANES
    }
}

#[inline(always)]
fn products<S: Simd, const VECTORS: usize, const N: usize>(
    simd: S,
    tile: &mut [[f64; ROWS]],
    across: Lines<'_>,
    down: Lines<'_>,
    stride: usize,
) {
    let mut sums = [[simd.splat_f64s(0.0); VECTORS]; N];
    let lines = across.values.chunks_exact(stride).zip(down.values.chunks_exact(stride));
    for (across_line, down_line) in lines {
        let factors = &across_line[across.place..][..N];
        let values = S::as_simd_f64s(&down_line[down.place..][..VECTORS * S::F64_LANES]).0;
        for j in 0..N {
            let factor = simd.splat_f64s(factors[j]);
            for i in 0..VECTORS {
                sums[j][i] = simd.mul_add_e_f64s(factor, values[i], sums[j][i]);
            }
        }
    }
    for (column, sums) in tile.iter_mut().zip(&sums) {
        let column = S::as_mut_simd_f64s(column).0;
        column.iter_mut().zip(sums).for_each(|(c, &s)| *c = s);
    }
}

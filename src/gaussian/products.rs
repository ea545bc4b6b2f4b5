//! Sums of outer products, in tiles that stay in registers: what folding vectors into a scatter and
//! factorising a covariance spend their time on.

use pulp::Simd;

/// The lanes of any instruction set, or a multiple.
pub(super) const LANES: usize = 8;
/// Columns of a tile.
pub(super) const COLUMNS: usize = 8;
/// Rows of the largest tile.
const ROWS: usize = 3 * LANES;

/// `[columns, rows]`
pub(super) type Tile = [[f64; ROWS]; COLUMNS];

/// How far apart vectors of `d` numbers stand, so that tiles may reach beyond their ends.
pub(super) fn stride(d: usize) -> usize {
    d.next_multiple_of(LANES) + LANES
}

/// Vectors of numbers, `stride` apart, each from one place on.
#[derive(Clone, Copy)]
pub(super) struct Lines<'a> {
    pub values: &'a [f64],
    pub place: usize,
}

/// Computes `tile[j][i] = sum over k of across[k][j] * down[k][i]` for `rows` rows at most, and says how
/// many those are: more if `rows` ends within a vector.
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
    // Sums that fit the registers beside a vector and a number.
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

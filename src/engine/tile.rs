//! Winograd's transforms (Winograd 1980; Lavin, Gray 2015): along each axis, `IN` multiplications give
//! `OUT` outputs of a filter of `TAPS` taps.

use pulp::Simd;

/// A transform along one axis. Unused elements of the arrays are ignored.
pub trait Tile {
    const OUT: usize;
    const TAPS: usize;
    const STRIDE: usize = 1;
    const IN: usize = (Self::OUT - 1) * Self::STRIDE + Self::TAPS;
    /// The filter transform `G`: one row of tap coefficients for each of the `IN` products.
    const FILTER: [[f64; 4]; 6];

    /// `B^T d`
    fn input<S: Simd>(simd: S, d: [S::f32s; 6]) -> [S::f32s; 6];

    /// `A^T m`
    fn output<S: Simd>(simd: S, m: [S::f32s; 6]) -> [S::f32s; 4];
}

/// Four outputs, three taps: points 0, 1, -1, 2, -2 and infinity. In two dimensions, it needs 4 times
/// fewer multiplications than a direct convolution.
#[derive(Debug)]
pub struct Four;

/// Two outputs, three taps: points 0, 1, -1 and infinity; 2.25 times fewer multiplications.
#[derive(Debug)]
pub struct Two;

/// Two outputs, three taps, stride 2: 1.44 times fewer multiplications. The even inputs and the outer
/// taps use the points 0, 1 and infinity; the odd inputs are multiplied by the middle tap directly.
#[derive(Debug)]
pub struct Strided;

/// Three outputs, four taps; the same points as [`Four`].
#[derive(Debug)]
pub struct Stem;

#[inline(always)]
fn scale<S: Simd>(simd: S, factor: f32, x: S::f32s, sum: S::f32s) -> S::f32s {
    simd.mul_add_e_f32s(simd.splat_f32s(factor), x, sum)
}

/// `B^T d` for the points 0, 1, -1, 2, -2 and infinity.
#[inline(always)]
fn six_points<S: Simd>(simd: S, d: [S::f32s; 6]) -> [S::f32s; 6] {
    let even = scale(simd, -4.0, d[2], d[4]);
    let odd = scale(simd, -4.0, d[1], d[3]);
    let (even2, odd2) = (simd.sub_f32s(d[4], d[2]), simd.sub_f32s(d[3], d[1]));
    [
        scale(simd, 4.0, d[0], scale(simd, -5.0, d[2], d[4])),
        simd.add_f32s(even, odd),
        simd.sub_f32s(even, odd),
        scale(simd, 2.0, odd2, even2),
        scale(simd, -2.0, odd2, even2),
        scale(simd, 4.0, d[1], scale(simd, -5.0, d[3], d[5])),
    ]
}

const SIXTH: f64 = 1.0 / 6.0;
const TWELFTH: f64 = 1.0 / 12.0;
const TWENTYFOURTH: f64 = 1.0 / 24.0;

const SIX_POINTS: [[f64; 4]; 6] = [
    [0.25, 0.0, 0.0, 0.0],
    [-SIXTH, -SIXTH, -SIXTH, -SIXTH],
    [-SIXTH, SIXTH, -SIXTH, SIXTH],
    [TWENTYFOURTH, TWELFTH, SIXTH, 2.0 * SIXTH],
    [TWENTYFOURTH, -TWELFTH, SIXTH, -2.0 * SIXTH],
    [0.0, 0.0, 0.0, 1.0],
];

impl Tile for Four {
    const OUT: usize = 4;
    const TAPS: usize = 3;
    const FILTER: [[f64; 4]; 6] = {
        let mut filter = SIX_POINTS;
        filter[5] = [0.0, 0.0, 1.0, 0.0];
        filter
    };

    #[inline(always)]
    fn input<S: Simd>(simd: S, d: [S::f32s; 6]) -> [S::f32s; 6] {
        six_points(simd, d)
    }

    #[inline(always)]
    fn output<S: Simd>(simd: S, m: [S::f32s; 6]) -> [S::f32s; 4] {
        let (a, b) = (simd.add_f32s(m[1], m[2]), simd.sub_f32s(m[1], m[2]));
        let (c, d) = (simd.add_f32s(m[3], m[4]), simd.sub_f32s(m[3], m[4]));
        [
            simd.add_f32s(simd.add_f32s(m[0], a), c),
            scale(simd, 2.0, d, b),
            scale(simd, 4.0, c, a),
            simd.add_f32s(scale(simd, 8.0, d, b), m[5]),
        ]
    }
}

impl Tile for Stem {
    const OUT: usize = 3;
    const TAPS: usize = 4;
    const FILTER: [[f64; 4]; 6] = SIX_POINTS;

    #[inline(always)]
    fn input<S: Simd>(simd: S, d: [S::f32s; 6]) -> [S::f32s; 6] {
        six_points(simd, d)
    }

    #[inline(always)]
    fn output<S: Simd>(simd: S, m: [S::f32s; 6]) -> [S::f32s; 4] {
        let (a, b) = (simd.add_f32s(m[1], m[2]), simd.sub_f32s(m[1], m[2]));
        let (c, d) = (simd.add_f32s(m[3], m[4]), simd.sub_f32s(m[3], m[4]));
        [
            simd.add_f32s(simd.add_f32s(m[0], a), c),
            scale(simd, 2.0, d, b),
            simd.add_f32s(scale(simd, 4.0, c, a), m[5]),
            m[0],
        ]
    }
}

impl Tile for Two {
    const OUT: usize = 2;
    const TAPS: usize = 3;
    const FILTER: [[f64; 4]; 6] = [
        [1.0, 0.0, 0.0, 0.0],
        [0.5, 0.5, 0.5, 0.0],
        [0.5, -0.5, 0.5, 0.0],
        [0.0, 0.0, 1.0, 0.0],
        [0.0; 4],
        [0.0; 4],
    ];

    #[inline(always)]
    fn input<S: Simd>(simd: S, d: [S::f32s; 6]) -> [S::f32s; 6] {
        [
            simd.sub_f32s(d[0], d[2]),
            simd.add_f32s(d[1], d[2]),
            simd.sub_f32s(d[2], d[1]),
            simd.sub_f32s(d[1], d[3]),
            d[4],
            d[5],
        ]
    }

    #[inline(always)]
    fn output<S: Simd>(simd: S, m: [S::f32s; 6]) -> [S::f32s; 4] {
        [
            simd.add_f32s(simd.add_f32s(m[0], m[1]), m[2]),
            simd.sub_f32s(simd.sub_f32s(m[1], m[2]), m[3]),
            m[4],
            m[5],
        ]
    }
}

impl Tile for Strided {
    const OUT: usize = 2;
    const TAPS: usize = 3;
    const STRIDE: usize = 2;
    const FILTER: [[f64; 4]; 6] = [
        [1.0, 0.0, 0.0, 0.0],
        [1.0, 0.0, 1.0, 0.0],
        [0.0, 0.0, 1.0, 0.0],
        [0.0, 1.0, 0.0, 0.0],
        [0.0, 1.0, 0.0, 0.0],
        [0.0; 4],
    ];

    #[inline(always)]
    fn input<S: Simd>(simd: S, d: [S::f32s; 6]) -> [S::f32s; 6] {
        [simd.sub_f32s(d[0], d[2]), d[2], simd.sub_f32s(d[4], d[2]), d[1], d[3], d[5]]
    }

    #[inline(always)]
    fn output<S: Simd>(simd: S, m: [S::f32s; 6]) -> [S::f32s; 4] {
        [
            simd.add_f32s(simd.add_f32s(m[0], m[1]), m[3]),
            simd.add_f32s(simd.add_f32s(m[1], m[2]), m[4]),
            m[5],
            m[5],
        ]
    }
}

/// Transforms a filter `[TAPS, TAPS]` to `[IN, IN]` weights, row-major.
pub fn transform_filter<T: Tile>(filter: impl Fn(usize, usize) -> f64) -> Vec<f64> {
    let mut out = Vec::with_capacity(T::IN * T::IN);
    for u in 0..T::IN {
        for v in 0..T::IN {
            let mut sum = 0.0;
            for y in 0..T::TAPS {
                for x in 0..T::TAPS {
                    sum += T::FILTER[u][y] * T::FILTER[v][x] * filter(y, x);
                }
            }
            out.push(sum);
        }
    }
    out
}

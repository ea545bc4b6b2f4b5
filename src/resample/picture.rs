//! Resampling of 8-bit pictures in PIL's own arithmetic.

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::fixed::{FixedRun, ROUNDING, TOGETHER, from_fixed};
#[cfg(target_arch = "x86_64")]
use super::narrow::Narrow;
use super::taps::Taps;
use crate::instructions;

/// The least input pixels for a thread.
const FEWEST_PIXELS: usize = 1 << 16;

/// Applies `rows` and `columns` to an interleaved picture of `C` channels of 8 bits, in PIL's own
/// arithmetic: fixed point, the columns first, rounded to 8 bits between the passes. (PIL omits a pass
/// if the size stays the same. Such a pass changes nothing, because each sum has one weight, which is 1.)
///
/// Rows of the picture that no output row needs are not read.
pub(crate) fn resample_u8<const C: usize>(pixels: &[u8], rows: &Taps, columns: &Taps) -> Vec<u8> {
    debug_assert_eq!(pixels.len(), rows.input_len * columns.input_len * C);
    let picture = Picture::<C>::new(pixels, columns);
    let runs = FixedRun::all(rows);
    let stride = picture.stride();
    let mut out = vec![0; runs.len() * stride];
    let threads = rayon::current_num_threads().min(pixels.len() / C / FEWEST_PIXELS).max(1);
    // Both neighbors narrow the rows at a border between bands, so there is one band for each thread.
    let each = runs.len().div_ceil(threads).max(1);
    if stride > 0 {
        let bands = out.par_chunks_mut(each * stride).zip(runs.par_chunks(each));
        bands.for_each(|(out, runs)| picture.band(runs, out));
    }
    out
}

/// A picture and how its rows become narrow.
struct Picture<'a, const C: usize> {
    pixels: &'a [u8],
    width: usize,
    columns: Vec<FixedRun>,
    #[cfg(target_arch = "x86_64")]
    narrow: Option<Narrow<C>>,
    arch: Arch,
}

impl<'a, const C: usize> Picture<'a, C> {
    fn new(pixels: &'a [u8], columns: &Taps) -> Self {
        let width = columns.input_len;
        let columns = FixedRun::all(columns);
        Self {
            pixels,
            width,
            #[cfg(target_arch = "x86_64")]
            narrow: instructions::avx2().and_then(|simd| Narrow::new(simd, &columns, width)),
            columns,
            arch: instructions::arch(),
        }
    }

    /// Length of an output row.
    fn stride(&self) -> usize {
        self.columns.len() * C
    }

    /// Computes some output rows. Narrow rows stay in a ring, which should fit into the cache.
    fn band(&self, runs: &[FixedRun], out: &mut [u8]) {
        debug_assert!(runs.is_sorted_by_key(|run| run.start));
        let stride = self.stride();
        let longest = runs.iter().map(|run| run.weights.len()).max().unwrap_or(0);
        let places = (longest + 2 * TOGETHER).next_multiple_of(TOGETHER);
        let mut ring = vec![0; places * stride];
        let mut known = 0;
        for (run, target) in runs.iter().zip(out.chunks_exact_mut(stride)) {
            known = known.max(run.start / TOGETHER * TOGETHER);
            while known < run.end() {
                let target = &mut ring[known % places * stride..][..TOGETHER * stride];
                self.narrow_rows(known, target);
                known += TOGETHER;
            }
            self.arch.dispatch(Column { ring: &ring, places, run, target });
        }
    }

    /// Narrows [`TOGETHER`] rows of the picture. Rows beyond its end repeat the last one; nobody reads
    /// them.
    fn narrow_rows(&self, first: usize, target: &mut [u8]) {
        let row_len = self.width * C;
        let last = self.pixels.len() / row_len - 1;
        let sources: [&[u8]; TOGETHER] =
            std::array::from_fn(|i| &self.pixels[(first + i).min(last) * row_len..][..row_len]);
        #[cfg(target_arch = "x86_64")]
        if let Some(narrow) = &self.narrow {
            return narrow.rows(sources, target);
        }
        for (source, target) in sources.into_iter().zip(target.chunks_exact_mut(self.stride())) {
            narrow_row::<C>(source, &self.columns, target);
        }
    }
}

/// Narrows one row.
fn narrow_row<const C: usize>(source: &[u8], columns: &[FixedRun], target: &mut [u8]) {
    for (run, pixel) in columns.iter().zip(target.chunks_exact_mut(C)) {
        let mut sum = [ROUNDING; C];
        for (sample, &w) in source[run.start * C..].chunks_exact(C).zip(&run.weights) {
            (0..C).for_each(|c| sum[c] = sum[c].wrapping_add(i32::from(sample[c]).wrapping_mul(w)));
        }
        (0..C).for_each(|c| pixel[c] = from_fixed(sum[c]));
    }
}

/// Computes one output row from narrow rows.
struct Column<'a> {
    ring: &'a [u8],
    /// The number of rows in the ring.
    places: usize,
    run: &'a FixedRun,
    target: &'a mut [u8],
}

impl WithSimd for Column<'_> {
    type Output = ();

    // The compiler turns the loops into vector instructions.
    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Self { ring, places, run, target } = self;
        let stride = target.len();
        let row = |k: usize| &ring[(run.start + k) % places * stride..][..stride];
        const WIDTH: usize = 32;
        for (number, target) in target.chunks_mut(WIDTH).enumerate() {
            let mut sums = [ROUNDING; WIDTH];
            for (k, &w) in run.weights.iter().enumerate() {
                let row = &row(k)[number * WIDTH..][..target.len()];
                let add = |sum: &mut i32, x: u8| {
                    *sum = sum.wrapping_add(i32::from(x).wrapping_mul(w));
                };
                match <&[u8; WIDTH]>::try_from(row) {
                    Ok(row) => (0..WIDTH).for_each(|i| add(&mut sums[i], row[i])),
                    Err(_) => sums.iter_mut().zip(row).for_each(|(sum, &x)| add(sum, x)),
                }
            }
            target.iter_mut().zip(sums).for_each(|(value, sum)| *value = from_fixed(sum));
        }
    }
}

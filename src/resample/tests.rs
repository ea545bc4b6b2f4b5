use super::fixed::FixedRun;
use super::taps::Run;
use super::*;
use proptest::prelude::*;

/// The definition, one output sample at a time, in f64.
fn apply_naively(taps: &Taps, input: &[f64]) -> Vec<f64> {
    let sample = |run: &Run| {
        run.weights.iter().enumerate().map(|(k, w)| w * input[run.start + k]).sum::<f64>()
    };
    taps.runs.iter().map(sample).collect()
}

#[test]
fn borders_mirror_as_named_however_far_out() {
    let letters = |border: Border| -> Vec<usize> { (-4..7).map(|i| border.source(i, 3)).collect() };
    assert_eq!(letters(Border::EdgeRepeated), [2, 2, 1, 0, 0, 1, 2, 2, 1, 0, 0][..].to_vec());
    assert_eq!(letters(Border::EdgeNotRepeated), [0, 1, 2, 1, 0, 1, 2, 1, 0, 1, 2]);
    assert_eq!(Border::EdgeNotRepeated.source(-9, 1), 0);
}

proptest! {
    #[test]
    fn weights_sum_to_one_and_stay_inside(
        input in 1_usize..90, output in 1_usize..90, sigma in 0.3_f64..6.0,
    ) {
        use Filter::*;
        let all = [Nearest, Box, Bilinear, Bicubic, Lanczos]
            .map(|f| Taps::antialiased(f, input, output)).into_iter()
            .chain([Bilinear, Bicubic].map(|f| Taps::interpolating(f, input, output)))
            .chain([Border::EdgeRepeated, Border::EdgeNotRepeated]
                .map(|b| Taps::gaussian(sigma, b, input)));
        for taps in all {
            for run in &taps.runs {
                prop_assert!((run.weights.iter().sum::<f64>() - 1.0).abs() < 1e-12);
                prop_assert!(run.start + run.weights.len() <= input);
            }
        }
    }

    #[test]
    fn a_composition_is_one_step_after_the_other(
        input in 1_usize..30, output in 1_usize..60, sigma in 0.3_f64..5.0,
    ) {
        let first = Taps::interpolating(Filter::Bicubic, input, output);
        let second = Taps::gaussian(sigma, Border::EdgeRepeated, output);
        let signal: Vec<f64> = (0..input).map(|i| ((i * i * 7) % 23) as f64 - 11.0).collect();
        let apart = apply_naively(&second, &apply_naively(&first, &signal));
        let together = apply_naively(&first.then(&second), &signal);
        for (a, b) in apart.iter().zip(&together) {
            prop_assert!((a - b).abs() < 1e-10);
        }
    }

    /// To the bit: the sums have the order of the definition, f64 along rows and f32 across them.
    #[test]
    fn a_plane_is_its_columns_then_its_rows(
        [h, w] in [1_usize..40, 1_usize..40], to in 1_usize..50, first in 0.0_f64..1.0,
    ) {
        let rows = Taps::antialiased(Filter::Bicubic, h, to).part((to as f64 * first) as usize..to);
        let columns = Taps::gaussian(1.5, Border::EdgeNotRepeated, w);
        let plane: Vec<f32> = (0..h * w).map(|i| ((i * 31) % 17) as f32 / 7.0).collect();
        let narrow: Vec<Vec<f64>> = plane.chunks(w)
            .map(|row| apply_naively(&columns, &row.iter().map(|&x| x.into()).collect::<Vec<_>>()))
            .collect();
        let sum = |run: &Run, x: usize| {
            let products = run.weights.iter().enumerate();
            products.fold(0.0, |sum, (k, &w)| sum + w as f32 * narrow[run.start + k][x] as f32)
        };
        let expected: Vec<f32> =
            rows.runs.iter().flat_map(|run| (0..w).map(|x| sum(run, x))).collect();
        prop_assert_eq!(resample(&plane, &rows, &columns), expected);
    }

    /// The rows of a picture are computed in their order, so none is needed after a later one.
    #[test]
    fn runs_never_go_back(
        input in 1_usize..90, output in 1_usize..90,
        filter in prop::sample::select(&[
            Filter::Nearest, Filter::Box, Filter::Bilinear, Filter::Bicubic, Filter::Lanczos,
        ]),
    ) {
        let taps = Taps::antialiased(filter, input, output);
        let runs = FixedRun::all(&taps);
        prop_assert!(runs.is_sorted_by_key(|run| run.start));
        for (run, all) in runs.iter().zip(&taps.runs) {
            prop_assert!(run.start >= all.start && run.end() <= all.start + all.weights.len());
            for (k, weight) in all.weights.iter().enumerate() {
                let fixed = (all.start + k).checked_sub(run.start);
                let fixed = fixed.and_then(|place| run.weights.get(place)).copied().unwrap_or(0);
                prop_assert!((f64::from(fixed) - weight * 4_194_304.0).abs() <= 0.5);
            }
        }
    }

    #[test]
    fn a_picture_is_its_columns_then_its_rows_in_fixed_point(
        [h, w] in [1_usize..60, 1_usize..90],
        [rows, columns] in [1_usize..70, 1_usize..70],
        [top, left] in [0.0_f64..1.0, 0.0_f64..1.0],
        filter in prop::sample::select(&[
            Filter::Nearest, Filter::Box, Filter::Bilinear, Filter::Bicubic, Filter::Lanczos,
        ]),
        seed in any::<u32>(),
    ) {
        let taps = |from: usize, to: usize, first: f64| {
            Taps::antialiased(filter, from, to).part((to as f64 * first) as usize..to)
        };
        let (rows, columns) = (taps(h, rows, top), taps(w, columns, left));
        check_picture::<1>(h, w, &rows, &columns, seed);
        check_picture::<3>(h, w, &rows, &columns, seed);
    }
}

/// Compares with the definition: one sum for each value, in 64 bits.
fn check_picture<const C: usize>(h: usize, w: usize, rows: &Taps, columns: &Taps, seed: u32) {
    // Black and white often, because sums that are clamped differ most from others.
    let pixel = |i: usize| match (i as u32 ^ seed).wrapping_mul(2_654_435_761) >> 22 {
        v @ 0..256 => v as u8,
        v => (v % 2 * 255) as u8,
    };
    let pixels: Vec<u8> = (0..h * w * C).map(pixel).collect();
    let weight = |w: f64| (w * 4_194_304.0).round() as i64;
    let value = |sum: i64| ((sum + 2_097_152) >> 22).clamp(0, 255);
    let sum = |run: &Run, sample: &dyn Fn(usize) -> i64| {
        let products = run.weights.iter().enumerate();
        value(products.map(|(k, &w)| weight(w) * sample(run.start + k)).sum())
    };
    let width = columns.output_len();
    let mut narrow = vec![0; h * width * C];
    for (place, target) in narrow.iter_mut().enumerate() {
        let [y, x, c] = [place / (width * C), place / C % width, place % C];
        *target = sum(&columns.runs[x], &|i| pixels[(y * w + i) * C + c].into());
    }
    let of_row = |run: &Run| -> Vec<u8> {
        (0..width * C).map(|i| sum(run, &|y| narrow[y * width * C + i]) as u8).collect()
    };
    let expected: Vec<u8> = rows.runs.iter().flat_map(of_row).collect();
    assert_eq!(resample_u8::<C>(&pixels, rows, columns), expected);
}

/// Large enough for several bands, and for rows of whole blocks.
#[test]
fn a_large_picture_is_shared_by_threads() {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
    for filter in [Filter::Bilinear, Filter::Lanczos] {
        let [rows, columns] = [(700, 40), (900, 30)].map(|(a, b)| Taps::antialiased(filter, a, b));
        pool.install(|| check_picture::<3>(700, 900, &rows, &columns, 5));
        pool.install(|| check_picture::<1>(700, 900, &rows, &columns, 6));
    }
}

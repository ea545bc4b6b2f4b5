use burn::tensor::Device;
use nalgebra::DVector;
use proptest::prelude::*;

use super::*;

/// Deterministic values with a common offset, `[n, d, 1, positions]`.
fn samples(n: usize, d: usize, positions: usize, seed: usize, offset: f32) -> Vec<f32> {
    (0..n * d * positions)
        .map(|i| {
            let mut z = (i + 7919 * seed) as u64 * 0x9E37_79B9_7F4A_7C15;
            z = (z ^ (z >> 31)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            (z >> 40) as f32 / (1 << 24) as f32 + offset
        })
        .collect()
}

fn fit(values: &[f32], [n, d, positions]: [usize; 3], batches: &[usize]) -> GaussianModel {
    let device = Device::flex();
    let mut estimator =
        GaussianEstimator::new(GaussianConfig::default(), d, [1, positions]).unwrap();
    let mut first = 0;
    for &batch in batches {
        let part = values[first * d * positions..(first + batch) * d * positions].to_vec();
        estimator.update(to_device(part, [batch, d, 1, positions], &device)).unwrap();
        first += batch;
    }
    assert_eq!(first, n);
    estimator.finish(|_, _| ()).unwrap()
}

/// Two passes, explicit inverse, f64: the definition.
fn distance_naively(values: &[f32], [n, d, positions]: [usize; 3], p: usize, q: &[f32]) -> f64 {
    let vector =
        |i: usize| DVector::from_fn(d, |c, _| f64::from(values[(i * d + c) * positions + p]));
    let mean = (0..n).map(vector).sum::<DVector<f64>>() / n as f64;
    let mut covariance = DMatrix::identity(d, d) * 0.01;
    for i in 0..n {
        let y = vector(i) - &mean;
        covariance += &y * y.transpose() / (n - 1) as f64;
    }
    let y = DVector::from_fn(d, |c, _| f64::from(q[c * positions + p])) - mean;
    (y.transpose() * covariance.try_inverse().unwrap() * &y)[0].sqrt()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn one_pass_in_any_batches_equals_the_definition(
        d in 1_usize..9, n in 2_usize..12, first in 1_usize..11, seed in 0_usize..99,
        offset in prop::sample::select(vec![0.0_f32, 3.0, 100.0]),
    ) {
        let positions = 19;
        let shape = [n, d, positions];
        let values = samples(n, d, positions, seed, offset);
        let first = first.min(n);
        let batches: Vec<usize> = if first == n { vec![n] } else { vec![first, n - first] };
        let model = fit(&values, shape, &batches);

        let q = samples(2, d, positions, seed + 1, offset + 0.5);
        let device = Device::flex();
        let distances = model
            .mahalanobis_distance(to_device(q.clone(), [2, d, 1, positions], &device))
            .unwrap();
        let distances = to_host(distances).unwrap();
        for p in [0, 7, 18] {
            for b in 0..2 {
                let expected = distance_naively(&values, shape, p, &q[b * d * positions..]);
                let actual = f64::from(distances[b * positions + p]);
                // An f32 of magnitude 100 carries its features to 4e-6 only.
                let tolerance = 1e-5 + 1e-6 * f64::from(offset);
                prop_assert!((actual - expected).abs() <= tolerance * expected.max(0.1),
                    "{actual} instead of {expected}");
            }
        }
    }
}

#[test]
fn a_distance_does_not_depend_on_the_batch_around_it() {
    let (d, positions) = (13, 21);
    let model = fit(&samples(30, d, positions, 1, 0.0), [30, d, positions], &[30]);
    let q = samples(5, d, positions, 2, 0.0);
    let device = Device::flex();
    let together = model.distances(
        &positions_first(to_device(q.clone(), [5, d, 1, positions], &device), [d, 1, positions])
            .unwrap(),
        5,
    );
    for b in 0..5 {
        let one = q[b * d * positions..(b + 1) * d * positions].to_vec();
        let alone =
            model.mahalanobis_distance(to_device(one, [1, d, 1, positions], &device)).unwrap();
        assert_eq!(to_host(alone).unwrap(), together[b * positions..(b + 1) * positions]);
    }
}

#[test]
fn no_image_and_one_image_are_errors_that_say_so() {
    let device = Device::flex();
    let mut estimator = GaussianEstimator::new(GaussianConfig::default(), 2, [1, 1]).unwrap();
    let error = estimator.clone().finish(|_, _| ()).unwrap_err();
    assert!(matches!(error, Error::TooFewImages { count: 0 }), "{error}");
    estimator.update(to_device(vec![1.0, 2.0], [1, 2, 1, 1], &device)).unwrap();
    let error = estimator.finish(|_, _| ()).unwrap_err();
    assert!(matches!(error, Error::TooFewImages { count: 1 }), "{error}");
}

#[test]
fn bad_batches_leave_the_estimator_as_it_was() {
    let device = Device::flex();
    let mut estimator = GaussianEstimator::new(GaussianConfig::default(), 2, [1, 1]).unwrap();
    let nan = to_device(vec![f32::NAN, 1.0], [1, 2, 1, 1], &device);
    assert!(matches!(estimator.update(nan), Err(Error::NotFinite { .. })));
    let wide = to_device(vec![1.0; 3], [1, 3, 1, 1], &device);
    assert!(matches!(estimator.update(wide), Err(Error::ShapeMismatch { .. })));
    assert_eq!(estimator.image_count(), 0);

    for v in [0.0, 1.0, 3.0] {
        estimator.update(to_device(vec![v, -v], [1, 2, 1, 1], &device)).unwrap();
    }
    let model = estimator.finish(|_, _| ()).unwrap();
    let nan = to_device(vec![f32::NAN, 1.0], [1, 2, 1, 1], &device);
    assert!(matches!(model.mahalanobis_distance(nan), Err(Error::NotFinite { .. })));
    let wide = to_device(vec![1.0; 3], [1, 3, 1, 1], &device);
    assert!(matches!(model.mahalanobis_distance(wide), Err(Error::ShapeMismatch { .. })));
    assert!(model.covariance(1).is_none());
}

#[test]
fn an_epsilon_too_small_is_blamed() {
    let device = Device::flex();
    let config = GaussianConfig { epsilon: 1e-80, ..GaussianConfig::default() };
    let mut estimator = GaussianEstimator::new(config, 2, [1, 1]).unwrap();
    estimator.update(to_device(vec![1.0; 6], [3, 2, 1, 1], &device)).unwrap();
    let error = estimator.finish(|_, _| ()).unwrap_err().to_string();
    assert!(error.contains("larger epsilon"), "{error}");
}

#[test]
fn epsilon_must_be_positive() {
    for epsilon in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        let config = GaussianConfig { epsilon, ..GaussianConfig::default() };
        assert!(GaussianEstimator::new(config, 2, [1, 1]).is_err(), "{epsilon}");
    }
}

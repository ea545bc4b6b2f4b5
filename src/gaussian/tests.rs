use burn::tensor::{Device, Tensor};
use nalgebra::{DMatrix, DVector};
use proptest::prelude::*;

use super::*;
use crate::error::Error;
use crate::golden;
use crate::host::{to_device, to_host};

/// Deterministic values with a common offset, `[n, d, 1, positions]`.
pub(super) fn samples(n: usize, d: usize, positions: usize, seed: usize, offset: f32) -> Vec<f32> {
    (0..n * d * positions)
        .map(|i| {
            let mut z = (i + 7919 * seed) as u64 * 0x9E37_79B9_7F4A_7C15;
            z = (z ^ (z >> 31)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            (z >> 40) as f32 / (1 << 24) as f32 + offset
        })
        .collect()
}

pub(super) const POSITIONS: usize = 7;

pub(super) fn batch(values: &[f32], d: usize) -> Tensor<4> {
    let n = values.len() / (d * POSITIONS);
    to_device(values.to_vec(), [n, d, 1, POSITIONS], &Device::flex())
}

pub(super) fn estimator(config: &GaussianConfig, values: &[f32], d: usize) -> GaussianEstimator {
    let mut estimator = GaussianEstimator::new(config.clone(), d, [1, POSITIONS]).unwrap();
    if !values.is_empty() {
        estimator.update(batch(values, d)).unwrap();
    }
    estimator
}

pub(super) fn config(storage: Storage) -> GaussianConfig {
    GaussianConfig { storage, ..GaussianConfig::default() }
}

fn distances(model: &GaussianModel, q: &[f32]) -> Vec<f32> {
    to_host(model.mahalanobis_distance(batch(q, model.dimension())).unwrap()).unwrap()
}

/// The definition: two passes and an explicit inverse, in f64.
pub(super) struct Definition {
    mean: DVector<f64>,
    covariance: DMatrix<f64>,
}

impl Definition {
    fn vector(values: &[f32], d: usize, image: usize, p: usize) -> DVector<f64> {
        DVector::from_fn(d, |c, _| f64::from(values[(image * d + c) * POSITIONS + p]))
    }

    pub(super) fn new(values: &[f32], d: usize, p: usize, weights: &[f64]) -> Self {
        let total: f64 = weights.iter().sum();
        let squared: f64 = weights.iter().map(|w| w * w).sum();
        let vector = |i: usize| Self::vector(values, d, i, p);
        let weighted = weights.iter().enumerate();
        let mean = weighted.clone().map(|(i, w)| vector(i) * *w).sum::<DVector<f64>>() / total;
        let mut covariance = DMatrix::identity(d, d) * 0.01;
        for (i, w) in weighted {
            let y = vector(i) - &mean;
            covariance += &y * y.transpose() * (w / (total - squared / total));
        }
        Self { mean, covariance }
    }

    pub(super) fn distance(&self, q: &[f32], image: usize, p: usize) -> f64 {
        let y = Self::vector(q, self.mean.len(), image, p) - &self.mean;
        (y.transpose() * self.covariance.clone().try_inverse().unwrap() * &y)[0].sqrt()
    }
}

/// The largest relative error of a distance; for distances below 0.1, relative to 0.1.
pub(super) fn error(actual: &[f32], q: &[f32], at: impl Fn(usize) -> Definition, d: usize) -> f64 {
    let images = q.len() / (d * POSITIONS);
    let mut worst = 0.0_f64;
    for p in 0..POSITIONS {
        let definition = at(p);
        for b in 0..images {
            let expected = definition.distance(q, b, p);
            let off = (f64::from(actual[b * POSITIONS + p]) - expected).abs();
            worst = worst.max(off / expected.max(0.1));
        }
    }
    worst
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// With kept vectors, with sums, and with both; for every storage of the same distances.
    #[test]
    fn every_exact_storage_equals_the_definition(
        d in prop::sample::select(vec![1_usize, 2, 7, 16, 33, 50]), n in 2_usize..80,
        first in 1_usize..79, seed in 0_usize..99,
        offset in prop::sample::select(vec![0.0_f32, 3.0, 100.0]),
    ) {
        let values = samples(n, d, POSITIONS, seed, offset);
        let (head, tail) = values.split_at(first.min(n) * d * POSITIONS);
        let q = samples(2, d, POSITIONS, seed + 1, offset + 0.5);
        let mut storages = vec![
            (Storage::FullInverse, 1e-5),
            (Storage::Triangle(Precision::F32), 1e-5),
            (Storage::Triangle(Precision::F16), 2e-3),
            (Storage::Auto, 2e-3),
        ];
        if n <= d {
            storages.push((Storage::LowRank(Precision::F32), 1e-5));
            storages.push((Storage::LowRank(Precision::F16), 2e-3));
        }
        for (storage, tolerance) in storages {
            let mut estimator = estimator(&config(storage), head, d);
            if !tail.is_empty() {
                estimator.update(batch(tail, d)).unwrap();
            }
            let kept = estimator.model().unwrap();
            let model = estimator.finish().unwrap();
            prop_assert!(model == kept);
            prop_assert!(model.storage() != Storage::Auto);
            // With an offset of 100, the f32 features themselves have errors of 4e-6.
            let tolerance = tolerance + 2e-6 * f64::from(offset);
            let definition = |p| Definition::new(&values, d, p, &vec![1.0; n]);
            let error = error(&distances(&model, &q), &q, definition, d);
            prop_assert!(error < tolerance, "{storage}: {error:.1e}");
            let covariance = model.covariance(3).unwrap();
            let expected = definition(3).covariance;
            prop_assert!((&covariance - &expected).amax() < 100.0 * tolerance * expected.amax());
        }
    }

    #[test]
    fn merging_equals_fitting_on_both_in_any_order_and_shards(
        d in prop::sample::select(vec![2_usize, 9, 40]),
        sizes in prop::collection::vec(1_usize..35, 2..5), rotate in 0_usize..5, seed in 0_usize..99,
    ) {
        let n: usize = sizes.iter().sum();
        let values = samples(n, d, POSITIONS, seed, 5.0);
        let settings = config(Storage::Triangle(Precision::F32));
        let mut rest = values.as_slice();
        let mut shards: Vec<GaussianEstimator> = sizes.iter().map(|size| {
            let (shard, behind) = rest.split_at(size * d * POSITIONS);
            rest = behind;
            estimator(&settings, shard, d)
        }).collect();
        shards.rotate_left(rotate % sizes.len());
        let mut merged = estimator(&settings, &[], d);
        for shard in shards {
            merged.merge(shard).unwrap();
        }
        prop_assert_eq!(merged.image_count(), n);
        let q = samples(3, d, POSITIONS, seed + 1, 5.5);
        let definition = |p| Definition::new(&values, d, p, &vec![1.0; n]);
        let error = error(&distances(&merged.finish().unwrap(), &q), &q, definition, d);
        prop_assert!(error < 1e-5, "{error:.1e}");
    }

    #[test]
    fn forgotten_images_count_less(
        d in prop::sample::select(vec![3_usize, 36]), groups in prop::collection::vec(2_usize..25, 2..4),
        keep in 0.3_f64..1.0, seed in 0_usize..99,
    ) {
        let n: usize = groups.iter().sum();
        let values = samples(n, d, POSITIONS, seed, 1.0);
        let mut fitted = estimator(&config(Storage::Triangle(Precision::F32)), &[], d);
        let mut weights: Vec<f64> = Vec::new();
        for size in groups {
            fitted.forget(keep).unwrap();
            weights.iter_mut().for_each(|w| *w *= keep);
            let first = weights.len() * d * POSITIONS;
            fitted.update(batch(&values[first..first + size * d * POSITIONS], d)).unwrap();
            weights.extend(vec![1.0; size]);
        }
        let q = samples(2, d, POSITIONS, seed + 1, 1.5);
        let definition = |p| Definition::new(&values, d, p, &weights);
        let error = error(&distances(&fitted.finish().unwrap(), &q), &q, definition, d);
        prop_assert!(error < 1e-5, "{error:.1e}");
    }

    #[test]
    fn conversions_keep_the_distances(n in 2_usize..30, d in 2_usize..25, seed in 0_usize..99) {
        let values = samples(n, d, POSITIONS, seed, 0.0);
        let q = samples(2, d, POSITIONS, seed + 1, 0.5);
        let definition = |p| Definition::new(&values, d, p, &vec![1.0; n]);
        let mut storages = vec![Storage::FullInverse, Storage::Triangle(Precision::F32)];
        if n <= d {
            storages.push(Storage::LowRank(Precision::F32));
        }
        for &from in &storages {
            let model = estimator(&config(from), &values, d).finish().unwrap();
            for &to in &storages {
                let converted = model.convert(to).unwrap();
                prop_assert_eq!(converted.storage(), to);
                let error = error(&distances(&converted, &q), &q, definition, d);
                prop_assert!(error < 3e-5, "{from} to {to}: {error:.1e}");
                let half = converted.convert(to.with_precision(Precision::F16)).unwrap();
                let error = super::tests::error(&distances(&half, &q), &q, definition, d);
                prop_assert!(error < 2e-3, "{from} to {to} in 16 bits: {error:.1e}");
            }
            let diagonal = model.convert(Storage::Diagonal).unwrap();
            let fitted = estimator(&config(Storage::Diagonal), &values, d).finish().unwrap();
            for (a, b) in distances(&diagonal, &q).iter().zip(distances(&fitted, &q)) {
                prop_assert!((a / b - 1.0).abs() < 1e-4);
            }
        }
    }

    #[test]
    fn principal_components_are_those_of_the_largest_eigenvalues(
        n in 6_usize..60, d in 2_usize..40, k in 1_usize..6, seed in 0_usize..99,
    ) {
        let k = k.min(d);
        let values = samples(n, d, POSITIONS, seed, 0.0);
        let q = samples(2, d, POSITIONS, seed + 1, 0.5);
        let settings = GaussianConfig { components: Some(k), ..GaussianConfig::default() };
        let fine = GaussianConfig { storage: Storage::Principal(Precision::F32), ..settings.clone() };
        let model = estimator(&fine, &values, d).finish().unwrap();
        let coarse = estimator(&settings, &values, d).finish().unwrap();
        let [fine, coarse] = [distances(&model, &q), distances(&coarse, &q)];
        for p in 0..POSITIONS {
            let Definition { mean, covariance } = Definition::new(&values, d, p, &vec![1.0; n]);
            let eigen = covariance.symmetric_eigen();
            let mut order: Vec<usize> = (0..d).collect();
            order.sort_by(|&a, &b| eigen.eigenvalues[b].total_cmp(&eigen.eigenvalues[a]));
            for b in 0..2 {
                let y = Definition::vector(&q, d, b, p) - &mean;
                let along = |&i: &usize| eigen.eigenvectors.column(i).dot(&y).powi(2) / eigen.eigenvalues[i];
                let expected = order[..k].iter().map(along).sum::<f64>().sqrt();
                let scale = expected.max(0.05);
                let off = |actual: &[f32]| (f64::from(actual[b * POSITIONS + p]) - expected).abs() / scale;
                prop_assert!(off(&fine) < 1e-4, "{} {expected}", fine[b * POSITIONS + p]);
                prop_assert!(off(&coarse) < 2e-2, "{} {expected}", coarse[b * POSITIONS + p]);
            }
        }
        prop_assert!(model.convert(Storage::Diagonal).is_err());
        prop_assert!(model.convert(Storage::Principal(Precision::F16)).is_ok());
    }
}

#[test]
fn golden_shrinkage_is_scikit_learns() {
    let file = golden::tensors("shrinkage.safetensors");
    for case in ["few", "many", "isotropic"] {
        let x = &file[&format!("{case}/x")];
        let [n, d] = x.dims();
        for (name, shrinkage) in [("ledoit_wolf", Shrinkage::LedoitWolf), ("oas", Shrinkage::Oas)] {
            // scikit-learn divides by N, and adds no epsilon.
            let settings = GaussianConfig {
                epsilon: 1e-12,
                divisor: CovarianceDivisor::Biased,
                shrinkage,
                storage: Storage::FullInverse,
                ..GaussianConfig::default()
            };
            for folded in [false, true] {
                let mut estimator = GaussianEstimator::new(settings.clone(), d, [1, 1]).unwrap();
                let values = x.f32();
                let (head, tail) = values.split_at(n / 2 * d);
                for part in [head, tail] {
                    let shape = [part.len() / d, d, 1, 1];
                    estimator.update(to_device(part.to_vec(), shape, &Device::flex())).unwrap();
                }
                if folded {
                    // Sums and merges must not change the moments for shrinkage.
                    estimator.fold_for_test();
                }
                let covariance = estimator.finish().unwrap().covariance(0).unwrap();
                let expected = &file[&format!("{case}/{name}")].values;
                let expected = DMatrix::from_row_slice(d, d, expected);
                let error = (&covariance - &expected).amax() / expected.amax();
                assert!(error < 1e-5, "{case} {name} folded {folded}: {error:.1e}");
            }
        }
    }
}

#[test]
fn a_distance_does_not_depend_on_the_batch_around_it() {
    let d = 13;
    let values = samples(10, d, POSITIONS, 1, 0.0);
    let q = samples(5, d, POSITIONS, 2, 0.0);
    let half = Precision::F16;
    for storage in [Storage::Triangle(half), Storage::LowRank(half), Storage::Diagonal] {
        let model = estimator(&config(storage), &values, d).finish().unwrap();
        let together = distances(&model, &q);
        for (one, expected) in q.chunks(d * POSITIONS).zip(together.chunks(POSITIONS)) {
            assert_eq!(distances(&model, one), expected, "{storage}");
        }
    }
}

#[test]
fn positions_outside_the_region_take_no_memory_and_score_nothing() {
    let d = 4;
    let values = samples(9, d, POSITIONS, 1, 0.0);
    let region: Vec<bool> = (0..POSITIONS).map(|p| p % 3 != 0).collect();
    let settings = config(Storage::Triangle(Precision::F32));
    let all = estimator(&settings, &values, d).finish().unwrap();
    let mut inside = GaussianEstimator::with_region(settings, d, [1, POSITIONS], &region).unwrap();
    inside.update(batch(&values, d)).unwrap();
    let inside = inside.finish().unwrap();
    assert_eq!(inside.position_count(), 4);
    assert_eq!(inside.size_in_bytes() * POSITIONS, all.size_in_bytes() * 4);
    assert_eq!(inside.region().as_ref(), Some(&region));
    let q = samples(2, d, POSITIONS, 2, 0.0);
    for (p, (a, b)) in distances(&all, &q).into_iter().zip(distances(&inside, &q)).enumerate() {
        assert_eq!(b, if region[p % POSITIONS] { a } else { 0.0 });
    }
    assert!(inside.covariance(0).is_none() && inside.covariance(POSITIONS).is_none());
    assert_eq!(inside.covariance(5), all.covariance(5));

    let none = [false; POSITIONS];
    let settings = GaussianConfig::default();
    assert!(GaussianEstimator::with_region(settings.clone(), d, [1, POSITIONS], &none).is_err());
    assert!(GaussianEstimator::with_region(settings, d, [1, POSITIONS], &none[1..]).is_err());
}

#[test]
fn few_images_are_kept_in_low_rank_and_many_in_a_triangle() {
    let d = 20;
    let storage = |n| {
        let values = samples(n, d, POSITIONS, 1, 0.0);
        estimator(&GaussianConfig::default(), &values, d).finish().unwrap().storage()
    };
    assert!(matches!(storage(6), Storage::LowRank(_)), "{}", storage(6));
    assert!(matches!(storage(15), Storage::Triangle(_)), "{}", storage(15));
    assert!(matches!(storage(90), Storage::Triangle(_)), "{}", storage(90));
    let few = |storage| estimator(&config(storage), &samples(21, d, POSITIONS, 1, 0.0), d);
    let error = few(Storage::LowRank(Precision::F32)).finish().unwrap_err().to_string();
    assert!(error.contains("at most as many images as dimensions"), "{error}");
}

/// Along one direction, the images vary far too much for the precision of 16 bits.
#[test]
fn sixteen_bits_are_not_taken_where_they_are_too_coarse() {
    let d = 6;
    let mut values = samples(40, d, POSITIONS, 1, 0.0);
    for image in values.chunks_mut(d * POSITIONS) {
        let common = (image[0] - 0.5) * 3e3;
        image.iter_mut().for_each(|v| *v += common);
    }
    let model = estimator(&GaussianConfig::default(), &values, d).finish().unwrap();
    assert_eq!(model.storage(), Storage::Triangle(Precision::F32));
}

#[test]
fn constant_features_and_equal_images_have_distances() {
    let d = 5;
    let one = samples(1, d, POSITIONS, 1, 0.0);
    let values = one.repeat(4);
    let q = samples(1, d, POSITIONS, 2, 0.0);
    let full = Precision::F32;
    for storage in [Storage::FullInverse, Storage::Triangle(full), Storage::LowRank(full)] {
        let model = estimator(&config(storage), &values, d).finish().unwrap();
        for (p, distance) in distances(&model, &q).into_iter().enumerate() {
            let square =
                |c: usize| f64::from(q[c * POSITIONS + p] - one[c * POSITIONS + p]).powi(2);
            let expected = ((0..d).map(square).sum::<f64>() / 0.01).sqrt();
            assert!((f64::from(distance) / expected - 1.0).abs() < 1e-5, "{storage}");
        }
        assert!(distances(&model, &one).iter().all(|&v| v == 0.0), "{storage}");
    }
}

#[test]
fn the_spectrum_tells_how_a_covariance_is_conditioned() {
    // Variances 1 and 9 along the axes, without epsilon.
    let values = [1.0, 1.0, -1.0, -1.0].iter().zip([3.0, -3.0, 3.0, -3.0]);
    let values: Vec<f32> = values.flat_map(|(a, b)| [*a, b]).collect();
    let settings = GaussianConfig {
        epsilon: 1e-9,
        divisor: CovarianceDivisor::Biased,
        storage: Storage::Triangle(Precision::F32),
        ..GaussianConfig::default()
    };
    let mut estimator = GaussianEstimator::new(settings, 2, [1, 1]).unwrap();
    estimator.update(to_device(values, [4, 2, 1, 1], &Device::flex())).unwrap();
    let spectrum = estimator.finish().unwrap().spectrum(0).unwrap();
    assert!((spectrum.condition_number - 9.0).abs() < 1e-4, "{spectrum:?}");
    let entropy = -(0.1_f64 * 0.1_f64.ln() + 0.9 * 0.9_f64.ln());
    assert!((spectrum.effective_rank - entropy.exp()).abs() < 1e-5, "{spectrum:?}");
}

#[test]
fn settings_can_be_changed_after_the_images() {
    let d = 4;
    let values = samples(50, d, POSITIONS, 1, 0.0);
    let large = GaussianConfig { epsilon: 1.0, ..config(Storage::Triangle(Precision::F32)) };
    let expected = estimator(&large, &values, d).finish().unwrap();
    let fitted = estimator(&GaussianConfig::default(), &values, d);
    assert_eq!(fitted.statistics().model(&large).unwrap(), expected);
    assert_eq!(fitted.clone().with_config(large).unwrap().finish().unwrap(), expected);
    let negative = GaussianConfig { epsilon: -1.0, ..GaussianConfig::default() };
    assert!(fitted.statistics().model(&negative).is_err());
}

#[test]
fn no_image_and_one_image_are_errors_that_say_so() {
    let device = Device::flex();
    let mut estimator = GaussianEstimator::new(GaussianConfig::default(), 2, [1, 1]).unwrap();
    let error = estimator.clone().finish().unwrap_err();
    assert!(matches!(error, Error::TooFewImages { count: 0 }), "{error}");
    estimator.update(to_device(vec![1.0, 2.0], [1, 2, 1, 1], &device)).unwrap();
    let error = estimator.model().unwrap_err();
    assert!(matches!(error, Error::TooFewImages { count: 1 }), "{error}");
    // The first image has practically no weight left.
    (0..60).for_each(|_| estimator.forget(0.1).unwrap());
    estimator.update(to_device(vec![1.0, 3.0], [1, 2, 1, 1], &device)).unwrap();
    let error = estimator.finish().unwrap_err();
    assert!(matches!(error, Error::TooFewImages { count: 2 }), "{error}");
}

#[test]
fn bad_batches_leave_the_estimator_as_it_was() {
    let device = Device::flex();
    let settings = config(Storage::Triangle(Precision::F32));
    let mut estimator = GaussianEstimator::new(settings.clone(), 2, [1, 1]).unwrap();
    let nan = to_device(vec![f32::NAN, 1.0], [1, 2, 1, 1], &device);
    assert!(matches!(estimator.update(nan), Err(Error::NotFinite { .. })));
    let wide = to_device(vec![1.0; 3], [1, 3, 1, 1], &device);
    assert!(matches!(estimator.update(wide), Err(Error::ShapeMismatch { .. })));
    assert_eq!(estimator.image_count(), 0);
    let other = GaussianEstimator::new(settings, 2, [1, 2]).unwrap();
    assert!(matches!(estimator.merge(other), Err(Error::ShapeMismatch { .. })));
    for keep in [0.0, -1.0, 1.1, f64::NAN] {
        assert!(matches!(estimator.forget(keep), Err(Error::InvalidConfig { .. })));
    }

    for v in [0.0, 1.0, 3.0] {
        estimator.update(to_device(vec![v, -v], [1, 2, 1, 1], &device)).unwrap();
    }
    let model = estimator.finish().unwrap();
    let nan = to_device(vec![f32::NAN, 1.0], [1, 2, 1, 1], &device);
    assert!(matches!(model.mahalanobis_distance(nan), Err(Error::NotFinite { .. })));
    let wide = to_device(vec![1.0; 3], [1, 3, 1, 1], &device);
    assert!(matches!(model.mahalanobis_distance(wide), Err(Error::ShapeMismatch { .. })));
    assert!(model.covariance(1).is_none());
}

#[test]
fn an_epsilon_too_small_is_blamed() {
    let device = Device::flex();
    let config = GaussianConfig { epsilon: 1e-120, ..GaussianConfig::default() };
    let mut estimator = GaussianEstimator::new(config, 2, [1, 1]).unwrap();
    estimator.update(to_device(vec![1.0; 6], [3, 2, 1, 1], &device)).unwrap();
    let error = estimator.finish().unwrap_err().to_string();
    assert!(error.contains("larger epsilon"), "{error}");
}

#[test]
fn impossible_settings_are_refused() {
    let default = GaussianConfig::default;
    let cases = [0.0, -1.0, f64::NAN, f64::INFINITY]
        .map(|epsilon| GaussianConfig { epsilon, ..default() })
        .into_iter()
        .chain([
            GaussianConfig { components: Some(0), ..default() },
            GaussianConfig { components: Some(3), ..default() },
            GaussianConfig { components: Some(1), storage: Storage::FullInverse, ..default() },
            GaussianConfig { storage: Storage::Principal(Precision::F32), ..default() },
            GaussianConfig { shrinkage: Shrinkage::Fixed(1.5), ..default() },
            GaussianConfig { shrinkage: Shrinkage::Fixed(f64::NAN), ..default() },
        ]);
    for config in cases {
        assert!(GaussianEstimator::new(config.clone(), 2, [1, 1]).is_err(), "{config:?}");
    }
}

/// Two precisions stand for two devices: each clone keeps the copy for its own device.
#[test]
fn clones_on_two_devices_do_not_take_each_others_copies_away() {
    let device = Device::flex();
    let model = estimator(&GaussianConfig::default(), &samples(9, 3, POSITIONS, 1, 0.0), 3);
    let here = model.finish().unwrap();
    let (there, beside) = (here.clone(), here.clone());
    let [first, second] = [(&here, Precision::F32), (&there, Precision::F16)]
        .map(|(model, precision)| model.on_device(&device, precision));
    for _ in 0..2 {
        assert!(std::sync::Arc::ptr_eq(&first, &here.on_device(&device, Precision::F32)));
        assert!(std::sync::Arc::ptr_eq(&second, &there.on_device(&device, Precision::F16)));
    }
    // Clones on the same device share a copy.
    assert!(std::sync::Arc::ptr_eq(&first, &beside.on_device(&device, Precision::F32)));
}

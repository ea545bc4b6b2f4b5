//! Gaussians for parts that move: the nearest one of a window, and a pooled one.

use burn::tensor::{Device, Tensor};
use nalgebra::DVector;
use proptest::prelude::*;

use super::device::{DeviceGaussians, Window};
use super::tests::{Definition, POSITIONS, batch, config, error, estimator, samples};
use super::*;
use crate::embedding::DenseVectors;
use crate::host::{to_device, to_host};

fn grid_batch(values: &[f32], d: usize, [height, width]: [usize; 2]) -> Tensor<4> {
    let n = values.len() / (d * height * width);
    to_device(values.to_vec(), [n, d, height, width], &Device::flex())
}

/// The largest relative difference between distances on a device, in parts of several sizes, and
/// those on the host.
fn error_on_a_device(
    model: &GaussianModel,
    embeddings: &Tensor<4>,
    neighborhood: usize,
    expected: &[f32],
) -> f32 {
    let d = model.dimension();
    let error = |largest| {
        let there = DeviceGaussians::new(&model.parts(), &Device::flex(), Precision::F32, largest);
        let windows = match neighborhood {
            1 => Vec::new(),
            wide => Window::all(&model.positions, wide / 2, &Device::flex()),
        };
        let actual = to_host(there.distances(embeddings.clone(), &windows)).unwrap();
        let pairs = actual.iter().zip(expected);
        pairs.map(|(a, e)| (a - e).abs() / e.max(0.05)).fold(0.0, f32::max)
    };
    [0, 3 * 4 * d * d, usize::MAX].map(error).into_iter().fold(0.0, f32::max)
}

/// The storages that a model of `n` images can have.
fn storages(n: usize, d: usize) -> Vec<GaussianConfig> {
    let mut all: Vec<GaussianConfig> = [
        Storage::Auto,
        Storage::FullInverse,
        Storage::Triangle(Precision::F32),
        Storage::Triangle(Precision::F16),
        Storage::Diagonal,
    ]
    .map(config)
    .into();
    if n <= d {
        all.extend([Precision::F32, Precision::F16].map(|p| config(Storage::LowRank(p))));
    }
    if n > 2 && d > 1 {
        all.push(GaussianConfig { components: Some(2), ..GaussianConfig::default() });
    }
    all
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// The reference: all Gaussians of the window, with the explicit inverse in f64.
    #[test]
    fn the_nearest_gaussian_is_found(
        height in 1_usize..6, width in 1_usize..7, images in 1_usize..4, n in 3_usize..14, d in 1_usize..12,
        neighborhood in prop::sample::select(vec![1_usize, 3, 5, 7]), cut in any::<bool>(), seed in 0_usize..99,
    ) {
        let (grid, places) = ([height, width], height * width);
        let region: Vec<bool> = (0..places).map(|p| !cut || (p + seed) % 3 != 1 || p == 0).collect();
        let values = samples(n, d, places, seed, 0.0);
        let q = samples(images, d, places, seed + 1, 0.5);
        for settings in storages(n, d) {
            let mut fitted = GaussianEstimator::with_region(settings, d, grid, &region).unwrap();
            fitted.update(grid_batch(&values, d, grid)).unwrap();
            let model = fitted.finish().unwrap();
            let measured = |k| to_host(model.nearest_mahalanobis_distance(grid_batch(&q, d, grid), k).unwrap());
            let actual = measured(neighborhood).unwrap();
            let there = error_on_a_device(&model, &grid_batch(&q, d, grid), neighborhood, &actual);
            prop_assert!(there < 2e-4, "{} {there:.1e}", model.storage());
            let reach = neighborhood / 2;
            let vectors = DenseVectors::of(grid_batch(&q, d, grid)).unwrap();
            let nearest = model.nearest_of(&vectors, reach);
            for (b, p) in (0..images).flat_map(|b| (0..places).map(move |p| (b, p))) {
                let value = actual[b * places + p];
                if !region[p] {
                    prop_assert_eq!(value, 0.0);
                    continue;
                }
                let near = |a: usize, b: usize| a.abs_diff(b) <= reach;
                let around = (0..places)
                    .filter(|o| region[*o] && near(o / width, p / width) && near(o % width, p % width));
                let inside = |o: usize| (0..o).filter(|&i| region[i]).count();
                let x = |o: usize| {
                    let mean = &model.means()[inside(o) * d..(inside(o) + 1) * d];
                    DVector::from_fn(d, |c, _| f64::from(q[(b * d + c) * places + p] - mean[c]))
                };
                let distance = |o: usize| (model.inverse_covariance(o).unwrap() * x(o)).dot(&x(o)).sqrt();
                let all: Vec<(f64, usize)> = around.map(|o| (distance(o), o)).collect();
                let (expected, _) = all.iter().copied().min_by(|a, b| a.0.total_cmp(&b.0)).unwrap();
                let off = (f64::from(value) - expected).abs() / expected.max(0.05);
                prop_assert!(off < 1e-3, "{} {value} {expected}", model.storage());
                if b == 0 {
                    let chosen = all.iter().find(|(_, o)| *o == nearest[p]).unwrap().0;
                    prop_assert!((chosen - expected).abs() <= 1e-3 * expected.max(0.05));
                }
            }
            // A window of 1 is the position itself; a larger one can only reduce the distance.
            let own = to_host(model.mahalanobis_distance(grid_batch(&q, d, grid)).unwrap()).unwrap();
            prop_assert_eq!(&measured(1).unwrap(), &own);
            prop_assert!(actual.iter().zip(&own).all(|(a, b)| a <= b));
            // The batch has no effect.
            let alone = grid_batch(&q[..d * places], d, grid);
            let alone = to_host(model.nearest_mahalanobis_distance(alone, neighborhood).unwrap()).unwrap();
            prop_assert_eq!(&alone[..], &actual[..places]);
        }
    }

    /// The reference: two passes over the vectors of all positions.
    #[test]
    fn a_pooled_gaussian_is_that_of_all_vectors(
        n in 1_usize..12, many in any::<bool>(), first in 1_usize..12, d in 1_usize..9, cut in any::<bool>(),
        seed in 0_usize..99,
    ) {
        // Enough vectors for several partial sums.
        let n = if many { n + 170 } else { n };
        let region: Vec<bool> = (0..POSITIONS).map(|p| !cut || p % 3 != 0).collect();
        let places: Vec<usize> = (0..POSITIONS).filter(|&p| region[p]).collect();
        let values = samples(n, d, POSITIONS, seed, 4.0);
        // One image for each vector, with the same vector at all positions.
        let spread: Vec<f32> = (0..n * places.len() * d * POSITIONS).map(|i| {
            let (vector, c) = (i / (d * POSITIONS), i / POSITIONS % d);
            values[(vector / places.len() * d + c) * POSITIONS + places[vector % places.len()]]
        }).collect();
        let definition = |_: usize| Definition::new(&spread, d, 0, &vec![1.0; n * places.len()]);
        let q = samples(2, d, POSITIONS, seed + 1, 4.5);
        let (head, tail) = values.split_at(first.min(n) * d * POSITIONS);
        for storage in [Storage::FullInverse, Storage::Triangle(Precision::F32), Storage::Auto] {
            let settings = GaussianConfig { pooled: true, ..config(storage) };
            let fit = |values: &[f32]| {
                let mut fit =
                    GaussianEstimator::with_region(settings.clone(), d, [1, POSITIONS], &region).unwrap();
                if !values.is_empty() {
                    fit.update(batch(values, d)).unwrap();
                }
                fit
            };
            let mut further = fit(head);
            let mut merged = fit(tail);
            merged.merge(further.clone()).unwrap();
            if !tail.is_empty() {
                further.update(batch(tail, d)).unwrap();
            }
            for fit in [further, merged] {
                prop_assert_eq!(fit.image_count(), n);
                let model = fit.finish().unwrap();
                prop_assert!(model.is_pooled() && model.means().len() == d);
                let actual = to_host(model.mahalanobis_distance(batch(&q, d)).unwrap()).unwrap();
                let kept: Vec<f32> = (0..2 * POSITIONS).map(|i| {
                    let p = i % POSITIONS;
                    if region[p] { actual[i] } else { definition(0).distance(&q, i / POSITIONS, p) as f32 }
                }).collect();
                let error = error(&kept, &q, definition, d);
                let tolerance = if storage == Storage::Auto { 2e-3 } else { 2e-5 };
                prop_assert!(error < tolerance, "{storage}: {error:.1e}");
                prop_assert!((0..2 * POSITIONS).all(|i| region[i % POSITIONS] || actual[i] == 0.0));
                let there = error_on_a_device(&model, &batch(&q, d), 5, &actual);
                prop_assert!(there < 2e-4, "{storage}: {there:.1e}");
                let near = model.nearest_mahalanobis_distance(batch(&q, d), 5).unwrap();
                prop_assert_eq!(&to_host(near).unwrap(), &actual);
            }
        }
    }
}

#[test]
fn a_pooled_model_takes_the_memory_of_one_position_in_every_form() {
    let d = 5;
    let values = samples(4, d, POSITIONS, 1, 0.0);
    let settings = |storage, pooled| GaussianConfig { pooled, ..config(storage) };
    let q = samples(2, d, POSITIONS, 2, 0.5);
    let distances =
        |model: &GaussianModel| to_host(model.mahalanobis_distance(batch(&q, d)).unwrap()).unwrap();
    let exact = settings(Storage::FullInverse, true);
    let exact = estimator(&exact, &values, d).finish().unwrap();
    for storage in [Storage::Triangle(Precision::F32), Storage::Triangle(Precision::F16)] {
        let pooled = estimator(&settings(storage, true), &values, d).finish().unwrap();
        let own = estimator(&settings(storage, false), &values, d).finish().unwrap();
        assert_eq!(pooled.size_in_bytes() * POSITIONS, own.size_in_bytes());
        let converted = exact.convert(storage).unwrap();
        for (a, b) in distances(&pooled).iter().zip(distances(&converted)) {
            assert!((a / b - 1.0).abs() < 2e-3, "{storage}: {a} {b}");
        }
        assert_eq!(pooled.covariance(3), pooled.covariance(0));
        assert!(pooled.covariance(POSITIONS).is_none());
        assert_eq!(pooled.position_count(), POSITIONS);
    }
    // 28 vectors in 5 dimensions are too many for low rank.
    let low = estimator(&settings(Storage::LowRank(Precision::F32), true), &values, d);
    assert!(low.finish().is_err() && exact.convert(Storage::LowRank(Precision::F32)).is_err());
}

#[test]
fn pooling_is_decided_before_the_first_image() {
    let d = 3;
    let values = samples(4, d, POSITIONS, 1, 0.0);
    let plain = GaussianConfig::default();
    let pooled = GaussianConfig { pooled: true, ..plain.clone() };
    for (own, other) in [(&plain, &pooled), (&pooled, &plain)] {
        let mut fit = estimator(own, &values, d);
        assert!(fit.statistics().model(other).unwrap_err().to_string().contains("pooled"));
        assert!(fit.clone().with_config(other.clone()).is_err());
        let error = fit.merge(estimator(other, &values, d)).unwrap_err().to_string();
        assert!(error.contains("not pooled"), "{error}");
        let larger = GaussianConfig { epsilon: 1.0, ..own.clone() };
        assert!(fit.statistics().model(&larger).is_ok());
    }
    // Forgetting works here, too.
    let (old, new) = (samples(3, d, POSITIONS, 5, 9.0), samples(9, d, POSITIONS, 6, 0.0));
    let mut fit = estimator(&pooled, &old, d);
    fit.forget(1e-9).unwrap();
    fit.update(batch(&new, d)).unwrap();
    let expected = estimator(&pooled, &new, d).gaussian(2).unwrap();
    let actual = fit.gaussian(2).unwrap();
    assert!((actual.0 - expected.0).amax() < 1e-6 && (actual.1 - expected.1).amax() < 1e-6);
}

#[test]
fn windows_that_have_no_middle_are_refused() {
    for neighborhood in [0, 2, 4, 33, usize::MAX] {
        assert!(reach(neighborhood).is_err(), "{neighborhood}");
    }
    assert_eq!([1, 3, 31].map(|k| reach(k).unwrap()), [0, 1, 15]);
}

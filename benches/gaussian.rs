//! Times of the Gaussians by storage: fit, distances, conversion.
//!
//!     cargo bench --bench gaussian

use burn::tensor::{Device, Distribution, Tensor};
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use padim::gaussian::{GaussianConfig, GaussianEstimator, Precision, Storage};

const GRID: [usize; 2] = [56, 56];

/// Random features with different variances, like those of networks.
fn random(batch: usize, dimension: usize) -> Tensor<4> {
    let device = Device::default();
    let scales: Vec<f32> = (0..dimension).map(|c| 0.05 + (c % 17) as f32 * 0.03).collect();
    let scales = Tensor::<1>::from_floats(scales.as_slice(), &device);
    let noise: Tensor<4> = Tensor::random(
        [batch, dimension, GRID[0], GRID[1]],
        Distribution::Normal(0.0, 1.0),
        &device,
    );
    noise * scales.reshape([1, dimension, 1, 1])
}

fn estimator(dimension: usize, images: usize) -> GaussianEstimator {
    let mut estimator = GaussianEstimator::new(GaussianConfig::default(), dimension, GRID).unwrap();
    for first in (0..images).step_by(8) {
        estimator.update(random(8.min(images - first), dimension)).unwrap();
    }
    estimator
}

const CASES: [(&str, usize, usize); 3] =
    [("r18-rd100", 100, 200), ("wr50-rd550", 550, 200), ("wr50-rd550-60", 550, 60)];

fn storages(dimension: usize, images: usize) -> Vec<Storage> {
    let mut storages = vec![Storage::Triangle(Precision::F32), Storage::Triangle(Precision::F16)];
    if images <= dimension {
        storages.extend([Storage::LowRank(Precision::F32), Storage::LowRank(Precision::F16)]);
    }
    storages
}

fn config(storage: Storage) -> GaussianConfig {
    GaussianConfig::default().with_storage(storage)
}

/// The inputs of a benchmark are made when it runs, because some take seconds.
fn fit(c: &mut Criterion) {
    let mut group = c.benchmark_group("gaussian-fit");
    group.sample_size(10);
    for (name, dimension, images) in CASES {
        group.bench_function(BenchmarkId::new("update", name), |b| {
            let batch = random(8, dimension);
            b.iter_batched(
                || GaussianEstimator::new(GaussianConfig::default(), dimension, GRID).unwrap(),
                |mut estimator| {
                    for first in (0..images).step_by(8) {
                        let size = 8.min(images - first);
                        estimator.update(batch.clone().narrow(0, 0, size)).unwrap();
                    }
                    estimator
                },
                BatchSize::PerIteration,
            );
        });
        for storage in storages(dimension, images) {
            group.bench_function(BenchmarkId::new(format!("factorize-{storage}"), name), |b| {
                let fitted = estimator(dimension, images);
                b.iter(|| fitted.statistics().model(&config(storage)).unwrap());
            });
        }
    }
}

fn distance(c: &mut Criterion) {
    let mut group = c.benchmark_group("gaussian-distance");
    group.sample_size(10);
    for (name, dimension, images) in CASES {
        for storage in storages(dimension, images) {
            for batch in [1, 8, 32] {
                group.throughput(Throughput::Elements(batch as u64));
                let id = BenchmarkId::new(format!("{name}-{storage}"), batch);
                group.bench_function(id, |b| {
                    let fitted = estimator(dimension, images);
                    let model = fitted.statistics().model(&config(storage)).unwrap();
                    // The embedding has only one owner, as in a pipeline, so it is not copied.
                    b.iter_batched(
                        || random(batch, dimension),
                        |embeddings| model.mahalanobis_distance(embeddings).unwrap(),
                        BatchSize::PerIteration,
                    );
                });
            }
        }
    }
}

criterion_group!(benches, fit, distance);
criterion_main!(benches);

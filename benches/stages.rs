//! Times of each stage except the Gaussians (see `gaussian`). Making inputs does not count.
//!
//!     cargo bench --bench stages

use burn::tensor::{Device, Distribution, Tensor};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use image::{DynamicImage, RgbImage};
use padim::backbone::FeatureMaps;
use padim::embedding::{ChannelSelection, PatchEmbedder};
use padim::preprocess::{Normalization, PreprocessConfig, Preprocessor};
use padim::scoring::{AnomalyScorer, ScoringConfig};
use padim::{Backbone, ResNet18, WideResNet50};

fn picture(side: u32) -> DynamicImage {
    RgbImage::from_fn(side, side, |x, y| image::Rgb([(x * y) as u8, (x + y) as u8, (x ^ y) as u8]))
        .into()
}

fn random<const D: usize>(shape: [usize; D], device: &Device) -> Tensor<D> {
    device.seed(1);
    Tensor::random(shape, Distribution::Normal(0.0, 1.0), device)
}

fn preprocessing(c: &mut Criterion) {
    let mut group = c.benchmark_group("preprocess");
    for side in [512, 1024, 2048] {
        let preprocessor =
            Preprocessor::new(PreprocessConfig::default(), Normalization::IMAGENET).unwrap();
        let image = picture(side);
        group.bench_with_input(BenchmarkId::from_parameter(side), &image, |b, image| {
            b.iter(|| preprocessor.process(image).unwrap());
        });
    }
}

fn backbone(c: &mut Criterion) {
    let device = Device::default();
    let networks: [(&str, Box<dyn Backbone>); 2] = [
        ("resnet18", Box::new(ResNet18::untrained(0, &device).unwrap())),
        ("wide_resnet50", Box::new(WideResNet50::untrained(0, &device).unwrap())),
    ];
    let mut group = c.benchmark_group("backbone");
    group.sample_size(10);
    for (name, network) in &networks {
        for batch in [1, 8] {
            let images = random([batch, 3, 224, 224], &device);
            group.throughput(Throughput::Elements(batch as u64));
            group.bench_with_input(BenchmarkId::new(*name, batch), &images, |b, images| {
                // Reading the last map waits for an asynchronous device.
                b.iter(|| {
                    let maps = network.forward(images.clone()).unwrap();
                    maps.maps().last().map(|map| map.clone().into_data())
                });
            });
        }
    }
}

/// The maps of a network with the given channels for 224x224 pixels.
fn maps(channels: [usize; 3], batch: usize, device: &Device) -> FeatureMaps {
    let sides = [56, 28, 14];
    let map = |i: usize| random([batch, channels[i], sides[i], sides[i]], device);
    FeatureMaps::new((0..3).map(map).collect()).unwrap()
}

fn embedding(c: &mut Criterion) {
    let device = Device::default();
    let mut group = c.benchmark_group("embedding");
    for (name, channels, count) in
        [("resnet18-rd100", [64, 128, 256], 100), ("wide_resnet50-rd550", [256, 512, 1024], 550)]
    {
        let embedder =
            PatchEmbedder::new(&channels, &ChannelSelection::random(count, 1024)).unwrap();
        for batch in [1, 8] {
            let features = maps(channels, batch, &device);
            group.throughput(Throughput::Elements(batch as u64));
            group.bench_with_input(BenchmarkId::new(name, batch), &features, |b, features| {
                b.iter(|| embedder.embed(features).unwrap().into_data());
            });
        }
    }
}

fn smoothing(c: &mut Criterion) {
    let device = Device::default();
    let scorer = AnomalyScorer::new(ScoringConfig::default()).unwrap();
    let mut group = c.benchmark_group("smoothing");
    for side in [224, 512] {
        for batch in [1, 8] {
            let distances = random([batch, side / 4, side / 4], &device);
            group.throughput(Throughput::Elements(batch as u64));
            group.bench_with_input(
                BenchmarkId::new(side.to_string(), batch),
                &distances,
                |b, d| {
                    b.iter(|| scorer.score(d.clone(), [side, side]).unwrap());
                },
            );
        }
    }
}

criterion_group!(benches, preprocessing, backbone, embedding, smoothing);
criterion_main!(benches);

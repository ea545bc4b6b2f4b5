//! Times of predictions, saving and loading.
//!
//!     cargo bench --bench detector

use burn::tensor::{Device, Distribution, Tensor};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use image::RgbImage;
use padim::embedding::ChannelSelection;
use padim::{Detector, Padim, PadimConfig, ResNet18};

fn picture(seed: u32) -> RgbImage {
    RgbImage::from_fn(256, 256, |x, y| {
        image::Rgb([(x + seed) as u8, (y * 2 + seed) as u8, ((x ^ y) + 7 * seed) as u8])
    })
}

fn detector(channels: usize, device: &Device) -> Detector {
    let config = PadimConfig::default().with_channels(ChannelSelection::random(channels, 1024));
    let padim = Padim::new(config, ResNet18::untrained(0, device).unwrap()).unwrap();
    padim.fit((0..16).map(picture)).unwrap()
}

fn predict(c: &mut Criterion) {
    let device = Device::default();
    let detector = detector(100, &device);
    let mut group = c.benchmark_group("predict");
    group.sample_size(20);
    for batch in [1, 8] {
        group.throughput(Throughput::Elements(batch as u64));
        let tensor =
            Tensor::<4>::random([batch, 3, 224, 224], Distribution::Normal(0.0, 1.0), &device);
        group.bench_with_input(BenchmarkId::new("tensors", batch), &tensor, |b, tensor| {
            b.iter(|| detector.predict_tensor(tensor.clone()).unwrap());
        });
        let images: Vec<RgbImage> = (0..batch as u32).map(picture).collect();
        group.bench_with_input(BenchmarkId::new("images", batch), &images, |b, images| {
            b.iter(|| detector.predict_batch(images.iter().cloned()).unwrap());
        });
    }
}

fn files(c: &mut Criterion) {
    let device = Device::default();
    let folder = tempfile::tempdir().unwrap();
    let mut group = c.benchmark_group("files");
    group.sample_size(10);
    for channels in [50, 100] {
        let detector = detector(channels, &device);
        let path = folder.path().join(format!("{channels}.padim"));
        detector.save(&path).unwrap();
        group.throughput(Throughput::Bytes(std::fs::metadata(&path).unwrap().len()));
        group.bench_function(BenchmarkId::new("save", channels), |b| {
            b.iter(|| detector.save(&path).unwrap());
        });
        group.bench_function(BenchmarkId::new("load", channels), |b| {
            b.iter(|| Detector::load(&path, &device).unwrap());
        });
    }
}

criterion_group!(benches, predict, files);
criterion_main!(benches);

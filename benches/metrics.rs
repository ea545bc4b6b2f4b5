//! Times of the metrics for 160 maps of 1024x1024 pixels; three quarters of the maps have a defect.
//!
//!     cargo bench --bench metrics

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use padim::metrics::{
    DEFAULT_FPR_LIMIT, PixelScores, aupro, pixel_auroc, pixel_average_precision, pixel_f1_max,
};
use rayon::prelude::*;

const SIDE: usize = 1024;
const IMAGES: usize = 160;

/// Scores with few repeated values, higher in the center, where there is a round defect.
fn image(number: usize, radius: f32) -> (Vec<f32>, Vec<bool>) {
    let mut state = number as u32 * 0x9E37_79B9 + 1;
    let pixel = |i: usize| {
        // Xorshift (Marsaglia 2003).
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        let noise = state as f32 / u32::MAX as f32;
        let [y, x] = [i / SIDE, i % SIDE].map(|v| v as f32 - SIDE as f32 / 2.0);
        let distance = x.hypot(y);
        (noise + (-distance / 300.0).exp(), !number.is_multiple_of(4) && distance < radius)
    };
    (0..SIDE * SIDE).map(pixel).unzip()
}

fn metrics(c: &mut Criterion) {
    let mut group = c.benchmark_group("metrics");
    group.sample_size(10);
    for (name, radius) in [("small-defects", 25.0), ("large-defects", 250.0)] {
        let images: Vec<_> = (0..IMAGES).into_par_iter().map(|i| image(i, radius)).collect();
        let pixels: Vec<PixelScores> = images
            .iter()
            .map(|(scores, truth)| PixelScores::new(scores, truth, [SIDE, SIDE]).unwrap())
            .collect();
        let id = |metric| BenchmarkId::new(metric, name);
        group.bench_function(id("aupro"), |b| b.iter(|| aupro(&pixels, DEFAULT_FPR_LIMIT)));
        group.bench_function(id("pixel-auroc"), |b| b.iter(|| pixel_auroc(&pixels)));
        let precision = id("pixel-average-precision");
        group.bench_function(precision, |b| b.iter(|| pixel_average_precision(&pixels)));
        group.bench_function(id("pixel-f1-max"), |b| b.iter(|| pixel_f1_max(&pixels)));
    }
}

criterion_group!(benches, metrics);
criterion_main!(benches);

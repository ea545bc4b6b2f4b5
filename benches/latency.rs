//! How evenly single images are processed: the median and the slowest of a thousand runs of the network,
//! for pools of one thread, two, as many as the machine has processors, and twice as many.
//!
//!     cargo bench --bench latency -- [--network wide_resnet50] [--runs 1000]

use std::time::Instant;

use burn::tensor::{Device, Distribution, Tensor};
use clap::Parser;
use padim::{Backbone, ResNet18, WideResNet50};

#[derive(Parser)]
struct Options {
    #[arg(long, default_value = "resnet18")]
    network: String,
    #[arg(long, default_value_t = 1000)]
    runs: usize,
    /// The sizes of the thread pools [default: 1, 2, the number of processors, twice this number].
    #[arg(long, value_delimiter = ',')]
    threads: Vec<usize>,
    /// Cargo passes this option to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let options = Options::parse();
    let device = Device::flex();
    let network: Box<dyn Backbone> = match &*options.network {
        "resnet18" => Box::new(ResNet18::untrained(0, &device)?),
        "wide_resnet50" => Box::new(WideResNet50::untrained(0, &device)?),
        other => return Err(format!("no network is called {other}").into()),
    };
    let image = Tensor::<4>::random([1, 3, 224, 224], Distribution::Normal(0.0, 1.0), &device);
    let processors = std::thread::available_parallelism()?.get();
    let mut sizes = options.threads.clone();
    if sizes.is_empty() {
        sizes = vec![1, 2, processors, 2 * processors];
        sizes.sort_unstable();
        sizes.dedup();
    }
    for size in sizes {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(size).build()?;
        let mut times = Vec::with_capacity(options.runs);
        for run in 0..options.runs + 20 {
            let start = Instant::now();
            pool.install(|| network.forward(image.clone()))?;
            let time = start.elapsed().as_secs_f64() * 1e3;
            // The first runs prepare the weights and fill the caches.
            if run >= 20 {
                times.push(time);
            }
        }
        times.sort_by(f64::total_cmp);
        let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
        println!(
            "{} threads: p50 {:.2} ms, p90 {:.2}, p99 {:.2}, slowest {:.2}",
            size,
            at(0.5),
            at(0.9),
            at(0.99),
            at(1.0)
        );
    }
    Ok(())
}

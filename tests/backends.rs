//! Compares every compiled backend with the CPU: fits, files, moves between devices and scores must
//! agree to a relative difference of 1e-4.
//!
//! Without a graphics card, the feature `vulkan` works in software with Mesa's lavapipe (Debian's
//! `mesa-vulkan-drivers` and `libvulkan1`).

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use burn::nn::pool::AvgPool2dConfig;
use burn::tensor::{Device, Distribution, Tensor};
use image::{Rgb, RgbImage};
use padim::backbone::{BackboneMemory, FeatureMaps, LayerInfo};
use padim::device::devices;
use padim::embedding::ChannelSelection;
use padim::fingerprint::Fingerprint;
use padim::gaussian::{GaussianConfig, GaussianEstimator, Precision, Storage};
use padim::preprocess::{RegionOfInterest, Resize};
use padim::scoring::{AnomalyScorer, Blur, ImageScore, ScoringConfig, Upsampling};
use padim::{
    Backbone, Detector, Error, Padim, PadimConfig, Prediction, ResNet18, Result, Weights, burn,
    image,
};

/// Tolerance relative to the largest value.
const TOLERANCE: f32 = 1e-4;

/// Tolerance on CUDA (measured: 1.2e-3), because kernels for tensor cores round the factors of products
/// to 10 bits (TF32).
const ROUNDED_TOLERANCE: f32 = 3e-3;

fn tolerance(name: &str) -> f32 {
    if name.starts_with("cuda") { ROUNDED_TOLERANCE } else { TOLERANCE }
}

/// Tests run one after the other, because they share devices and one of them measures their memory.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// All devices except the CPU, with which they are compared.
fn others() -> Vec<(String, Device)> {
    let found = devices().into_iter().filter(|info| info.device != Device::flex());
    let others = found.map(|info| (format!("{} ({})", info.name, info.description), info.device));
    #[cfg(feature = "ndarray")]
    #[allow(deprecated)]
    let others = others.chain([("ndarray".to_owned(), Device::ndarray())]);
    let others: Vec<(String, Device)> = others.collect();
    if others.is_empty() {
        println!("SKIPPED: this build has one backend, or found no device for the others");
    }
    others
}

fn picture(i: u32) -> RgbImage {
    RgbImage::from_fn(72, 64, |x, y| {
        Rgb([(x * 3 + i * 5) as u8, (y * 4) as u8, ((x ^ y) * 2 + i * 3) as u8])
    })
}

fn scratched() -> RgbImage {
    let mut picture = picture(3);
    (20..44).for_each(|i| picture.put_pixel(i, i, Rgb([255, 0, 0])));
    picture
}

fn config() -> PadimConfig {
    // 32 bits, because rounding to 16 bits can depend on the last digit of a covariance.
    let gaussian = GaussianConfig::default().with_storage(Storage::Triangle(Precision::F32));
    PadimConfig::default().with_input_size([64, 64]).with_gaussian(gaussian).with_batch_size(3)
}

fn padim(device: &Device) -> Padim {
    Padim::new(config(), ResNet18::load(Weights::Bundled, device).unwrap()).unwrap()
}

/// The largest difference, relative to the largest value.
fn difference(expected: &[f32], actual: &[f32]) -> f32 {
    assert_eq!(expected.len(), actual.len());
    let largest = expected.iter().fold(0.0, |a: f32, b| a.max(b.abs()));
    let worst = expected.iter().zip(actual).map(|(e, a)| (e - a).abs()).fold(0.0, f32::max);
    assert!(actual.iter().all(|v| v.is_finite()));
    worst / largest
}

fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().try_into_vec().unwrap()
}

/// Checks that the differences of maps and of scores do not exceed `allowed`.
fn compare(
    name: &str,
    what: &str,
    expected: &[Prediction],
    actual: &[Prediction],
    allowed: [f32; 2],
) {
    let map = |p: &Prediction| p.anomaly_map.values().to_vec();
    let maps = |all: &[Prediction]| all.iter().flat_map(map).collect::<Vec<f32>>();
    let scores = |all: &[Prediction]| all.iter().map(|p| p.image_score).collect::<Vec<f32>>();
    let maps = difference(&maps(expected), &maps(actual));
    let scores = difference(&scores(expected), &scores(actual));
    println!("{name}: {what}: maps differ by {maps:.1e}, scores by {scores:.1e}");
    assert!(maps <= allowed[0] && scores <= allowed[1]);
}

#[test]
fn one_case_on_every_backend() {
    let _alone = alone();
    let cpu = Device::flex();
    let detector = padim(&cpu).fit((0..12).map(picture)).unwrap();
    let images = || (0..4).map(picture).chain([scratched()]);
    let expected = detector.predict_batch(images()).unwrap();
    assert!(expected[4].image_score > 1.5 * expected[3].image_score);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cpu.padim");
    detector.save(&path).unwrap();
    for (name, device) in others() {
        let fitted = padim(&device).fit((0..12).map(picture)).unwrap();
        assert_eq!(fitted.device(), device);
        let there = fitted.predict_batch(images()).unwrap();
        compare(&name, "fitted and scored there", &expected, &there, [tolerance(&name); 2]);

        let loaded = Detector::load(&path, &device).unwrap();
        let loaded = loaded.predict_batch(images()).unwrap();
        compare(&name, "fitted here, loaded there", &expected, &loaded, [tolerance(&name); 2]);

        let moved = detector.to_device(&device).unwrap();
        assert_eq!(loaded, moved.predict_batch(images()).unwrap());

        let saved = folder.path().join("there.padim");
        fitted.save(&saved).unwrap();
        let back = Detector::load(&saved, &cpu).unwrap().predict_batch(images()).unwrap();
        compare(&name, "fitted there, loaded here", &expected, &back, [tolerance(&name); 2]);
        let again = fitted.to_device(&cpu).unwrap();
        assert_eq!(back, again.predict_batch(images()).unwrap());
    }
}

#[test]
fn every_storage_region_and_window_on_every_backend() {
    let _alone = alone();
    let (cpu, grid, d) = (Device::flex(), [5, 6], 12);
    let embeddings = |count| {
        Tensor::<4>::random([count, d, grid[0], grid[1]], Distribution::Normal(2.0, 1.0), &cpu)
    };
    let (good, probes) = (embeddings(40), embeddings(3));
    let few = good.clone().narrow(0, 0, 6);
    let half: Vec<bool> = (0..30).map(|place| place % 6 > 1 && place != 9).collect();
    let storages = [
        Storage::FullInverse,
        Storage::Triangle(Precision::F32),
        Storage::Triangle(Precision::F16),
        Storage::LowRank(Precision::F32),
        Storage::LowRank(Precision::F16),
        Storage::Principal(Precision::F32),
        Storage::Principal(Precision::F16),
        Storage::Diagonal,
    ];
    for (name, device) in others() {
        let mut worst: f32 = 0.0;
        for storage in storages {
            for (region, pooled) in [(None, false), (Some(&half), false), (Some(&half), true)] {
                let low_rank = matches!(storage, Storage::LowRank(_));
                if low_rank && pooled {
                    continue;
                }
                let principal = matches!(storage, Storage::Principal(_));
                let config = GaussianConfig::default()
                    .with_storage(storage)
                    .with_components(principal.then_some(4))
                    .with_pooled(pooled);
                let mut estimator = match region {
                    None => GaussianEstimator::new(config, d, grid),
                    Some(region) => GaussianEstimator::with_region(config, d, grid, region),
                }
                .unwrap();
                let seen = if low_rank { &few } else { &good };
                estimator.update(seen.clone()).unwrap();
                let model = estimator.finish().unwrap();
                for window in [1, 3, 5] {
                    let measure = |device: &Device| {
                        let probes = probes.clone().to_device(device);
                        values(model.nearest_mahalanobis_distance(probes, window).unwrap())
                    };
                    worst = worst.max(difference(&measure(&cpu), &measure(&device)));
                }
            }
        }
        println!("{name}: distances differ by {worst:.1e}");
        assert!(worst <= tolerance(&name));
    }
}

#[test]
fn maps_of_every_setting_on_every_backend() {
    let _alone = alone();
    let cpu = Device::flex();
    let distances: Tensor<3> = Tensor::random([3, 7, 9], Distribution::Uniform(0.5, 9.0), &cpu);
    let size = [64, 64];
    let triangle = [[8.0, 4.0], [70.0, 4.0], [40.0, 50.0]];
    let region = RegionOfInterest::polygon([64, 72], &triangle).unwrap();
    let within = padim(&cpu).with_region(&region).unwrap();
    let within = within.fit((0..3).map(picture)).unwrap();
    let region = within.region().unwrap();
    for (name, device) in others() {
        let mut worst: f32 = 0.0;
        for upsampling in [Upsampling::Bilinear, Upsampling::Bicubic] {
            for blur in [None, Some(Blur::default())] {
                for image_score in [ImageScore::MaxOfMap, ImageScore::MaxBeforeBlur] {
                    for region in [None, Some(region)] {
                        let config = ScoringConfig::default()
                            .with_upsampling(upsampling)
                            .with_blur(blur)
                            .with_image_score(image_score);
                        let scorer = AnomalyScorer::new(config).unwrap();
                        let score = |device: &Device| {
                            let distances = distances.clone().to_device(device);
                            let scored = scorer.score_within(distances, size, region).unwrap();
                            let values = scored.iter().flat_map(|s| {
                                s.map.values().iter().copied().chain([s.image_score])
                            });
                            values.collect::<Vec<f32>>()
                        };
                        worst = worst.max(difference(&score(&cpu), &score(&device)));
                    }
                }
            }
        }
        println!("{name}: maps differ by {worst:.1e}");
        assert!(worst <= tolerance(&name));
    }
}

#[test]
fn half_precision_where_there_is_any() {
    let _alone = alone();
    let detector = padim(&Device::flex()).fit((0..12).map(picture)).unwrap();
    let images = || (0..4).map(picture).chain([scratched()]);
    let expected = detector.predict_batch(images()).unwrap();
    for (name, device) in others() {
        let moved = detector.to_device(&device).unwrap();
        match moved.with_half_precision() {
            Ok(half) => {
                let predictions = half.predict_batch(images()).unwrap();
                // Measured for maps: 3.6e-2, with Gaussians of twelve pictures of 64 pixels.
                compare(&name, "16 bits", &expected, &predictions, [5e-2, 2e-2]);
                assert_ne!(expected, predictions);
            }
            Err(error) => println!("SKIPPED: {name}: {error}"),
        }
    }
}

#[test]
fn what_is_no_number_is_refused_on_every_backend() {
    let _alone = alone();
    let detector = padim(&Device::flex()).fit((0..6).map(picture)).unwrap();
    for (name, device) in others() {
        let moved = detector.to_device(&device).unwrap();
        for bad in [f32::NAN, f32::INFINITY] {
            let mut pixels = vec![0.5_f32; 3 * 64 * 64];
            pixels[5000] = bad;
            let tensor: Tensor<1> = Tensor::from_floats(&*pixels, &device);
            let image: Tensor<3> = tensor.clone().reshape([3, 64, 64]);
            let error = moved.predict(image).unwrap_err();
            assert!(matches!(error, Error::NotFinite { .. }), "{name}: {error}");
            let error = moved.predict_tensor(tensor.reshape([1, 3, 64, 64])).unwrap_err();
            assert!(matches!(error, Error::NotFinite { .. }), "{name}: {error}");
        }
        assert!(moved.predict(picture(0)).is_ok());
    }
}

/// A backbone of mean pixel values that records its largest batch. It claims that an image's map takes
/// 50 MB, so two of them fit into the buffers of every device.
#[derive(Debug)]
struct Counting(Device, [LayerInfo; 1], Arc<AtomicUsize>);

impl Backbone for Counting {
    fn layers(&self) -> &[LayerInfo] {
        &self.1
    }
    fn device(&self) -> Device {
        self.0.clone()
    }
    fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(["counting"])
    }
    fn forward(&self, images: Tensor<4>) -> Result<FeatureMaps> {
        self.2.fetch_max(images.dims()[0], Ordering::Relaxed);
        let pool = AvgPool2dConfig::new([8, 8]).with_strides([8, 8]).init();
        FeatureMaps::new(vec![pool.forward(images)])
    }
    fn memory_estimate(&self, images: [usize; 4]) -> Option<BackboneMemory> {
        let mut memory = BackboneMemory::default();
        memory.largest_map = images[0] * 50_000_000;
        Some(memory)
    }
}

#[test]
fn batches_are_cut_to_what_a_device_can_hold() {
    let _alone = alone();
    let fit = |device: &Device, largest: &Arc<AtomicUsize>| {
        let layer = LayerInfo { name: "squares".into(), channels: 3, stride: 8 };
        let backbone = Counting(device.clone(), [layer], largest.clone());
        let config = config().with_channels(ChannelSelection::All).with_batch_size(7);
        Padim::new(config, backbone).unwrap().fit((0..12).map(picture)).unwrap()
    };
    let cpu = Arc::default();
    let expected = fit(&Device::flex(), &cpu).predict_batch((0..9).map(picture)).unwrap();
    assert_eq!(cpu.load(Ordering::Relaxed), 7);
    for (name, device) in others() {
        let largest = Arc::default();
        let detector = fit(&device, &largest);
        assert_eq!(detector.model().image_count(), 12);
        let there = detector.predict_batch((0..9).map(picture)).unwrap();
        compare(&name, "batches that are cut", &expected, &there, [tolerance(&name); 2]);
        let shares_memory = name == "ndarray";
        assert_eq!(largest.load(Ordering::Relaxed), if shares_memory { 7 } else { 2 });
    }
}

/// At the first predictions on a device, threads of a pool must not deadlock.
#[test]
fn first_predictions_at_once_on_every_backend() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.padim");
    padim(&Device::flex()).fit((0..6).map(picture)).unwrap().save(&path).unwrap();
    let pool = rayon::ThreadPoolBuilder::new().num_threads(8).build().unwrap();
    for (name, device) in others() {
        let (done, received) = std::sync::mpsc::channel::<()>();
        let watched = name.clone();
        std::thread::spawn(move || {
            let limit = std::time::Duration::from_secs(300);
            if received.recv_timeout(limit) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
                eprintln!("{watched}: STUCK, not done after {limit:?}");
                std::process::exit(3);
            }
        });
        let begin = std::time::Instant::now();
        for window in [1, 3] {
            let detector = Detector::load(&path, &device).unwrap();
            let detector = detector.with_neighborhood(window).unwrap();
            pool.scope(|scope| {
                for i in 0..10 {
                    let detector = &detector;
                    scope.spawn(move |_| drop(detector.predict(picture(i)).unwrap()));
                }
            });
        }
        println!("{name}: {:.1} s", begin.elapsed().as_secs_f64());
        drop(done);
    }
}

/// `PADIM_TEST_PREDICTIONS` sets the number of predictions; each is a batch of three.
#[test]
fn device_memory_does_not_grow() {
    let _alone = alone();
    let count = std::env::var("PADIM_TEST_PREDICTIONS").map_or(40, |count| count.parse().unwrap());
    let detector = padim(&Device::flex()).fit((0..6).map(picture)).unwrap();
    for (name, device) in others() {
        let moved = detector.to_device(&device).unwrap();
        let in_use = || Some(device.memory_pool_usage()?.bytes_reserved);
        let mut curve = Vec::new();
        for i in 0..count {
            moved.predict_batch([picture(0), picture(1), scratched()]).unwrap();
            if i % (count / 10).max(1) == 0 {
                curve.extend(in_use());
            }
        }
        let (Some(begin), Some(end)) = (curve.get(1).copied(), in_use()) else {
            println!("SKIPPED: {name} does not tell how much memory it has taken");
            continue;
        };
        println!("{name}: bytes reserved over {count} predictions: {curve:?}, at last {end}");
        assert!(end <= begin, "{name}");
    }
}

/// Runs in a separate process, in which nothing else uses the memory of devices.
#[test]
fn a_plan_foresees_the_memory_of_a_device() {
    const VARIABLE: &str = "PADIM_TEST_DEVICE_PLAN";
    let _alone = alone();
    if std::env::var_os(VARIABLE).is_none() {
        let output = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "a_plan_foresees_the_memory_of_a_device", "--nocapture"])
            .env(VARIABLE, "1")
            .output()
            .unwrap();
        println!("{}", String::from_utf8_lossy(&output.stdout));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        return;
    }
    for (name, device) in others() {
        let reserved = || Some(device.memory_pool_usage()?.bytes_reserved as f64);
        let Some(before) = reserved() else {
            println!("SKIPPED: {name} does not tell how much memory it has taken");
            continue;
        };
        let preprocess = (config().preprocess).with_resize(Resize::square(128));
        let config = config().with_preprocess(preprocess).with_batch_size(2);
        let network = ResNet18::load(Weights::Bundled, &device).unwrap();
        let padim = Padim::new(config, network).unwrap();
        let planned = padim.memory_plan([64, 72], 4).unwrap().device as f64;
        let detector = padim.fit((0..4).map(picture)).unwrap();
        detector.predict_batch((0..4).map(picture)).unwrap();
        let share = (reserved().unwrap() - before) / planned;
        println!("{name}: planned {planned}, of which {share:.2} were reserved");
        // Allocators reserve pages and keep freed memory.
        assert!((0.5..2.5).contains(&share), "{name}: {share}");
    }
    let plan = padim(&Device::flex()).memory_plan([64, 72], 4).unwrap();
    assert_eq!(plan.device, 0);
}

/// Runs in a separate process without drivers.
#[cfg(feature = "wgpu")]
#[test]
fn without_an_adapter_there_is_an_error_that_says_what_there_is() {
    if std::env::var_os("PADIM_TEST_NO_ADAPTER").is_none() {
        let test = "without_an_adapter_there_is_an_error_that_says_what_there_is";
        // The drivers of Vulkan, and of OpenGL, which would replace it.
        let drivers = [
            "VK_ICD_FILENAMES",
            "VK_DRIVER_FILES",
            "__EGL_VENDOR_LIBRARY_FILENAMES",
            "LIBGL_DRIVERS_PATH",
        ];
        let output = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", test, "--nocapture"])
            .env("PADIM_TEST_NO_ADAPTER", "1")
            .envs(drivers.map(|name| (name, "/nowhere")))
            .output()
            .unwrap();
        println!("{}", String::from_utf8_lossy(&output.stdout));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        return;
    }
    if devices().iter().any(|info| info.name != "cpu") {
        println!("SKIPPED: there are still devices: {:?}", devices());
        return;
    }
    let default = Device::wgpu(burn::tensor::DeviceKind::DefaultDevice);
    for error in [
        padim::device::device_named("wgpu").unwrap_err(),
        ResNet18::load(Weights::Bundled, &default).unwrap_err(),
        padim(&Device::flex()).fit((0..3).map(picture)).unwrap().to_device(&default).unwrap_err(),
    ] {
        println!("{error}");
        assert!(matches!(error, Error::NoDevice { .. }) && error.to_string().contains("cpu ("));
    }
}

//! Tests of the public interface: golden values, detectors, files, real data.

#[path = "../common/golden.rs"]
mod golden;
#[path = "../common/sections.rs"]
mod sections;

mod api;
mod convert;
mod datasets;
mod decisions;
mod detector;
mod evaluate;
mod evaluation;
mod golden_end_to_end;
mod golden_metrics;
mod golden_preprocess;
mod golden_stages;
mod hostile;
mod imports;
mod interface;
mod levels;
mod line;
mod moving;
mod partial;
mod persistence;
mod programs;
mod real_data;
mod rectangles;
mod scaled;
mod sound;
mod tiles;
mod watched;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use burn::tensor::{Device, Tensor, TensorData};
use padim::backbone::{ResNetBlock, ResNetConfig};
use padim::detector::FitProgress;

/// The devices of the enabled backend features.
pub fn devices() -> Vec<Device> {
    vec![
        Device::flex(),
        #[cfg(feature = "ndarray")]
        #[allow(deprecated)]
        Device::ndarray(),
    ]
}

pub fn tensor<const D: usize>(values: Vec<f32>, shape: [usize; D], device: &Device) -> Tensor<D> {
    Tensor::from_data(TensorData::new(values, shape), device)
}

pub fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().try_into_vec().unwrap()
}

/// Builds the program of an example, with the profile and the features of this test, so that an
/// existing build is reused.
pub fn example(name: &str) -> PathBuf {
    let own = std::env::current_exe().unwrap();
    let folder = own.parent().and_then(Path::parent).unwrap();
    let profile = match folder.file_name().unwrap().to_str().unwrap() {
        "debug" => "dev",
        other => other,
    };
    let features = [
        ("ndarray", cfg!(feature = "ndarray")),
        ("download", cfg!(feature = "download")),
        ("wgpu", cfg!(feature = "wgpu")),
        ("vulkan", cfg!(feature = "vulkan")),
        ("cuda", cfg!(feature = "cuda")),
        ("turbojpeg", cfg!(feature = "turbojpeg")),
    ];
    let features = features.iter().filter(|(_, built)| *built).map(|(feature, _)| *feature);
    let features = features.collect::<Vec<_>>().join(",");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    // Cargo's variables for tests would cause some build scripts to run again.
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        if ["CARGO_PKG_", "CARGO_MANIFEST_"].iter().any(|of_package| name.starts_with(of_package)) {
            build.env_remove(&*name);
        }
    }
    let status = build
        .args(["build", "--quiet", "--profile", profile, "--features", &features])
        .args(["--example", name])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status()
        .unwrap();
    assert!(status.success());
    folder.join("examples").join(name)
}

/// A progress callback that does nothing.
pub fn silent(_: FitProgress) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

/// The network of the golden file `tiny_basic.safetensors`.
pub fn tiny_basic() -> ResNetConfig {
    ResNetConfig {
        block: ResNetBlock::Basic,
        stem_channels: 4,
        blocks: [2, 2, 2],
        planes: [4, 6, 8],
        base_width: 64,
        layers: vec![1, 2, 3],
    }
}

/// Runs a test of this program in a separate process that writes to `path` in an endless loop;
/// `variable` passes the path. Kills the process some time after its start, which it signals by the
/// file `path` with the extension `ready`.
pub fn run_and_kill(test: &str, variable: &str, path: &Path, after: Duration) {
    let ready = path.with_extension("ready");
    let mut process: Child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test])
        .env(variable, path)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    while !ready.exists() {
        assert!(process.try_wait().unwrap().is_none(), "it ended by itself");
        std::thread::sleep(Duration::from_millis(1));
    }
    std::thread::sleep(after);
    process.kill().unwrap();
    process.wait().unwrap();
    std::fs::remove_file(ready).unwrap();
}

//! The devices of this machine, by names that people can type.

use burn::tensor::Device;

use crate::caught::caught;
use crate::error::{Error, Result};
use crate::host::is_host;

/// A device that this build can compute on.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct DeviceInfo {
    /// By which [`device_named`] finds it: `cpu`, `vulkan:0`, `cuda:1`.
    pub name: String,
    /// What it calls itself.
    pub description: String,
    /// Whether it is a graphics card, and not the processor, even behind a graphics interface.
    pub is_gpu: bool,
    /// The device.
    pub device: Device,
}

/// The kinds of devices that there are, the fastest first, as names and cargo features have them.
const KINDS: [&str; 5] = ["cuda", "metal", "vulkan", "webgpu", "wgpu"];

/// The processor's name.
const CPU: &str = "cpu";

/// The devices that this build finds on this machine, in the order in which `auto` prefers them: cards,
/// the processor, and then what imitates a card in software. Cargo features decide which are looked for.
///
/// It asks drivers, so call it once.
///
/// ```
/// for found in padim::devices() {
///     println!("{}: {}", found.name, found.description);
/// }
/// ```
pub fn devices() -> Vec<DeviceInfo> {
    // `wgpu` finds the same cards once more, through an interface that it chooses by itself.
    let pinned = cfg!(any(feature = "metal", feature = "vulkan", feature = "webgpu"));
    let kinds = KINDS.iter().filter(|kind| !(pinned && **kind == "wgpu"));
    let mut found: Vec<DeviceInfo> = kinds.flat_map(|kind| of_kind(kind)).collect();
    found.extend(cpu());
    found.sort_by_key(|info| (!info.is_gpu, info.name != CPU));
    found
}

/// The device of this name: `auto`, the first graphics card or else the processor; `cpu`; or `cuda`,
/// `metal`, `vulkan`, `webgpu` or `wgpu`, with `:1` behind it for the second one and so on.
///
/// # Errors
///
/// [`Error::NoDevice`] if there is none on this machine or in this build. It lists those that are there.
pub fn device_named(name: &str) -> Result<Device> {
    let (kind, number) = match name.split_once(':') {
        Some((kind, number)) => (kind, number.parse().ok()),
        None => (name, Some(0)),
    };
    let found = match kind {
        "auto" => devices().into_iter().next(),
        CPU => cpu(),
        _ => number.and_then(|number| of_kind(kind).into_iter().nth(number)),
    };
    let found = found.filter(|_| number == Some(0) || KINDS.contains(&kind));
    found.map(|info| info.device).ok_or_else(|| none(name))
}

/// Opens a device that is not the processor: Burn panics at its first use where there is none.
pub(crate) fn require(device: &Device) -> Result<()> {
    if is_host(device) {
        return Ok(());
    }
    let opened = caught("a device", || device.sync());
    opened.ok().and_then(|synced| synced.ok()).ok_or_else(|| none(&format!("{device:?}")))
}

/// What is there instead of a device.
fn none(name: &str) -> Error {
    let built = KINDS.iter().filter(|kind| is_built(kind)).copied();
    Error::NoDevice {
        name: name.to_owned(),
        found: devices()
            .iter()
            .map(|info| format!("{} ({})", info.name, info.description))
            .collect(),
        looked_for: built.chain([CPU]).map(str::to_owned).collect(),
    }
}

/// The processor. There is none in a build without a backend for it.
fn cpu() -> Option<DeviceInfo> {
    #[cfg(feature = "flex")]
    let device = Some(Device::flex());
    #[cfg(all(feature = "ndarray", not(feature = "flex")))]
    #[allow(deprecated)]
    let device = Some(Device::ndarray());
    #[cfg(not(any(feature = "flex", feature = "ndarray")))]
    let device = None;
    device.map(|device| DeviceInfo {
        name: CPU.to_owned(),
        description: format!("{} threads", rayon::current_num_threads()),
        is_gpu: false,
        device,
    })
}

fn is_built(kind: &str) -> bool {
    match kind {
        "cuda" => cfg!(feature = "cuda"),
        "metal" => cfg!(feature = "metal"),
        "vulkan" => cfg!(feature = "vulkan"),
        "webgpu" => cfg!(feature = "webgpu"),
        "wgpu" => cfg!(feature = "wgpu"),
        _ => false,
    }
}

#[cfg(not(any(feature = "cuda", feature = "wgpu")))]
fn of_kind(_: &str) -> Vec<DeviceInfo> {
    Vec::new()
}

/// Those of a kind, cards before what only looks like one.
#[cfg(any(feature = "cuda", feature = "wgpu"))]
fn of_kind(kind: &str) -> Vec<DeviceInfo> {
    use burn::tensor::DeviceType;

    let filter = match kind {
        #[cfg(feature = "cuda")]
        "cuda" => DeviceType::Cuda,
        #[cfg(feature = "metal")]
        "metal" => DeviceType::Metal,
        #[cfg(feature = "vulkan")]
        "vulkan" => DeviceType::Vulkan,
        #[cfg(feature = "webgpu")]
        "webgpu" => DeviceType::WebGpu,
        #[cfg(feature = "wgpu")]
        "wgpu" => DeviceType::Wgpu,
        _ => return Vec::new(),
    };
    let mut found: Vec<DeviceInfo> = Device::enumerate(filter)
        .into_vec()
        .into_iter()
        .filter_map(|device| {
            // A driver that is there but does not work panics when it is asked.
            let identity = caught("a device", || device.identity()).ok()??;
            let is_gpu = identity.physical.is_some();
            Some(DeviceInfo { name: String::new(), description: identity.name, is_gpu, device })
        })
        .collect();
    found.sort_by_key(|info| !info.is_gpu);
    for (number, info) in found.iter_mut().enumerate() {
        info.name = format!("{kind}:{number}");
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_device_is_found_by_its_name() {
        let all = devices();
        for info in &all {
            println!("{}: {} (card: {})", info.name, info.description, info.is_gpu);
            assert_eq!(device_named(&info.name).unwrap(), info.device);
        }
        assert_eq!(device_named("auto").unwrap(), all[0].device);
        assert!(all.iter().any(|info| info.name == CPU));
    }

    #[test]
    fn what_is_not_there_is_told_with_what_is() {
        for name in ["cuda:31", "tpu", "cpu:1", "vulkan:x", ""] {
            let error = device_named(name).unwrap_err().to_string();
            println!("{error}");
            assert!(error.contains(&format!("{name:?}")) && error.contains("cpu ("), "{error}");
        }
    }
}

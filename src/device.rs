//! The devices of this machine, by name.

use burn::tensor::Device;

use crate::caught::caught;
use crate::error::{Error, Result};
use crate::host::is_host;

/// A device that this build can compute on.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct DeviceInfo {
    /// The name for [`device_named`]: `cpu`, `vulkan:0`, `cuda:1`.
    pub name: String,
    /// The device's description of itself.
    pub description: String,
    /// Whether it is a graphics card. `false` for the processor, even if it emulates a graphics card.
    pub is_gpu: bool,
    /// The device.
    pub device: Device,
}

/// The kinds of devices, fastest first. Device names and cargo features use these names.
const KINDS: [&str; 5] = ["cuda", "metal", "vulkan", "webgpu", "wgpu"];

/// The processor's name.
const CPU: &str = "cpu";

/// The devices that this build finds on this machine, in the order in which `auto` prefers them:
/// graphics cards, the processor, then software emulations of a graphics card. Cargo features
/// decide which kinds are searched for.
///
/// It queries drivers, which takes time, so call it once.
///
/// ```
/// for found in padim::device::devices() {
///     println!("{}: {}", found.name, found.description);
/// }
/// ```
pub fn devices() -> Vec<DeviceInfo> {
    // `wgpu` would find the same cards again, through an interface that it chooses itself.
    let pinned = cfg!(any(feature = "metal", feature = "vulkan", feature = "webgpu"));
    let kinds = KINDS.iter().filter(|kind| !(pinned && **kind == "wgpu"));
    let mut found: Vec<DeviceInfo> = kinds.flat_map(|kind| of_kind(kind)).collect();
    found.extend(cpu());
    found.sort_by_key(|info| (!info.is_gpu, info.name != CPU));
    found
}

/// The device of this name: `auto` for the first graphics card, or else the processor; `cpu`; or
/// `cuda`, `metal`, `vulkan`, `webgpu` or `wgpu`, followed by `:1` for the second device of the
/// kind, and so on.
///
/// # Errors
///
/// [`Error::NoDevice`] if this machine or this build has no such device. It lists the devices that
/// were found.
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

/// Checks that a device other than the processor exists: otherwise Burn panics at its first use.
pub(crate) fn require(device: &Device) -> Result<()> {
    if is_host(device) {
        return Ok(());
    }
    let opened = caught("a device", || device.sync());
    opened.ok().and_then(|synced| synced.ok()).ok_or_else(|| none(&format!("{device:?}")))
}

/// The error for a missing device, with the devices that were found.
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

/// The processor; `None` in a build without a backend for it.
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

/// The devices of a kind, graphics cards before software emulations.
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
            // An installed driver that does not work panics when it is queried.
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

//! Moves values between devices, host memory and bytes.

use burn::tensor::{Bool, DType, Device, Int, Tensor, TensorData};
use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::latest::Latest;

/// Reads a tensor back from its device, as row-major f32.
pub(crate) fn to_host<const D: usize>(tensor: Tensor<D>) -> Result<Vec<f32>> {
    let failed = |reason: String| Error::Device { reason };
    let data = tensor.try_into_data().map_err(|e| failed(e.to_string()))?;
    let data = data.try_cast(DType::F32).map_err(|e| failed(e.to_string()))?;
    data.try_into_vec().map_err(|e| failed(e.to_string()))
}

/// Reads maps `[batch, channels, height, width]` back as `[batch, height, width, channels]`. CPU
/// maps that already have this layout in memory are not copied.
pub(crate) fn pixels_to_host(maps: Tensor<4>) -> Result<Vec<f32>> {
    to_host(maps.permute([0, 2, 3, 1]))
}

/// Maps `[batch, channels, height, width]` from values `[batch, height, width, channels]`. On a
/// CPU, the memory layout stays the same.
pub(crate) fn pixels_to_device(
    values: Vec<f32>,
    [batch, height, width, channels]: [usize; 4],
    device: &Device,
) -> Tensor<4> {
    to_device(values, [batch, height, width, channels], device).permute([0, 3, 1, 2])
}

/// Whether no value is NaN or infinite.
pub(crate) fn all_finite(values: &[f32]) -> bool {
    all_of(values, |v| v.is_finite())
}

/// Whether `holds` is true for all values. Within a chunk it does not stop early, so that the
/// compiler can vectorize the loop.
pub(crate) fn all_of<T: Sync>(values: &[T], holds: impl Fn(&T) -> bool + Sync) -> bool {
    values.par_chunks(1 << 14).all(|part| part.iter().fold(true, |all, v| all & holds(v)))
}

/// Whether no value is NaN or infinite, computed on the tensor's device.
pub(crate) fn all_finite_on_device<const D: usize>(tensor: Tensor<D>) -> Result<bool> {
    truth(tensor.is_finite().all())
}

/// Reads a boolean back from its device.
pub(crate) fn truth(answer: Tensor<1, Bool>) -> Result<bool> {
    let answer = answer.try_into_scalar::<u8>();
    answer.map(|answer| answer != 0).map_err(|e| Error::Device { reason: e.to_string() })
}

/// The largest tensor on a device, in bytes, so that its buffer can be bound as a whole: WebGPU
/// guarantees 128 MiB, and some adapters allow no more.
pub(crate) const LARGEST_BUFFER: usize = 128 << 20;

/// Moves row-major values to a device.
pub(crate) fn to_device<const D: usize>(
    values: Vec<f32>,
    shape: [usize; D],
    device: &Device,
) -> Tensor<D> {
    Tensor::from_data(TensorData::new(values, shape), device)
}

/// Indices for selecting from a tensor.
pub(crate) fn index_tensor(indices: &[usize], device: &Device) -> Tensor<1, Int> {
    let values: Vec<i32> = indices.iter().map(|&i| i as i32).collect();
    Tensor::from_data(TensorData::new(values, [indices.len()]), device)
}

/// Indices for selecting from tensors, cached for the device that was used last.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct DeviceIndices(Latest<(Device, Vec<usize>), Tensor<1, Int>>);

impl DeviceIndices {
    /// These indices on `device`, from the cache if they are the same.
    pub fn on(&self, device: &Device, indices: &[usize]) -> Tensor<1, Int> {
        let key = (device.clone(), indices.to_vec());
        (*self.0.get(key, |(device, indices)| index_tensor(indices, device))).clone()
    }
}

/// Whether a device uses the host's memory, so that moving tensors costs nothing.
pub(crate) fn is_host(device: &Device) -> bool {
    #[cfg(feature = "flex")]
    if *device == Device::flex() {
        return true;
    }
    #[cfg(feature = "ndarray")]
    #[allow(deprecated)]
    if *device == Device::ndarray() {
        return true;
    }
    let _ = device;
    false
}

/// Little-endian bytes.
pub(crate) fn f32_to_bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

/// The values of little-endian bytes.
pub(crate) fn f32_from_bytes(bytes: &[u8]) -> impl Iterator<Item = f32> + '_ {
    bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
}

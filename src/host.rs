//! Values between devices, host memory and bytes.

use burn::tensor::{DType, Device, Tensor, TensorData};

use crate::{Error, Result};

/// Reads a tensor back from its device, as row-major f32.
pub(crate) fn to_host<const D: usize>(tensor: Tensor<D>) -> Result<Vec<f32>> {
    let failed = |reason: String| Error::Device { reason };
    let data = tensor.try_into_data().map_err(|e| failed(e.to_string()))?;
    let data = data.try_cast(DType::F32).map_err(|e| failed(e.to_string()))?;
    data.try_into_vec().map_err(|e| failed(e.to_string()))
}

/// Moves row-major values to a device.
pub(crate) fn to_device<const D: usize>(
    values: Vec<f32>,
    shape: [usize; D],
    device: &Device,
) -> Tensor<D> {
    Tensor::from_data(TensorData::new(values, shape), device)
}

/// Little-endian bytes.
pub(crate) fn f32_to_bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

/// The values of little-endian bytes.
pub(crate) fn f32_from_bytes(bytes: &[u8]) -> impl Iterator<Item = f32> + '_ {
    bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
}

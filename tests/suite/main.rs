//! The crate from outside: golden values, detectors, files, real data.

#[path = "../common/golden.rs"]
mod golden;

mod api;
mod convert;
mod datasets;
mod decisions;
mod detector;
mod evaluate;
mod golden_end_to_end;
mod golden_metrics;
mod golden_preprocess;
mod golden_stages;
mod hostile;
mod line;
mod moving;
mod partial;
mod persistence;
mod real_data;
mod rectangles;
mod tiles;

use burn::tensor::{Device, Tensor, TensorData};

/// The devices that the backend features of this build give.
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

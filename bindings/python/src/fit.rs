//! Fits.

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use padim::burn::tensor::Device;
use padim::{
    Backbone, Error, Padim, PadimConfig, PartialFit as InnerFit, ResNet18, Weights, WideResNet50,
};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::detector::{Detector, rates};
use crate::errors::{detached, exception, named};
use crate::images::with_images;

/// The settings of a fit, and the network.
#[pyclass(module = "padim._padim", frozen)]
pub struct Fitter {
    padim: Padim,
    made_of: Source,
}

/// What a fitter is made of, to make it again in another process.
#[derive(Clone)]
struct Source {
    config: String,
    backbone: String,
    weights: Option<PathBuf>,
}

impl Source {
    fn backbone(&self) -> padim::Result<impl Backbone + use<>> {
        let device = Device::flex();
        let weights = self.weights.clone().map_or(Weights::Bundled, Weights::File);
        match &*self.backbone {
            "resnet18" => ResNet18::load(weights, &device),
            "wide_resnet50" => WideResNet50::load(weights, &device),
            other => Err(Error::other(format!(
                "expected the backbone resnet18 or wide_resnet50, got {other:?}"
            ))),
        }
    }
}

#[pymethods]
impl Fitter {
    #[new]
    #[pyo3(signature = (config_json, backbone="resnet18", weights=None))]
    fn new(
        py: Python<'_>,
        config_json: &str,
        backbone: &str,
        weights: Option<PathBuf>,
    ) -> PyResult<Self> {
        let config: PadimConfig = serde_json::from_str(config_json)
            .map_err(|error| named(py, "ConfigError", &format!("the settings: {error}")))?;
        let made_of = Source { config: config_json.into(), backbone: backbone.into(), weights };
        let padim = detached(py, || Padim::new(config, made_of.backbone()?))?;
        Ok(Self { padim, made_of })
    }

    /// All settings as JSON.
    #[getter]
    fn config_json(&self) -> String {
        serde_json::to_string(self.padim.config()).unwrap_or_default()
    }

    #[pyo3(signature = (images, extendable=false, progress=None))]
    fn fit(
        &self,
        py: Python<'_>,
        images: &Bound<'_, PyAny>,
        extendable: bool,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<Detector> {
        let padim = &self.padim;
        with_images(py, images, progress, |images, progress| match extendable {
            false => padim.fit_with(images, |done| progress.tell(done)),
            true => {
                let fit = padim.partial_fit_with(images, |done| progress.tell(done))?;
                fit.finish_extendable_with(|done| progress.tell(done))
            }
        })
        .map(Detector::of)
    }

    /// Fits and calibrates with the same images.
    #[pyo3(signature = (images, image_false_alarm_rate, pixel_false_alarm_rate, folds=5, progress=None))]
    fn fit_calibrated(
        &self,
        py: Python<'_>,
        images: &Bound<'_, PyAny>,
        image_false_alarm_rate: f64,
        pixel_false_alarm_rate: f64,
        folds: usize,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<Detector> {
        let config = rates(image_false_alarm_rate, pixel_false_alarm_rate);
        let padim = &self.padim;
        with_images(py, images, progress, |images, progress| {
            let images: Vec<_> = images.collect();
            padim.fit_calibrated_with(&images, folds, &config, |done| progress.tell(done))
        })
        .map(Detector::of)
    }

    #[pyo3(signature = (images, progress=None))]
    fn partial_fit(
        &self,
        py: Python<'_>,
        images: &Bound<'_, PyAny>,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<PartialFit> {
        let padim = &self.padim;
        let fit = with_images(py, images, progress, |images, progress| {
            padim.partial_fit_with(images, |done| progress.tell(done))
        })?;
        Ok(PartialFit { inner: Mutex::new(Some(fit)), made_of: self.made_of.clone() })
    }
}

/// The statistics of some images. It goes to other processes by pickle, and merges with others of the same settings.
#[pyclass(module = "padim._padim", frozen)]
pub struct PartialFit {
    /// `None` after `finish`.
    inner: Mutex<Option<InnerFit>>,
    made_of: Source,
}

impl PartialFit {
    fn lock(&self) -> MutexGuard<'_, Option<InnerFit>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ended(py: Python<'_>) -> PyErr {
        named(py, "Error", "the fit has been finished; it can be used once")
    }

    /// A copy, so that no lock is held while others work.
    fn copy(&self, py: Python<'_>) -> PyResult<InnerFit> {
        self.lock().clone().ok_or_else(|| Self::ended(py))
    }
}

#[pymethods]
impl PartialFit {
    /// A new fit of the images of both.
    fn merged(&self, py: Python<'_>, other: &Self) -> PyResult<Self> {
        let (mut inner, other) = (self.copy(py)?, other.copy(py)?);
        let merged = detached(py, move || {
            inner.merge(other)?;
            Ok(inner)
        })?;
        Ok(Self { inner: Mutex::new(Some(merged)), made_of: self.made_of.clone() })
    }

    #[getter]
    fn image_count(&self, py: Python<'_>) -> PyResult<usize> {
        self.lock().as_ref().map(InnerFit::image_count).ok_or_else(|| Self::ended(py))
    }

    #[pyo3(signature = (extendable=false))]
    fn finish(&self, py: Python<'_>, extendable: bool) -> PyResult<Detector> {
        let inner = self.lock().take().ok_or_else(|| Self::ended(py))?;
        let detector = detached(py, move || match extendable {
            false => inner.finish(),
            true => inner.finish_extendable(),
        })?;
        Ok(Detector::of(detector))
    }

    fn to_bytes<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        let inner = self.copy(py)?;
        let bytes = detached(py, move || {
            let mut bytes = Vec::new();
            inner.save_to(&mut bytes)?;
            Ok(bytes)
        })?;
        Ok(PyBytes::new(py, &bytes))
    }

    #[staticmethod]
    #[pyo3(signature = (data, config_json, backbone="resnet18", weights=None))]
    fn from_bytes(
        py: Python<'_>,
        data: &[u8],
        config_json: String,
        backbone: &str,
        weights: Option<PathBuf>,
    ) -> PyResult<Self> {
        let made_of = Source { config: config_json, backbone: backbone.into(), weights };
        let source = made_of.clone();
        let inner = py.detach(move || InnerFit::load_from(data, source.backbone()?));
        let inner = inner.map_err(|error| exception(py, &error))?;
        Ok(Self { inner: Mutex::new(Some(inner)), made_of })
    }

    #[allow(clippy::type_complexity)]
    fn __reduce__<'py>(
        &self,
        py: Python<'py>,
    ) -> PyResult<(Bound<'py, PyAny>, (Bound<'py, PyBytes>, String, String, Option<PathBuf>))> {
        let make = py.get_type::<Self>().getattr("from_bytes")?;
        let Source { config, backbone, weights } = self.made_of.clone();
        Ok((make, (self.to_bytes(py)?, config, backbone, weights)))
    }
}

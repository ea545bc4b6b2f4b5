//! Detectors and predictions.

use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

use padim::burn::tensor::Device;
use padim::{CalibrationConfig, Detector as Inner, Prediction as InnerPrediction};
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyBytes};

use crate::errors::{detached, exception};
use crate::images::{input, with_images};

/// The settings of a calibration.
pub fn rates(image: f64, pixel: f64) -> CalibrationConfig {
    let config = CalibrationConfig::default();
    config.with_image_false_alarm_rate(image).with_pixel_false_alarm_rate(pixel)
}

/// A detector. May be used by several threads; a change replaces what is inside.
#[pyclass(module = "padim._padim", frozen)]
pub struct Detector {
    inner: RwLock<Arc<Inner>>,
}

impl Detector {
    pub fn of(inner: Inner) -> Self {
        Self { inner: RwLock::new(Arc::new(inner)) }
    }

    fn get(&self) -> Arc<Inner> {
        Arc::clone(&self.inner.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn set(&self, inner: Inner) {
        *self.inner.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(inner);
    }
}

#[pymethods]
impl Detector {
    #[staticmethod]
    fn load(py: Python<'_>, path: PathBuf) -> PyResult<Self> {
        detached(py, || Inner::load(path, &Device::flex())).map(Self::of)
    }

    #[staticmethod]
    fn from_bytes(py: Python<'_>, data: &[u8]) -> PyResult<Self> {
        detached(py, || Inner::load_from(data, &Device::flex())).map(Self::of)
    }

    fn save(&self, py: Python<'_>, path: PathBuf) -> PyResult<()> {
        let inner = self.get();
        detached(py, || inner.save(path))
    }

    fn to_bytes<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        let inner = self.get();
        let bytes = detached(py, || {
            let mut bytes = Vec::new();
            inner.save_to(&mut bytes)?;
            Ok(bytes)
        })?;
        Ok(PyBytes::new(py, &bytes))
    }

    /// Pickles as the bytes of its own file, never as code.
    fn __reduce__<'py>(
        &self,
        py: Python<'py>,
    ) -> PyResult<(Bound<'py, PyAny>, (Bound<'py, PyBytes>,))> {
        let make = py.get_type::<Self>().getattr("from_bytes")?;
        Ok((make, (self.to_bytes(py)?,)))
    }

    fn predict(&self, py: Python<'_>, image: &Bound<'_, PyAny>) -> PyResult<Prediction> {
        let (inner, image) = (self.get(), input(image, "the given image")?);
        let prediction = detached(py, || inner.predict(image))?;
        Prediction::new(py, prediction)
    }

    fn predict_batch(
        &self,
        py: Python<'_>,
        images: &Bound<'_, PyAny>,
    ) -> PyResult<Vec<Prediction>> {
        let inner = self.get();
        let predictions = with_images(py, images, None, move |images, _| {
            inner.predict_iter(images).collect::<padim::Result<Vec<_>>>()
        })?;
        predictions.into_iter().map(|prediction| Prediction::new(py, prediction)).collect()
    }

    /// The image scores only: the maps are not kept.
    fn scores<'py>(
        &self,
        py: Python<'py>,
        images: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let inner = self.get();
        let scores = with_images(py, images, None, move |images, _| {
            let score = |prediction: padim::Result<InnerPrediction>| Ok(prediction?.image_score);
            inner.predict_iter(images).map(score).collect::<padim::Result<Vec<f32>>>()
        })?;
        array(py, &scores, &[scores.len()])
    }

    #[pyo3(signature = (images, image_false_alarm_rate=0.05, pixel_false_alarm_rate=0.001, progress=None))]
    fn calibrate(
        &self,
        py: Python<'_>,
        images: &Bound<'_, PyAny>,
        image_false_alarm_rate: f64,
        pixel_false_alarm_rate: f64,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<()> {
        let config = rates(image_false_alarm_rate, pixel_false_alarm_rate);
        let mut inner = (*self.get()).clone();
        let changed = with_images(py, images, progress, move |images, progress| {
            inner.calibrate_with(images, &config, |done| progress.tell(done))?;
            Ok(inner)
        })?;
        self.set(changed);
        Ok(())
    }

    #[pyo3(signature = (images, forgetting_factor=1.0, progress=None))]
    fn extend(
        &self,
        py: Python<'_>,
        images: &Bound<'_, PyAny>,
        forgetting_factor: f64,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<()> {
        let mut inner = (*self.get()).clone();
        let changed = with_images(py, images, progress, move |images, progress| {
            inner.extend_with(images, forgetting_factor, |done| progress.tell(done))?;
            Ok(inner)
        })?;
        self.set(changed);
        Ok(())
    }

    /// Sets the threshold of image scores, and keeps the other settings of the decision.
    fn set_threshold(&self, py: Python<'_>, threshold: f32) -> PyResult<()> {
        let mut inner = (*self.get()).clone();
        let mut thresholds =
            inner.thresholds().cloned().unwrap_or_else(|| padim::Thresholds::fixed(threshold));
        thresholds.image = threshold;
        inner.set_thresholds(Some(thresholds)).map_err(|error| exception(py, &error))?;
        self.set(inner);
        Ok(())
    }

    /// The regions of a prediction that reach the pixel threshold.
    fn defects(&self, py: Python<'_>, prediction: &Prediction) -> PyResult<Vec<Defect>> {
        let (inner, prediction) = (self.get(), &prediction.inner);
        let regions = detached(py, || inner.anomaly_regions(prediction))?;
        let defect = |region: padim::decision::AnomalyRegion| Defect {
            top: region.top,
            left: region.left,
            height: region.height,
            width: region.width,
            area: region.area,
            peak: region.peak,
            mean: region.mean,
        };
        Ok(regions.into_iter().map(defect).collect())
    }

    #[getter]
    fn threshold(&self) -> Option<f32> {
        self.get().thresholds().map(|thresholds| thresholds.image)
    }

    #[getter]
    fn pixel_threshold(&self) -> Option<f32> {
        self.get().thresholds().and_then(|thresholds| thresholds.pixel)
    }

    #[getter]
    fn is_calibrated(&self) -> bool {
        self.get().thresholds().is_some_and(|thresholds| thresholds.calibration.is_some())
    }

    #[getter]
    fn input_size(&self) -> (usize, usize) {
        let [height, width] = self.get().input_size();
        (height, width)
    }

    /// The settings as JSON.
    #[getter]
    fn config_json(&self) -> String {
        serde_json::to_string(self.get().config()).unwrap_or_default()
    }

    #[getter]
    fn metadata(&self) -> std::collections::BTreeMap<String, String> {
        self.get().metadata().clone()
    }

    fn set_metadata(&self, metadata: std::collections::BTreeMap<String, String>) {
        let mut inner = (*self.get()).clone();
        *inner.metadata_mut() = metadata;
        self.set(inner);
    }

    fn __repr__(&self) -> String {
        let inner = self.get();
        let [height, width] = inner.input_size();
        let threshold = inner.thresholds().map_or("none".to_owned(), |t| t.image.to_string());
        format!("<padim.Detector of {height}x{width} pixels, threshold {threshold}>")
    }
}

/// The result of a detector for an image.
#[pyclass(module = "padim._padim", frozen)]
pub struct Prediction {
    inner: InnerPrediction,
    /// A numpy array.
    map: Py<PyAny>,
}

/// A numpy array. The values are copied once, into memory of Python.
fn array<'py>(py: Python<'py>, values: &[f32], shape: &[usize]) -> PyResult<Bound<'py, PyAny>> {
    let bytes = PyByteArray::new_with(py, size_of_val(values), |bytes| {
        for (target, value) in bytes.as_chunks_mut::<4>().0.iter_mut().zip(values) {
            *target = value.to_ne_bytes();
        }
        Ok(())
    })?;
    let array = py.import("numpy")?.getattr("frombuffer")?.call1((bytes, "float32"))?;
    array.call_method1("reshape", (shape,))
}

impl Prediction {
    fn new(py: Python<'_>, inner: InnerPrediction) -> PyResult<Self> {
        let map = &inner.anomaly_map;
        let map = array(py, map.values(), &map.size())?.unbind();
        Ok(Self { inner, map })
    }
}

#[pymethods]
impl Prediction {
    #[getter]
    fn image_score(&self) -> f32 {
        self.inner.image_score
    }

    #[getter]
    fn normalized_score(&self) -> f32 {
        self.inner.normalized_score
    }

    #[getter]
    fn p_value(&self) -> Option<f64> {
        self.inner.p_value
    }

    #[getter]
    fn is_defective(&self) -> Option<bool> {
        self.inner.is_defective
    }

    /// The same array each time.
    #[getter]
    fn anomaly_map(&self, py: Python<'_>) -> Py<PyAny> {
        self.map.clone_ref(py)
    }

    /// The map in the size of the original image.
    fn original_map<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let map = detached(py, || self.inner.map_in_original())?;
        array(py, map.values(), &map.size())
    }

    #[getter]
    fn original_size(&self) -> (usize, usize) {
        let [height, width] = self.inner.geometry.original_size();
        (height, width)
    }

    /// What a person should know about the image.
    #[getter]
    fn warnings(&self) -> Vec<String> {
        self.inner.input.warnings()
    }

    fn __repr__(&self) -> String {
        let InnerPrediction { image_score, is_defective, .. } = &self.inner;
        let verdict = match is_defective {
            None => "no verdict",
            Some(false) => "good",
            Some(true) => "defective",
        };
        format!("<padim.Prediction: score {image_score}, {verdict}>")
    }
}

/// A connected region of pixels that reach the pixel threshold, in pixels of the original image.
#[pyclass(module = "padim._padim", frozen, get_all)]
pub struct Defect {
    top: usize,
    left: usize,
    height: usize,
    width: usize,
    area: usize,
    peak: f32,
    mean: f32,
}

#[pymethods]
impl Defect {
    fn __repr__(&self) -> String {
        let Self { top, left, height, width, peak, .. } = self;
        format!("<padim.Defect: row {top}, column {left}, {height}x{width} pixels, peak {peak}>")
    }
}

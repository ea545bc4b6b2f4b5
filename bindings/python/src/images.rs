//! Images that come from Python. `padim._images.convert` turns each into a path, bytes, or the type, shape and
//! bytes of an array.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use image::{DynamicImage, ImageBuffer};
use padim::{Error, ImageInput};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyIterator};

/// The image of an object. Its pixels are copied, because others may write to them as soon as Python's lock is free.
pub fn input(object: &Bound<'_, PyAny>, name: &str) -> PyResult<ImageInput> {
    let module = object.py().import("padim._images")?;
    let image = module.getattr("convert")?.call1((object,))?;
    if let Ok(bytes) = image.cast::<PyBytes>() {
        return Ok(ImageInput::encoded(name, bytes.as_bytes()));
    }
    if let Ok(path) = image.extract::<PathBuf>() {
        return Ok(path.into());
    }
    let (kind, size, raw): (String, [usize; 3], Bound<'_, PyBytes>) = image.extract()?;
    let raw = raw.as_bytes();
    // Numbers lie as the processor has them.
    let made = match &*kind {
        "uint8" => picture8(size, raw.to_vec()),
        "uint16" => picture16(size, numbers(raw, u16::from_ne_bytes)),
        "float32" => picture32(size, numbers(raw, f32::from_ne_bytes)),
        _ => None,
    };
    let made = made.ok_or_else(|| PyTypeError::new_err("not an image"))?;
    Ok(made.into())
}

fn numbers<T, const N: usize>(raw: &[u8], number: impl Fn([u8; N]) -> T) -> Vec<T> {
    raw.as_chunks::<N>().0.iter().map(|&bytes| number(bytes)).collect()
}

fn picture8([height, width, channels]: [usize; 3], raw: Vec<u8>) -> Option<DynamicImage> {
    let (width, height) = (u32::try_from(width).ok()?, u32::try_from(height).ok()?);
    match channels {
        1 => ImageBuffer::from_raw(width, height, raw).map(DynamicImage::ImageLuma8),
        2 => ImageBuffer::from_raw(width, height, raw).map(DynamicImage::ImageLumaA8),
        3 => ImageBuffer::from_raw(width, height, raw).map(DynamicImage::ImageRgb8),
        4 => ImageBuffer::from_raw(width, height, raw).map(DynamicImage::ImageRgba8),
        _ => None,
    }
}

fn picture16([height, width, channels]: [usize; 3], raw: Vec<u16>) -> Option<DynamicImage> {
    let (width, height) = (u32::try_from(width).ok()?, u32::try_from(height).ok()?);
    match channels {
        1 => ImageBuffer::from_raw(width, height, raw).map(DynamicImage::ImageLuma16),
        2 => ImageBuffer::from_raw(width, height, raw).map(DynamicImage::ImageLumaA16),
        3 => ImageBuffer::from_raw(width, height, raw).map(DynamicImage::ImageRgb16),
        4 => ImageBuffer::from_raw(width, height, raw).map(DynamicImage::ImageRgba16),
        _ => None,
    }
}

/// Gray becomes RGB, because there is no gray image of floating-point numbers.
fn picture32([height, width, channels]: [usize; 3], raw: Vec<f32>) -> Option<DynamicImage> {
    let (width, height) = (u32::try_from(width).ok()?, u32::try_from(height).ok()?);
    match channels {
        1 => {
            let raw = raw.into_iter().flat_map(|v| [v; 3]).collect();
            ImageBuffer::from_raw(width, height, raw).map(DynamicImage::ImageRgb32F)
        }
        3 => ImageBuffer::from_raw(width, height, raw).map(DynamicImage::ImageRgb32F),
        4 => ImageBuffer::from_raw(width, height, raw).map(DynamicImage::ImageRgba32F),
        _ => None,
    }
}

/// The exception that stopped the images.
pub type Raised = Arc<Mutex<Option<PyErr>>>;

/// Takes the images of an iterable of Python one by one, from a thread without Python's lock.
pub struct Images {
    iterator: Py<PyIterator>,
    left: Option<usize>,
    number: usize,
    raised: Raised,
}

impl Images {
    pub fn new(images: &Bound<'_, PyAny>, raised: &Raised) -> PyResult<Self> {
        Ok(Self {
            left: images.len().ok(),
            iterator: images.try_iter()?.unbind(),
            number: 0,
            raised: Arc::clone(raised),
        })
    }
}

impl Iterator for Images {
    type Item = ImageInput;

    fn next(&mut self) -> Option<ImageInput> {
        let number = self.number;
        self.number += 1;
        self.left = self.left.map(|left| left.saturating_sub(1));
        let image = Python::attach(|py| {
            let object = self.iterator.bind(py).clone().next()?;
            Some(object.and_then(|object| input(&object, &format!("number {number}"))))
        })?;
        Some(image.unwrap_or_else(|error| {
            // The work stops at this image, and the caller raises the exception.
            *self.raised.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
            let failed = move |_| Err(Error::other("an image of Python cannot be used"));
            ImageInput::deferred(format!("number {number}"), failed)
        }))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left.unwrap_or(0), self.left)
    }
}

/// Runs work on the images of a Python iterable, without Python's lock. `progress` gets `(stage, done, total)`; it can
/// stop the work by an exception or by returning False. Ctrl-C stops it, too.
pub fn with_images<T: Send>(
    py: Python<'_>,
    images: &Bound<'_, PyAny>,
    progress: Option<Py<PyAny>>,
    work: impl FnOnce(Images, &mut Progress) -> padim::Result<T> + Send,
) -> PyResult<T> {
    let raised = Raised::default();
    let images = Images::new(images, &raised)?;
    let mut progress = Progress { function: progress, raised: Arc::clone(&raised) };
    let outcome = py.detach(|| work(images, &mut progress));
    if let Some(error) = raised.lock().unwrap_or_else(PoisonError::into_inner).take() {
        return Err(error);
    }
    outcome.map_err(|error| crate::errors::exception(py, &error))
}

/// Tells Python about the progress.
pub struct Progress {
    function: Option<Py<PyAny>>,
    raised: Raised,
}

impl Progress {
    pub fn tell(&mut self, progress: padim::detector::FitProgress) -> std::ops::ControlFlow<()> {
        let told = Python::attach(|py| {
            py.check_signals()?;
            let Some(function) = &self.function else { return Ok(true) };
            let stage = format!("{:?}", progress.stage).to_lowercase();
            let answer = function.call1(py, (stage, progress.done, progress.total))?;
            Ok(answer.is_none(py) || answer.is_truthy(py)?)
        });
        match told {
            Ok(true) => std::ops::ControlFlow::Continue(()),
            Ok(false) => std::ops::ControlFlow::Break(()),
            Err(error) => {
                *self.raised.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                std::ops::ControlFlow::Break(())
            }
        }
    }
}

//! Detectors: load, query, predict, save.

use std::ffi::c_char;
use std::mem::size_of;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

use padim::burn::tensor::Device;
use padim::detector::Predictor;
use padim::{Detector, Error, ImageInput, TiledDetector};

use crate::handles::Handles;
use crate::input::{PadimFrame, of_encoded, of_file, of_frame};
use crate::memory::{Versioned, slice, slice_mut, text, write, write_versioned};
use crate::prediction::PadimPrediction;
use crate::status::{Failure, Outcome, PadimStatus, guard};

/// A detector. Free it by padim_detector_free.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PadimDetector {
    /// Not for use by programs. 0 is no detector.
    pub id: u64,
}

/// What a detector is.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct PadimDetectorInfo {
    /// Set this to sizeof(PadimDetectorInfo).
    pub struct_size: usize,
    /// The size of the network's input in pixels. For tiles, of the input of a tile.
    pub input_height: usize,
    pub input_width: usize,
    /// Whether the detector has a threshold, so that predictions have a verdict.
    pub has_threshold: bool,
    /// Whether it was calibrated, so that predictions have a p-value.
    pub is_calibrated: bool,
    /// Whether it cuts large images into tiles.
    pub is_tiled: bool,
    /// From this image score on, an image is defective; NaN without a threshold.
    pub threshold: f32,
    /// From this value on, a pixel belongs to a region; NaN without such a threshold.
    pub pixel_threshold: f32,
    /// The number of good images of the calibration, or 0.
    pub calibration_images: usize,
}

// SAFETY: `repr(C)`, the size first. Only written: Rust makes all values.
unsafe impl Versioned for PadimDetectorInfo {
    const FIRST: usize = size_of::<Self>();
}

/// A detector of either kind.
#[derive(Clone)]
pub(crate) enum Kind {
    Whole(Detector),
    Tiled(TiledDetector),
}

impl Kind {
    pub fn predictor(&self) -> &dyn Predictor {
        match self {
            Self::Whole(detector) => detector,
            Self::Tiled(detector) => detector,
        }
    }

    fn save(&self, path: &Path) -> padim::Result<()> {
        match self {
            Self::Whole(detector) => detector.save(path),
            Self::Tiled(detector) => detector.save(path),
        }
    }
}

/// A detector behind a handle. A calibration replaces it; calls that run go on with the old one.
pub(crate) type Held = RwLock<Arc<Kind>>;

pub(crate) static DETECTORS: Handles<Held> = Handles::new("detector");

pub(crate) fn keep(detector: Kind) -> PadimDetector {
    PadimDetector { id: DETECTORS.insert(RwLock::new(Arc::new(detector))) }
}

pub(crate) fn get(detector: PadimDetector) -> Outcome<Arc<Kind>> {
    let held = DETECTORS.get(detector.id)?;
    let detector = held.read().unwrap_or_else(PoisonError::into_inner);
    Ok(Arc::clone(&detector))
}

/// Reads a detector of either kind.
fn load(read: impl Fn(bool) -> padim::Result<Kind>) -> Outcome<Kind> {
    match read(false) {
        Err(error @ Error::InvalidDetectorFile { .. }) => Ok(read(true).map_err(|_| error)?),
        other => Ok(other?),
    }
}

/// Loads a detector from a file. It runs on the CPU. Free it by padim_detector_free.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn padim_detector_load(
    path: *const c_char,
    detector: *mut PadimDetector,
) -> PadimStatus {
    guard(|| {
        // SAFETY: promises of the caller.
        let path = unsafe { text(path, "the path") }?;
        let device = Device::flex();
        let loaded = load(|tiled| match tiled {
            false => Detector::load(path, &device).map(Kind::Whole),
            true => TiledDetector::load(path, &device).map(Kind::Tiled),
        })?;
        put(loaded, detector)
    })
}

/// Loads a detector from the bytes of its file.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn padim_detector_load_memory(
    bytes: *const u8,
    length: usize,
    detector: *mut PadimDetector,
) -> PadimStatus {
    guard(|| {
        // SAFETY: promises of the caller.
        let bytes = unsafe { slice(bytes, length, "the detector's bytes") }?;
        let device = Device::flex();
        let loaded = load(|tiled| match tiled {
            false => Detector::load_from(bytes, &device).map(Kind::Whole),
            true => TiledDetector::load_from(bytes, &device).map(Kind::Tiled),
        })?;
        put(loaded, detector)
    })
}

/// Writes the handle of a new detector.
pub(crate) fn put(detector: Kind, place: *mut PadimDetector) -> Outcome<()> {
    if place.is_null() {
        return Err(Failure::argument("the place for the detector is null"));
    }
    // SAFETY: promise of the caller.
    unsafe { write(place, keep(detector), "the place for the detector") }
}

/// Saves a detector. The file appears only when it is complete.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn padim_detector_save(
    detector: PadimDetector,
    path: *const c_char,
) -> PadimStatus {
    guard(|| {
        // SAFETY: promise of the caller.
        let path = unsafe { text(path, "the path") }?;
        Ok(get(detector)?.save(Path::new(path))?)
    })
}

/// Gives up a detector. Predictions that run end normally.
#[unsafe(no_mangle)]
pub extern "C" fn padim_detector_free(detector: PadimDetector) -> PadimStatus {
    guard(|| DETECTORS.remove(detector.id).map(drop))
}

/// Tells what a detector is.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn padim_detector_info(
    detector: PadimDetector,
    info: *mut PadimDetectorInfo,
) -> PadimStatus {
    guard(|| {
        let detector = get(detector)?;
        let predictor = detector.predictor();
        let [input_height, input_width] = match &*detector {
            Kind::Whole(detector) => detector.input_size(),
            Kind::Tiled(_) => predictor.config().preprocess.input_size().unwrap_or_default(),
        };
        let thresholds = predictor.thresholds();
        let calibration = thresholds.and_then(|thresholds| thresholds.calibration.as_ref());
        let value = PadimDetectorInfo {
            struct_size: size_of::<PadimDetectorInfo>(),
            input_height,
            input_width,
            has_threshold: thresholds.is_some(),
            is_calibrated: calibration.is_some(),
            is_tiled: matches!(&*detector, Kind::Tiled(_)),
            threshold: thresholds.map_or(f32::NAN, |thresholds| thresholds.image),
            pixel_threshold: thresholds.and_then(|thresholds| thresholds.pixel).unwrap_or(f32::NAN),
            calibration_images: calibration.map_or(0, |calibration| calibration.scores().len()),
        };
        // SAFETY: promise of the caller.
        unsafe { write_versioned(info, &value, "the place for the information") }
    })
}

fn predict(detector: &Kind, image: ImageInput) -> Outcome<PadimPrediction> {
    let prediction = match detector {
        Kind::Whole(detector) => detector.predict(image)?,
        Kind::Tiled(detector) => detector.predict(image)?,
    };
    Ok(PadimPrediction::keep(prediction))
}

/// Scores a camera's frame. Free the prediction by padim_prediction_free.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn padim_predict_frame(
    detector: PadimDetector,
    frame: *const PadimFrame,
    prediction: *mut PadimPrediction,
) -> PadimStatus {
    // SAFETY: promises of the caller.
    predict_one(detector, || unsafe { of_frame(frame, "the frame") }, prediction)
}

/// Scores an encoded image in memory: the bytes of a PNG, JPEG, BMP, TIFF or WebP file. `name` is its name in
/// messages, or null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn padim_predict_encoded(
    detector: PadimDetector,
    bytes: *const u8,
    length: usize,
    name: *const c_char,
    prediction: *mut PadimPrediction,
) -> PadimStatus {
    // SAFETY: promises of the caller.
    predict_one(detector, || unsafe { of_encoded(bytes, length, name) }, prediction)
}

/// Scores an image file.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn padim_predict_file(
    detector: PadimDetector,
    path: *const c_char,
    prediction: *mut PadimPrediction,
) -> PadimStatus {
    // SAFETY: promise of the caller.
    predict_one(detector, || unsafe { of_file(path) }, prediction)
}

fn predict_one(
    detector: PadimDetector,
    image: impl FnOnce() -> Outcome<ImageInput>,
    place: *mut PadimPrediction,
) -> PadimStatus {
    guard(|| {
        let detector = get(detector)?;
        if place.is_null() {
            return Err(Failure::argument("the place for the prediction is null"));
        }
        let prediction = predict(&detector, image()?)?;
        // SAFETY: promise of the caller.
        unsafe { write(place, prediction, "the place for the prediction") }
    })
}

/// Scores `count` frames at once, which is faster than one by one. Writes `count` predictions, or none if one of
/// the frames cannot be scored. All frames must have the same struct_size as this library's, and `frames` and
/// `predictions` must have `count` values.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn padim_predict_frames(
    detector: PadimDetector,
    frames: *const PadimFrame,
    count: usize,
    predictions: *mut PadimPrediction,
) -> PadimStatus {
    guard(|| {
        let detector = get(detector)?;
        // SAFETY: promises of the caller.
        let (frames, places) = unsafe {
            (
                slice(frames, count, "the frames")?,
                slice_mut(predictions, count, "the place for the predictions")?,
            )
        };
        let mut images = Vec::with_capacity(count);
        for (number, frame) in frames.iter().enumerate() {
            // SAFETY: promises of the caller.
            images.push(unsafe { of_frame(frame, &format!("frame {number}")) }?);
        }
        let predictions = match &*detector {
            Kind::Whole(detector) => detector.predict_batch(images)?,
            Kind::Tiled(detector) => {
                images.into_iter().map(|image| detector.predict(image)).collect::<Result<_, _>>()?
            }
        };
        for (place, prediction) in places.iter_mut().zip(predictions) {
            *place = PadimPrediction::keep(prediction);
        }
        Ok(())
    })
}

//! Predictions: scores, maps and regions.

use std::mem::size_of;

use padim::Prediction;

use crate::detector::{PadimDetector, get};
use crate::handles::Handles;
use crate::memory::{Versioned, slice_mut, write, write_versioned};
use crate::status::{Failure, Outcome, PadimStatus, guard};

/// The result of a detector for an image. Free it by padim_prediction_free.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PadimPrediction {
    /// Not for use by programs. 0 is no prediction.
    pub id: u64,
}

/// Whether an image is defective.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PadimVerdict {
    /// The detector has no threshold.
    #[default]
    PadimUnknown = 0,
    /// The score is below the threshold.
    PadimGood = 1,
    /// The score reaches the threshold.
    PadimDefective = 2,
}

/// The scores of an image.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct PadimResult {
    /// Set this to sizeof(PadimResult).
    pub struct_size: usize,
    /// Higher means more anomalous.
    pub image_score: f32,
    /// The score after the detector's normalization; without one, equal to `image_score`.
    pub normalized_score: f32,
    /// The probability that a good image has at least this score; NaN unless the detector is calibrated.
    pub p_value: f64,
    pub verdict: PadimVerdict,
    /// The size of the anomaly map.
    pub map_height: usize,
    pub map_width: usize,
    /// The size of the original image.
    pub original_height: usize,
    pub original_width: usize,
}

// SAFETY: `repr(C)`, the size first. Only written: Rust makes all values.
unsafe impl Versioned for PadimResult {
    const FIRST: usize = size_of::<Self>();
}

/// A connected region of pixels that reach the pixel threshold, in pixels of the original image.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct PadimRegion {
    /// The first row.
    pub top: usize,
    /// The first column.
    pub left: usize,
    pub height: usize,
    pub width: usize,
    /// The number of its pixels.
    pub area: usize,
    /// Its highest score.
    pub peak: f32,
    /// Its mean score.
    pub mean: f32,
}

static PREDICTIONS: Handles<Prediction> = Handles::new("prediction");

impl PadimPrediction {
    pub(crate) fn keep(prediction: Prediction) -> Self {
        Self { id: PREDICTIONS.insert(prediction) }
    }
}

/// Gives up a prediction and its map.
#[unsafe(no_mangle)]
pub extern "C" fn padim_prediction_free(prediction: PadimPrediction) -> PadimStatus {
    guard(|| PREDICTIONS.remove(prediction.id).map(drop))
}

/// The scores of a prediction, and the sizes of its maps.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn padim_prediction_result(
    prediction: PadimPrediction,
    result: *mut PadimResult,
) -> PadimStatus {
    guard(|| {
        let prediction = PREDICTIONS.get(prediction.id)?;
        let [map_height, map_width] = prediction.anomaly_map.size();
        let [original_height, original_width] = prediction.geometry.original_size();
        let value = PadimResult {
            struct_size: size_of::<PadimResult>(),
            image_score: prediction.image_score,
            normalized_score: prediction.normalized_score,
            p_value: prediction.p_value.unwrap_or(f64::NAN),
            verdict: match prediction.is_defective {
                None => PadimVerdict::PadimUnknown,
                Some(false) => PadimVerdict::PadimGood,
                Some(true) => PadimVerdict::PadimDefective,
            },
            map_height,
            map_width,
            original_height,
            original_width,
        };
        // SAFETY: promise of the caller.
        unsafe { write_versioned(result, &value, "the place for the result") }
    })
}

/// The anomaly map, `map_height` rows of `map_width` scores. It is the library's memory, and valid until the
/// prediction is freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn padim_prediction_map(
    prediction: PadimPrediction,
    map: *mut *const f32,
) -> PadimStatus {
    guard(|| {
        let prediction = PREDICTIONS.get(prediction.id)?;
        // SAFETY: promise of the caller.
        unsafe { write(map, prediction.anomaly_map.values().as_ptr(), "the place for the map") }
    })
}

/// Copies the anomaly map to a buffer of `length` scores, which must be exactly its size.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn padim_prediction_copy_map(
    prediction: PadimPrediction,
    buffer: *mut f32,
    length: usize,
) -> PadimStatus {
    guard(|| {
        let prediction = PREDICTIONS.get(prediction.id)?;
        let map = &prediction.anomaly_map;
        // SAFETY: promises of the caller.
        copy(map.values(), map.size(), unsafe { slice_mut(buffer, length, "the buffer") }?)
    })
}

/// As padim_prediction_copy_map, with the map in the size of the original image: `original_height` rows of
/// `original_width` scores. Pixels that the network did not see are 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn padim_prediction_copy_original_map(
    prediction: PadimPrediction,
    buffer: *mut f32,
    length: usize,
) -> PadimStatus {
    guard(|| {
        let prediction = PREDICTIONS.get(prediction.id)?;
        let [height, width] = prediction.geometry.original_size();
        if length != height * width {
            return Err(wrong_length(length, [height, width]));
        }
        let map = prediction.map_in_original()?;
        // SAFETY: promises of the caller.
        copy(map.values(), map.size(), unsafe { slice_mut(buffer, length, "the buffer") }?)
    })
}

fn copy(map: &[f32], size: [usize; 2], buffer: &mut [f32]) -> Outcome<()> {
    if buffer.len() != map.len() {
        return Err(wrong_length(buffer.len(), size));
    }
    buffer.copy_from_slice(map);
    Ok(())
}

fn wrong_length(length: usize, [height, width]: [usize; 2]) -> Failure {
    let expected = height * width;
    Failure::argument(format!(
        "the map needs a buffer of {expected} scores ({height} x {width}), got {length}"
    ))
}

/// The regions of a prediction that reach the detector's pixel threshold, highest peak first. Writes at most
/// `capacity` of them, and to `count` how many there are. `regions` may be null if `capacity` is 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn padim_prediction_regions(
    detector: PadimDetector,
    prediction: PadimPrediction,
    regions: *mut PadimRegion,
    capacity: usize,
    count: *mut usize,
) -> PadimStatus {
    guard(|| {
        let (detector, prediction) = (get(detector)?, PREDICTIONS.get(prediction.id)?);
        let found = detector.predictor().anomaly_regions(&prediction)?;
        // SAFETY: promises of the caller.
        let places = unsafe {
            let places = slice_mut(regions, capacity, "the place for the regions")?;
            write(count, found.len(), "the place for the count")?;
            places
        };
        for (place, region) in places.iter_mut().zip(found) {
            *place = PadimRegion {
                top: region.top,
                left: region.left,
                height: region.height,
                width: region.width,
                area: region.area,
                peak: region.peak,
                mean: region.mean,
            };
        }
        Ok(())
    })
}

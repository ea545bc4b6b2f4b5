//! The result of a detector for an image.

use serde::{Deserialize, Serialize};

#[cfg(doc)]
use super::{Detector, Registration};
#[cfg(doc)]
use crate::decision::Calibration;
use crate::error::Result;
use crate::preprocess::{Alignment, ImageGeometry, InputReport};
use crate::scoring::AnomalyMap;

/// The result of a detector for an image.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Prediction {
    /// The image's score. Higher means more anomalous. By default a Mahalanobis distance, not squared.
    pub image_score: f32,
    /// The image score after the detector's normalization ([`Detector::normalization`]); without one,
    /// equal to `image_score`.
    pub normalized_score: f32,
    /// The probability that a good image has at least this score ([`Calibration::p_value`]), in
    /// `(0, 1]`; `None` unless the detector has been calibrated.
    pub p_value: Option<f64>,
    /// Whether the score reaches the detector's threshold; `None` if it has none.
    pub is_defective: Option<bool>,
    /// A score for every pixel of the network's input, which is the image after registration, resize
    /// and crop. For an image in tiles, a score for the whole image at the network's resolution.
    pub anomaly_map: AnomalyMap,
    /// The relation of the map to the original image, or to the registered one.
    pub geometry: ImageGeometry,
    /// The motion of the image by a registration; `None` without one, and for one of unknown motion
    /// ([`Registration::new`]).
    pub alignment: Option<Alignment>,
    /// What was noticed about the image. Show [`warnings`](InputReport::warnings) to a person. For a
    /// tensor, the default; for an image in tiles, of the whole image.
    #[serde(default)]
    pub input: InputReport,
}

impl Prediction {
    /// The anomaly map in the size of the original image: resize, crop and registration are undone.
    /// Pixels outside the crop are not scored and have the value 0. After a registration of unknown
    /// motion ([`Registration::new`]), the map is that of the registered image.
    ///
    /// # Errors
    ///
    /// As [`AnomalyMap::new`]; this does not occur for maps of a detector.
    pub fn map_in_original(&self) -> Result<AnomalyMap> {
        let map = self.anomaly_map.values();
        let values = match &self.alignment {
            Some(alignment) => alignment.map_to_original(map, &self.geometry),
            None => self.geometry.map_to_original(map, 0.0),
        };
        AnomalyMap::new(self.geometry.original_size(), values)
    }

    /// The anomaly map for the image resized and cropped, but not registered; use it to draw over such
    /// an image. Without a registration, it is the anomaly map itself.
    ///
    /// # Errors
    ///
    /// As [`AnomalyMap::new`]; this does not occur for maps of a detector.
    pub fn map_in_input(&self) -> Result<AnomalyMap> {
        let map = &self.anomaly_map;
        match &self.alignment {
            Some(alignment) => {
                AnomalyMap::new(map.size(), alignment.map_to_input(map.values(), &self.geometry))
            }
            None => Ok(map.clone()),
        }
    }
}

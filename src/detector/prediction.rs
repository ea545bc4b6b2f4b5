//! What a detector says of an image.

use serde::{Deserialize, Serialize};

#[cfg(doc)]
use super::{Detector, Registration};
#[cfg(doc)]
use crate::decision::Calibration;
use crate::error::Result;
use crate::preprocess::{Alignment, ImageGeometry};
use crate::scoring::AnomalyMap;

/// What a detector says of an image.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Prediction {
    /// The image's score: a Mahalanobis distance, not squared. Larger is stranger.
    pub image_score: f32,
    /// The same after the detector's normalization ([`Detector::normalization`]); without one, equal to
    /// `image_score`.
    pub normalized_score: f32,
    /// How likely a good image is to score so high ([`Calibration::p_value`]),
    /// in `(0, 1]`; `None` unless the detector has been calibrated.
    pub p_value: Option<f64>,
    /// Whether the score reaches the detector's threshold; `None` if it has none.
    pub is_defective: Option<bool>,
    /// A score for every pixel of the network's input, that is of the image after a registration, resize
    /// and crop. Of an image in tiles, all of it at the network's resolution.
    pub anomaly_map: AnomalyMap,
    /// How the map relates to the original image, or to the registered one.
    pub geometry: ImageGeometry,
    /// How a registration has moved the image before all else; `None` without one, and for one that does
    /// not tell ([`Registration::new`]).
    pub alignment: Option<Alignment>,
}

impl Prediction {
    /// The anomaly map in the original image's size, resize, crop and registration undone. Pixels that
    /// the crop had cut away were never looked at and are 0. After a registration that does not tell how
    /// it moves images ([`Registration::new`]), it is that of the registered image.
    ///
    /// # Errors
    ///
    /// Those of [`AnomalyMap::new`], which a map from a detector does not meet.
    pub fn map_in_original(&self) -> Result<AnomalyMap> {
        let map = self.anomaly_map.values();
        let values = match &self.alignment {
            Some(alignment) => alignment.map_to_original(map, &self.geometry),
            None => self.geometry.map_to_original(map, 0.0),
        };
        AnomalyMap::new(self.geometry.original_size(), values)
    }

    /// The anomaly map of the image as it came, resized and cropped but not registered: what a map
    /// without a registration is laid over. Without a registration, it is the anomaly map itself.
    ///
    /// # Errors
    ///
    /// Those of [`AnomalyMap::new`], which a map from a detector does not meet.
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

//! The header of a file: its sections, and the length of the arrays.

use std::collections::BTreeMap;
use std::path::Path;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::format::{decode, decode_settings, encode, encode_settings, invalid};
use crate::backbone::{LayerInfo, convolutions_of};
use crate::decision::Thresholds;
use crate::detector::{PadimConfig, StoredRegistration};
use crate::error::Result;
use crate::fingerprint::Fingerprint;
use crate::gaussian::{GaussianModel, ImageWeights, ModelShape, Storage};
use crate::preprocess::Normalization;
use crate::tiling::TilingConfig;

/// The names and contents of the sections.
type Sections = BTreeMap<String, Vec<u8>>;

/// Everything that affects embeddings and maps, except data in other sections.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    pub config: PadimConfig,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registration: Option<StoredRegistration>,
    pub normalization: Normalization,
    pub layers: Vec<LayerInfo>,
    /// The selected channels.
    pub indices: Vec<usize>,
    pub input_size: [usize; 2],
    pub grid: [usize; 2],
    /// The fingerprint of the backbone's weights.
    pub fingerprint: Fingerprint,
}

/// The network of the weights in the file.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackboneSection {
    pub network: String,
    pub settings: Value,
}

/// The tiling of a tiled detector.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TilesSection {
    pub tiling: TilingConfig,
    #[serde(default)]
    pub image_size: Option<[usize; 2]>,
}

/// The fitted Gaussians.
#[derive(Serialize, Deserialize)]
pub struct ModelSection {
    pub storage: Storage,
    pub dimension: usize,
    pub rows: usize,
    pub count: usize,
}

/// The statistics of an unfinished fit.
#[derive(Serialize, Deserialize)]
pub struct StatisticsSection {
    pub dimension: usize,
    pub tally: ImageWeights,
    /// The number of positions of each block.
    pub blocks: Vec<usize>,
    /// Whether there are sums in addition to vectors.
    pub summed: bool,
}

#[derive(Serialize, Deserialize)]
pub struct ProjectionSection {
    pub components: usize,
}

/// All sections.
pub struct Header {
    pub settings: Settings,
    pub backbone: Option<BackboneSection>,
    /// Whether there is a region; its mask is an array of the input's size.
    pub region: Option<()>,
    pub projection: Option<ProjectionSection>,
    pub model: Option<ModelSection>,
    pub statistics: Option<StatisticsSection>,
    pub thresholds: Option<Thresholds>,
    /// How high the maps of good images go.
    pub good_peak: Option<f32>,
    pub tiles: Option<TilesSection>,
    /// The models of a tiled detector, without the first.
    pub tile_models: Vec<ModelSection>,
    /// The user's notes.
    pub metadata: BTreeMap<String, String>,
}

/// The kinds of files.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Detector,
    Tiles,
    /// A partial fit; also a detector that has kept its statistics.
    Fit,
}

impl ModelSection {
    pub fn of(model: &GaussianModel) -> Self {
        let ModelShape { storage, dimension, rows, count, .. } = model.shape();
        Self { storage, dimension, rows, count }
    }
}

impl Header {
    pub fn encode(&self) -> Result<Vec<u8>> {
        fn settings<T: Serialize>(section: Option<&T>) -> Result<Option<Vec<u8>>> {
            section.map(encode_settings).transpose()
        }
        fn array<T: Serialize>(section: Option<&T>) -> Result<Option<Vec<u8>>> {
            section.map(encode).transpose()
        }
        let metadata = Some(&self.metadata).filter(|metadata| !metadata.is_empty());
        let tile_models = Some(&self.tile_models).filter(|models| !models.is_empty());
        let sections = [
            ("settings", settings(Some(&self.settings))?),
            ("backbone", settings(self.backbone.as_ref())?),
            ("region", array(self.region.as_ref())?),
            ("projection", array(self.projection.as_ref())?),
            ("model", array(self.model.as_ref())?),
            ("statistics", array(self.statistics.as_ref())?),
            ("thresholds", settings(self.thresholds.as_ref())?),
            ("good_peak", settings(self.good_peak.as_ref())?),
            ("tiles", settings(self.tiles.as_ref())?),
            ("tile_models", array(tile_models)?),
            ("metadata", settings(metadata)?),
        ];
        let there =
            sections.into_iter().filter_map(|(name, bytes)| Some((name.to_owned(), bytes?)));
        encode(&there.collect::<Sections>())
    }

    pub fn decode(path: &Path, bytes: &[u8]) -> Result<Self> {
        let mut sections: Sections = decode(path, "its header", bytes)?;
        let mut take = |name: &str| sections.remove(name).map(|bytes| (name.to_owned(), bytes));
        type Section = Option<(String, Vec<u8>)>;
        fn settings<T: DeserializeOwned>(path: &Path, section: Section) -> Result<Option<T>> {
            let decode = |(name, b): (String, Vec<u8>)| {
                decode_settings(path, &format!("its section `{name}`"), &b)
            };
            section.map(decode).transpose()
        }
        fn array<T: DeserializeOwned>(path: &Path, section: Section) -> Result<Option<T>> {
            let decode =
                |(name, b): (String, Vec<u8>)| decode(path, &format!("its section `{name}`"), &b);
            section.map(decode).transpose()
        }
        let header = Self {
            settings: settings(path, take("settings"))?
                .ok_or_else(|| invalid(path, "it has no settings"))?,
            backbone: settings(path, take("backbone"))?,
            region: array(path, take("region"))?,
            projection: array(path, take("projection"))?,
            model: array(path, take("model"))?,
            statistics: array(path, take("statistics"))?,
            thresholds: settings(path, take("thresholds"))?,
            good_peak: settings(path, take("good_peak"))?,
            tiles: settings(path, take("tiles"))?,
            tile_models: array(path, take("tile_models"))?.unwrap_or_default(),
            metadata: settings(path, take("metadata"))?.unwrap_or_default(),
        };
        if header.tiles.is_none() && !header.tile_models.is_empty() {
            return Err(invalid(path, "it has models of tiles, but no tiles"));
        }
        match sections.keys().next() {
            Some(name) => {
                Err(invalid(path, format!("its section `{name}` is not known; update padim")))
            }
            None => Ok(header),
        }
    }

    /// Fails if the file is not of this kind; the error names the right function.
    pub fn require(&self, path: &Path, wanted: Kind) -> Result<()> {
        let (actual, holds, name) = match (&self.tiles, &self.model) {
            (Some(_), _) => (Kind::Tiles, "a tiled detector", "TiledDetector"),
            (None, Some(_)) => (Kind::Detector, "a detector without tiles", "Detector"),
            (None, None) => (Kind::Fit, "an unfinished fit", "PartialFit"),
        };
        if actual == wanted || (wanted, actual) == (Kind::Fit, Kind::Detector) {
            return Ok(());
        }
        Err(invalid(path, format!("it holds {holds}; use `{name}::load`")))
    }

    /// The names and shapes of the convolutions in the file.
    pub fn convolutions(&self, path: &Path) -> Result<Vec<(String, [usize; 4])>> {
        let Some(BackboneSection { network, settings }) = &self.backbone else {
            return Ok(Vec::new());
        };
        convolutions_of(network, settings).map_err(|e| invalid(path, e.to_string()))
    }

    /// The length of all arrays in bytes; `None` on overflow, or if the sections contradict each other.
    /// `positions`: the number of positions inside the region.
    pub fn array_bytes(
        &self,
        convolutions: &[(String, [usize; 4])],
        positions: usize,
    ) -> Option<u64> {
        // Positions with their own Gaussian.
        let positions =
            if self.settings.config.gaussian.pooled { positions.min(1) } else { positions };
        let product = |factors: &[usize]| {
            factors.iter().try_fold(1_u64, |product, &n| product.checked_mul(n as u64))
        };
        let mut total = 0_u64;
        let mut add = |bytes: u64| {
            total = total.checked_add(bytes)?;
            Some(())
        };
        for (_, shape) in convolutions {
            add(product(shape)?.checked_add(shape[0] as u64)?.checked_mul(4)?)?;
        }
        if self.region.is_some() {
            add(product(&self.settings.input_size)?.div_ceil(8))?;
        }
        if let Some(projection) = &self.projection {
            add(product(&[4, projection.components, self.settings.indices.len()])?)?;
        }
        for model in self.model.iter().chain(&self.tile_models) {
            let ModelSection { storage, dimension, rows, .. } = *model;
            let each = storage.numbers(dimension, rows)?;
            add(product(&[4, positions, dimension.checked_add(1)?])?)?;
            add(product(&[storage.precision().bytes(), positions, each])?)?;
        }
        if let Some(statistics) = &self.statistics {
            let StatisticsSection { dimension, tally, blocks, summed } = statistics;
            let held: usize = blocks.iter().try_fold(0, |sum: usize, &n| sum.checked_add(n))?;
            if held != positions {
                return None;
            }
            add(product(&[4, positions, *dimension, tally.weights.len()])?)?;
            if *summed {
                let triangle = product(&[*dimension, dimension.checked_add(1)?])? / 2;
                let each = triangle.checked_add(product(&[2, *dimension])?)?.checked_add(1)?;
                add(each.checked_mul(positions as u64)?.checked_mul(8)?)?;
            }
        }
        Some(total)
    }
}

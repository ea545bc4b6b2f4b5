//! The sources of a loaded detector's backbone.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use burn::tensor::Device;

use super::format::invalid;
use super::header::{BackboneSection, Header};
use super::read::{Body, MakeBackbone};
use crate::backbone::{Backbone, BackboneSnapshot};
use crate::error::{Error, Result};
use crate::fingerprint::Fingerprint;

/// The source of a detector's backbone when the detector is loaded.
///
/// [`Detector::load`] accepts a `&Device`, a `&BackboneCache` or an `Arc` of a backbone, which convert
/// to this type.
///
/// [`Detector::load`]: crate::detector::Detector::load
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum BackboneSource<'a> {
    /// Loads the weights in the file to this device.
    Embedded(&'a Device),
    /// Uses a cached backbone with the same weights, or else loads the weights in the file.
    Cached(&'a BackboneCache),
    /// Uses this backbone. The weights in the file, if any, are ignored.
    Given(Arc<dyn Backbone>),
}

impl<'a> From<&'a Device> for BackboneSource<'a> {
    fn from(device: &'a Device) -> Self {
        Self::Embedded(device)
    }
}

impl<'a> From<&'a BackboneCache> for BackboneSource<'a> {
    fn from(cache: &'a BackboneCache) -> Self {
        Self::Cached(cache)
    }
}

impl From<Arc<dyn Backbone>> for BackboneSource<'_> {
    fn from(backbone: Arc<dyn Backbone>) -> Self {
        Self::Given(backbone)
    }
}

impl<B: Backbone + 'static> From<Arc<B>> for BackboneSource<'_> {
    fn from(backbone: Arc<B>) -> Self {
        Self::Given(backbone)
    }
}

/// A cache of backbones that several detectors share. If many files embed the same weights, these
/// weights and the prepared data of the CPU engine are in memory only once. The cache keeps its
/// backbones until it is dropped.
///
/// ```
/// # use padim::{BackboneCache, Detector, Error, Padim, PadimConfig, ResNet18, Weights, burn, image};
/// # let device = burn::tensor::Device::flex();
/// # let folder = tempfile::tempdir().unwrap();
/// # let config = PadimConfig::default().with_input_size([32, 32]);
/// # let image = |i: u8| image::RgbImage::from_pixel(40, 40, image::Rgb([i * 9, 80, 70]));
/// # let padim = Padim::new(config, ResNet18::load(Weights::Bundled, &device)?)?;
/// # for name in ["nut.padim", "bolt.padim"] {
/// #     padim.fit((0..3).map(image))?.save(folder.path().join(name))?;
/// # }
/// let backbones = BackboneCache::new(&device);
/// let nut = Detector::load(folder.path().join("nut.padim"), &backbones)?;
/// let bolt = Detector::load(folder.path().join("bolt.padim"), &backbones)?;
/// assert_eq!(backbones.len(), 1);
/// # Ok::<(), Error>(())
/// ```
pub struct BackboneCache {
    device: Device,
    known: Mutex<Vec<(Key, Arc<dyn Backbone>)>>,
}

/// The weights' fingerprint, the network's name and its settings.
type Key = (Fingerprint, String, serde_json::Value);

impl BackboneCache {
    /// Creates an empty cache for detectors on this device.
    pub fn new(device: &Device) -> Self {
        Self { device: device.clone(), known: Mutex::default() }
    }

    /// The number of different backbones.
    pub fn len(&self) -> usize {
        self.known().len()
    }

    /// Whether the cache has no backbone.
    pub fn is_empty(&self) -> bool {
        self.known().is_empty()
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Vec<(Key, Arc<dyn Backbone>)>> {
        // A panic while the lock was held leaves the list valid.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self, key: &Key) -> Option<Arc<dyn Backbone>> {
        let known = self.known();
        known.iter().find(|(other, _)| other == key).map(|(_, backbone)| Arc::clone(backbone))
    }

    /// Inserts a backbone; returns the equal one of another thread if it was inserted first.
    fn insert(&self, key: Key, backbone: Arc<dyn Backbone>) -> Arc<dyn Backbone> {
        let mut known = self.known();
        if let Some((_, earlier)) = known.iter().find(|(other, _)| *other == key) {
            return Arc::clone(earlier);
        }
        known.push((key, Arc::clone(&backbone)));
        backbone
    }
}

impl fmt::Debug for BackboneCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = self.known();
        let fingerprints: Vec<_> = known.iter().map(|((fingerprint, ..), _)| fingerprint).collect();
        f.debug_struct("BackboneCache")
            .field("device", &self.device)
            .field("backbones", &fingerprints)
            .finish()
    }
}

impl<'a> BackboneSource<'a> {
    /// A function that reads the backbone's weights in a file or skips them.
    pub(super) fn reader(self) -> Box<MakeBackbone<'a>> {
        Box::new(move |header, body| match self {
            Self::Given(backbone) => {
                body.skip_convolutions()?;
                Ok(backbone)
            }
            Self::Embedded(device) => embedded(header, body, device),
            Self::Cached(cache) => {
                let BackboneSection { network, settings } = section(header, body)?;
                let key = (header.settings.fingerprint, network, settings);
                match cache.get(&key) {
                    Some(backbone) => {
                        body.skip_convolutions()?;
                        Ok(backbone)
                    }
                    None => Ok(cache.insert(key, embedded(header, body, &cache.device)?)),
                }
            }
        })
    }
}

fn section(header: &Header, body: &Body<'_>) -> Result<BackboneSection> {
    header.backbone.clone().ok_or_else(|| Error::BackboneNotEmbedded {
        reason: format!(
            "{} holds no backbone; pass the backbone with the weights {} to `load`",
            body.path.display(),
            header.settings.fingerprint
        ),
    })
}

fn embedded(header: &Header, body: &mut Body<'_>, device: &Device) -> Result<Arc<dyn Backbone>> {
    let BackboneSection { network, settings } = section(header, body)?;
    let parameters = body.convolutions()?;
    let backbone = BackboneSnapshot { network, settings, parameters }
        .build(device)
        .map_err(|e| invalid(body.path, format!("its backbone cannot be built: {e}")))?;
    let (expected, actual) = (header.settings.fingerprint, backbone.fingerprint());
    if expected != actual {
        return Err(Error::BackboneMismatch { expected, actual });
    }
    Ok(backbone)
}

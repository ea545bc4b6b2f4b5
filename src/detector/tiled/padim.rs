//! PaDiM for tiles before a fit.

use crate::backbone::Backbone;
#[cfg(doc)]
use crate::detector::Detector;
use crate::detector::config::PadimConfig;
use crate::detector::padim::Padim;
use crate::detector::plan::MemoryPlan;
use crate::detector::registration::Registration;
use crate::error::{Error, Result};
use crate::preprocess::{DecodeLimits, DecodeOptions, RegionOfInterest};
use crate::tiling::{TileModels, TilingConfig};

/// PaDiM for images that are too large for the network, before a fit: settings, a tiling and a
/// backbone.
///
/// Each tile is processed like a whole image by [`Padim`] and [`Detector`]. Then the maps of an image's
/// tiles are blended into one map.
///
/// ```
/// # use padim::{Error, PadimConfig, ResNet18, TiledPadim, TilingConfig, Weights, burn, image};
/// # use padim::preprocess::{PreprocessConfig, Resize};
/// # let device = burn::tensor::Device::flex();
/// # let weave = |i: u32| image::RgbImage::from_fn(150, 100, move |x, y| {
/// #     image::Rgb([((x + i) % 8 * 20) as u8, (y % 8 * 20) as u8, ((x * 7 + y * 13 + i * 3) % 11) as u8])
/// # });
/// // Tiles of 48x48 pixels go through the network as they are.
/// let tiling = TilingConfig::default().with_tile([48, 48]).with_overlap(16);
/// let as_they_are = PreprocessConfig::default().with_resize(Resize::square(48)).with_crop(None);
/// let config = PadimConfig::default().with_preprocess(as_they_are);
/// let padim = TiledPadim::new(config, tiling, ResNet18::load(Weights::Bundled, &device)?)?;
/// let detector = padim.fit((0..4).map(weave))?;
///
/// let mut torn = weave(4);
/// (60..75).for_each(|x| torn.put_pixel(x, 50, image::Rgb([255, 0, 0])));
/// let prediction = detector.predict(torn)?;
/// assert!(prediction.image_score > detector.predict(weave(5))?.image_score);
/// assert_eq!(prediction.map_in_original()?.size(), [100, 150]);
/// # Ok::<(), Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct TiledPadim {
    pub(super) padim: Padim,
    pub(super) tiling: TilingConfig,
}

impl TiledPadim {
    /// Checks the settings and selects the channels.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidConfig`] names the invalid setting and the reason. A crop is invalid, because it
    /// would leave gaps between tiles.
    pub fn new(
        config: PadimConfig,
        tiling: TilingConfig,
        backbone: impl Backbone + 'static,
    ) -> Result<Self> {
        Self::of(Padim::new(config, backbone)?, tiling)
    }

    pub(super) fn of(padim: Padim, tiling: TilingConfig) -> Result<Self> {
        tiling.validate()?;
        if padim.config.preprocess.crop.is_some() {
            let reason = "would leave gaps between tiles; use none, and resize tiles to the network's \
                          input size";
            return Err(Error::config("crop", reason));
        }
        if padim.config.preprocess.jpeg_scaling {
            let reason = "would make tiles smaller than the tiling says; switch it off";
            return Err(Error::config("jpeg_scaling", reason));
        }
        if padim.config.augmentation.is_some() {
            let reason =
                "not supported for tiles; use none, or add copies of the images before the fit";
            return Err(Error::config("augmentation", reason));
        }
        if let Some(registration) = &padim.registration {
            let reason = format!(
                "{:?} cannot be applied to tiles, because each shows only a part of the image; use \
                 none, or register the images before the fit",
                registration.name()
            );
            return Err(Error::config("registration", reason));
        }
        let tiled = Self { padim, tiling };
        tiled.input_size().map_err(|error| Error::config("tile", error.to_string()))?;
        Ok(tiled)
    }

    /// The network's input size `[height, width]` for a tile.
    pub(super) fn input_size(&self) -> Result<[usize; 2]> {
        Ok(self.padim.preprocessor.geometry(self.tiling.tile)?.input_size())
    }

    /// Not available for tiles.
    ///
    /// # Errors
    ///
    /// Always [`Error::Unsupported`].
    pub fn with_region(self, _region: &RegionOfInterest) -> Result<Self> {
        Err(Error::Unsupported {
            what: "a region of interest",
            place: "for images in tiles",
            advice: "crop the images to the region first",
        })
    }

    /// Not available for tiles.
    ///
    /// # Errors
    ///
    /// Always [`Error::Unsupported`].
    pub fn with_registration(self, _registration: Registration) -> Result<Self> {
        Err(Error::Unsupported {
            what: "a registration",
            place: "for images in tiles",
            advice: "register the images first, by `Registration::apply`",
        })
    }

    /// As [`Padim::with_decode_limits`].
    #[must_use]
    pub fn with_decode_limits(self, limits: DecodeLimits) -> Self {
        Self { padim: self.padim.with_decode_limits(limits), ..self }
    }

    pub(super) fn decode_options(&self) -> DecodeOptions {
        self.padim.preprocessor.decode_options()
    }

    /// The settings for a tile.
    pub fn config(&self) -> &PadimConfig {
        &self.padim.config
    }

    /// The tiling of images.
    pub fn tiling(&self) -> &TilingConfig {
        &self.tiling
    }

    /// The memory of a fit in one pass, with a number of images of `[height, width]` pixels in 8-bit
    /// color, and of a prediction.
    ///
    /// # Errors
    ///
    /// As [`Padim::memory_plan`], and [`Error::UnusableImage`] for images smaller than a tile.
    pub fn memory_plan(&self, image_size: [usize; 2], images: usize) -> Result<MemoryPlan> {
        self.plan(image_size, images, self.positions(image_size)?)
    }

    /// The number of models for images of a size.
    pub(super) fn positions(&self, image_size: [usize; 2]) -> Result<usize> {
        let layout = self.tiling.layout(image_size)?;
        Ok(match self.tiling.models {
            TileModels::Shared => 1,
            TileModels::PerPosition => layout.count(),
        })
    }

    /// The plan of a fit with the models of `at_once` positions at a time.
    pub(super) fn plan(
        &self,
        image_size: [usize; 2],
        images: usize,
        at_once: usize,
    ) -> Result<MemoryPlan> {
        let layout = self.tiling.layout(image_size)?;
        let tiles = images.saturating_mul(layout.count());
        let positions = self.positions(image_size)?;
        let vectors = if positions == 1 { tiles } else { images };
        let one = self.padim.plan_for(self.tiling.tile, vectors, tiles)?;
        let sizes = [image_size, layout.map_size(self.input_size()?)];
        let pixels = sizes.map(|[height, width]| height.saturating_mul(width));
        one.for_tiles([positions, at_once], pixels)
    }
}

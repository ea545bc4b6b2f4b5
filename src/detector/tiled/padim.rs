//! Tiles before the fit: settings, a backbone, and how images are cut.

use crate::backbone::Backbone;
#[cfg(doc)]
use crate::detector::Detector;
use crate::detector::config::PadimConfig;
use crate::detector::padim::Padim;
use crate::detector::plan::MemoryPlan;
use crate::error::{Error, Result};
use crate::preprocess::DecodeLimits;
use crate::tiling::{TileModels, TilingConfig};

/// PaDiM for images that are too large for the network, before it has seen any: settings, a backbone,
/// and how images are cut into tiles.
///
/// A tile is prepared, embedded and scored as a whole image is by [`Padim`] and [`Detector`]; the maps
/// of an image's tiles are then blended into one.
///
/// ```
/// # use padim::{Error, PadimConfig, ResNet18, TiledPadim, TilingConfig, Weights, burn, image};
/// # use padim::preprocess::{PreprocessConfig, Resize};
/// # let device = burn::tensor::Device::flex();
/// # let weave = |i: u32| image::RgbImage::from_fn(150, 100, move |x, y| {
/// #     image::Rgb([((x + i) % 8 * 20) as u8, (y % 8 * 20) as u8, ((x * 7 + y * 13 + i * 3) % 11) as u8])
/// # });
/// // Tiles of 48x48 pixels go through the network as they are.
/// let tiling = TilingConfig { tile: [48, 48], overlap: 16, ..Default::default() };
/// let as_they_are = PreprocessConfig { resize: Resize::square(48), crop: None, ..Default::default() };
/// let config = PadimConfig { preprocess: as_they_are, ..Default::default() };
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
    /// Checks the settings and draws the channels.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidConfig`] names the setting that cannot be, and why: a crop, which would leave
    /// gaps between tiles, among others.
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
            let reason = "would leave gaps between tiles; use none, and resize a tile to the size that \
                          the network is to see";
            return Err(Error::config("crop", reason));
        }
        if padim.config.augmentation.is_some() {
            let reason =
                "copies of tiles cannot be made yet; use none, or move the images before the fit";
            return Err(Error::config("augmentation", reason));
        }
        if let Some(registration) = &padim.registration {
            let reason = format!(
                "{:?} cannot be done to tiles, which show a part of the image each; use none, or move \
                 the images before the fit",
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

    /// As [`Padim::with_decode_limits`]: for larger files.
    #[must_use]
    pub fn with_decode_limits(self, limits: DecodeLimits) -> Self {
        Self { padim: self.padim.with_decode_limits(limits), ..self }
    }

    pub(super) fn decode_limits(&self) -> DecodeLimits {
        self.padim.preprocessor.decode_limits()
    }

    /// The settings of what is done with a tile.
    pub fn config(&self) -> &PadimConfig {
        &self.padim.config
    }

    /// How images are cut.
    pub fn tiling(&self) -> &TilingConfig {
        &self.tiling
    }

    /// How much memory a fit in one pass of so many images of `[height, width]` in 8-bit colour will
    /// take, and a prediction of another.
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

    /// The plan of a fit of some positions at once.
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

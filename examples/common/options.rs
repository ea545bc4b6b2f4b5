//! Options that several examples have.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use burn::tensor::Device;
use padim::preprocess::{
    Alpha, DecodeLimits, DecodeOptions, ExifOrientation, Filter, JpegDecoder, Levels,
    PreprocessConfig, RegionOfInterest, Resize, decode_file_with,
};
use padim::{Backbone, ImageInput, Padim};

use super::{Network, WeightsOption};

/// The arguments `--backbone` and `--weights`.
#[derive(Debug, Clone, clap::Args)]
pub struct NetworkOptions {
    /// The network.
    #[arg(long, value_enum, default_value = "resnet18")]
    pub backbone: Network,
    /// The weights: FILE (.pth or .safetensors with torchvision's names), bundled (inside the crate),
    /// torchvision (ImageNet weights on this machine) or untrained [default: bundled for resnet18, else
    /// torchvision]
    #[arg(long)]
    pub weights: Option<WeightsOption>,
}

impl NetworkOptions {
    /// Builds the network with the given maps as output, counted from 1.
    pub fn build(&self, maps: &[usize], device: &Device) -> padim::Result<Arc<dyn Backbone>> {
        self.backbone.build(maps, self.weights.as_ref(), device)
    }
}

/// How image files are read.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct InputOptions {
    /// The most pixels that an image may have [default: 178956970]
    #[arg(long, value_name = "N")]
    pub max_pixels: Option<u64>,
    /// Which image of a file that holds several is read, from 0 [default: such a file is an error, or as
    /// the detector was fitted]
    #[arg(long, value_name = "N")]
    pub page: Option<usize>,
    /// Whether the orientation that a camera noted in a file (EXIF) is used: apply or ignore [default:
    /// apply, or as the preset or the detector says]
    #[arg(long)]
    pub orientation: Option<ExifOrientation>,
}

impl InputOptions {
    pub fn limits(&self) -> DecodeLimits {
        let default = DecodeLimits::default();
        let max_pixels = self.max_pixels.unwrap_or(default.max_pixels);
        // Up to four channels of 16 bits a pixel.
        let max_bytes = default.max_bytes.max(max_pixels.saturating_mul(8));
        DecodeLimits { max_pixels, max_bytes }
    }

    /// The options of a detector, changed by these.
    pub fn decode(&self, own: DecodeOptions) -> DecodeOptions {
        let orientation = self.orientation.unwrap_or(own.orientation);
        own.with_page(self.page.or(own.page)).with_orientation(orientation)
    }

    /// A file for a detector that was fitted with other options.
    pub fn image(&self, path: &Path) -> ImageInput {
        if self.page.is_none() && self.orientation.is_none() {
            return path.into();
        }
        let (options, path) = (self.clone(), path.to_owned());
        ImageInput::deferred(path.display().to_string(), move |own| {
            decode_file_with(&path, options.decode(own))
        })
    }
}

/// How images are read by a fit. A detector keeps what it was fitted with.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct FitInputOptions {
    #[command(flatten)]
    pub files: InputOptions,
    /// Which values of images with more than 8 bits a channel are black and white: auto (as the first
    /// images tell), bits:N, LOW..HIGH or pil [default: auto, or as the preset says]
    #[arg(long)]
    pub levels: Option<Levels>,
    /// What becomes of transparent pixels: background:RED,GREEN,BLUE (laid on this color) or drop
    /// [default: background:255,255,255, or as the preset says]
    #[arg(long)]
    pub alpha: Option<Alpha>,
    /// What decodes JPEG files: rust, or turbo (needs the feature `turbojpeg`) [default: rust]
    #[arg(long)]
    pub jpeg_decoder: Option<JpegDecoder>,
    /// Decode JPEG files at 1/2, 1/4 or 1/8 of their size, if that is at least the size after the resize.
    #[arg(long)]
    pub jpeg_scaling: bool,
}

impl FitInputOptions {
    /// These settings, changed by the options.
    pub fn preprocess(&self, config: PreprocessConfig) -> PreprocessConfig {
        let page = self.files.page.or(config.page);
        let orientation = self.files.orientation.unwrap_or(config.orientation);
        let levels = self.levels.unwrap_or(config.levels);
        let alpha = self.alpha.unwrap_or(config.alpha);
        let config = config.with_page(page).with_orientation(orientation);
        let jpeg_decoder = self.jpeg_decoder.unwrap_or(config.jpeg_decoder);
        let jpeg_scaling = self.jpeg_scaling || config.jpeg_scaling;
        let config = config.with_levels(levels).with_alpha(alpha);
        config.with_jpeg_decoder(jpeg_decoder).with_jpeg_scaling(jpeg_scaling)
    }

    pub fn limits(&self) -> DecodeLimits {
        self.files.limits()
    }
}

/// How images become network input.
#[derive(Debug, Clone, clap::Args)]
pub struct PictureOptions {
    /// Resize to `short:N` (the short side), `square:N` or `HEIGHTxWIDTH`, in pixels.
    #[arg(long, default_value = "square:224")]
    pub resize: Resize,
    /// The resizing filter: bilinear, bicubic or lanczos.
    #[arg(long, default_value = "bilinear")]
    pub filter: Filter,
    /// The side of the center crop in pixels, or `none`.
    #[arg(long, default_value = "none")]
    pub crop: Crop,
    #[command(flatten)]
    pub input: FitInputOptions,
}

impl PictureOptions {
    pub fn preprocess(&self) -> PreprocessConfig {
        let config = PreprocessConfig::default().with_resize(self.resize).with_filter(self.filter);
        self.input.preprocess(config.with_crop(self.crop.0))
    }

    pub fn limits(&self) -> DecodeLimits {
        self.input.limits()
    }
}

/// The argument `--region`.
#[derive(Debug, Clone, clap::Args)]
pub struct RegionOption {
    /// A mask image of the region of interest: pixels of value 0 are not scored.
    #[arg(long)]
    region: Option<PathBuf>,
}

impl RegionOption {
    /// Adds the region of interest.
    pub fn padim(&self, padim: Padim) -> padim::Result<Padim> {
        match &self.region {
            Some(region) => {
                let mask = decode_file_with(region, padim.preprocessor().decode_limits())?;
                padim.with_region(&RegionOfInterest::from_mask(&mask))
            }
            None => Ok(padim),
        }
    }
}

/// The value of `--crop`.
#[derive(Debug, Clone, Copy)]
pub struct Crop(pub Option<usize>);

impl FromStr for Crop {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "none" => Ok(Self(None)),
            _ => text.parse().map(|side| Self(Some(side))).map_err(|_| "expected pixels, or none"),
        }
    }
}

//! Preprocessed images, ready for the network.

use std::sync::Arc;

use burn::tensor::{Device, Tensor};
use image::DynamicImage;

use super::registration::{Registration, StoredRegistration};
use crate::caught::caught_for;
use crate::error::{Error, Result};
use crate::host::{all_finite_on_device, is_host, to_device};
use crate::preprocess::{
    Alignment, DecodeOptions, ImageGeometry, ImageInput, InputReport, Normalization, OpenedImage,
    PreprocessConfig, PreprocessedImage, Preprocessor,
};

/// The name of this step in errors after a panic.
pub const PREPARING: &str = "preparing an image";

/// Adds the name of the image to an error.
pub(super) fn named(name: &str) -> impl FnOnce(Error) -> Error + '_ {
    move |error| match error {
        Error::UnusableImage { reason, .. } => {
            Error::UnusableImage { name: name.to_owned(), reason }
        }
        other => other,
    }
}

/// A prepared image or its error.
pub(super) struct Item<T = Prepared> {
    /// The path or the number of the image.
    pub name: String,
    pub prepared: Result<T>,
}

#[derive(Debug, Clone)]
#[allow(clippy::large_enum_variant)]
pub(super) enum Prepared {
    Pixels(PreprocessedImage, Option<Alignment>),
    Tensor(Tensor<3>, ImageGeometry),
}

/// What a prediction tells about its image besides scores.
#[derive(Debug, Clone, Copy)]
pub(super) struct Origin {
    pub geometry: ImageGeometry,
    /// The motion of the image by a registration.
    pub alignment: Option<Alignment>,
    pub report: InputReport,
}

impl Origin {
    /// Of finished network input.
    pub fn of(geometry: ImageGeometry) -> Self {
        Self { geometry, alignment: None, report: InputReport::default() }
    }
}

impl Prepared {
    /// Runs all steps before the network. Catches panics, because decoders and user closures run here.
    pub fn new(input: ImageInput, name: &str, steps: Steps) -> Result<Self> {
        Ok(caught_for(PREPARING, name, || Self::made(input, name, steps))?.0)
    }

    /// As [`new`](Self::new), but also returns the decoded image, if there is one.
    pub fn with_original(
        input: ImageInput,
        name: &str,
        steps: Steps,
    ) -> Result<(Self, Option<DynamicImage>)> {
        // The network may see a smaller image, while people want to see the whole.
        let is_in_memory = matches!(input, ImageInput::Image(_) | ImageInput::Opened { .. });
        let again = (!is_in_memory).then(|| input.clone());
        caught_for(PREPARING, name, || {
            let (prepared, opened) = Self::made(input, name, steps)?;
            let image = match (opened, again) {
                (Some(opened), Some(input)) if opened.reduced_from.is_some() => {
                    Some(input.open(name, steps.preprocessor.decode_options())?.pixels)
                }
                (opened, _) => opened.map(|opened| opened.pixels),
            };
            Ok((prepared, image))
        })
    }

    fn made(input: ImageInput, name: &str, steps: Steps) -> Result<(Self, Option<OpenedImage>)> {
        steps.registration.map_or(Ok(()), Registration::require)?;
        if let ImageInput::Tensor(tensor) = input {
            let [channels, height, width] = tensor.dims();
            if channels != 3 || height == 0 || width == 0 {
                return Err(Error::UnusableImage {
                    name: name.to_owned(),
                    reason: format!(
                        "its tensor must be [3, height, width], none of them 0, and is {:?}",
                        tensor.dims()
                    ),
                });
            }
            // A device's activation functions can hide NaN.
            if !is_host(&tensor.device()) && !all_finite_on_device(tensor.clone())? {
                return Err(Error::NotFinite { what: format!("the image {name}") });
            }
            return Ok((Self::Tensor(tensor, ImageGeometry::identity([height, width])), None));
        }
        let opened = input.open(name, steps.decode_options())?;
        let (bits, original) = (opened.bits, opened.original_size());
        let process = |image: &DynamicImage| steps.preprocessor.process_of(image, bits, original);
        let alpha = steps.preprocessor.config().alpha;
        let prepared = match steps.registration {
            Some(registration) => registration
                .apply_with(&opened.pixels, alpha)
                .and_then(|(image, alignment)| Ok(Self::Pixels(process(&image)?, alignment))),
            None => process(&opened.pixels).map(|image| Self::Pixels(image, None)),
        };
        prepared.map(|prepared| (prepared, Some(opened))).map_err(named(name))
    }

    pub fn geometry(&self) -> ImageGeometry {
        match self {
            Self::Pixels(image, _) => image.geometry,
            Self::Tensor(_, geometry) => *geometry,
        }
    }

    /// What was noticed about the image.
    pub fn report(&self) -> InputReport {
        match self {
            Self::Pixels(image, _) => image.report,
            Self::Tensor(..) => InputReport::default(),
        }
    }

    /// All that its prediction tells about it.
    pub fn origin(&self) -> Origin {
        let alignment = match self {
            Self::Pixels(_, alignment) => *alignment,
            Self::Tensor(..) => None,
        };
        Origin { geometry: self.geometry(), alignment, report: self.report() }
    }

    /// Checks the network input size of the image.
    pub fn require_size(&self, expected: [usize; 2], name: &str) -> Result<()> {
        let actual = self.geometry().input_size();
        if actual == expected {
            return Ok(());
        }
        Err(Error::UnusableImage {
            name: name.to_owned(),
            reason: format!(
                "its network input has {actual:?} pixels (height, width), but {expected:?} are \
                 needed; use a crop, or resize to an exact size"
            ),
        })
    }
}

/// An image that is ready for a detector ([`Predictor::prepare`]): decoded, and for the network
/// resized, cropped and normalized.
///
/// [`Predictor::prepare`]: crate::detector::Predictor::prepare
#[derive(Debug, Clone)]
pub struct PreparedImage {
    pub(super) contents: Contents,
    /// The decoded image, if it was kept.
    pub(super) original: Option<Arc<DynamicImage>>,
}

#[derive(Debug, Clone)]
#[allow(clippy::large_enum_variant)]
pub(super) enum Contents {
    /// The network's input.
    Whole {
        prepared: Prepared,
        /// The preparation; `None` for a tensor, which needs none.
        by: Option<Preparation>,
    },
    /// A decoded image, for tiles.
    Tiled { name: String, image: Arc<DynamicImage>, bits: Option<u8> },
}

/// The settings of [`Steps`], to compare them.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Preparation {
    config: PreprocessConfig,
    normalization: Normalization,
    registration: Option<StoredRegistration>,
}

impl PreparedImage {
    /// Prepares an image for a network; keeps the decoded image if requested.
    pub(super) fn new(
        input: ImageInput,
        name: &str,
        steps: Steps,
        keep_image: bool,
    ) -> Result<Self> {
        let (prepared, original) = match keep_image {
            true => Prepared::with_original(input, name, steps)?,
            false => (Prepared::new(input, name, steps)?, None),
        };
        let by = matches!(prepared, Prepared::Pixels(..)).then(|| steps.preparation());
        let original = original.map(Arc::new);
        Ok(Self { contents: Contents::Whole { prepared, by }, original })
    }

    /// The image, if this preparation would give the same result.
    pub(super) fn prepared_by(self, preparation: &Preparation, name: &str) -> Result<Prepared> {
        match self.contents {
            Contents::Whole { prepared, by } if by.as_ref().is_none_or(|by| by == preparation) => {
                Ok(prepared)
            }
            _ => Err(foreign(name)),
        }
    }

    /// The decoded image, if it was kept.
    pub fn image(&self) -> Option<&Arc<DynamicImage>> {
        self.original.as_ref()
    }

    /// The geometry of the network's input in the original image; `None` for an image in tiles.
    pub fn geometry(&self) -> Option<ImageGeometry> {
        match &self.contents {
            Contents::Whole { prepared, .. } => Some(prepared.geometry()),
            Contents::Tiled { .. } => None,
        }
    }
}

/// The error for an image that another detector has prepared.
pub(super) fn foreign(name: &str) -> Error {
    let reason = "it was prepared by a detector with another preprocessing or registration, so its \
                  score would be wrong; prepare it with this detector";
    Error::UnusableImage { name: name.to_owned(), reason: reason.into() }
}

/// Stacks images of one size to a tensor `[batch, 3, height, width]`.
pub(super) fn stack(images: Vec<Prepared>, size: [usize; 2], device: &Device) -> Tensor<4> {
    let shape = [images.len(), 3, size[0], size[1]];
    let all_pixels = images.iter().all(|image| matches!(image, Prepared::Pixels(..)));
    if all_pixels {
        let mut values = Vec::with_capacity(shape.iter().product());
        for image in images {
            if let Prepared::Pixels(image, _) = image {
                values.extend(image.values);
            }
        }
        return to_device(values, shape, device);
    }
    let single = |image| match image {
        Prepared::Pixels(image, _) => to_device(image.values, [1, 3, size[0], size[1]], device),
        Prepared::Tensor(tensor, _) => tensor.to_device(device).unsqueeze(),
    };
    Tensor::cat(images.into_iter().map(single).collect(), 0)
}

/// The steps before the network.
#[derive(Clone, Copy)]
pub(super) struct Steps<'a> {
    pub registration: Option<&'a Registration>,
    pub preprocessor: &'a Preprocessor,
}

impl Steps<'_> {
    /// A registration sees the whole image.
    fn decode_options(self) -> DecodeOptions {
        match self.registration {
            Some(_) => self.preprocessor.decode_options(),
            None => self.preprocessor.network_decode_options(),
        }
    }

    pub fn preparation(self) -> Preparation {
        Preparation {
            config: self.preprocessor.config().clone(),
            normalization: self.preprocessor.normalization(),
            registration: self.registration.map(Registration::stored),
        }
    }
}

//! Images that are ready for the network.

use burn::tensor::{Device, Tensor};

use super::registration::{Registration, StoredRegistration};
use crate::caught::caught_for;
use crate::error::{Error, Result};
use crate::host::{all_finite_on_device, is_host, to_device};
use crate::preprocess::{
    Alignment, ImageGeometry, ImageInput, Normalization, PreprocessConfig, PreprocessedImage,
    Preprocessor,
};

/// What a panic before the network is said to have interrupted.
pub const PREPARING: &str = "preparing an image";

/// Says of which image an error speaks.
pub(super) fn named(name: &str) -> impl FnOnce(Error) -> Error + '_ {
    move |error| match error {
        Error::UnusableImage { reason, .. } => {
            Error::UnusableImage { name: name.to_owned(), reason }
        }
        other => other,
    }
}

/// An image that is ready for what follows, or why it is not.
pub(super) struct Item<T = Prepared> {
    /// The path, or the number of the image.
    pub name: String,
    pub prepared: Result<T>,
}

#[derive(Debug, Clone)]
#[allow(clippy::large_enum_variant)]
pub(super) enum Prepared {
    Pixels(PreprocessedImage, Option<Alignment>),
    Tensor(Tensor<3>, ImageGeometry),
}

impl Prepared {
    /// Does everything that comes before the network. Code of others runs here: decoders, closures.
    pub fn new(input: ImageInput, name: &str, steps: Steps) -> Result<Self> {
        caught_for(PREPARING, name, || Self::made(input, name, steps))
    }

    fn made(input: ImageInput, name: &str, steps: Steps) -> Result<Self> {
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
            // A device's activations can hide what is no number.
            if !is_host(&tensor.device()) && !all_finite_on_device(tensor.clone())? {
                return Err(Error::NotFinite { what: format!("the image {name}") });
            }
            return Ok(Self::Tensor(tensor, ImageGeometry::identity([height, width])));
        }
        let image = input.open(name, steps.preprocessor.decode_limits())?;
        let prepared = match steps.registration {
            Some(registration) => registration.apply(&image).and_then(|(image, alignment)| {
                Ok(Self::Pixels(steps.preprocessor.process(&image)?, alignment))
            }),
            None => steps.preprocessor.process(&image).map(|image| Self::Pixels(image, None)),
        };
        prepared.map_err(named(name))
    }

    pub fn geometry(&self) -> ImageGeometry {
        match self {
            Self::Pixels(image, _) => image.geometry,
            Self::Tensor(_, geometry) => *geometry,
        }
    }

    /// How the image was moved before anything else.
    pub fn alignment(&self) -> Option<Alignment> {
        match self {
            Self::Pixels(_, alignment) => *alignment,
            Self::Tensor(..) => None,
        }
    }

    /// Checks that the image has the network input size of the others.
    pub fn require_size(&self, expected: [usize; 2], name: &str) -> Result<()> {
        let actual = self.geometry().input_size();
        if actual == expected {
            return Ok(());
        }
        Err(Error::UnusableImage {
            name: name.to_owned(),
            reason: format!(
                "it becomes {actual:?} pixels (height, width) for the network, which was fitted \
                 with {expected:?}; use a crop, or resize to an exact size"
            ),
        })
    }
}

/// An image that is ready for a detector's network ([`Detector::prepare`](crate::Detector::prepare)):
/// decoded, resized, cropped and normalised. It knows where its pixels lay in the original.
#[derive(Debug, Clone)]
pub struct PreparedImage {
    pub(super) prepared: Prepared,
    /// How it was prepared; nothing is done to a tensor.
    pub(super) by: Option<Preparation>,
}

/// What was done to an image before the network: all that [`Steps`] do.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Preparation {
    config: PreprocessConfig,
    normalization: Normalization,
    registration: Option<StoredRegistration>,
}

impl PreparedImage {
    pub(super) fn new(input: ImageInput, name: &str, steps: Steps) -> Result<Self> {
        let prepared = Prepared::new(input, name, steps)?;
        let by = matches!(prepared, Prepared::Pixels(..)).then(|| steps.preparation());
        Ok(Self { prepared, by })
    }

    /// The image, if these steps would have made the same of it.
    pub(super) fn prepared_by(self, steps: Steps, name: &str) -> Result<Prepared> {
        if self.by.is_none_or(|by| by == steps.preparation()) {
            return Ok(self.prepared);
        }
        let reason = "it was prepared by a detector with another preprocessing or registration, of which \
                      this one would give a wrong score; prepare it with this detector";
        Err(Error::UnusableImage { name: name.to_owned(), reason: reason.into() })
    }

    /// How the network's input relates to the original image.
    pub fn geometry(&self) -> ImageGeometry {
        self.prepared.geometry()
    }
}

/// One tensor `[batch, 3, height, width]` of images of one size.
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

/// What is done to an image before the network.
#[derive(Clone, Copy)]
pub(super) struct Steps<'a> {
    pub registration: Option<&'a Registration>,
    pub preprocessor: &'a Preprocessor,
}

impl Steps<'_> {
    fn preparation(self) -> Preparation {
        Preparation {
            config: self.preprocessor.config().clone(),
            normalization: self.preprocessor.normalization(),
            registration: self.registration.map(Registration::stored),
        }
    }
}

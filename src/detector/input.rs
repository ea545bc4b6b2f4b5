//! Images on their way to the network: whatever they come as, decoded while the network works.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::tensor::{Device, Tensor};
use image::{DynamicImage, RgbImage};
use rayon::prelude::*;

use super::registration::{Registration, StoredRegistration};
use crate::caught::caught_for;
use crate::error::{Error, Result};
use crate::host::{all_finite_on_device, is_host, to_device};
use crate::preprocess::{
    Alignment, DecodeLimits, ImageGeometry, Normalization, PreprocessConfig, PreprocessedImage,
    Preprocessor, decode_file_with,
};

/// What a panic before the network is said to have interrupted.
const PREPARING: &str = "preparing an image";

/// An image to fit or to predict: a file, a decoded image, one that is yet to be made, or a tensor.
#[derive(Clone)]
// A tensor's handle is a few hundred bytes; beside the pixels of an image that is nothing.
#[allow(clippy::large_enum_variant)]
pub enum ImageInput {
    /// A PNG, JPEG, BMP, TIFF or WebP file.
    Path(PathBuf),
    /// A decoded image of any kind and size.
    Image(DynamicImage),
    /// An image that is made when its turn comes, by several threads at once while the network works.
    Deferred {
        /// What errors call it.
        name: String,
        /// Makes it.
        open: OpenImage,
    },
    /// Network input that is ready: normalised RGB `[3, height, width]`. Preprocessing is left out, and so
    /// is a registration.
    Tensor(Tensor<3>),
}

/// Makes an image when its turn comes. Whatever it decodes should keep to the limits that it is given: those
/// of the detector or fit that it is for.
pub type OpenImage = Arc<dyn Fn(DecodeLimits) -> Result<DynamicImage> + Send + Sync>;

impl ImageInput {
    /// An image that is made when its turn comes, and what errors call it. If `open` panics, that is the
    /// error of this image alone.
    ///
    /// ```
    /// use padim::{ImageInput, decode_file_with};
    ///
    /// let upside_down = ImageInput::deferred("part 7", |limits| {
    ///     Ok(decode_file_with("7.png", limits)?.rotate180())
    /// });
    /// ```
    pub fn deferred(
        name: impl Into<String>,
        open: impl Fn(DecodeLimits) -> Result<DynamicImage> + Send + Sync + 'static,
    ) -> Self {
        Self::Deferred { name: name.into(), open: Arc::new(open) }
    }

    /// What errors call it, if it has a name of its own.
    pub(super) fn name(&self) -> Option<String> {
        match self {
            Self::Path(path) => Some(path.display().to_string()),
            Self::Deferred { name, .. } => Some(name.clone()),
            Self::Image(_) | Self::Tensor(_) => None,
        }
    }
}

impl std::fmt::Debug for ImageInput {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Path(path) => f.debug_tuple("Path").field(path).finish(),
            Self::Image(image) => f.debug_tuple("Image").field(&image.color()).finish(),
            Self::Deferred { name, .. } => f.debug_tuple("Deferred").field(name).finish(),
            Self::Tensor(tensor) => f.debug_tuple("Tensor").field(&tensor.dims()).finish(),
        }
    }
}

impl From<PathBuf> for ImageInput {
    fn from(path: PathBuf) -> Self {
        Self::Path(path)
    }
}

impl From<&PathBuf> for ImageInput {
    fn from(path: &PathBuf) -> Self {
        Self::Path(path.clone())
    }
}

impl From<&Path> for ImageInput {
    fn from(path: &Path) -> Self {
        Self::Path(path.to_owned())
    }
}

impl From<&str> for ImageInput {
    fn from(path: &str) -> Self {
        Self::Path(path.into())
    }
}

impl From<DynamicImage> for ImageInput {
    fn from(image: DynamicImage) -> Self {
        Self::Image(image)
    }
}

impl From<RgbImage> for ImageInput {
    fn from(image: RgbImage) -> Self {
        Self::Image(image.into())
    }
}

impl From<Tensor<3>> for ImageInput {
    fn from(tensor: Tensor<3>) -> Self {
        Self::Tensor(tensor)
    }
}

impl ImageInput {
    /// The decoded image.
    pub(super) fn open(self, name: &str, limits: DecodeLimits) -> Result<DynamicImage> {
        match self {
            Self::Path(path) => decode_file_with(path, limits),
            Self::Image(image) => Ok(image),
            Self::Deferred { open, .. } => open(limits),
            Self::Tensor(_) => Err(Error::UnusableImage {
                name: name.to_owned(),
                reason:
                    "it is network input (a tensor), which cannot be cut or copied; give an image"
                        .into(),
            }),
        }
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

/// Says of which image an error speaks.
pub(super) fn named(name: &str) -> impl FnOnce(Error) -> Error + '_ {
    move |error| match error {
        Error::UnusableImage { reason, .. } => {
            Error::UnusableImage { name: name.to_owned(), reason }
        }
        other => other,
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

/// How many there will be, where that is known.
pub(super) fn exact_count(items: &impl Iterator) -> Option<usize> {
    let (lower, upper) = items.size_hint();
    upper.filter(|&upper| upper == lower)
}

/// The images and how many there are. Those of an iterator that does not know are collected first, which of
/// files takes little memory.
pub(super) fn counted<I>(images: I) -> (usize, impl Iterator<Item = ImageInput>)
where
    I: IntoIterator,
    I::Item: Into<ImageInput>,
{
    let images = images.into_iter();
    let (count, known, collected) = match exact_count(&images) {
        Some(count) => (count, Some(images), Vec::new()),
        None => {
            let collected: Vec<ImageInput> = images.map(Into::into).collect();
            (collected.len(), None, collected)
        }
    };
    (count, known.into_iter().flatten().map(Into::into).chain(collected))
}

/// Cuts a stream of images into batches and prepares the next one while the last is worked on, so
/// that at most two are in memory.
pub(super) struct Batches<'a, I, T> {
    inputs: std::iter::Fuse<I>,
    prepare: Box<Prepare<'a, T>>,
    batch_size: usize,
    count: usize,
    ready: Option<Vec<Item<T>>>,
}

/// What is done with an image of a name before its turn.
type Prepare<'a, T> = dyn Fn(ImageInput, &str) -> Result<T> + Send + Sync + 'a;

impl<'a, I> Batches<'a, I, Prepared>
where
    I: Iterator,
    I::Item: Into<ImageInput>,
{
    /// Batches of network input.
    pub fn new(inputs: I, steps: Steps<'a>, batch_size: usize) -> Self {
        let prepare = move |input, name: &str| Prepared::new(input, name, steps);
        Self::with(inputs, Box::new(prepare), batch_size)
    }
}

impl<I> Batches<'static, I, DynamicImage>
where
    I: Iterator,
    I::Item: Into<ImageInput>,
{
    /// Decoded images, one at a time.
    pub fn decoded(inputs: I, limits: DecodeLimits) -> Self {
        let open = move |input: ImageInput, name: &str| {
            caught_for(PREPARING, name, || input.open(name, limits))
        };
        Self::with(inputs, Box::new(open), 1)
    }
}

impl<'a, I, T> Batches<'a, I, T>
where
    I: Iterator,
    I::Item: Into<ImageInput>,
    T: Send,
{
    fn with(inputs: I, prepare: Box<Prepare<'a, T>>, batch_size: usize) -> Self {
        Self { inputs: inputs.fuse(), prepare, batch_size, count: 0, ready: None }
    }

    /// Does `work` on the next batch, if there is one.
    pub fn advance<R>(&mut self, work: impl FnOnce(Vec<Item<T>>) -> R) -> Option<R> {
        let current = match self.ready.take() {
            Some(ready) => ready,
            None => {
                let inputs = self.take();
                prepare(inputs, &self.prepare)
            }
        };
        if current.is_empty() {
            return None;
        }
        let upcoming = self.take();
        let mut prepared = Vec::new();
        let how = &self.prepare;
        // The network runs on the calling thread, where a GPU backend expects it.
        let result = rayon::in_place_scope(|scope| {
            scope.spawn(|_| prepared = prepare(upcoming, how));
            work(current)
        });
        self.ready = Some(prepared);
        Some(result)
    }

    fn take(&mut self) -> Vec<(String, ImageInput)> {
        let first = self.count;
        let inputs = self.inputs.by_ref().take(self.batch_size).map(Into::into);
        let named: Vec<(String, ImageInput)> = inputs
            .zip(first..)
            .map(|(input, number)| {
                (input.name().unwrap_or_else(|| format!("number {number}")), input)
            })
            .collect();
        self.count += named.len();
        named
    }
}

fn prepare<T: Send>(inputs: Vec<(String, ImageInput)>, how: &Prepare<'_, T>) -> Vec<Item<T>> {
    inputs
        .into_par_iter()
        .map(|(name, input)| {
            let prepared = how(input, &name);
            Item { name, prepared }
        })
        .collect()
}

//! The forms in which images are given.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::tensor::Tensor;
use image::{
    DynamicImage, GrayAlphaImage, GrayImage, ImageBuffer, Luma, LumaA, Rgb, Rgb32FImage, RgbImage,
    Rgba, Rgba32FImage, RgbaImage,
};

use super::decode::{DecodeLimits, DecodeOptions, open_bytes, open_file};
use super::frame::{Frame, FrameLayout};
use super::opened::OpenedImage;
use crate::error::{Error, Result};

/// An image to fit or to predict: a file, its bytes, a decoded image, a function that makes an
/// image, or a tensor.
#[derive(Clone)]
// A tensor's handle takes a few hundred bytes, which is little next to the pixels of an image.
#[allow(clippy::large_enum_variant)]
#[non_exhaustive]
pub enum ImageInput {
    /// A PNG, JPEG, BMP, TIFF or WebP file.
    Path(PathBuf),
    /// The bytes of such a file.
    Encoded {
        /// The image's name in errors.
        name: String,
        /// The whole file.
        bytes: Arc<[u8]>,
    },
    /// A decoded image of any pixel type and size.
    Image(DynamicImage),
    /// A decoded image whose source knows how many bits its values have, such as a camera's frame.
    Opened {
        /// The image's name in errors.
        name: String,
        /// The image.
        image: OpenedImage,
    },
    /// An image that is made only when it is needed. Several threads make images while the network
    /// works.
    Deferred {
        /// The image's name in errors.
        name: String,
        /// Makes the image.
        open: OpenImage,
    },
    /// Finished network input: normalized RGB `[3, height, width]`. Preprocessing and registration
    /// are skipped.
    Tensor(Tensor<3>),
}

/// Makes an image when it is needed. It gets the decode options of the detector or fit, and should
/// respect them.
pub type OpenImage = Arc<dyn Fn(DecodeOptions) -> Result<OpenedImage> + Send + Sync>;

impl ImageInput {
    /// An image that `open` makes when it is needed, and its name in errors. If `open` panics, only
    /// this image fails.
    ///
    /// ```
    /// use padim::ImageInput;
    /// use padim::preprocess::decode_file_with;
    ///
    /// let upside_down = ImageInput::deferred("part 7", |options| {
    ///     Ok(decode_file_with("7.png", options)?.rotate180())
    /// });
    /// ```
    pub fn deferred(
        name: impl Into<String>,
        open: impl Fn(DecodeOptions) -> Result<DynamicImage> + Send + Sync + 'static,
    ) -> Self {
        Self::Deferred {
            name: name.into(),
            open: Arc::new(move |options| open(options).map(Into::into)),
        }
    }

    /// A camera's frame, and its name in errors. It is unpacked now, so that the camera can write into
    /// its memory again.
    ///
    /// ```
    /// use padim::ImageInput;
    /// use padim::preprocess::{Frame, FrameFormat, FrameLayout};
    ///
    /// let buffer = vec![0; 3 * 640 / 2 * 480]; // from the camera
    /// let layout = FrameLayout::new(FrameFormat::Mono12p, [480, 640]);
    /// let image = ImageInput::frame("part 7", Frame::new(&buffer, layout)?)?;
    /// // Or, to unpack it in the thread that prepares the image:
    /// let image = ImageInput::owned_frame("part 7", buffer, layout)?;
    /// # Ok::<(), padim::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`Frame::to_image`].
    pub fn frame(name: impl Into<String>, frame: Frame<'_>) -> Result<Self> {
        Ok(Self::Opened { name: name.into(), image: frame.opened()? })
    }

    /// A camera's frame that owns its bytes, and its name in errors. It is unpacked when it is needed,
    /// within the limits of the detector or fit ([`DecodeLimits`]).
    ///
    /// # Errors
    ///
    /// As [`Frame::new`].
    pub fn owned_frame(
        name: impl Into<String>,
        bytes: impl Into<Arc<[u8]>>,
        layout: FrameLayout,
    ) -> Result<Self> {
        let (name, bytes) = (name.into(), bytes.into());
        layout.check(bytes.len())?;
        let called = name.clone();
        let open = move |options: DecodeOptions| {
            within(options.limits, layout, &called)?;
            Frame::new(&bytes, layout)?.opened()
        };
        Ok(Self::Deferred { name, open: Arc::new(open) })
    }

    /// The bytes of a PNG, JPEG, BMP, TIFF or WebP file, and the image's name in errors. They are
    /// decoded when they are needed, with the same options as files.
    pub fn encoded(name: impl Into<String>, bytes: impl Into<Arc<[u8]>>) -> Self {
        Self::Encoded { name: name.into(), bytes: bytes.into() }
    }

    /// Its name in errors, if it has one.
    pub(crate) fn name(&self) -> Option<String> {
        match self {
            Self::Path(path) => Some(path.display().to_string()),
            Self::Deferred { name, .. }
            | Self::Encoded { name, .. }
            | Self::Opened { name, .. } => Some(name.clone()),
            Self::Image(_) | Self::Tensor(_) => None,
        }
    }
}

impl std::fmt::Debug for ImageInput {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Path(path) => f.debug_tuple("Path").field(path).finish(),
            Self::Image(image) => f.debug_tuple("Image").field(&image.color()).finish(),
            Self::Opened { name, .. } => f.debug_tuple("Opened").field(name).finish(),
            Self::Encoded { name, .. } => f.debug_tuple("Encoded").field(name).finish(),
            Self::Deferred { name, .. } => f.debug_tuple("Deferred").field(name).finish(),
            Self::Tensor(tensor) => f.debug_tuple("Tensor").field(&tensor.dims()).finish(),
        }
    }
}

macro_rules! from_paths {
    ($($path:ty),*) => {$(
        impl From<$path> for ImageInput {
            fn from(path: $path) -> Self {
                Self::Path(path.into())
            }
        }
    )*};
}

from_paths!(PathBuf, &PathBuf, &Path, String, &String, &str);

macro_rules! from_images {
    ($($image:ty),*) => {$(
        impl From<$image> for ImageInput {
            fn from(image: $image) -> Self {
                Self::Image(image.into())
            }
        }

        /// Copies the pixels.
        impl From<&$image> for ImageInput {
            fn from(image: &$image) -> Self {
                Self::Image(image.clone().into())
            }
        }
    )*};
}

from_images!(
    DynamicImage,
    RgbImage,
    RgbaImage,
    GrayImage,
    GrayAlphaImage,
    Rgb32FImage,
    Rgba32FImage,
    ImageBuffer<Luma<u16>, Vec<u16>>,
    ImageBuffer<LumaA<u16>, Vec<u16>>,
    ImageBuffer<Rgb<u16>, Vec<u16>>,
    ImageBuffer<Rgba<u16>, Vec<u16>>
);

impl From<Tensor<3>> for ImageInput {
    fn from(tensor: Tensor<3>) -> Self {
        Self::Tensor(tensor)
    }
}

impl ImageInput {
    /// The decoded image.
    pub(crate) fn open(self, name: &str, options: DecodeOptions) -> Result<OpenedImage> {
        match self {
            Self::Path(path) => open_file(&path, options),
            Self::Image(image) => Ok(image.into()),
            Self::Opened { image, .. } => Ok(image),
            Self::Encoded { name, bytes } => open_bytes(&bytes, &name, options),
            Self::Deferred { open, .. } => open(options),
            Self::Tensor(_) => Err(Error::UnusableImage {
                name: name.to_owned(),
                reason:
                    "it is network input (a tensor), which cannot be cut or copied; give an image"
                        .into(),
            }),
        }
    }
}

/// Fails if the image of a frame would exceed the limits.
fn within(limits: DecodeLimits, layout: FrameLayout, name: &str) -> Result<()> {
    let [height, width] = layout.size();
    let pixels = height as u64 * width as u64;
    let bytes = pixels.saturating_mul(layout.bytes_decoded());
    if pixels <= limits.max_pixels && bytes <= limits.max_bytes {
        return Ok(());
    }
    let what = format!(
        "a frame of {height} x {width} pixels (height, width) and {bytes} bytes; at most {} pixels and \
         {} bytes are allowed",
        limits.max_pixels, limits.max_bytes
    );
    Err(Error::ImageTooLarge { name: name.to_owned(), what })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::preprocess::FrameFormat;

    #[test]
    fn both_kinds_of_frames_open_alike_and_know_their_bits() {
        let data = [0x23, 0xC1, 0xAB];
        let layout = FrameLayout::new(FrameFormat::Mono12p, [1, 2]);
        let borrowed = ImageInput::frame("a", Frame::new(&data, layout).unwrap()).unwrap();
        let owned = ImageInput::owned_frame("a", data, layout).unwrap();
        let [a, b] =
            [&borrowed, &owned].map(|i| i.clone().open("a", DecodeOptions::default()).unwrap());
        assert_eq!(a, b);
        assert_eq!(a.bits, Some(12));
        assert_eq!([borrowed.name(), owned.name()], [Some("a".into()), Some("a".into())]);
        assert!(ImageInput::owned_frame("a", [0; 4], layout).is_err());
        let few = DecodeLimits { max_pixels: 1, max_bytes: 100 };
        let error = owned.open("a", few.into()).unwrap_err();
        assert!(matches!(error, Error::ImageTooLarge { .. }), "{error}");
    }
}

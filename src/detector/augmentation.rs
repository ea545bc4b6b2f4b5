//! Augmentation of a fit: rotated, shifted and mirrored copies of its images.

use std::borrow::Cow;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::registration::Registration;
use crate::error::{Error, Result};
use crate::names::builders;
use crate::preprocess::{Alignment, Alpha, DecodeOptions, ImageInput, OpenImage, OpenedImage};
use crate::random::Random;

/// Random copies of the images of a fit: each is rotated, shifted and mirrored at random, so that the
/// Gaussians tolerate parts that move. Images to score are not changed.
///
/// The motion of a copy depends only on the seed and on the numbers of the image and of the copy. Areas
/// from outside the image are filled by mirroring it at its border, see [`Alignment`].
///
/// With [`PadimConfig::augmentation`](crate::PadimConfig::augmentation), a fit makes the copies itself,
/// after a registration; the setting is saved with the detector. [`apply`](Self::apply) only makes the
/// copies.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Augmentation {
    /// Number of copies of each image, in addition to the image itself. Default: 4. The time of a fit
    /// is multiplied by `1 + copies`.
    pub copies: usize,
    /// Largest rotation in degrees, in either direction. Default: 10 (as the paper's Rd-MVTec AD).
    pub degrees: f64,
    /// Largest shift in either direction, as a fraction of the image's sides. Default: 0.05.
    pub shift: f64,
    /// Whether each copy is mirrored left to right with probability 0.5. Default: `false`.
    pub flip_horizontally: bool,
    /// Whether each copy is mirrored top to bottom with probability 0.5. Default: `false`.
    pub flip_vertically: bool,
    /// The seed of the random motions. Default: 0.
    pub seed: u64,
}

builders!(Augmentation {
    with_copies: copies, usize;
    with_degrees: degrees, f64;
    with_shift: shift, f64;
    with_flip_horizontally: flip_horizontally, bool;
    with_flip_vertically: flip_vertically, bool;
    with_seed: seed, u64;
});

impl Default for Augmentation {
    fn default() -> Self {
        Self {
            copies: 4,
            degrees: 10.0,
            shift: 0.05,
            flip_horizontally: false,
            flip_vertically: false,
            seed: 0,
        }
    }
}

/// The largest allowed number of copies; more are a mistake or a damaged file.
const MOST_COPIES: usize = 1000;

impl Augmentation {
    pub(crate) fn validate(&self) -> Result<()> {
        let fail = |reason| Err(Error::config("augmentation", reason));
        if self.copies == 0 || self.copies > MOST_COPIES {
            return fail(format!("copies must be in 1..={MOST_COPIES}, got {}", self.copies));
        }
        if !(0.0..=180.0).contains(&self.degrees) {
            return fail(format!("degrees must be in 0..=180, got {}", self.degrees));
        }
        if !(0.0..=0.5).contains(&self.shift) {
            return fail(format!(
                "shift must be in 0..=0.5, as a fraction of a side, got {}",
                self.shift
            ));
        }
        Ok(())
    }

    /// Returns each image, followed by its copies. A copy is computed when it is used.
    ///
    /// ```
    /// use padim::ImageInput;
    /// use padim::detector::Augmentation;
    ///
    /// let turned = Augmentation::default().with_copies(2).with_degrees(5.0);
    /// let images: Vec<ImageInput> = turned.apply(["a.png", "b.png"])?.collect();
    /// assert_eq!(images.len(), 6);
    /// # Ok::<(), padim::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::InvalidConfig`] for invalid settings. For a tensor, its copies give an error when they
    /// are used, because a tensor already is network input.
    pub fn apply<I>(&self, images: I) -> Result<impl Iterator<Item = ImageInput> + use<I>>
    where
        I: IntoIterator,
        I::Item: Into<ImageInput>,
    {
        self.validate()?;
        Ok(self.clone().registered(images.into_iter(), None, Alpha::default()))
    }

    /// The registered images and the copies of the registered images.
    pub(super) fn registered<I>(
        self,
        images: I,
        registration: Option<Registration>,
        alpha: Alpha,
    ) -> impl Iterator<Item = ImageInput> + use<I>
    where
        I: Iterator,
        I::Item: Into<ImageInput>,
    {
        images.enumerate().flat_map(move |(number, image)| {
            let augmentation = self.clone();
            let (name, open) = opening(number, image.into(), registration.clone(), alpha);
            (0..=augmentation.copies).map(move |copy| {
                if copy == 0 {
                    return ImageInput::Deferred { name: name.clone(), open: open.clone() };
                }
                let (augmentation, open) = (augmentation.clone(), open.clone());
                let open = move |options| augmentation.copy(open(options)?, number, copy);
                ImageInput::Deferred { name: format!("{name}, copy {copy}"), open: Arc::new(open) }
            })
        })
    }

    fn copy(&self, image: OpenedImage, number: usize, copy: usize) -> Result<OpenedImage> {
        let pixels = &image.pixels;
        let mut random = Random::of(self.seed, (number * (MOST_COPIES + 1) + copy) as u64);
        let mut within = |range: f64| random.between(-range, range);
        let [width, height] = [pixels.width(), pixels.height()].map(f64::from);
        let degrees = within(self.degrees);
        let center = [width * (0.5 + within(self.shift)), height * (0.5 + within(self.shift))];
        let [across, down] = [within(1.0), within(1.0)].map(|v| v < 0.0);
        let flipped = match [self.flip_horizontally && across, self.flip_vertically && down] {
            [true, true] => Cow::Owned(pixels.rotate180()),
            [true, false] => Cow::Owned(pixels.fliph()),
            [false, true] => Cow::Owned(pixels.flipv()),
            [false, false] => Cow::Borrowed(pixels),
        };
        let moved = Alignment { center, degrees }.apply(&flipped)?;
        Ok(image.with_pixels(moved))
    }
}

/// The name of an image in errors, and a function that opens it.
fn opening(
    number: usize,
    image: ImageInput,
    registration: Option<Registration>,
    alpha: Alpha,
) -> (String, OpenImage) {
    let name = image.name().unwrap_or_else(|| format!("number {number}"));
    let called = name.clone();
    let open: OpenImage = match image {
        ImageInput::Deferred { open, .. } => open,
        image => Arc::new(move |options| image.clone().open(&called, options)),
    };
    match registration {
        Some(registration) => {
            let open = move |options| {
                let opened = open(DecodeOptions::whole(options))?;
                let registered = registration.apply_with(&opened.pixels, alpha)?.0;
                Ok(opened.with_pixels(registered))
            };
            (name, Arc::new(open))
        }
        None => (name, open),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::{DynamicImage, Rgb, RgbImage};

    fn image(i: u32) -> RgbImage {
        RgbImage::from_fn(40, 30, move |x, y| Rgb([5 * x as u8, 8 * y as u8, (40 * i) as u8]))
    }

    fn made(augmentation: &Augmentation) -> Vec<RgbImage> {
        let inputs = augmentation.apply((0..3).map(image)).unwrap();
        let open = |input| match input {
            ImageInput::Deferred { open, .. } => {
                open(DecodeOptions::default()).unwrap().pixels.to_rgb8()
            }
            other => panic!("{other:?}"),
        };
        inputs.map(open).collect()
    }

    #[test]
    fn copies_follow_their_images_and_depend_on_the_seed_alone() {
        let augmentation = Augmentation::default();
        let images = made(&augmentation);
        assert_eq!(images.len(), 15);
        for (i, own) in images.chunks(5).enumerate() {
            assert_eq!(own[0], image(i as u32));
            for (a, copy) in own.iter().enumerate() {
                assert_eq!(copy.get_pixel(7, 9).0[2], 40 * i as u8, "of the right image");
                assert!(own[..a].iter().all(|other| other != copy), "no two copies alike");
            }
        }
        assert_eq!(images, made(&augmentation));
        assert_ne!(images[1..5], made(&Augmentation { seed: 1, ..augmentation })[1..5]);
        let flips =
            Augmentation { degrees: 0.0, shift: 0.0, copies: 20, ..Augmentation::default() };
        assert!(made(&flips).chunks(21).all(|own| own.iter().all(|copy| *copy == own[0])));
        let flips = Augmentation { flip_horizontally: true, ..flips };
        let flipped = DynamicImage::from(image(1)).fliph().to_rgb8();
        let count = made(&flips)[21..42].iter().filter(|&copy| *copy == flipped).count();
        assert!((4..=16).contains(&count), "{count}");
    }

    #[test]
    fn no_black_corners_come_in() {
        let white = RgbImage::from_pixel(30, 20, Rgb([250; 3]));
        let wild =
            Augmentation { degrees: 180.0, shift: 0.5, copies: 9, ..Augmentation::default() };
        for input in wild.apply([white.clone()]).unwrap() {
            let ImageInput::Deferred { open, .. } = input else { panic!() };
            assert_eq!(open(DecodeOptions::default()).unwrap().pixels.to_rgb8(), white);
        }
    }

    #[test]
    fn impossible_settings_and_tensors_are_refused() {
        let default = Augmentation::default;
        for augmentation in [
            Augmentation { copies: 0, ..default() },
            Augmentation { degrees: -1.0, ..default() },
            Augmentation { degrees: f64::NAN, ..default() },
            Augmentation { shift: 0.6, ..default() },
        ] {
            assert!(augmentation.apply([image(0)]).is_err(), "{augmentation:?}");
        }
        let tensor = burn::tensor::Tensor::<3>::zeros([3, 4, 4], &burn::tensor::Device::flex());
        let Some(ImageInput::Deferred { open, .. }) = default().apply([tensor]).unwrap().nth(1)
        else {
            panic!()
        };
        assert!(open(DecodeOptions::default()).unwrap_err().to_string().contains("tensor"));
    }
}

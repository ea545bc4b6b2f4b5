//! Randomly rotated and cropped images: the paper's Rd-MVTec AD, made from any data set.

use super::category::{Category, Dataset, Sample};
use super::pose::Pose;
use crate::error::{Error, Result};
use crate::preprocess::{PreprocessConfig, Resize};
use crate::random::Random;
use crate::resample::Filter;

/// A data set whose training and test images are rotated by a random angle and cropped at a random
/// place (Defard et al. 2020, section V.C: Rd-MVTec AD). Masks are transformed like their images.
///
/// An image's angle and place depend only on the seed, the category's name and the image's index
/// among the training or test images. The paper averages five versions.
///
/// ```no_run
/// use padim::dataset::{Dataset, Mvtec, RotatedCrops};
///
/// let version = RotatedCrops::new(Mvtec::new("mvtec_anomaly_detection"), 3);
/// let screw = version.category("screw")?;
/// // The images are already rotated and cropped, so they are only normalized.
/// let config = padim::PadimConfig::default().with_preprocess(version.preprocess());
/// # Ok::<(), padim::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct RotatedCrops<D> {
    inner: D,
    seed: u64,
    /// The largest rotation to either side, in degrees.
    angle: f64,
    resized: usize,
    side: usize,
    filter: Filter,
}

impl<D> RotatedCrops<D> {
    /// The paper's settings: bicubic resizing to 256x256 pixels, rotation by up to 10 degrees to
    /// either side, crops of 224x224 pixels.
    pub fn new(inner: D, seed: u64) -> Self {
        Self { inner, seed, angle: 10.0, resized: 256, side: 224, filter: Filter::Bicubic }
    }

    /// Sets the largest rotation to either side, in degrees. Default: 10.
    #[must_use]
    pub fn with_angle(self, degrees: f64) -> Self {
        Self { angle: degrees, ..self }
    }

    /// Sets the side of the square that images are resized to, and the side of the crop, in pixels.
    /// Default: 256 and 224.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidConfig`] if the crop is empty or does not fit.
    pub fn with_sizes(self, resized: usize, side: usize) -> Result<Self> {
        let crop = PreprocessConfig {
            resize: Resize::square(resized),
            crop: Some(side),
            ..PreprocessConfig::default()
        };
        crop.validate()?;
        Ok(Self { resized, side, ..self })
    }

    /// Sets the resizing filter. Default: bicubic.
    #[must_use]
    pub fn with_filter(self, filter: Filter) -> Self {
        Self { filter, ..self }
    }

    /// The matching preprocessing: the images already have their final size, so they are only
    /// normalized.
    pub fn preprocess(&self) -> PreprocessConfig {
        PreprocessConfig {
            resize: Resize::square(self.side),
            crop: None,
            filter: self.filter,
            ..PreprocessConfig::default()
        }
    }

    fn pose(&self, random: &mut Random) -> Pose {
        let room = self.resized - self.side + 1;
        Pose {
            resized: self.resized,
            filter: self.filter,
            degrees: random.between(-self.angle, self.angle),
            top: random.below(room),
            left: random.below(room),
            side: self.side,
        }
    }
}

impl<D: Dataset> Dataset for RotatedCrops<D> {
    fn categories(&self) -> Result<Vec<String>> {
        self.inner.categories()
    }

    fn category(&self, name: &str) -> Result<Category> {
        if !(self.angle.is_finite() && self.angle >= 0.0) {
            let reason = format!("must be a finite number of at least 0, is {}", self.angle);
            return Err(Error::config("angle", reason));
        }
        let mut category = self.inner.category(name)?;
        // FNV-1a of the name, so that categories get different angles.
        let own = name.bytes().fold(0xCBF2_9CE4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3)
        });
        let set = |samples: &mut [Sample], part: u64| {
            for (number, sample) in samples.iter_mut().enumerate() {
                let mut random = Random::of(self.seed ^ own, 2 * number as u64 + part);
                sample.pose = Some(self.pose(&mut random));
            }
        };
        set(&mut category.train, 0);
        set(&mut category.test, 1);
        Ok(category)
    }
}

#[cfg(test)]
mod tests {
    use super::super::MaskFile;
    use super::super::testing::touch;
    use super::*;
    use crate::dataset::Mvtec;
    use image::{Rgb, RgbImage};

    fn pose(degrees: f64, [top, left]: [usize; 2]) -> Pose {
        Pose { resized: 32, filter: Filter::Bilinear, degrees, top, left, side: 16 }
    }

    fn gradient() -> RgbImage {
        RgbImage::from_fn(32, 32, |x, y| Rgb([8 * x as u8, 8 * y as u8, 100]))
    }

    #[test]
    fn without_an_angle_it_is_a_crop() {
        let image = gradient();
        let cut = pose(0.0, [3, 7]).of_image(&image.clone().into()).unwrap();
        assert_eq!(cut.dimensions(), (16, 16));
        for (x, y, pixel) in cut.enumerate_pixels() {
            assert_eq!(pixel, image.get_pixel(x + 7, y + 3));
        }
    }

    #[test]
    fn it_turns_counter_clockwise_about_the_centre() {
        // A quarter turn takes the right edge to the top.
        let image = gradient();
        let turned = pose(90.0, [0, 0]).of_image(&image.clone().into()).unwrap();
        for (x, y, pixel) in turned.enumerate_pixels() {
            assert_eq!(pixel, image.get_pixel(31 - y, x), "{x} {y}");
        }
        // Pixels from outside are black.
        let corner = pose(45.0, [0, 0]).of_image(&image.into()).unwrap();
        assert_eq!(corner.get_pixel(0, 0), &Rgb([0; 3]));
        assert_ne!(corner.get_pixel(15, 15), &Rgb([0; 3]));
    }

    #[test]
    fn masks_follow_their_images() {
        // A bright disc, which is also the mask.
        let disc = |x: u32, y: u32| (f64::from(x) - 20.0).hypot(f64::from(y) - 13.0) < 5.0;
        let image = RgbImage::from_fn(32, 32, |x, y| Rgb([if disc(x, y) { 255 } else { 0 }; 3]));
        for degrees in [-9.0, 4.0, 30.0] {
            let pose = pose(degrees, [5, 8]);
            let picture = pose.of_image(&image.clone().into()).unwrap();
            let mask = pose.of_mask(&image.clone().into()).unwrap();
            let bright = |p: &Rgb<u8>| p.0[0] > 127;
            let pairs = picture.pixels().zip(mask.pixels());
            let wrong = pairs.clone().filter(|(p, m)| bright(p) != (m.0[0] > 0)).count();
            let right = pairs.filter(|(p, m)| bright(p) && m.0[0] > 0).count();
            assert!(right > 30 && wrong < 8, "{degrees}: {right} right, {wrong} wrong");
        }
    }

    #[test]
    fn a_seed_gives_the_same_images_each_time() {
        let root = tempfile::tempdir().unwrap();
        let files = [
            "nut/train/good/0.png",
            "nut/train/good/1.png",
            "nut/test/bent/0.png",
            "nut/ground_truth/bent/0.png",
            "bolt/train/good/0.png",
            "bolt/test/good/0.png",
        ];
        touch(root.path(), &files);
        let version = |seed| RotatedCrops::new(Mvtec::new(root.path()), seed);
        assert_eq!(version(1).categories().unwrap(), ["bolt", "nut"]);
        let nut = version(1).category("nut").unwrap();
        assert_eq!(nut, version(1).category("nut").unwrap());
        assert_ne!(nut, version(2).category("nut").unwrap());
        assert!(matches!(nut.test[0].mask, Some(MaskFile::Picture(_))));
        let bolt = version(1).category("bolt").unwrap();
        let poses: Vec<Pose> =
            [nut.train, nut.test, bolt.train].concat().into_iter().filter_map(|s| s.pose).collect();
        assert_eq!(poses.len(), 4);
        for (i, pose) in poses.iter().enumerate() {
            assert!(pose.degrees.abs() <= 10.0 && pose.top <= 32 && pose.left <= 32);
            assert!(poses[..i].iter().all(|other| other.degrees != pose.degrees));
        }
        assert_eq!(version(1).preprocess().input_size(), Some([224, 224]));
        assert!(version(1).with_angle(f64::NAN).category("nut").is_err());
        assert!(version(1).with_sizes(100, 224).is_err());
    }
}

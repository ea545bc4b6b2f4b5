//! Parts that do not lie still: the paper's Rd-MVTec AD made of any data set.

use image::{DynamicImage, GrayImage, Luma, Rgb, RgbImage};

use super::{Category, Dataset, Sample};
use crate::error::{Error, Result};
use crate::preprocess::{Normalization, PreprocessConfig, Preprocessor, Resize};
use crate::random::Random;
use crate::resample::Filter;

/// A data set whose images, for training and for the test, are turned by a random angle and cut at a
/// random place (Defard et al. 2020, section V.C: Rd-MVTec AD). Masks follow their images.
///
/// Which angle and place an image gets depends on the seed, the category's name and the image's number in
/// it, and on nothing else. The paper averages five versions.
///
/// ```no_run
/// use padim::dataset::{Dataset, Mvtec, RotatedCrops};
///
/// let version = RotatedCrops::new(Mvtec::new("mvtec_anomaly_detection"), 3);
/// let screw = version.category("screw")?;
/// // Images come turned and cut, so nothing is left to do but normalise them.
/// let config = padim::PadimConfig { preprocess: version.preprocess(), ..Default::default() };
/// # Ok::<(), padim::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct RotatedCrops<D> {
    inner: D,
    seed: u64,
    /// Degrees to either side.
    angle: f64,
    resized: usize,
    side: usize,
    filter: Filter,
}

impl<D> RotatedCrops<D> {
    /// As in the paper: 256x256 pixels, up to 10 degrees to either side, crops of 224x224, bicubic.
    pub fn new(inner: D, seed: u64) -> Self {
        Self { inner, seed, angle: 10.0, resized: 256, side: 224, filter: Filter::Bicubic }
    }

    /// Up to another angle, in degrees.
    pub fn with_angle(self, degrees: f64) -> Self {
        Self { angle: degrees, ..self }
    }

    /// Other sizes: the side of the square that images are resized to, and that of the crop.
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

    /// Another filter for resizing.
    pub fn with_filter(self, filter: Filter) -> Self {
        Self { filter, ..self }
    }

    /// What is left to do with its images: nothing, as they have their final size.
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
            let reason = format!("must be a number of degrees from 0 on, is {}", self.angle);
            return Err(Error::config("angle", reason));
        }
        let mut category = self.inner.category(name)?;
        // FNV-1a, so that categories do not share their angles.
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

/// How an image is turned and cut.
#[derive(Debug, Clone, PartialEq)]
pub struct Pose {
    /// The side of the square that it is resized to first.
    pub resized: usize,
    /// By which filter.
    pub filter: Filter,
    /// By how much it is then turned about its centre, counter-clockwise. What comes in from outside is
    /// black, and not defective.
    pub degrees: f64,
    /// The first row of the crop.
    pub top: usize,
    /// The first column of the crop.
    pub left: usize,
    /// The side of the crop.
    pub side: usize,
}

impl Pose {
    /// Turns and cuts an image, bilinearly.
    pub(super) fn of_image(&self, image: &DynamicImage) -> Result<RgbImage> {
        let square = self.preprocessor()?.crop_picture(image)?;
        let side = self.resized as i64;
        Ok(RgbImage::from_fn(self.side as u32, self.side as u32, |x, y| {
            let Some([u, v]) = self.source(x, y) else { return Rgb([0; 3]) };
            let (u, v) = (u - 0.5, v - 0.5);
            let (left, top) = (u.floor(), v.floor());
            let pixel = |dx: i64, dy: i64| {
                let inside = |i: i64| i.clamp(0, side - 1) as u32;
                square.get_pixel(inside(left as i64 + dx), inside(top as i64 + dy)).0
            };
            let (a, b, c, d) = (pixel(0, 0), pixel(1, 0), pixel(0, 1), pixel(1, 1));
            let mix =
                |p: u8, q: u8, share: f64| f64::from(p) * (1.0 - share) + f64::from(q) * share;
            Rgb([0, 1, 2].map(|i| {
                let (above, below) = (mix(a[i], b[i], u - left), mix(c[i], d[i], u - left));
                let value = above * (1.0 - (v - top)) + below * (v - top);
                value.round() as u8
            }))
        }))
    }

    /// Turns and cuts a mask: each pixel takes the nearest one.
    pub(super) fn of_mask(&self, mask: &DynamicImage) -> Result<GrayImage> {
        let square = self.preprocessor()?.process_mask(mask)?;
        Ok(GrayImage::from_fn(self.side as u32, self.side as u32, |x, y| {
            let truth = self
                .source(x, y)
                .is_some_and(|[u, v]| square[v as usize * self.resized + u as usize]);
            Luma([if truth { u8::MAX } else { 0 }])
        }))
    }

    fn preprocessor(&self) -> Result<Preprocessor> {
        let config = PreprocessConfig {
            resize: Resize::square(self.resized),
            crop: None,
            filter: self.filter,
            ..PreprocessConfig::default()
        };
        Preprocessor::new(config, Normalization::IMAGENET)
    }

    /// Where the centre of a pixel of the crop comes from in the square, if that is inside.
    fn source(&self, x: u32, y: u32) -> Option<[f64; 2]> {
        let centre = self.resized as f64 / 2.0;
        let (sin, cos) = self.degrees.to_radians().sin_cos();
        let u = f64::from(x) + self.left as f64 + 0.5 - centre;
        let v = f64::from(y) + self.top as f64 + 0.5 - centre;
        let place = [cos * u - sin * v + centre, sin * u + cos * v + centre];
        let inside = |p: f64| (0.0..self.resized as f64).contains(&p);
        place.into_iter().all(inside).then_some(place)
    }
}

#[cfg(test)]
mod tests {
    use super::super::MaskFile;
    use super::super::testing::touch;
    use super::*;
    use crate::dataset::Mvtec;

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
        // What comes from outside is black.
        let corner = pose(45.0, [0, 0]).of_image(&image.into()).unwrap();
        assert_eq!(corner.get_pixel(0, 0), &Rgb([0; 3]));
        assert_ne!(corner.get_pixel(15, 15), &Rgb([0; 3]));
    }

    #[test]
    fn masks_follow_their_images() {
        // A bright disc that is the mask, too.
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

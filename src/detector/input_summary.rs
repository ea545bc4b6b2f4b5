//! What a fit has noticed about its images.

use std::fmt;

use super::padim::Padim;
use crate::error::{Error, Result};
use crate::preprocess::{
    DeepReport, ImageInput, InputReport, InputWarning, Levels, levels_of_first,
};

/// What a fit has noticed about its images: numbers, and the first image of each kind of warning. Print
/// it after a fit. It is not saved with a detector.
///
/// ```
/// # use padim::{Padim, PadimConfig, ResNet18, Weights, image};
/// # let config = PadimConfig::default().with_input_size([32, 32]);
/// # let backbone = ResNet18::load(Weights::Bundled, &burn::tensor::Device::flex())?;
/// # let padim = Padim::new(config, backbone)?;
/// // A camera of 12 bits.
/// let picture = |i: u16| image::ImageBuffer::from_fn(40, 40, move |x, y| image::Luma([i + (x * y) as u16]));
/// let detector = padim.fit((2000..2004).map(picture))?;
/// let summary = detector.input_summary().unwrap();
/// assert!(summary.to_string().contains("bits:12"), "{summary}");
/// # Ok::<(), padim::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct InputSummary {
    /// The number of images, without augmented copies.
    pub images: usize,
    /// The number of images with more than 8 bits a channel.
    pub deep: usize,
    /// The levels by which they were read.
    pub levels: Levels,
    /// The number of images with transparent pixels.
    pub transparent: usize,
    /// The smallest share of a picture that the network saw, in `[0, 1]`.
    pub smallest_seen_share: f64,
    /// The kinds of warnings that came, each with the number of its images and the first one.
    pub warnings: Vec<WarnedImages>,
}

/// The images with a kind of warning.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct WarnedImages {
    /// The kind.
    pub kind: InputWarning,
    /// The number of images.
    pub images: usize,
    /// The name of the first one.
    pub first: String,
    /// The warning about the first one.
    pub text: String,
}

impl InputSummary {
    pub(super) fn new(levels: Levels) -> Self {
        Self {
            images: 0,
            deep: 0,
            levels,
            transparent: 0,
            smallest_seen_share: 1.0,
            warnings: Vec::new(),
        }
    }

    /// Counts an image.
    pub(super) fn add(&mut self, name: &str, report: &InputReport) {
        self.images += 1;
        self.deep += usize::from(report.deep.is_some());
        self.transparent += usize::from(report.transparent);
        self.smallest_seen_share = self.smallest_seen_share.min(report.seen_share);
        for (kind, text) in report.warning_kinds().into_iter().zip(report.warnings()) {
            self.warn(WarnedImages { kind, images: 1, first: name.to_owned(), text });
        }
    }

    /// Adds the images of another part of the same fit.
    pub(super) fn merge(&mut self, other: Self) {
        self.images += other.images;
        self.deep += other.deep;
        self.transparent += other.transparent;
        self.smallest_seen_share = self.smallest_seen_share.min(other.smallest_seen_share);
        other.warnings.into_iter().for_each(|warned| self.warn(warned));
    }

    fn warn(&mut self, new: WarnedImages) {
        match self.warnings.iter_mut().find(|warned| warned.kind == new.kind) {
            Some(known) => known.images += new.images,
            None => self.warnings.push(new),
        }
    }
}

/// A few lines; the warnings are the last.
impl fmt::Display for InputSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} images", self.images)?;
        if self.deep > 0 {
            write!(f, ", {} of more than 8 bits a channel, read as {}", self.deep, self.levels)?;
        }
        if self.transparent > 0 {
            write!(f, ", {} with transparent pixels", self.transparent)?;
        }
        if self.smallest_seen_share < 1.0 {
            let percent = 100.0 * self.smallest_seen_share;
            write!(f, "; the network sees at least {percent:.0} % of each picture")?;
        }
        for WarnedImages { images, first, text, .. } in &self.warnings {
            let others = match images {
                1 => String::new(),
                count => format!(" So it is with {count} images, of which this is the first."),
            };
            write!(f, "\nwarning: {first}: {text}{others}")?;
        }
        Ok(())
    }
}

impl Padim {
    /// Chooses the levels by the first images, if the settings leave them open. Gives all images again.
    /// Large images in memory are held as long as others are looked at, so of those at most
    /// `most_in_memory` are looked at.
    pub(super) fn with_levels_for<I>(
        &self,
        images: I,
        most_in_memory: usize,
    ) -> Result<(Self, impl Iterator<Item = ImageInput> + use<I>)>
    where
        I: IntoIterator,
        I::Item: Into<ImageInput>,
    {
        let mut images = images.into_iter().map(Into::into);
        let (mut first, mut in_memory) = (Vec::new(), 0);
        let mut padim = self.clone();
        if self.config.preprocess.levels == Levels::Auto {
            while first.len() < self.config.batch_size && in_memory < most_in_memory {
                let Some(image) = images.next() else { break };
                in_memory +=
                    usize::from(matches!(image, ImageInput::Image(_) | ImageInput::Opened { .. }));
                first.push(image);
            }
            let levels = levels_of_first(&first, self.preprocessor.decode_options())?;
            padim.levels_chosen = levels != Levels::Auto;
            padim.config.preprocess.levels = levels;
            padim.preprocessor = padim.preprocessor.with_levels(levels);
        }
        Ok((padim, first.into_iter().chain(images)))
    }

    /// Fails if this fit has chosen the levels by its first images, and this image exceeds them.
    pub(super) fn require_levels(&self, name: &str, report: &InputReport) -> Result<()> {
        let Some(deep) = report.deep.filter(|deep| self.levels_chosen && deep.clipped_share > 0.0)
        else {
            return Ok(());
        };
        let DeepReport { levels: [black, white], values: [low, high], .. } = deep;
        Err(Error::UnusableImage {
            name: name.to_owned(),
            reason: format!(
                "its values are {low}..{high}, but by the first images of the fit, the levels \
                 {black}..{white} were chosen; set the levels for all images by \
                 `PreprocessConfig::with_levels`, such as `bits:14` or `0..1000`, or by \
                 `Levels::of_images`"
            ),
        })
    }
}

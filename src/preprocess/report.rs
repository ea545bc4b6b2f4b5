//! What a detector has noticed about the pixels of an image.

use serde::{Deserialize, Serialize};

#[cfg(doc)]
use super::{Alpha, ImageGeometry, Levels};

/// What has been noticed about an image on its way to the network's input. Nothing of it changes a score;
/// [`warnings`](Self::warnings) says what a person should know.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct InputReport {
    /// How the values of a deep image were read; `None` for 8 bits a channel and for tensors.
    pub deep: Option<DeepReport>,
    /// Whether the image had pixels that were not opaque ([`Alpha`] says what became of them).
    pub transparent: bool,
    /// The share of the picture that the network saw, in `[0, 1]` ([`ImageGeometry::seen_share`]).
    pub seen_share: f64,
}

impl Default for InputReport {
    /// The report of an image of 8 bits without a crop.
    fn default() -> Self {
        Self { deep: None, transparent: false, seen_share: 1.0 }
    }
}

/// How the values of an image with more than 8 bits a channel were read.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct DeepReport {
    /// The values that were black and white ([`Levels`]).
    pub levels: [f32; 2],
    /// The smallest and the largest value of the image.
    pub values: [f32; 2],
    /// The share of pixels with a value outside the levels, which was clipped, in `[0, 1]`.
    pub clipped_share: f64,
    /// The number of different values, of at most 256, that the channels have in 8 bits.
    pub gray_levels: usize,
    /// Whether nothing has said how such an image is to be read: the levels are [`Levels::Auto`], because
    /// the detector was fitted on images of 8 bits, and the image's source does not know its bits. It
    /// was read as 16 bits, or as `0..1`.
    pub unexpected: bool,
}

/// More clipped pixels give a warning.
const MOST_CLIPPED: f64 = 0.01;
/// Fewer gray levels give a warning.
const FEWEST_LEVELS: usize = 32;

/// The kinds of warnings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum InputWarning {
    /// More than 1 % of a deep image's pixels were clipped.
    Clipped,
    /// A deep image uses fewer than 32 gray levels, and is not of one single value.
    FewGrayLevels,
    /// A deep image came to a detector that was fitted on images of 8 bits.
    Unexpected,
}

impl InputReport {
    /// The kinds of warnings about this image.
    pub fn warning_kinds(&self) -> Vec<InputWarning> {
        let Some(deep) = &self.deep else { return Vec::new() };
        let constant = deep.values[0] == deep.values[1];
        [
            (InputWarning::Unexpected, deep.unexpected),
            (InputWarning::Clipped, deep.clipped_share > MOST_CLIPPED),
            (InputWarning::FewGrayLevels, deep.gray_levels < FEWEST_LEVELS && !constant),
        ]
        .into_iter()
        .filter_map(|(kind, given)| given.then_some(kind))
        .collect()
    }

    /// What a person should know about this image: whole sentences with numbers, the most important first.
    pub fn warnings(&self) -> Vec<String> {
        let Some(deep) = &self.deep else { return Vec::new() };
        let DeepReport { levels: [black, white], values: [low, high], .. } = *deep;
        let sentence = |kind| match kind {
            InputWarning::Unexpected => format!(
                "The image has more than 8 bits a channel, but the detector was fitted on images of 8 \
                 bits; it was read as {black}..{white}."
            ),
            InputWarning::Clipped => format!(
                "{:.1} % of the image's pixels are outside the levels {black}..{white} and were \
                 clipped; its values are {low}..{high}.",
                100.0 * deep.clipped_share
            ),
            InputWarning::FewGrayLevels => format!(
                "The image uses only {} of 256 gray levels; its values are {low}..{high}, the levels \
                 {black}..{white}.",
                deep.gray_levels
            ),
        };
        self.warning_kinds().into_iter().map(sentence).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deep() -> DeepReport {
        DeepReport {
            levels: [0.0, 4095.0],
            values: [3.0, 4000.0],
            clipped_share: 0.01,
            gray_levels: 32,
            unexpected: false,
        }
    }

    fn warnings(deep: DeepReport) -> String {
        InputReport { deep: Some(deep), ..InputReport::default() }.warnings().join("\n")
    }

    #[test]
    fn warnings_say_numbers_and_only_what_is_wrong() {
        assert_eq!(warnings(deep()), "");
        assert!(InputReport::default().warnings().is_empty());
        let clipped = warnings(DeepReport { clipped_share: 0.125, ..deep() });
        assert!(clipped.starts_with("12.5 %") && clipped.contains("0..4095"), "{clipped}");
        let few = DeepReport { gray_levels: 31, ..deep() };
        assert!(warnings(few).contains("31 of 256"));
        assert_eq!(warnings(DeepReport { values: [7.0; 2], gray_levels: 1, ..deep() }), "");
        let all = DeepReport { unexpected: true, clipped_share: 1.0, ..few };
        assert_eq!(warnings(all).lines().count(), 3);
    }
}

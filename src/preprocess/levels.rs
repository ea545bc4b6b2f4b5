//! Black and white of images with more than 8 bits a channel.

use std::fmt;
use std::str::FromStr;

use image::DynamicImage;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Which values of a deep image are black and white. Deep images have more than 8 bits a channel: 16-bit
/// gray and color, and floating point. Values outside are clipped, and the
/// [`InputReport`](super::InputReport) counts them. Images of 8 bits are not affected.
///
/// Cameras of 10, 12 or 14 bits write files of 16 bits, in which nothing says where white is. Read as 16
/// bits, a picture of 12 bits is nearly black.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Levels {
    /// A fit looks at its first images and stores what it has found with the detector: the smallest of
    /// 10, 12, 14 and 16 bits that holds the largest value; for floating point, `0..1`, or the smallest
    /// of 8, 10, 12, 14 and 16 bits that holds all values, or else the smallest and largest value.
    /// Without a fit, or after a fit without a deep image, all 16 bits, and `0..1` for floating point.
    #[default]
    Auto,
    /// The lower 8 to 16 bits: 0 is black, and `2^bits - 1` is white.
    Bits(u8),
    /// These values.
    Range {
        /// Black.
        low: f32,
        /// White.
        high: f32,
    },
    /// As PIL's `convert("RGB")`: 255 and above are white in 16-bit gray and in floating point; 16-bit
    /// color keeps its high byte. Most deep images become plain white, so use it only if scores must
    /// equal those of a program built on PIL.
    Pil,
}

/// `auto`, `bits:12`, `0..4095` or `pil`.
impl fmt::Display for Levels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Bits(bits) => write!(f, "bits:{bits}"),
            Self::Range { low, high } => write!(f, "{low}..{high}"),
            Self::Pil => f.write_str("pil"),
        }
    }
}

/// `auto`, `bits:12`, `0..4095` or `pil`.
impl FromStr for Levels {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let range = |text: &str| {
            let (low, high) = text.split_once("..")?;
            Some(Self::Range { low: low.trim().parse().ok()?, high: high.trim().parse().ok()? })
        };
        let parsed = match (text, text.strip_prefix("bits:")) {
            ("auto", _) => Some(Self::Auto),
            ("pil", _) => Some(Self::Pil),
            (_, Some(bits)) => bits.parse().ok().map(Self::Bits),
            _ => range(text),
        };
        let levels = parsed.ok_or_else(|| {
            let reason = format!("expected auto, bits:N, LOW..HIGH or pil, got {text:?}");
            Error::config("levels", reason)
        })?;
        levels.validate()?;
        Ok(levels)
    }
}

impl Levels {
    /// Checks the values.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidConfig`] for bits outside 8..=16, and for a range that is empty or not finite.
    pub fn validate(&self) -> Result<()> {
        match *self {
            Self::Bits(bits) if !(8..=16).contains(&bits) => {
                Err(Error::config("levels", format!("bits must be in 8..=16, got {bits}")))
            }
            Self::Range { low, high } if !(low < high && (high - low).is_finite()) => {
                let reason = format!("black must be below white, both finite, got {low}..{high}");
                Err(Error::config("levels", reason))
            }
            _ => Ok(()),
        }
    }

    /// How the values of an image are read. `bits`: if its source knows them. The image is deep.
    pub(super) fn reading(self, image: &DynamicImage, bits: Option<u8>) -> Reading {
        use DynamicImage::{ImageLuma16, ImageLumaA16, ImageRgb16, ImageRgba16};
        let integers =
            matches!(image, ImageLuma16(_) | ImageLumaA16(_) | ImageRgb16(_) | ImageRgba16(_));
        let color = matches!(image, ImageRgb16(_) | ImageRgba16(_));
        let range = |low, high| Reading { low, high, rule: Rule::Round };
        let of_bits = |bits: u8| match integers {
            true => Reading { rule: Rule::Shift(bits - 8), ..range(0.0, white(bits)) },
            false => range(0.0, white(bits)),
        };
        // Bits outside their range would be a mistake in this crate; they are checked before.
        let bits = bits.filter(|_| integers).map(|bits| bits.clamp(8, 16));
        match (self, bits) {
            (Self::Auto | Self::Bits(_), Some(bits)) => of_bits(bits),
            (Self::Bits(bits), None) => of_bits(bits.clamp(8, 16)),
            (Self::Auto, None) if integers => of_bits(16),
            (Self::Auto, None) => range(0.0, 1.0),
            (Self::Range { low, high }, _) => range(low, high),
            (Self::Pil, _) if color => Reading { rule: Rule::HighByte, ..of_bits(16) },
            (Self::Pil, _) => Reading { rule: Rule::Truncate, ..range(0.0, 255.0) },
        }
    }
}

/// The largest value of so many bits.
fn white(bits: u8) -> f32 {
    ((1_u32 << bits) - 1) as f32
}

/// How a channel's values are read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reading {
    /// Black.
    pub low: f32,
    /// White.
    pub high: f32,
    rule: Rule,
}

/// How values become 8 bits.
#[derive(Debug, Clone, Copy)]
enum Rule {
    /// The lowest bits are dropped.
    Shift(u8),
    /// As `Shift(8)`, also where no precision need be lost.
    HighByte,
    /// To the nearest of 256.
    Round,
    /// The fraction is dropped, also where no precision need be lost.
    Truncate,
}

impl Reading {
    /// 0 is black, 255 is white.
    pub fn byte(&self, value: f32) -> u8 {
        let clipped = value.clamp(self.low, self.high);
        match self.rule {
            Rule::Shift(bits) => (clipped as u32 >> bits) as u8,
            Rule::HighByte => (clipped as u32 >> 8) as u8,
            Rule::Round => ((clipped - self.low) / (self.high - self.low) * 255.0).round() as u8,
            Rule::Truncate => clipped as u8,
        }
    }

    /// 0 is black, 1 is white.
    pub fn unit(&self, value: f32) -> f32 {
        match self.rule {
            Rule::HighByte | Rule::Truncate => f32::from(self.byte(value)) / 255.0,
            Rule::Shift(_) | Rule::Round => {
                (value.clamp(self.low, self.high) - self.low) / (self.high - self.low)
            }
        }
    }

    /// Whether a value is neither black nor white nor between them.
    pub fn clips(&self, value: f32) -> bool {
        value < self.low || value > self.high
    }
}

/// The values of deep images, to choose levels that hold them.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Survey {
    /// The largest number of bits of an integer image.
    bits: Option<u8>,
    /// The smallest and largest value of the images of floating point.
    floats: Option<[f32; 2]>,
}

impl Survey {
    /// The survey of one image of these smallest and largest values.
    pub fn of(integers: bool, bits: Option<u8>, [low, high]: [f32; 2]) -> Self {
        let needed = || [10, 12, 14].into_iter().find(|&bits| high <= white(bits)).unwrap_or(16);
        match integers {
            true => Self { bits: Some(bits.unwrap_or_else(needed)), floats: None },
            false => Self { bits: None, floats: Some([low, high]) },
        }
    }

    /// The survey of all images of both.
    pub fn and(self, other: Self) -> Self {
        let wider = |[a, b]: [f32; 2], [c, d]: [f32; 2]| [a.min(c), b.max(d)];
        let floats = match (self.floats, other.floats) {
            (Some(a), Some(b)) => Some(wider(a, b)),
            (a, b) => a.or(b),
        };
        Self { bits: self.bits.max(other.bits), floats }
    }

    /// The levels that hold all values; `Auto` if no image was deep.
    pub fn levels(&self) -> Result<Levels> {
        match (self.bits, self.floats) {
            (Some(bits), None) => Ok(Levels::Bits(bits)),
            (None, None) => Ok(Levels::Auto),
            (None, Some([low, high])) => {
                let mut whites = [1.0].into_iter().chain([8, 10, 12, 14, 16].map(white));
                let white = whites.find(|white| low >= 0.0 && high <= *white);
                Ok(match white {
                    Some(high) => Levels::Range { low: 0.0, high },
                    None if high > low => Levels::Range { low, high },
                    // All values are the same.
                    None => Levels::Range { low, high: low + low.abs().max(1.0) },
                })
            }
            (Some(_), Some(_)) => {
                let reason = "some images have 16-bit values and some have floating-point values, so \
                              no levels can be chosen for both; set them by \
                              `PreprocessConfig::with_levels`, such as `bits:12` or `0..1`";
                Err(Error::config("levels", reason))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::{ImageBuffer, Luma, Rgb};

    #[test]
    fn texts_are_read_as_they_are_written() {
        let range = Levels::Range { low: -0.5, high: 4095.0 };
        for levels in [Levels::Auto, Levels::Bits(12), range, Levels::Pil] {
            assert_eq!(levels.to_string().parse::<Levels>().unwrap(), levels);
            let json = serde_json::to_string(&levels).unwrap();
            assert_eq!(serde_json::from_str::<Levels>(&json).unwrap(), levels, "{json}");
        }
        assert_eq!(range.to_string(), "-0.5..4095");
        for text in ["bits:7", "bits:17", "5..5", "9..1", "0..inf", "NaN..1", "scale", "", ".."] {
            assert!(text.parse::<Levels>().unwrap_err().to_string().contains("levels"), "{text}");
        }
    }

    fn gray() -> DynamicImage {
        ImageBuffer::<Luma<u16>, _>::new(1, 1).into()
    }

    #[test]
    fn bits_are_shifted_after_clipping() {
        for bits in 8..=16 {
            let reading = Levels::Bits(bits).reading(&gray(), None);
            for v in (0..=u16::MAX).step_by(7) {
                let clipped = v.min(((1_u32 << bits) - 1) as u16);
                assert_eq!(reading.byte(f32::from(v)), (clipped >> (bits - 8)) as u8, "{bits} {v}");
            }
        }
    }

    #[test]
    fn each_rule_has_its_own_black_and_white() {
        let color = DynamicImage::from(ImageBuffer::<Rgb<u16>, Vec<u16>>::new(1, 1));
        let float = DynamicImage::from(ImageBuffer::<Rgb<f32>, Vec<f32>>::new(1, 1));
        let byte =
            |levels: Levels, image: &DynamicImage, bits, v| levels.reading(image, bits).byte(v);
        assert_eq!(byte(Levels::Pil, &gray(), None, 300.0), 255);
        assert_eq!(byte(Levels::Pil, &color, None, 300.0), 1);
        assert_eq!(byte(Levels::Pil, &float, None, 0.9), 0);
        assert_eq!(byte(Levels::Auto, &gray(), None, 4095.0), 15);
        assert_eq!(byte(Levels::Auto, &float, None, 0.5), 128);
        assert_eq!(byte(Levels::Bits(10), &float, None, 1023.0), 255);
        let range = Levels::Range { low: 100.0, high: 300.0 };
        let bytes = [50.0, 200.0, 999.0].map(|v| byte(range, &gray(), None, v));
        assert_eq!(bytes, [0, 128, 255]);
        // What the source knows goes before bits, and not before a range.
        assert_eq!(byte(Levels::Bits(16), &gray(), Some(12), 4095.0), 255);
        assert_eq!(byte(Levels::Auto, &gray(), Some(12), 4095.0), 255);
        assert_eq!(byte(range, &gray(), Some(12), 200.0), 128);
        // Precision beyond 8 bits, except where PIL has none.
        assert_eq!(Levels::Bits(12).reading(&gray(), None).unit(2.0), 2.0 / 4095.0);
        assert_eq!(Levels::Pil.reading(&color, None).unit(300.0), 1.0 / 255.0);
    }

    #[test]
    fn the_smallest_levels_that_hold_all_values_are_chosen() {
        let integers = |high| Survey::of(true, None, [0.0, high]);
        let floats = |low, high| Survey::of(false, None, [low, high]);
        let chosen = |survey: Survey| survey.levels().unwrap().to_string();
        assert_eq!(chosen(Survey::default()), "auto");
        for (high, levels) in
            [(3.0, "bits:10"), (1024.0, "bits:12"), (4096.0, "bits:14"), (16384.0, "bits:16")]
        {
            assert_eq!(chosen(integers(3.0).and(integers(high))), levels);
        }
        assert_eq!(chosen(Survey::of(true, Some(12), [0.0, 5.0])), "bits:12");
        for (low, high, levels) in [
            (0.0, 1.0, "0..1"),
            (0.0, 1.5, "0..255"),
            (5.0, 300.0, "0..1023"),
            (0.0, 65535.0, "0..65535"),
            (-3.0, 7.0, "-3..7"),
            (0.0, 70000.0, "0..70000"),
            (-5.0, -5.0, "-5..0"),
        ] {
            assert_eq!(chosen(floats(low, high)), levels);
        }
        assert_eq!(chosen(floats(0.0, 0.5).and(floats(-1.0, 0.1))), "-1..0.5");
        let error = integers(9.0).and(floats(0.0, 1.0)).levels().unwrap_err().to_string();
        assert!(error.contains("with_levels"), "{error}");
    }
}

//! What the tags of a page say about its pixels.

use image::metadata::Orientation;

use super::directory::*;
use crate::preprocess::decode::source::Source;

/// The kind of numbers that are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Numbers {
    Unsigned,
    Signed,
    Float,
}

/// What the first channels of a pixel mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Meaning {
    Gray { white_is_zero: bool },
    Rgb,
    Palette,
    Cmyk,
    YCbCr,
}

/// A channel of transparency.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Alpha {
    Plain,
    /// The colors are multiplied by it.
    Multiplied,
}

#[derive(Debug)]
pub(super) struct Page {
    pub width: u32,
    pub height: u32,
    pub bits: u8,
    pub numbers: Numbers,
    pub meaning: Meaning,
    pub alpha: Option<Alpha>,
    /// Stored channels: those of the meaning, then alpha, then others, which are left out.
    pub samples: u16,
    /// Whether each channel is stored as an image of its own.
    pub is_planar: bool,
    pub compression: u64,
    pub predictor: u64,
    /// Whether each byte's first pixel is in its lowest bit.
    pub is_reversed: bool,
    pub orientation: Orientation,
    pub directory: Directory,
}

pub(super) const UNCOMPRESSED: u64 = 1;
pub(super) const JPEG: u64 = 7;

impl Page {
    pub fn read(tags: &mut Tags<impl Source>, directory: Directory) -> Damage<Self> {
        let mut one = |tag, default| -> Damage<u64> {
            tags.one(&directory, tag)?.or(default).ok_or(format!("its tag {tag} is missing"))
        };
        let side =
            |value: u64| u32::try_from(value).map_err(|_| format!("it has a side of {value}"));
        let (width, height) = (side(one(WIDTH, None)?)?, side(one(HEIGHT, None)?)?);
        let samples = one(SAMPLES, Some(1))?;
        let photometric = one(PHOTOMETRIC, None)?;
        let compression = one(COMPRESSION, Some(UNCOMPRESSED))?;
        let is_planar = one(PLANAR, Some(1))? == 2;
        let predictor = one(PREDICTOR, Some(1))?;
        let is_reversed = one(FILL_ORDER, Some(1))? == 2;
        let ink_set = one(INK_SET, Some(1))?;
        let orientation = one(ORIENTATION, Some(1)).map(|value| value.min(255) as u8);
        if width == 0 || height == 0 || !(1..=64).contains(&samples) {
            return Err(format!("{height} x {width} pixels of {samples} channels are no image"));
        }
        let mut same = |tag, default: u64| -> Damage<u64> {
            let values = tags.numbers(&directory, tag, samples.max(1))?.unwrap_or_default();
            let first = values.first().copied().unwrap_or(default);
            let same = values.iter().all(|&value| value == first);
            same.then_some(first).ok_or_else(|| {
                unread(&format!("whose channels differ in kind (tag {tag}: {values:?})"))
            })
        };
        let bits = same(BITS, 1)?;
        let numbers = match same(SAMPLE_FORMAT, 1)? {
            1 | 4 => Numbers::Unsigned,
            2 => Numbers::Signed,
            3 => Numbers::Float,
            _ => return Err(unread("of complex numbers")),
        };
        let extra = tags.numbers(&directory, EXTRA_SAMPLES, samples)?;
        let meaning = meaning(photometric, ink_set)?;
        let alpha = alpha(meaning, samples, extra.as_deref())?;
        let page = Self {
            width,
            height,
            bits: u8::try_from(bits).map_err(|_| unread(&format!("of {bits} bits a channel")))?,
            numbers,
            meaning,
            alpha,
            samples: samples as u16,
            is_planar: is_planar && samples > 1,
            compression,
            predictor,
            is_reversed,
            orientation: orientation
                .ok()
                .and_then(Orientation::from_exif)
                .unwrap_or(Orientation::NoTransforms),
            directory,
        };
        page.require_readable().map(|()| page)
    }

    /// Whether rows are streams of bits, not of whole bytes.
    pub fn is_packed(&self) -> bool {
        !self.bits.is_multiple_of(8)
    }

    pub fn is_float(&self) -> bool {
        self.numbers == Numbers::Float
    }

    /// The channels of a pixel in one chunk of the file.
    pub fn chunk_samples(&self) -> u16 {
        if self.is_planar { 1 } else { self.samples }
    }

    /// Bytes of a pixel as it is stored and unpacked.
    pub fn stored_bytes(&self) -> u64 {
        u64::from(self.samples) * u64::from(self.bits.div_ceil(8))
    }

    /// Bytes of a pixel of the image.
    pub fn decoded_bytes(&self) -> u64 {
        let is_gray = matches!(self.meaning, Meaning::Gray { .. });
        let wide = self.bits > 16 || self.numbers != Numbers::Unsigned;
        let channels = if is_gray && !wide { 1 } else { 3 } + u64::from(self.alpha.is_some());
        let bytes = match () {
            () if wide => 4,
            () if self.bits > 8 => 2,
            () => 1,
        };
        channels * bytes
    }

    fn require_readable(&self) -> Damage<()> {
        let Self { bits, numbers, meaning, .. } = *self;
        let known = match numbers {
            Numbers::Unsigned => matches!(bits, 1..=16 | 32 | 64),
            Numbers::Signed => matches!(bits, 8 | 16 | 32 | 64),
            Numbers::Float => matches!(bits, 16 | 32 | 64),
        };
        let whole = numbers == Numbers::Unsigned;
        let fits = match meaning {
            Meaning::Gray { white_is_zero } => !white_is_zero || whole && bits <= 16,
            Meaning::Rgb => true,
            Meaning::Palette => whole && bits <= 8,
            Meaning::Cmyk => whole && matches!(bits, 8 | 16),
            Meaning::YCbCr => whole && bits == 8,
        };
        if !known || !fits {
            let kind = format!("{numbers:?} numbers of {bits} bits as {meaning:?}");
            return Err(unread(&format!("of {}", kind.to_lowercase())));
        }
        let compression = match self.compression {
            UNCOMPRESSED | 4 | 5 | JPEG | 8 | 32773 | 32946 => None,
            2 | 3 => Some("fax (group 3) compression"),
            6 => Some("old JPEG compression"),
            50000 | 34926 => Some("Zstandard compression"),
            34925 => Some("LZMA compression"),
            50001 | 34927 => Some("WebP compression"),
            33003 | 33005 | 34712 => Some("JPEG 2000 compression"),
            other => return Err(unread(&format!("with compression {other}"))),
        };
        if let Some(compression) = compression {
            return Err(unread(&format!("with {compression}")));
        }
        match (self.compression, meaning) {
            (JPEG, Meaning::Gray { .. } | Meaning::Rgb) if bits == 8 && whole => (),
            (JPEG, Meaning::YCbCr) if !self.is_planar => (),
            (JPEG, _) => {
                return Err(unread("with JPEG compression of other than 8-bit gray or color"));
            }
            (_, Meaning::YCbCr) => {
                return Err(unread("of colors in YCbCr without JPEG compression"));
            }
            (4, _) if bits != 1 || self.samples != 1 => {
                return Err(unread("with fax compression of other than 1 bit"));
            }
            _ => (),
        }
        if self.is_reversed && (self.compression != UNCOMPRESSED || bits > 8) {
            return Err(unread("whose bits are in reverse order (FillOrder 2)"));
        }
        if self.predictor != 1 && self.is_packed() {
            return Err(unread(&format!("with a predictor for {bits} bits a channel")));
        }
        Ok(())
    }
}

/// The message for a kind that is not read.
pub(super) fn unread(what: &str) -> String {
    format!(
        "a TIFF {what}, which is not read; convert it to a TIFF of 8 or 16 bits in gray or RGB, or to PNG"
    )
}

fn meaning(photometric: u64, ink_set: u64) -> Damage<Meaning> {
    let name = match photometric {
        0 | 1 => return Ok(Meaning::Gray { white_is_zero: photometric == 0 }),
        2 => return Ok(Meaning::Rgb),
        3 => return Ok(Meaning::Palette),
        5 if ink_set == 1 => return Ok(Meaning::Cmyk),
        6 => return Ok(Meaning::YCbCr),
        5 => "of inks other than CMYK",
        8..=10 => "of colors in L*a*b*",
        32803 => "of a camera's raw color filter array",
        32844 | 32845 => "of logarithmic brightness (LogL, LogLuv)",
        34892 => "of a camera's raw colors",
        other => return Err(unread(&format!("of photometric interpretation {other}"))),
    };
    Err(unread(name))
}

/// Finds out what the channels beside those of the meaning are.
fn alpha(meaning: Meaning, samples: u64, extra: Option<&[u64]>) -> Damage<Option<Alpha>> {
    let colors = match meaning {
        Meaning::Gray { .. } | Meaning::Palette => 1,
        Meaning::Rgb | Meaning::YCbCr => 3,
        Meaning::Cmyk => 4,
    };
    let more = samples.saturating_sub(colors);
    let alpha = match extra.and_then(<[u64]>::first) {
        // As PIL reads them: a fourth channel without a word, and Corel Draw's.
        None if more == 1 && meaning == Meaning::Rgb => return Ok(Some(Alpha::Plain)),
        Some(1) => Some(Alpha::Multiplied),
        Some(2 | 999) => Some(Alpha::Plain),
        _ => None,
    };
    let says = extra.map_or(0, <[u64]>::len) as u64;
    let is_gray_or_palette = colors == 1;
    if samples < colors || says != more || is_gray_or_palette && more > 1 {
        return Err(unread(&format!(
            "of {samples} channels as {}",
            format!("{meaning:?}").to_lowercase()
        )));
    }
    match meaning {
        Meaning::Gray { .. } | Meaning::Rgb => Ok(alpha),
        // These become RGB without alpha.
        _ if alpha.is_some() => Err(unread("of a palette, CMYK or YCbCr with transparency")),
        _ => Ok(None),
    }
}

//! The pixel formats of cameras.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};

/// How the bits of values are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Packing {
    /// A byte for each value.
    Bytes,
    /// 16 bits for each value, the low byte first.
    LittleEndian,
    /// 16 bits for each value, the high byte first.
    BigEndian,
    /// A stream of bits, the lowest first, as of the Pixel Format Naming Convention (`p`).
    Bits,
    /// Two values in three bytes, as of older GigE Vision: the high bits of one, the low bits of both, the
    /// high bits of the other (`Packed`).
    GigE,
}

/// The places of colors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Channels {
    Mono,
    /// These channels of a pixel are red, green and blue.
    Color {
        count: usize,
        order: [usize; 3],
    },
    /// A mosaic; `[row, column]` of the first red pixel.
    Bayer([usize; 2]),
}

const RGB: Channels = Channels::Color { count: 3, order: [0, 1, 2] };
const BGR: Channels = Channels::Color { count: 3, order: [2, 1, 0] };
const RGBA: Channels = Channels::Color { count: 4, order: [0, 1, 2] };
const BGRA: Channels = Channels::Color { count: 4, order: [2, 1, 0] };
const RG: Channels = Channels::Bayer([0, 0]);
const GR: Channels = Channels::Bayer([0, 1]);
const GB: Channels = Channels::Bayer([1, 0]);
const BG: Channels = Channels::Bayer([1, 1]);

macro_rules! formats {
    ($($name:ident: $bits:literal, $packing:ident, $channels:expr, $doc:literal;)*) => {
        /// The format of the pixels of a camera's frame, by the name that GenICam and camera SDKs give it.
        /// Formats that end in `BE` have no such name: they are those of 16 bits, with the high byte first.
        ///
        /// `Display` and `FromStr` use the same names, such as `Mono12p` and `BayerRG8`, in capital or
        /// small letters.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum FrameFormat {
            $(#[doc = $doc] $name,)*
        }

        impl FrameFormat {
            /// All formats.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The name in GenICam.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)*
                }
            }

            /// The bits of a value: 8, 10, 12, 14 or 16.
            pub fn bits(self) -> u8 {
                match self {
                    $(Self::$name => $bits,)*
                }
            }

            pub(super) fn packing(self) -> Packing {
                match self {
                    $(Self::$name => Packing::$packing,)*
                }
            }

            pub(super) fn channels(self) -> Channels {
                match self {
                    $(Self::$name => $channels,)*
                }
            }
        }
    };
}

formats! {
    Mono8: 8, Bytes, Channels::Mono, "Gray, a byte a pixel.";
    Mono10: 10, LittleEndian, Channels::Mono, "Gray, 10 bits in 2 bytes, the low byte first.";
    Mono12: 12, LittleEndian, Channels::Mono, "Gray, 12 bits in 2 bytes, the low byte first.";
    Mono14: 14, LittleEndian, Channels::Mono, "Gray, 14 bits in 2 bytes, the low byte first.";
    Mono16: 16, LittleEndian, Channels::Mono, "Gray, 16 bits, the low byte first.";
    Mono10BE: 10, BigEndian, Channels::Mono, "Gray, 10 bits in 2 bytes, the high byte first.";
    Mono12BE: 12, BigEndian, Channels::Mono, "Gray, 12 bits in 2 bytes, the high byte first.";
    Mono14BE: 14, BigEndian, Channels::Mono, "Gray, 14 bits in 2 bytes, the high byte first.";
    Mono16BE: 16, BigEndian, Channels::Mono, "Gray, 16 bits, the high byte first.";
    Mono10p: 10, Bits, Channels::Mono, "Gray, 4 pixels in 5 bytes, the lowest bits first.";
    Mono12p: 12, Bits, Channels::Mono, "Gray, 2 pixels in 3 bytes, the lowest bits first.";
    Mono10Packed: 10, GigE, Channels::Mono, "Gray, 2 pixels in 3 bytes, as in older GigE Vision.";
    Mono12Packed: 12, GigE, Channels::Mono, "Gray, 2 pixels in 3 bytes, as in older GigE Vision.";
    RGB8: 8, Bytes, RGB, "Red, green, blue.";
    BGR8: 8, Bytes, BGR, "Blue, green, red.";
    RGBa8: 8, Bytes, RGBA, "Red, green, blue, alpha.";
    BGRa8: 8, Bytes, BGRA, "Blue, green, red, alpha.";
    BayerRG8: 8, Bytes, RG, "A mosaic of rows `RG` and `GB`, a byte a pixel.";
    BayerGB8: 8, Bytes, GB, "A mosaic of rows `GB` and `RG`, a byte a pixel.";
    BayerGR8: 8, Bytes, GR, "A mosaic of rows `GR` and `BG`, a byte a pixel.";
    BayerBG8: 8, Bytes, BG, "A mosaic of rows `BG` and `GR`, a byte a pixel.";
    BayerRG12: 12, LittleEndian, RG, "As `BayerRG8`, 12 bits in 2 bytes, the low byte first.";
    BayerGB12: 12, LittleEndian, GB, "As `BayerGB8`, 12 bits in 2 bytes, the low byte first.";
    BayerGR12: 12, LittleEndian, GR, "As `BayerGR8`, 12 bits in 2 bytes, the low byte first.";
    BayerBG12: 12, LittleEndian, BG, "As `BayerBG8`, 12 bits in 2 bytes, the low byte first.";
    BayerRG12p: 12, Bits, RG, "As `BayerRG8`, 2 pixels in 3 bytes, the lowest bits first.";
    BayerGB12p: 12, Bits, GB, "As `BayerGB8`, 2 pixels in 3 bytes, the lowest bits first.";
    BayerGR12p: 12, Bits, GR, "As `BayerGR8`, 2 pixels in 3 bytes, the lowest bits first.";
    BayerBG12p: 12, Bits, BG, "As `BayerBG8`, 2 pixels in 3 bytes, the lowest bits first.";
}

impl FrameFormat {
    /// The bits of a pixel in memory.
    pub(super) fn bits_a_pixel(self) -> usize {
        let count = match self.channels() {
            Channels::Color { count, .. } => count,
            Channels::Mono | Channels::Bayer(_) => 1,
        };
        count
            * match self.packing() {
                Packing::Bytes => 8,
                Packing::LittleEndian | Packing::BigEndian => 16,
                Packing::Bits => usize::from(self.bits()),
                Packing::GigE => 12,
            }
    }

    /// The fewest pixels that fill whole bytes. More are a multiple of it.
    pub(super) fn pixels_a_group(self) -> usize {
        match self.packing() {
            Packing::Bits if self.bits() == 10 => 4,
            Packing::Bits | Packing::GigE => 2,
            _ => 1,
        }
    }
}

impl fmt::Display for FrameFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for FrameFormat {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let named = |format: &&Self| format.name().eq_ignore_ascii_case(text);
        Self::ALL.iter().find(named).copied().ok_or_else(|| {
            let names: Vec<&str> = Self::ALL.iter().map(|format| format.name()).collect();
            let reason = format!("expected one of {}, got {text:?}", names.join(", "));
            Error::config("format", reason)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        for &format in FrameFormat::ALL {
            assert_eq!(format.to_string().parse::<FrameFormat>().unwrap(), format);
            assert_eq!(format.name().to_uppercase().parse::<FrameFormat>().unwrap(), format);
        }
        assert_eq!("RGBA8".parse::<FrameFormat>().unwrap(), FrameFormat::RGBa8);
        let error = "Mono13".parse::<FrameFormat>().unwrap_err().to_string();
        assert!(error.contains("Mono12p"), "{error}");
    }
}

//! How an image is resized.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// How an image is resized before the crop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Resize {
    /// The short side becomes this many pixels and the long side follows, rounded down
    /// (torchvision's `Resize(int)`).
    ShortSide(usize),
    /// Both sides are given; the aspect ratio is not kept (the paper: 256x256).
    Exact {
        /// Height in pixels.
        height: usize,
        /// Width in pixels.
        width: usize,
    },
}

impl Resize {
    /// Resizes to a square.
    pub const fn square(side: usize) -> Self {
        Self::Exact { height: side, width: side }
    }

    /// The size `[height, width]` of an image of `[height, width]` after this resize.
    pub fn resized(self, [height, width]: [usize; 2]) -> [usize; 2] {
        // The product stays exact in f64, as in torchvision's own arithmetic.
        let follow = |side: usize, long: usize, short: usize| {
            (side as f64 * long as f64 / short as f64) as usize
        };
        match self {
            Self::Exact { height, width } => [height, width],
            Self::ShortSide(side) if height <= width => [side, follow(side, width, height)],
            Self::ShortSide(side) => [follow(side, height, width), side],
        }
    }
}

/// `short:256` (the short side) or `256x320` (height and width).
impl fmt::Display for Resize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ShortSide(side) => write!(f, "short:{side}"),
            Self::Exact { height, width } => write!(f, "{height}x{width}"),
        }
    }
}

/// `short:256` (the short side), `square:256`, or `256x320` (height and width).
impl FromStr for Resize {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let parsed = match text.split_once(':') {
            Some(("short", side)) => side.parse().ok().map(Self::ShortSide),
            Some(("square", side)) => side.parse().ok().map(Self::square),
            Some(_) => None,
            None => text.split_once('x').and_then(|(height, width)| {
                let (height, width) = (height.parse().ok()?, width.parse().ok()?);
                Some(Self::Exact { height, width })
            }),
        };
        parsed.ok_or_else(|| {
            let reason = format!("expected short:N, square:N or HEIGHTxWIDTH, got {text:?}");
            Error::config("resize", reason)
        })
    }
}

//! Transparent pixels.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// What becomes of an image's alpha channel. An opaque one changes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Alpha {
    /// The picture is laid on this color (red, green, blue), in which 0 is black and 255 is white for all
    /// kinds of pixels. The default is white: so people see the picture on a page. The colors that a
    /// program has left under full transparency are arbitrary, and must not decide a score.
    Background([u8; 3]),
    /// Alpha is ignored, and hidden colors come to light, as in PIL's `convert("RGB")`.
    Drop,
}

impl Default for Alpha {
    fn default() -> Self {
        Self::Background([255; 3])
    }
}

/// `background:255,255,255` or `drop`.
impl fmt::Display for Alpha {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Background([red, green, blue]) => write!(f, "background:{red},{green},{blue}"),
            Self::Drop => f.write_str("drop"),
        }
    }
}

/// `background:255,255,255` (red, green, blue in 0..=255) or `drop`.
impl FromStr for Alpha {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let color = |text: &str| {
            let parts: Option<Vec<u8>> =
                text.split(',').map(|part| part.trim().parse().ok()).collect();
            parts.and_then(|parts| parts.try_into().ok())
        };
        let parsed = match text.split_once(':') {
            None if text == "drop" => Some(Self::Drop),
            Some(("background", text)) => color(text).map(Self::Background),
            _ => None,
        };
        parsed.ok_or_else(|| {
            let reason =
                format!("expected background:RED,GREEN,BLUE (0..=255) or drop, got {text:?}");
            Error::config("alpha", reason)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_read_as_they_are_written() {
        for alpha in [Alpha::default(), Alpha::Background([1, 20, 0]), Alpha::Drop] {
            assert_eq!(alpha.to_string().parse::<Alpha>().unwrap(), alpha);
        }
        for text in ["", "white", "background:1,2", "background:1,2,256", "drop:1"] {
            assert!(
                text.parse::<Alpha>().unwrap_err().to_string().contains("background:"),
                "{text}"
            );
        }
    }
}

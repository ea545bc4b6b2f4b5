//! Settings for parts that move.

use std::fmt;

use padim::detector::{Augmentation, Registration};
use padim::preprocess::RegionOfInterest;
use padim::{Padim, PadimConfig, Result};

/// The syntax in `--variants`, after the embedding.
pub const SYNTAX: &str = "turn10, shift5 and x4 (4 copies of each training image, rotated by up to \
    10 degrees and shifted by up to 5 percent), k3 (the nearest Gaussian of 3x3 positions), pooled \
    (one Gaussian for all positions), axis45 (long parts are rotated so that their heavier end points \
    to 45 degrees), band30 (scores only a band along that axis; its width is 30 percent of the side)";

/// The changes of a variant to its preset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Motion {
    degrees: Option<u32>,
    percent: Option<u32>,
    copies: Option<u32>,
    neighborhood: Option<u32>,
    pooled: bool,
    axis: Option<u32>,
    band: Option<u32>,
}

impl Motion {
    /// Parses a part of a variant's name; returns whether it is one of these settings.
    pub fn take(&mut self, part: &str) -> bool {
        let number = |prefix: &str| part.strip_prefix(prefix)?.parse().ok();
        let Self { degrees, percent, copies, neighborhood, pooled, axis, band } = self;
        let numbers = [
            ("turn", degrees),
            ("shift", percent),
            ("x", copies),
            ("k", neighborhood),
            ("axis", axis),
            ("band", band),
        ];
        for (prefix, target) in numbers {
            if let (Some(value), None) = (number(prefix), &target) {
                *target = Some(value);
                return true;
            }
        }
        let fresh = part == "pooled" && !*pooled;
        *pooled |= fresh;
        fresh
    }

    /// The number of passes per training image.
    pub fn images(&self, config: &PadimConfig) -> usize {
        1 + self.augmentation(config).map_or(0, |augmentation| augmentation.copies)
    }

    fn augmentation(&self, config: &PadimConfig) -> Option<Augmentation> {
        let Self { degrees, percent, copies, .. } = *self;
        if degrees.or(percent).or(copies).is_none() {
            return config.augmentation.clone();
        }
        let default = Augmentation::default();
        let copies = copies.map_or(default.copies, |n| n as usize);
        Some(
            default
                .with_degrees(f64::from(degrees.unwrap_or(0)))
                .with_shift(f64::from(percent.unwrap_or(0)) / 100.0)
                .with_copies(copies),
        )
    }

    pub fn config(&self, config: PadimConfig) -> PadimConfig {
        let mut config = config;
        config.augmentation = self.augmentation(&config);
        config.neighborhood = self.neighborhood.map_or(config.neighborhood, |k| k as usize);
        config.gaussian.pooled = self.pooled;
        config
    }

    pub fn padim(&self, padim: Padim) -> Result<Padim> {
        let Some(degrees) = self.axis.map(f64::from) else { return Ok(padim) };
        let padim = padim.with_registration(Registration::principal_axis(degrees));
        let Some(percent) = self.band else { return Ok(padim) };
        // Coordinates in thousandths of a square picture's side.
        let (sin, cos) = degrees.to_radians().sin_cos();
        let half = 5.0 * f64::from(percent);
        let corner = |[along, across]: [f64; 2]| {
            [500.0 + along * cos + across * sin, 500.0 - along * sin + across * cos]
        };
        let ends = [[-999.0, -half], [999.0, -half], [999.0, half], [-999.0, half]];
        padim.with_region(&RegionOfInterest::polygon([1000, 1000], &ends.map(corner))?)
    }
}

/// In the syntax of `--variants`, with a slash before each part.
impl fmt::Display for Motion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { degrees, percent, copies, neighborhood, pooled, axis, band } = *self;
        let numbers = [
            ("axis", axis),
            ("band", band),
            ("turn", degrees),
            ("shift", percent),
            ("x", copies),
            ("k", neighborhood),
        ];
        for (prefix, value) in numbers {
            if let Some(value) = value {
                write!(f, "/{prefix}{value}")?;
            }
        }
        if pooled { f.write_str("/pooled") } else { Ok(()) }
    }
}

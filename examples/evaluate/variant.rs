//! Variants: the layers, the reduction of their channels, and the settings for parts that move.

use std::fmt;
use std::str::FromStr;

use padim::PadimConfig;
use padim::embedding::ChannelSelection;

use crate::motion::{self, Motion};

/// The syntax of `--variants`.
pub const SYNTAX: &str = "LAYERS/REDUCTION, where one of both can be left out. LAYERS: layer1, layer2, \
    layer3, layer1+2, .. or sum (of the maps of the single layers). REDUCTION: all, rd100 (100 \
    channels at random) or pca100 (100 principal components). Or table1, table2, table3 for the \
    paper's variants. Then /half (the fitted detector uses 16-bit arithmetic, if the device supports \
    it), and for parts that move one or more of /PART: ";

/// The layers that describe a patch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Layers {
    /// These layers, concatenated; numbers from 1.
    Together(Vec<usize>),
    /// A detector per layer; their anomaly maps are added.
    Sum,
}

/// The reduction of the channels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reduction {
    All,
    Random(usize),
    Components(usize),
}

/// A variant, such as a row of the paper's tables I and II.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variant {
    pub layers: Layers,
    pub reduction: Reduction,
    pub motion: Motion,
    /// Whether the fitted detector uses 16-bit arithmetic.
    pub half: bool,
}

impl Variant {
    pub fn together(layers: Vec<usize>, reduction: Reduction) -> Self {
        Self { layers: Layers::Together(layers), reduction, motion: Motion::default(), half: false }
    }

    /// The lists of layers; each list gets its own Gaussians.
    pub fn layer_sets(&self) -> Vec<Vec<usize>> {
        match &self.layers {
            Layers::Together(layers) => vec![layers.clone()],
            Layers::Sum => (1..=3).map(|layer| vec![layer]).collect(),
        }
    }

    /// Whether the variant depends on a seed.
    pub fn is_random(&self) -> bool {
        matches!(self.reduction, Reduction::Random(_))
    }

    /// The channels, drawn like those of a preset.
    pub fn channels(&self, preset: &PadimConfig, seed: u64) -> ChannelSelection {
        match (self.reduction, &preset.channels) {
            (Reduction::Random(count), ChannelSelection::RandomTorch { .. }) => {
                ChannelSelection::RandomTorch { count, seed }
            }
            (Reduction::Random(count), _) => ChannelSelection::Random { count, seed },
            _ => ChannelSelection::All,
        }
    }

    /// Parses the name of one or more variants; `main` is the paper's variant for the network.
    pub fn parse(text: &str, main: &Self) -> Result<Vec<Self>, String> {
        let names: &[&str] = match text {
            "table1" => &["layer1", "layer2", "layer3", "sum", "all"],
            "table2" => &["rd100", "pca100", "rd200", "pca200", "all"],
            "table3" => return Ok(vec![main.clone()]),
            _ => &[text],
        };
        names.iter().map(|name| name.parse()).collect()
    }
}

impl FromStr for Variant {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no variant: expected {SYNTAX}{}", motion::SYNTAX);
        let count = |digits: &str| digits.parse().ok().filter(|&n: &usize| n > 0).ok_or_else(wrong);
        let (mut layers, mut reduction, mut motion) = (None, None, Motion::default());
        let mut half = false;
        for part in text.split('/') {
            if motion.take(part) {
            } else if part == "half" && !half {
                half = true;
            } else if part == "sum" && layers.is_none() {
                layers = Some(Layers::Sum);
            } else if let Some(list) = part.strip_prefix("layer").filter(|_| layers.is_none()) {
                let list = list.split('+').map(count).collect::<Result<Vec<_>, _>>()?;
                layers = Some(Layers::Together(list));
            } else if reduction.is_none() {
                reduction = Some(match (part, part.strip_prefix("rd"), part.strip_prefix("pca")) {
                    ("all", ..) => Reduction::All,
                    (_, Some(digits), _) => Reduction::Random(count(digits)?),
                    (_, _, Some(digits)) => Reduction::Components(count(digits)?),
                    _ => return Err(wrong()),
                });
            } else {
                return Err(wrong());
            }
        }
        Ok(Self {
            layers: layers.unwrap_or(Layers::Together(vec![1, 2, 3])),
            reduction: reduction.unwrap_or(Reduction::All),
            motion,
            half,
        })
    }
}

/// In the syntax of `--variants`.
impl fmt::Display for Variant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let layers = match &self.layers {
            Layers::Together(layers) if *layers == [1, 2, 3] => None,
            Layers::Together(layers) => {
                let numbers: Vec<String> = layers.iter().map(usize::to_string).collect();
                Some(format!("layer{}", numbers.join("+")))
            }
            Layers::Sum => Some("sum".to_owned()),
        };
        let reduction = match self.reduction {
            Reduction::All => "all".to_owned(),
            Reduction::Random(count) => format!("rd{count}"),
            Reduction::Components(count) => format!("pca{count}"),
        };
        match layers {
            Some(layers) if self.reduction == Reduction::All => f.write_str(&layers)?,
            Some(layers) => write!(f, "{layers}/{reduction}")?,
            None => f.write_str(&reduction)?,
        }
        write!(f, "{}{}", self.motion, if self.half { "/half" } else { "" })
    }
}

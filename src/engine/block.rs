//! Residual blocks.

use std::sync::Arc;

use super::activation::{Activation, BLOCK, Shape};
use super::convolution::{Convolution, bytes};
use super::filters::Filters;
use super::workspace::Workspace;

/// The filters of a residual block.
#[derive(Debug)]
pub(crate) struct BlockFilters {
    /// The convolutions with their strides.
    pub branch: Vec<(Filters, usize)>,
    pub downsample: Option<(Filters, usize)>,
}

/// A residual block: a chain of convolutions plus a shortcut.
#[derive(Debug)]
pub struct Block {
    /// Engines can share these convolutions.
    pub branch: Vec<Arc<Convolution>>,
    pub shortcut: Shortcut,
}

#[derive(Debug)]
pub enum Shortcut {
    /// The block's input.
    Input,
    /// A convolution of the block's input.
    Convolution(Convolution),
    /// The given channels of the block's input.
    Channels(Vec<usize>),
}

impl Block {
    /// `stage`: index of the block's stage, from 0.
    pub fn new(filters: &BlockFilters, stage: usize) -> Self {
        let convolution =
            |(filters, stride): &(Filters, usize)| Convolution::new(filters, *stride, stage);
        Self {
            branch: filters.branch.iter().map(|filters| Arc::new(convolution(filters))).collect(),
            shortcut: match &filters.downsample {
                Some(filters) => Shortcut::Convolution(convolution(filters)),
                None => Shortcut::Input,
            },
        }
    }

    /// The bytes of the prepared weights.
    pub fn bytes(&self) -> usize {
        let shortcut = match &self.shortcut {
            Shortcut::Convolution(convolution) => convolution.bytes(),
            Shortcut::Input | Shortcut::Channels(_) => 0,
        };
        bytes(&self.branch) + shortcut
    }

    pub fn run(&self, input: Activation, workspace: &mut Workspace) -> Activation {
        let shortcut = match &self.shortcut {
            Shortcut::Input => None,
            Shortcut::Convolution(convolution) => {
                Some(convolution.run(&input, None, false, workspace))
            }
            Shortcut::Channels(channels) => Some(select(&input, channels, workspace)),
        };
        let mut features: Option<Activation> = None;
        for (i, convolution) in self.branch.iter().enumerate() {
            let last = i + 1 == self.branch.len();
            let beside = if last { Some(shortcut.as_ref().unwrap_or(&input)) } else { None };
            let source = features.as_ref().unwrap_or(&input);
            let next = convolution.run(source, beside, true, workspace);
            workspace.give_back(features.replace(next));
        }
        workspace.give_back(shortcut);
        match features {
            Some(features) => {
                workspace.give_back(Some(input));
                features
            }
            None => input,
        }
    }
}

/// Copies the given channels into a new map, in blocks again.
fn select(input: &Activation, channels: &[usize], workspace: &mut Workspace) -> Activation {
    let shape = Shape { blocks: channels.len().div_ceil(BLOCK), ..input.shape };
    let mut target = workspace.take(shape);
    let mut window = target.window();
    for (block, channels) in channels.chunks(BLOCK).enumerate() {
        for y in 0..shape.height {
            let run = window.run([block, y + 1, 1], shape.width);
            for (x, pixel) in run.chunks_exact_mut(BLOCK).enumerate() {
                for (value, &channel) in pixel.iter_mut().zip(channels) {
                    let place = input.strides.at(channel / BLOCK, y + 1, x + 1) + channel % BLOCK;
                    *value = input.values()[place];
                }
            }
        }
    }
    target
}

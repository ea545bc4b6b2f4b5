//! The weights of a convolution.

use super::activation::{BLOCK, Buffer};

/// The weights of a convolution and their sizes.
#[derive(Debug, Clone)]
pub(crate) struct Filters {
    /// `[channels_out, channels_in, kernel, kernel]`
    pub shape: [usize; 4],
    /// Row-major values, in the shape `shape`.
    pub weight: Vec<f32>,
    /// `[channels_out]`
    pub bias: Vec<f32>,
}

impl Filters {
    pub fn channels_out(&self) -> usize {
        self.shape[0]
    }

    pub fn channels_in(&self) -> usize {
        self.shape[1]
    }

    pub fn kernel(&self) -> usize {
        self.shape[2]
    }

    /// Keeps only the given output channels, in the given order.
    pub fn choose(&mut self, channels: &[usize]) {
        let len = self.shape[1..].iter().product::<usize>();
        let filter = |&c: &usize| self.weight[c * len..(c + 1) * len].iter().copied();
        self.weight = channels.iter().flat_map(filter).collect();
        self.bias = channels.iter().map(|&c| self.bias[c]).collect();
        self.shape[0] = channels.len();
    }

    /// The number of blocks of output channels and of input channels.
    pub fn blocks(&self) -> [usize; 2] {
        [self.channels_out(), self.channels_in()].map(|n| n.div_ceil(BLOCK))
    }

    pub fn at(&self, out: usize, input: usize, y: usize, x: usize) -> f32 {
        let k = self.kernel();
        self.weight[((out * self.channels_in() + input) * k + y) * k + x]
    }

    pub fn bias(&self) -> Buffer {
        let mut bias = Buffer::zeros(self.blocks()[0] * BLOCK);
        bias[..self.channels_out()].copy_from_slice(&self.bias);
        bias
    }
}

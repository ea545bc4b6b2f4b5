//! A convolution that uses the fastest method for its kernel, stride and stage.

use std::sync::Arc;

use super::activation::{Activation, BLOCK, Buffer, Order, Shape};
use super::direct::Direct;
use super::filters::Filters;
use super::product::Epilogue;
use super::winograd::Winograd;
use super::workspace::Workspace;
use super::{stem, tile};

/// A convolution that is ready to run.
#[derive(Debug)]
pub struct Convolution {
    pub blocks_out: usize,
    pub stride: usize,
    pub bias: Buffer,
    pub weight_bytes: usize,
    pub kind: Kind,
}

#[derive(Debug)]
pub enum Kind {
    Direct(Direct),
    Two(Winograd<tile::Two>),
    Four(Winograd<tile::Four>),
    Strided(Winograd<tile::Strided>),
}

/// The bytes of the prepared weights of some convolutions.
pub fn bytes(convolutions: &[Arc<Convolution>]) -> usize {
    convolutions.iter().map(|convolution| convolution.bytes()).sum()
}

/// The method by which a convolution is computed.
#[derive(Debug, Clone, Copy)]
pub enum Method {
    Direct,
    Two,
    Four,
    Strided,
}

impl Method {
    /// `stage`: index of the convolution's stage, from 0.
    pub fn of(kernel: usize, stride: usize, stage: usize) -> Self {
        match (kernel, stride) {
            // Deep maps are small: many tiles of four would extend beyond them. Deep layers also
            // take longer to read their weights than to multiply, and tiles of four need more weights.
            (3, 1) if stage >= 2 => Self::Two,
            (3, 1) => Self::Four,
            (3, 2) => Self::Strided,
            _ => Self::Direct,
        }
    }

    pub fn prepare(self, filters: &Filters, stride: usize) -> Kind {
        match self {
            Self::Direct => Kind::Direct(Direct::new(filters, stride)),
            Self::Two => Kind::Two(Winograd::new(filters)),
            Self::Four => Kind::Four(Winograd::new(filters)),
            Self::Strided => Kind::Strided(Winograd::new(filters)),
        }
    }

    /// Number of weights per pair of input and output channels.
    pub fn points(self, kernel: usize) -> usize {
        match self {
            Self::Direct => kernel * kernel,
            Self::Two => Winograd::<tile::Two>::POINTS,
            Self::Four => Winograd::<tile::Four>::POINTS,
            Self::Strided => Winograd::<tile::Strided>::POINTS,
        }
    }
}

impl Convolution {
    /// `stage`: index of the convolution's stage, from 0.
    pub fn new(filters: &Filters, stride: usize, stage: usize) -> Self {
        let [blocks_out, _] = filters.blocks();
        let kind = Method::of(filters.kernel(), stride, stage).prepare(filters, stride);
        let bias = filters.bias();
        let weight_bytes = 4 * filters.weight.len();
        Self { blocks_out, stride, bias, weight_bytes, kind }
    }

    /// The bytes of the prepared weights.
    pub fn bytes(&self) -> usize {
        match &self.kind {
            Kind::Direct(direct) => direct.bytes(),
            Kind::Two(winograd) => winograd.bytes(),
            Kind::Four(winograd) => winograd.bytes(),
            Kind::Strided(winograd) => winograd.bytes(),
        }
    }

    pub fn output(&self, source: Shape) -> [usize; 2] {
        let halved = |n: usize| if self.stride == 2 { stem::half(n) } else { n };
        [halved(source.height), halved(source.width)]
    }

    /// How threads share the work: by rows, unless there are too few rows to share evenly, or each
    /// thread would read more weights than input.
    fn order(&self, [height, width]: [usize; 2], threads: usize) -> Order {
        if threads == 1 {
            return Order::Rows;
        }
        let rows = match self.kind {
            Kind::Direct(_) => height,
            Kind::Two(_) | Kind::Strided(_) => height.div_ceil(2),
            Kind::Four(_) => height.div_ceil(4),
        };
        let waste = |units: usize| units.div_ceil(threads) as f64 * threads as f64 / units as f64;
        let input = 4 * height * width * self.blocks_out * BLOCK;
        let by_rows = waste(rows) * if self.weight_bytes > input { 1.2 } else { 1.0 };
        if by_rows <= waste(self.blocks_out) * 1.05 { Order::Rows } else { Order::Channels }
    }

    pub fn run(
        &self,
        source: &Activation,
        shortcut: Option<&Activation>,
        relu: bool,
        workspace: &mut Workspace,
    ) -> Activation {
        workspace.team.gather();
        let [height, width] = self.output(source.shape);
        let order = self.order([height, width], workspace.team.threads);
        let shape = Shape { blocks: self.blocks_out, height, width, order };
        let mut target = workspace.take(shape);
        let epilogue = Epilogue { bias: &self.bias, shortcut, relu };
        let team = &workspace.team;
        match &self.kind {
            Kind::Direct(direct) => direct.run(source, &mut target, epilogue, team),
            Kind::Two(winograd) => winograd.run(source, &mut target, epilogue, team),
            Kind::Four(winograd) => winograd.run(source, &mut target, epilogue, team),
            Kind::Strided(winograd) => winograd.run(source, &mut target, epilogue, team),
        }
        target
    }
}

/// The length of a convolution's prepared weights, in numbers.
pub(crate) fn packed_len(
    [out, input, kernel, _]: [usize; 4],
    stride: usize,
    stage: usize,
) -> usize {
    let points = Method::of(kernel, stride, stage).points(kernel);
    points * out.next_multiple_of(BLOCK) * input.next_multiple_of(BLOCK)
}

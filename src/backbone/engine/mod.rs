//! The residual trunk on a CPU, without Burn: the same arithmetic, arranged for the machine.
//!
//! A network is prepared once: weights packed or transformed, buffers kept from one call to the next.
//! Maps stand in blocks of 32 channels with a border of zeros (`activation`), and every convolution is
//! one kernel (`product`) behind one of three arrangements: Winograd's (`winograd`), rows of the input
//! as they stand (`direct`), and the stem with its pooling (`stem`). Bias, shortcut and ReLU are applied
//! to sums before they are written. `pulp` compiles each for the instruction sets that there may be and
//! chooses when the program runs; no code here is `unsafe`.
//!
//! Many images are shared among the threads of the caller's rayon pool, a few images each, without any
//! waiting in between. What is left over is done image by image, all threads together: they share the
//! rows of large maps and the channels of small ones.

mod activation;
mod direct;
mod product;
mod stem;
mod tile;
mod winograd;

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use rayon::prelude::*;

use activation::{Activation, BLOCK, Buffer, Order, Shape, Window};
use direct::Direct;
use stem::Stem;
use winograd::{Epilogue, Winograd};

use super::FoldedConvolution;

/// Images that a thread takes at once: their maps reuse the weights that one has read.
const TOGETHER: usize = 4;

/// A network up to its last tapped layer.
#[derive(Debug)]
pub(crate) struct Engine {
    stem: Stem,
    stem_blocks: usize,
    stages: Vec<Vec<Block>>,
    /// What is given out.
    taps: Vec<Tap>,
    /// Memory that no call uses at the moment.
    workspaces: Mutex<Vec<Workspace>>,
}

/// A layer that is given out.
#[derive(Debug, Clone)]
struct Tap {
    /// Index of the stage.
    stage: usize,
    /// Where its channels stand in the stage's maps.
    channels: Vec<usize>,
}

/// The parameters of a residual block.
pub(crate) struct BlockParameters {
    /// Convolutions and their strides.
    pub branch: Vec<(FoldedConvolution, usize)>,
    pub downsample: Option<(FoldedConvolution, usize)>,
    /// The channels that are given out; `None` for all.
    pub chosen: Option<Vec<usize>>,
}

impl BlockParameters {
    /// Leaves these output channels.
    fn choose(&mut self, channels: &[usize]) {
        for (convolution, _) in self.branch.last_mut().into_iter().chain(&mut self.downsample) {
            let FoldedConvolution { shape, weight, bias, .. } = convolution;
            let len = shape[1..].iter().product::<usize>();
            let filter = |&c: &usize| weight[c * len..(c + 1) * len].iter().copied();
            *weight = channels.iter().flat_map(filter).collect();
            *bias = channels.iter().map(|&c| bias[c]).collect();
            shape[0] = channels.len();
        }
        self.chosen = Some(channels.to_vec());
    }
}

/// A residual block: a chain of convolutions beside a shortcut.
#[derive(Debug)]
struct Block {
    branch: Vec<Convolution>,
    shortcut: Shortcut,
}

#[derive(Debug)]
enum Shortcut {
    /// The block's input.
    Input,
    /// A convolution of it.
    Convolution(Convolution),
    /// These channels of it.
    Channels(Vec<usize>),
}

/// The weights of a convolution and their sizes.
#[derive(Debug)]
pub(super) struct Filters {
    parameters: FoldedConvolution,
}

impl Filters {
    fn channels_out(&self) -> usize {
        self.parameters.shape[0]
    }

    fn channels_in(&self) -> usize {
        self.parameters.shape[1]
    }

    fn kernel(&self) -> usize {
        self.parameters.shape[2]
    }

    /// Blocks of output and of input channels.
    fn blocks(&self) -> [usize; 2] {
        [self.channels_out(), self.channels_in()].map(|n| n.div_ceil(BLOCK))
    }

    fn at(&self, out: usize, input: usize, y: usize, x: usize) -> f32 {
        let k = self.kernel();
        self.parameters.weight[((out * self.channels_in() + input) * k + y) * k + x]
    }

    fn bias(&self) -> Buffer {
        let mut bias = Buffer::zeros(self.blocks()[0] * BLOCK);
        bias[..self.channels_out()].copy_from_slice(&self.parameters.bias);
        bias
    }
}

/// A convolution that is ready to run.
#[derive(Debug)]
struct Convolution {
    blocks_out: usize,
    stride: usize,
    bias: Buffer,
    weight_bytes: usize,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Direct(Direct),
    Two(Winograd<tile::Two>),
    Four(Winograd<tile::Four>),
}

impl Convolution {
    fn new(parameters: FoldedConvolution, stride: usize) -> Self {
        let filters = Filters { parameters };
        let [blocks_out, blocks_in] = filters.blocks();
        let kind = match (filters.kernel(), stride) {
            // The transformed weights of wide layers take longer to read than they save time.
            (3, 1) if blocks_in * blocks_out > 16 => Kind::Two(Winograd::new(&filters)),
            (3, 1) => Kind::Four(Winograd::new(&filters)),
            _ => Kind::Direct(Direct::new(&filters, stride)),
        };
        let bias = filters.bias();
        let weight_bytes = 4 * filters.parameters.weight.len();
        Self { blocks_out, stride, bias, weight_bytes, kind }
    }

    fn output(&self, source: Shape) -> [usize; 2] {
        let halved = |n: usize| if self.stride == 2 { stem::half(n) } else { n };
        [halved(source.height), halved(source.width)]
    }

    /// How threads should share the work: by rows, unless they would read more weights than input, or
    /// there are too few rows to share evenly.
    fn order(&self, [height, width]: [usize; 2], threads: usize) -> Order {
        if threads == 1 {
            return Order::Rows;
        }
        let rows = match self.kind {
            Kind::Direct(_) => height,
            Kind::Two(_) => height.div_ceil(2),
            Kind::Four(_) => height.div_ceil(4),
        };
        let waste = |units: usize| units.div_ceil(threads) as f64 * threads as f64 / units as f64;
        let input = 4 * height * width * self.blocks_out * BLOCK;
        let by_rows = waste(rows) * if self.weight_bytes > input { 1.2 } else { 1.0 };
        if by_rows <= waste(self.blocks_out) * 1.05 { Order::Rows } else { Order::Channels }
    }

    fn run(
        &self,
        source: &Activation,
        shortcut: Option<&Activation>,
        relu: bool,
        workspace: &mut Workspace,
    ) -> Activation {
        let [height, width] = self.output(source.shape);
        let order = self.order([height, width], workspace.scratches.len());
        let images = source.shape.images;
        let shape = Shape { images, blocks: self.blocks_out, height, width, order };
        let mut target = workspace.take(shape);
        let epilogue = Epilogue { bias: &self.bias, shortcut, relu };
        let Workspace { scratches, shared, .. } = workspace;
        match &self.kind {
            Kind::Direct(direct) => direct.run(source, &mut target, epilogue, scratches),
            Kind::Two(winograd) => winograd.run(source, &mut target, epilogue, scratches, shared),
            Kind::Four(winograd) => winograd.run(source, &mut target, epilogue, scratches, shared),
        }
        target
    }
}

impl Block {
    fn run(&self, input: Activation, workspace: &mut Workspace) -> Activation {
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

/// Some channels of a map, in blocks again.
fn select(input: &Activation, channels: &[usize], workspace: &mut Workspace) -> Activation {
    let shape = Shape { blocks: channels.len().div_ceil(BLOCK), ..input.shape };
    let mut target = workspace.take(shape);
    let mut window = target.window();
    for image in 0..shape.images {
        for (block, channels) in channels.chunks(BLOCK).enumerate() {
            for y in 0..shape.height {
                let run = window.run([image, block, y + 1, 1], shape.width);
                for (x, pixel) in run.chunks_exact_mut(BLOCK).enumerate() {
                    for (value, &channel) in pixel.iter_mut().zip(channels) {
                        let place =
                            input.strides.at(image, channel / BLOCK, y + 1, x + 1) + channel % BLOCK;
                        *value = input.values()[place];
                    }
                }
            }
        }
    }
    target
}

/// Buffers of one thread.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    /// Transformed input.
    v: Buffer,
    /// Products that are not transformed back yet.
    m: Buffer,
    segments: Vec<usize>,
}

/// What a call needs beside the weights.
#[derive(Debug, Default)]
struct Workspace {
    /// One a thread that works on an image.
    scratches: Vec<Scratch>,
    /// Transformed input that threads share.
    shared: Buffer,
    free: Vec<Activation>,
}

impl Workspace {
    /// Maps of a shape, whose border is zero.
    fn take(&mut self, shape: Shape) -> Activation {
        match self.free.iter().position(|activation| activation.shape == shape) {
            Some(place) => self.free.swap_remove(place),
            None => Activation::zeros(shape),
        }
    }

    fn give_back(&mut self, activation: Option<Activation>) {
        self.free.extend(activation);
    }
}

/// Shares the units of a range, and what of the window belongs to them, among as many threads as there
/// are scratches. `cut` is the place where a unit begins in the window.
fn fork<'a>(
    units: Range<usize>,
    scratches: &mut [Scratch],
    window: Window<'a>,
    cut: &(impl Fn(usize) -> usize + Sync + ?Sized),
    work: &(impl Fn(Range<usize>, Window<'_>, &mut Scratch) + Sync),
) {
    let threads = scratches.len();
    if threads <= 1 || units.len() <= 1 {
        if let Some(scratch) = scratches.first_mut() {
            work(units, window, scratch);
        }
        return;
    }
    let middle = units.start + (units.len() * (threads / 2)).div_ceil(threads);
    let (left, right) = window.split_at(cut(middle));
    let (for_left, for_right) = scratches.split_at_mut(threads / 2);
    rayon::join(
        || fork(units.start..middle, for_left, left, cut, work),
        || fork(middle..units.end, for_right, right, cut, work),
    );
}

impl Engine {
    /// Prepares a network: its stem, the blocks of its stages, which stages are given out (counted from
    /// 1), and which channels of each, if not all.
    pub fn new(
        stem: FoldedConvolution,
        mut stages: Vec<Vec<BlockParameters>>,
        layers: &[usize],
        selection: Option<&[Vec<usize>]>,
    ) -> Self {
        // Of the last convolution only the chosen channels are computed.
        let last = selection.and_then(<[_]>::last);
        let last_block = stages.last_mut().and_then(|blocks| blocks.last_mut());
        if let (Some(channels), Some(block)) = (last, last_block) {
            block.choose(channels);
        }
        let stem = Filters { parameters: stem };
        let convolution = |(parameters, stride)| Convolution::new(parameters, stride);
        let mut channels = vec![0; stages.len()];
        let stages = (0..)
            .zip(stages)
            .map(|(stage, blocks): (usize, _)| {
                let prepare = |parameters: BlockParameters| {
                    let last = parameters.branch.last();
                    channels[stage] = last.map_or(0, |(last, _)| last.shape[0]);
                    let branch = parameters.branch.into_iter().map(convolution).collect();
                    let shortcut = match (parameters.downsample, parameters.chosen) {
                        (Some(parameters), _) => Shortcut::Convolution(convolution(parameters)),
                        (None, Some(channels)) => Shortcut::Channels(channels),
                        (None, None) => Shortcut::Input,
                    };
                    Block { branch, shortcut }
                };
                blocks.into_iter().map(prepare).collect()
            })
            .collect();
        let tap = |(number, &layer): (usize, &usize)| {
            let chosen = selection.filter(|_| number + 1 < layers.len());
            let channels = match chosen.and_then(|selection| selection.get(number)) {
                Some(channels) => channels.clone(),
                None => (0..channels[layer - 1]).collect(),
            };
            Tap { stage: layer - 1, channels }
        };
        Self {
            stem_blocks: stem.blocks()[0],
            stem: Stem::new(&stem, stem.bias()),
            taps: layers.iter().enumerate().map(tap).collect(),
            stages,
            workspaces: Mutex::default(),
        }
    }

    /// The maps `[images, grid_height, grid_width, channels]` of every tapped layer and their sizes.
    /// `images`: `[images, 3, height, width]`.
    pub fn forward(&self, images: &[f32], [count, height, width]: [usize; 3]) -> Vec<Map> {
        let mut maps = self.taps(height, width);
        for map in &mut maps {
            map.values = vec![0.0; count * map.image_len()];
        }
        // One call into the pool, whatever happens inside.
        let targets: Vec<&mut [f32]> = maps.iter_mut().map(|map| &mut map.values[..]).collect();
        let lens: Vec<usize> = self.taps(height, width).iter().map(Map::image_len).collect();
        rayon::scope(|_| self.share(images, [count, height, width], targets, &lens));
        maps
    }

    fn taps(&self, height: usize, width: usize) -> Vec<Map> {
        let mut size = Stem::output([height, width]);
        let sizes: Vec<[usize; 2]> = (0..self.stages.len())
            .map(|stage| {
                if stage > 0 {
                    size = size.map(stem::half);
                }
                size
            })
            .collect();
        let map = |tap: &Tap| {
            let [height, width] = sizes[tap.stage];
            Map { shape: [height, width, tap.channels.len()], values: Vec::new() }
        };
        self.taps.iter().map(map).collect()
    }

    /// Gives each thread as many images as the others, and does the rest with all threads at once.
    fn share(
        &self,
        images: &[f32],
        [count, height, width]: [usize; 3],
        targets: Vec<&mut [f32]>,
        lens: &[usize],
    ) {
        let image_len = 3 * height * width;
        let threads = rayon::current_num_threads();
        let each = count / threads * threads;
        let group = (each / threads).clamp(1, TOGETHER);
        let groups: Vec<usize> = {
            let whole = each / group;
            let rest = each % group;
            std::iter::repeat_n(group, whole).chain((rest > 0).then_some(rest)).collect()
        };
        let singles = if threads == 1 { 0 } else { count - each };
        let mut tasks = Vec::with_capacity(groups.len() + singles);
        let mut images = images;
        let mut targets = targets;
        for count in groups.into_iter().chain(std::iter::repeat_n(1, singles)) {
            let (head, tail) = images.split_at(count * image_len);
            images = tail;
            let mut rest = Vec::with_capacity(targets.len());
            let mut own = Vec::with_capacity(targets.len());
            for (target, len) in targets.into_iter().zip(lens) {
                let (head, tail) = target.split_at_mut(count * len);
                own.push(head);
                rest.push(tail);
            }
            targets = rest;
            tasks.push((head, count, own));
        }
        let alone = tasks.split_off(tasks.len() - singles);
        tasks.into_par_iter().with_max_len(1).for_each(|(images, count, targets)| {
            self.run(images, [count, height, width], targets, 1);
        });
        for (images, count, targets) in alone {
            self.run(images, [count, height, width], targets, threads);
        }
    }

    /// Runs some images, by `threads` threads together.
    fn run(
        &self,
        images: &[f32],
        [count, height, width]: [usize; 3],
        mut targets: Vec<&mut [f32]>,
        threads: usize,
    ) {
        let mut workspace = self.workspaces().pop().unwrap_or_default();
        workspace.scratches.resize_with(threads, Scratch::default);
        let [rows, columns] = Stem::output([height, width]);
        let mut features = workspace.take(Shape {
            images: count,
            blocks: self.stem_blocks,
            height: rows,
            width: columns,
            order: Order::Rows,
        });
        self.stem.run(images, [height, width], &mut features, &mut workspace.scratches);
        for (stage, blocks) in self.stages.iter().enumerate() {
            for block in blocks {
                features = block.run(features, &mut workspace);
            }
            for (tap, target) in self.taps.iter().zip(&mut targets) {
                if tap.stage == stage {
                    give_out(&features, &tap.channels, target, threads > 1);
                }
            }
        }
        workspace.give_back(Some(features));
        self.workspaces().push(workspace);
    }

    fn workspaces(&self) -> std::sync::MutexGuard<'_, Vec<Workspace>> {
        // Whoever panicked holding it left a whole list.
        self.workspaces.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A feature map of some images.
pub(crate) struct Map {
    /// `[height, width, channels]`
    pub shape: [usize; 3],
    /// `[images, height, width, channels]`
    pub values: Vec<f32>,
}

impl Map {
    fn image_len(&self) -> usize {
        self.shape.iter().product()
    }
}

/// Writes channels as `[images, height, width, channels]`.
fn give_out(features: &Activation, channels: &[usize], target: &mut [f32], parallel: bool) {
    let Shape { height, width, .. } = features.shape;
    let strides = features.strides;
    let all = channels.iter().enumerate().all(|(place, &channel)| place == channel);
    let row = |(number, target): (usize, &mut [f32])| {
        let (image, y) = (number / height, number % height);
        for (x, pixel) in target.chunks_exact_mut(channels.len()).enumerate() {
            let first = strides.at(image, 0, y + 1, x + 1);
            if all {
                for (block, part) in pixel.chunks_mut(BLOCK).enumerate() {
                    let start = first + block * strides.block;
                    part.copy_from_slice(&features.values()[start..start + part.len()]);
                }
            } else {
                for (value, &channel) in pixel.iter_mut().zip(channels) {
                    let start = first + channel / BLOCK * strides.block + channel % BLOCK;
                    *value = features.values()[start];
                }
            }
        }
    };
    let row_len = width * channels.len();
    if parallel {
        target.par_chunks_exact_mut(row_len).enumerate().with_min_len(8).for_each(row);
    } else {
        target.chunks_exact_mut(row_len).enumerate().for_each(row);
    }
}

#[cfg(test)]
mod tests;

//! The residual trunk on a CPU, without Burn: the same arithmetic, arranged for the machine.
//!
//! A network is prepared once: weights packed or transformed, buffers kept from one call to the next.
//! Maps stand in blocks of 32 channels with a border of zeros (`activation`), and every convolution is
//! one kernel (`product`) behind one of three arrangements: Winograd's (`winograd`), rows of the input
//! as they stand (`direct`), and the stem with its pooling (`stem`). Bias, shortcut and ReLU are applied
//! to sums before they are written. `pulp` compiles each for the instruction sets that there may be and
//! chooses when the program runs.
//!
//! Many images are shared among the threads of the caller's rayon pool, image by image, without any
//! waiting in between. The last ones are done by several threads together: they share the rows of large
//! maps and the channels of small ones.

// Kernels walk several arrays in step, by indices that the compiler knows.
#![allow(clippy::needless_range_loop)]

mod activation;
mod direct;
mod product;
mod stem;
mod tile;
mod winograd;

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use pulp::Arch;
use rayon::prelude::*;

use activation::{Activation, BLOCK, Buffer, Order, Shape, Window};
use direct::Direct;
use stem::Stem;
use winograd::{Epilogue, Winograd};

use super::FoldedConvolution;
use super::parameters::Site;
use super::resnet::BlockPlan;

/// A network up to its last tapped layer.
#[derive(Debug)]
pub(crate) struct Engine {
    stem: Stem,
    stem_blocks: usize,
    stages: Vec<Vec<Block>>,
    /// What is given out.
    taps: Vec<Tap>,
    instructions: Arch,
    /// Memory that no call uses at the moment.
    workspaces: Mutex<Vec<Workspace>>,
    idle: Idle,
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
    Strided(Winograd<tile::Strided>),
}

/// How a convolution is done.
#[derive(Debug, Clone, Copy)]
enum Method {
    Direct,
    Two,
    Four,
    Strided,
}

impl Method {
    /// `stage`: in which the convolution stands, counted from 0.
    fn of(kernel: usize, stride: usize, stage: usize) -> Self {
        match (kernel, stride) {
            // Deep maps are small, so that many tiles of four would stick out of them, and their weights,
            // of which those tiles need more, take longer to read than to multiply.
            (3, 1) if stage >= 2 => Self::Two,
            (3, 1) => Self::Four,
            (3, 2) => Self::Strided,
            _ => Self::Direct,
        }
    }

    fn prepare(self, filters: &Filters, stride: usize) -> Kind {
        match self {
            Self::Direct => Kind::Direct(Direct::new(filters, stride)),
            Self::Two => Kind::Two(Winograd::new(filters)),
            Self::Four => Kind::Four(Winograd::new(filters)),
            Self::Strided => Kind::Strided(Winograd::new(filters)),
        }
    }

    /// Weights for each channel of input and output.
    fn points(self, kernel: usize) -> usize {
        match self {
            Self::Direct => kernel * kernel,
            Self::Two => Winograd::<tile::Two>::POINTS,
            Self::Four => Winograd::<tile::Four>::POINTS,
            Self::Strided => Winograd::<tile::Strided>::POINTS,
        }
    }
}

impl Convolution {
    /// `stage`: in which it stands, counted from 0.
    fn new(parameters: FoldedConvolution, stride: usize, stage: usize) -> Self {
        let filters = Filters { parameters };
        let [blocks_out, _] = filters.blocks();
        let kind = Method::of(filters.kernel(), stride, stage).prepare(&filters, stride);
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
            Kind::Two(_) | Kind::Strided(_) => height.div_ceil(2),
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

/// What a thread works with.
#[derive(Debug)]
pub(super) struct Scratch {
    arch: Arch,
    /// Its number in its pool.
    thread: Option<usize>,
    /// Transformed input.
    v: Buffer,
    /// Products that are not transformed back yet.
    m: Buffer,
    segments: Vec<usize>,
}

impl Scratch {
    fn new(arch: Arch, thread: Option<usize>) -> Self {
        let (v, m) = (Buffer::default(), Buffer::default());
        Self { arch, thread, v, m, segments: Vec::new() }
    }
}

/// The images of a call that are not done yet.
#[derive(Debug)]
struct Load {
    threads: usize,
    images: AtomicUsize,
}

impl Load {
    fn new(threads: usize, images: usize) -> Arc<Self> {
        Arc::new(Self { threads, images: AtomicUsize::new(images) })
    }

    /// How many threads there are for each image: only those that have none left help with others.
    fn threads_each(&self) -> usize {
        (self.threads / self.images.load(Ordering::Relaxed).max(1)).max(1)
    }
}

/// The threads that work on an image together, and what they work with.
#[derive(Debug)]
pub(super) struct Team {
    load: Arc<Load>,
    /// As many as there were for it when its present convolution began.
    threads: usize,
    arch: Arch,
    idle: Idle,
}

/// What threads work with while they do not: the engine's, one for each thread, whatever it works on.
type Idle = Arc<Mutex<Vec<Scratch>>>;

impl Team {
    fn new(arch: Arch, idle: Idle) -> Self {
        Self { load: Load::new(1, 1), threads: 1, arch, idle }
    }

    /// Takes in whoever has become free.
    fn gather(&mut self) {
        self.threads = self.load.threads_each();
    }

    /// Works with the scratch of this thread, whose cache may still hold it.
    fn lend(&self, work: impl FnOnce(&mut Scratch)) {
        let idle = || self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let thread = rayon::current_thread_index();
        let taken = {
            let mut idle = idle();
            let place = idle.iter().position(|scratch| scratch.thread == thread);
            place.map(|place| idle.swap_remove(place))
        };
        let mut scratch = taken.unwrap_or_else(|| Scratch::new(self.arch, thread));
        work(&mut scratch);
        idle().push(scratch);
    }

    /// Into how many parts so many units of work are cut: up to `most` for each thread, as one may be
    /// slower than another, and whoever is done takes over from those who are not.
    fn parts(&self, units: usize, most: usize) -> usize {
        let mut parts = self.threads;
        while parts > 1 && 2 * parts <= units.min(most * self.threads) {
            parts *= 2;
        }
        parts
    }
}

/// What a call needs beside the weights.
#[derive(Debug)]
struct Workspace {
    /// Of the images for which the maps are.
    size: [usize; 2],
    team: Team,
    free: Vec<Activation>,
}

impl Workspace {
    fn new(size: [usize; 2], team: Team) -> Self {
        Self { size, team, free: Vec::new() }
    }

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

/// Cuts the units of a range, and what of the window belongs to them, into parts that threads share.
/// `cut` is the place where a unit begins in the window.
fn fork<'a>(
    units: Range<usize>,
    parts: usize,
    window: Window<'a>,
    cut: &(impl Fn(usize) -> usize + Sync + ?Sized),
    work: &(impl Fn(Range<usize>, Window<'_>) + Sync),
) {
    if parts <= 1 || units.len() <= 1 {
        work(units, window);
        return;
    }
    let middle = units.start + (units.len() * (parts / 2)).div_ceil(parts);
    let (left, right) = window.split_at(cut(middle));
    rayon::join(
        || fork(units.start..middle, parts / 2, left, cut, work),
        || fork(middle..units.end, parts - parts / 2, right, cut, work),
    );
}

impl Engine {
    /// Prepares a network: its stem, the blocks of its stages, which stages are given out (counted from
    /// 1), and which channels of each, if not all. `instructions`: what the processor must have.
    pub fn new(
        stem: FoldedConvolution,
        mut stages: Vec<Vec<BlockParameters>>,
        layers: &[usize],
        selection: Option<&[Vec<usize>]>,
        instructions: Arch,
    ) -> Self {
        // Of the last convolution only the chosen channels are computed.
        let last = selection.and_then(<[_]>::last);
        let last_block = stages.last_mut().and_then(|blocks| blocks.last_mut());
        if let (Some(channels), Some(block)) = (last, last_block) {
            block.choose(channels);
        }
        let stem = Filters { parameters: stem };
        let mut channels = vec![0; stages.len()];
        let stages = (0..)
            .zip(stages)
            .map(|(stage, blocks): (usize, _)| {
                let convolution =
                    |(parameters, stride)| Convolution::new(parameters, stride, stage);
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
            instructions,
            workspaces: Mutex::default(),
            idle: Idle::default(),
        }
    }

    /// About how many numbers an engine keeps: packed weights, and what every thread works with. `map`:
    /// the numbers of a map of the first stage.
    pub fn estimate(stages: &[Vec<BlockPlan>], map: usize) -> usize {
        let packed = |stage: usize, site: &Site| {
            let [out, input, kernel, _] = site.shape;
            let points = Method::of(kernel, site.stride, stage).points(kernel);
            points * out.next_multiple_of(BLOCK) * input.next_multiple_of(BLOCK)
        };
        let weights: usize = (0..)
            .zip(stages)
            .flat_map(|(stage, blocks)| blocks.iter().map(move |block| (stage, block)))
            .flat_map(|(stage, block)| {
                block.branch.iter().chain(&block.downsample).map(move |site| packed(stage, site))
            })
            .sum();
        // Four maps of each stage, each stage half of the one before, and transformed tiles.
        weights + rayon::current_num_threads() * (7 * map + winograd::SCRATCH_BYTES / 4)
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

    /// Threads take an image each; those that find none left help with the last ones.
    fn share(
        &self,
        images: &[f32],
        [count, height, width]: [usize; 3],
        targets: Vec<&mut [f32]>,
        lens: &[usize],
    ) {
        let image_len = 3 * height * width;
        let mut targets = targets;
        let mut tasks: Vec<(&[f32], Vec<&mut [f32]>)> = Vec::with_capacity(count);
        for image in images.chunks_exact(image_len) {
            let mut own = Vec::with_capacity(targets.len());
            for (target, &len) in targets.iter_mut().zip(lens) {
                let (head, tail) = std::mem::take(target).split_at_mut(len);
                own.push(head);
                *target = tail;
            }
            tasks.push((image, own));
        }
        let load = Load::new(rayon::current_num_threads(), count);
        tasks.into_par_iter().with_max_len(1).for_each(|(image, targets)| {
            self.run(image, [height, width], targets, &load);
            load.images.fetch_sub(1, Ordering::Relaxed);
        });
    }

    /// Runs an image.
    fn run(
        &self,
        image: &[f32],
        [height, width]: [usize; 2],
        mut targets: Vec<&mut [f32]>,
        load: &Arc<Load>,
    ) {
        let size = [height, width];
        let kept = self.workspaces().pop().filter(|workspace| workspace.size == size);
        let team = || Team::new(self.instructions, Arc::clone(&self.idle));
        let mut workspace = kept.unwrap_or_else(|| Workspace::new(size, team()));
        workspace.team.load = Arc::clone(load);
        workspace.team.gather();
        let [rows, columns] = Stem::output(size);
        let mut features = workspace.take(Shape {
            blocks: self.stem_blocks,
            height: rows,
            width: columns,
            order: Order::Rows,
        });
        self.stem.run(image, size, &mut features, &workspace.team);
        for (stage, blocks) in self.stages.iter().enumerate() {
            for block in blocks {
                features = block.run(features, &mut workspace);
            }
            for (tap, target) in self.taps.iter().zip(&mut targets) {
                if tap.stage == stage {
                    give_out(&features, &tap.channels, target, workspace.team.threads > 1);
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

/// Writes channels as `[height, width, channels]`.
fn give_out(features: &Activation, channels: &[usize], target: &mut [f32], parallel: bool) {
    let strides = features.strides;
    let all = channels.iter().enumerate().all(|(place, &channel)| place == channel);
    let row = |(y, target): (usize, &mut [f32])| {
        for (x, pixel) in target.chunks_exact_mut(channels.len()).enumerate() {
            let first = strides.at(0, y + 1, x + 1);
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
    let row_len = features.shape.width * channels.len();
    if parallel {
        target.par_chunks_exact_mut(row_len).enumerate().with_min_len(8).for_each(row);
    } else {
        target.chunks_exact_mut(row_len).enumerate().for_each(row);
    }
}

#[cfg(test)]
mod tests;

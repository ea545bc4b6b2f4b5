//! A prepared network; shares the images of a batch among threads.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pulp::Arch;
use rayon::prelude::*;

use super::activation::{Activation, BLOCK, Order, Shape};
use super::block::{Block, BlockFilters, Shortcut};
use super::convolution::{Convolution, bytes};
use super::filters::Filters;
use super::stem::{self, Stem};
use super::team::{Idle, Load, Team};
use super::winograd::SCRATCH_BYTES;
use super::workspace::Workspace;

/// A network without its last convolution. Engines with different output channels share it.
#[derive(Debug)]
pub(crate) struct Trunk {
    stem: Stem,
    /// The blocks of each stage, without the network's last block.
    stages: Vec<Vec<Block>>,
    /// The branch of the last block, without its last convolution.
    last_branch: Vec<Arc<Convolution>>,
    /// Number of output channels per stage; the entry of the last stage is not used.
    channels: Vec<usize>,
    instructions: Arch,
    /// Workspaces that no call uses at the moment.
    workspaces: Mutex<Vec<Workspace>>,
    idle: Idle,
}

/// A network up to the last stage whose features are needed.
#[derive(Debug)]
pub(crate) struct Engine {
    trunk: Arc<Trunk>,
    last: Block,
    /// The outputs.
    taps: Vec<Tap>,
}

/// A stage whose feature maps are an output.
#[derive(Debug, Clone)]
struct Tap {
    /// Index of the stage.
    stage: usize,
    /// Indices of the output channels in the stage's maps.
    channels: Vec<usize>,
}

impl Trunk {
    /// Prepares a network without the end of its last block. `stages`: the blocks of each stage; the
    /// last block comes without its last convolution and its shortcut. `instructions`: the
    /// instruction set to use. Does not use rayon, because threads of a pool may wait for the result.
    pub fn new(stem: &Filters, stages: Vec<Vec<BlockFilters>>, instructions: Arch) -> Self {
        let channels = |blocks: &Vec<BlockFilters>| {
            let last = blocks.last().and_then(|block| block.branch.last());
            last.map_or(0, |(filters, _)| filters.channels_out())
        };
        let channels = stages.iter().map(channels).collect();
        // Each block is freed when it has been prepared.
        let prepare = |(stage, blocks): (usize, Vec<BlockFilters>)| -> Vec<Block> {
            blocks.into_iter().map(|block| Block::new(&block, stage)).collect()
        };
        let mut prepared: Vec<Vec<Block>> = stages.into_iter().enumerate().map(prepare).collect();
        let last = prepared.last_mut().and_then(Vec::pop);
        Self {
            stem: Stem::new(stem),
            stages: prepared,
            last_branch: last.map(|block| block.branch).unwrap_or_default(),
            channels,
            instructions,
            workspaces: Mutex::default(),
            idle: Idle::default(),
        }
    }

    /// The bytes of the prepared weights.
    pub fn bytes(&self) -> usize {
        let blocks: usize = self.stages.iter().flatten().map(Block::bytes).sum();
        self.stem.bytes() + blocks + bytes(&self.last_branch)
    }

    fn workspaces(&self) -> MutexGuard<'_, Vec<Workspace>> {
        // A panic while the lock was held leaves the list valid.
        self.workspaces.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Engine {
    /// Prepares a complete network. `end`: the last convolution and the shortcut of the last block.
    /// `layers`: the output stages, from 1, including the last stage. `selection`: the output channels
    /// of each layer; `None`: all. Does not use rayon, because threads of a pool may wait for the
    /// result.
    pub fn new(
        trunk: Arc<Trunk>,
        mut end: BlockFilters,
        layers: &[usize],
        selection: Option<&[Vec<usize>]>,
    ) -> Self {
        let last_stage = trunk.stages.len().saturating_sub(1);
        let chosen = |number: usize| selection.and_then(|selection| selection.get(number));
        // The last convolution computes only the selected channels.
        let last_chosen = chosen(layers.len().saturating_sub(1));
        if let Some(channels) = last_chosen {
            let filters = end.branch.iter_mut().chain(&mut end.downsample);
            filters.for_each(|(filters, _)| filters.choose(channels));
        }
        let given = end.branch.last().map_or(0, |(filters, _)| filters.channels_out());
        let mut last = Block::new(&end, last_stage);
        if let (Shortcut::Input, Some(channels)) = (&last.shortcut, last_chosen) {
            last.shortcut = Shortcut::Channels(channels.clone());
        }
        last.branch.splice(..0, trunk.last_branch.iter().cloned());
        let tap = |(number, &layer): (usize, &usize)| {
            let stage = layer - 1;
            let channels = match chosen(number) {
                _ if stage == last_stage => (0..given).collect(),
                Some(channels) => channels.clone(),
                None => (0..trunk.channels[stage]).collect(),
            };
            Tap { stage, channels }
        };
        Self { taps: layers.iter().enumerate().map(tap).collect(), trunk, last }
    }

    /// The bytes of the prepared weights that are not the trunk's.
    pub fn own_bytes(&self) -> usize {
        self.last.bytes() - bytes(&self.trunk.last_branch)
    }

    /// The maps `[images, grid_height, grid_width, channels]` of every output layer, with their sizes.
    /// `images`: `[images, 3, height, width]`.
    pub fn forward(&self, images: &[f32], [count, height, width]: [usize; 3]) -> Vec<Map> {
        let mut maps = self.taps(height, width);
        for map in &mut maps {
            map.values = vec![0.0; count * map.image_len()];
        }
        let lens: Vec<usize> = maps.iter().map(Map::image_len).collect();
        let targets: Vec<&mut [f32]> = maps.iter_mut().map(|map| &mut map.values[..]).collect();
        // Enters the pool once, not at each parallel step.
        rayon::scope(|_| self.share(images, [count, height, width], targets, &lens));
        maps
    }

    fn taps(&self, height: usize, width: usize) -> Vec<Map> {
        let mut size = Stem::output([height, width]);
        let sizes: Vec<[usize; 2]> = (0..self.trunk.stages.len())
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

    /// Each thread takes one image at a time; threads without an image help with the last images.
    fn share(
        &self,
        images: &[f32],
        [count, height, width]: [usize; 3],
        mut targets: Vec<&mut [f32]>,
        lens: &[usize],
    ) {
        let image_len = 3 * height * width;
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

    /// Runs the network on one image.
    fn run(
        &self,
        image: &[f32],
        [height, width]: [usize; 2],
        mut targets: Vec<&mut [f32]>,
        load: &Arc<Load>,
    ) {
        let (trunk, size) = (&*self.trunk, [height, width]);
        let kept = trunk.workspaces().pop().filter(|workspace| workspace.size == size);
        let team = || Team::new(trunk.instructions, Arc::clone(&trunk.idle));
        let mut workspace = kept.unwrap_or_else(|| Workspace::new(size, team()));
        workspace.team.load = Arc::clone(load);
        workspace.team.gather();
        let [rows, columns] = Stem::output(size);
        let mut features = workspace.take(Shape {
            blocks: trunk.stem.blocks(),
            height: rows,
            width: columns,
            order: Order::Rows,
        });
        trunk.stem.run(image, size, &mut features, &workspace.team);
        for (stage, blocks) in trunk.stages.iter().enumerate() {
            let is_last = stage + 1 == trunk.stages.len();
            for block in blocks.iter().chain(is_last.then_some(&self.last)) {
                features = block.run(features, &mut workspace);
            }
            for (tap, target) in self.taps.iter().zip(&mut targets) {
                if tap.stage == stage {
                    give_out(&features, &tap.channels, target, workspace.team.threads > 1);
                }
            }
        }
        workspace.give_back(Some(features));
        trunk.workspaces().push(workspace);
    }
}

/// The approximate memory of an engine, in numbers: `weights` packed weights and the buffers of every
/// thread. `map`: the length of a map of the first stage.
pub(crate) fn estimate(weights: usize, map: usize) -> usize {
    // Four maps per stage, where each stage has half the length of the one before, and scratch.
    weights + rayon::current_num_threads() * (7 * map + SCRATCH_BYTES / 4)
}

/// The feature maps of a layer for a batch of images.
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

/// Writes the given channels as `[height, width, channels]`.
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

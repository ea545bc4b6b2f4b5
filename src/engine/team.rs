//! Shares the work on one image among several threads.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use pulp::Arch;

use super::activation::{Buffer, Window};

/// The working memory of one thread.
#[derive(Debug)]
pub struct Scratch {
    pub arch: Arch,
    /// The thread's index in its rayon pool.
    thread: Option<usize>,
    /// Transformed input.
    pub v: Buffer,
    /// Products, before the output transform.
    pub m: Buffer,
    pub segments: Vec<usize>,
}

impl Scratch {
    fn new(arch: Arch, thread: Option<usize>) -> Self {
        let (v, m) = (Buffer::default(), Buffer::default());
        Self { arch, thread, v, m, segments: Vec::new() }
    }
}

/// The number of unfinished images of a call, and its threads.
#[derive(Debug)]
pub struct Load {
    threads: usize,
    pub images: AtomicUsize,
}

impl Load {
    pub fn new(threads: usize, images: usize) -> Arc<Self> {
        Arc::new(Self { threads, images: AtomicUsize::new(images) })
    }

    /// Threads per unfinished image, at least 1.
    fn threads_each(&self) -> usize {
        (self.threads / self.images.load(Ordering::Relaxed).max(1)).max(1)
    }
}

/// The threads that work together on one image.
#[derive(Debug)]
pub struct Team {
    pub load: Arc<Load>,
    /// Number of threads, set at the start of each convolution.
    pub threads: usize,
    arch: Arch,
    idle: Idle,
}

/// The scratch memory of idle threads: one per thread for the whole engine.
pub type Idle = Arc<Mutex<Vec<Scratch>>>;

impl Team {
    pub fn new(arch: Arch, idle: Idle) -> Self {
        Self { load: Load::new(1, 1), threads: 1, arch, idle }
    }

    /// Adds threads that have become free.
    pub fn gather(&mut self) {
        self.threads = self.load.threads_each();
    }

    /// Runs `work` with the scratch that this thread used last, which may still be in its cache.
    pub fn lend(&self, work: impl FnOnce(&mut Scratch)) {
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

    /// The number of parts for so many units of work: up to `most` per thread. With more parts than
    /// threads, fast threads can take over parts of slow ones.
    pub fn parts(&self, units: usize, most: usize) -> usize {
        let mut parts = self.threads;
        while parts > 1 && 2 * parts <= units.min(most * self.threads) {
            parts *= 2;
        }
        parts
    }
}
/// Splits a range of units and their part of the window into parts, and runs `work` on the parts in
/// parallel. `cut` gives the index at which a unit begins in the window.
pub fn fork<'a>(
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

//! Runs several cells at once, within a memory limit.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// A memory budget in bytes.
pub struct Budget {
    total: usize,
    free: Mutex<usize>,
    returned: Condvar,
}

impl Budget {
    pub fn new(total: usize) -> Self {
        Self { total, free: Mutex::new(total), returned: Condvar::new() }
    }

    /// Waits until this number of bytes is free, and runs `work`. If it exceeds the whole budget or is
    /// unknown, `work` runs alone.
    pub fn with<T>(&self, bytes: Option<usize>, work: impl FnOnce() -> T) -> T {
        let bytes = bytes.unwrap_or(self.total).min(self.total);
        let mut free = self.free();
        while *free < bytes {
            free = self.returned.wait(free).unwrap_or_else(PoisonError::into_inner);
        }
        *free -= bytes;
        drop(free);
        let _reservation = Reservation { budget: self, bytes };
        work()
    }

    fn free(&self) -> MutexGuard<'_, usize> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns its bytes to the budget on drop, also after a panic.
struct Reservation<'a> {
    budget: &'a Budget,
    bytes: usize,
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        *self.budget.free() += self.bytes;
        self.budget.returned.notify_all();
    }
}

/// Runs `work` for each item, `threads` at a time; items start in their order.
pub fn for_each<T: Sync>(items: &[T], threads: usize, work: impl Fn(&T) + Sync) {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..threads.clamp(1, items.len().max(1)) {
            scope.spawn(|| {
                while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
                    work(item);
                }
            });
        }
    });
}

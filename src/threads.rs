//! Parallel loops for work under a lock that other threads wait for.
//!
//! A rayon thread that waits for its own parallel loop runs other jobs of the pool meanwhile. If
//! such a job waits for a lock that this thread holds, there is a deadlock. So values that are made
//! under a lock, or in a cell, are made by threads that run no other jobs.

use std::sync::{Mutex, PoisonError};
use std::thread::{Builder, scope};

/// Below this number of values, starting a thread takes longer than the work.
const FEW: usize = 1 << 17;

/// Calls `work` on each chunk of `size` values, with the chunk's number, in any order and in several
/// threads. The last chunk may be shorter.
pub(crate) fn for_each_chunk<T: Send>(
    values: &mut [T],
    size: usize,
    work: impl Fn(usize, &mut [T]) + Sync,
) {
    let threads = match values.len() {
        ..FEW => 1,
        // As many threads as rayon's pool has.
        _ => rayon::current_num_threads().min(values.len().div_ceil(size)),
    };
    let chunks = Mutex::new(values.chunks_mut(size).enumerate());
    let next = || chunks.lock().unwrap_or_else(PoisonError::into_inner).next();
    let take_all = || {
        while let Some((number, chunk)) = next() {
            work(number, chunk);
        }
    };
    scope(|scope| {
        for _ in 1..threads {
            // If the system starts no more threads, the existing ones do the work.
            if Builder::new().spawn_scoped(scope, take_all).is_err() {
                break;
            }
        }
        take_all();
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_chunk_comes_once_with_its_number() {
        for len in [0, 1, 5, 7, FEW + 3] {
            let mut values = vec![0_usize; len];
            for_each_chunk(&mut values, 5, |number, chunk| {
                chunk.iter_mut().for_each(|value| *value += number + 1);
            });
            let expected: Vec<usize> = (0..len).map(|i| i / 5 + 1).collect();
            assert_eq!(values, expected, "{len}");
        }
    }
}

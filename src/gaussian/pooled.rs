//! One Gaussian for all positions: all vectors are added to the sums at once, and none is kept.

use rayon::prelude::*;

use super::block::Block;
use super::positions::Positions;
use crate::embedding::PatchVectors;

/// The number of vectors per partial sum. Partial sums do not depend on the threads and are merged in
/// order, so the result is the same for any number of threads.
const CHUNK: usize = 1024;
/// The number of partial sums in memory at once.
const TOGETHER: usize = 8;

/// Adds all vectors to the sums of the only position of `block`, and returns their weight. `folded`:
/// the weight in the sums so far.
pub(super) fn fold(
    block: &mut Block,
    vectors: &dyn PatchVectors,
    positions: &Positions,
    folded: f64,
) -> f64 {
    let [batch, d, ..] = vectors.shape();
    let total = batch * positions.len();
    let mut weight = 0.0;
    let starts: Vec<usize> = (0..total).step_by(CHUNK).collect();
    for starts in starts.chunks(TOGETHER) {
        let parts = starts.par_iter().map(|&start| {
            let count = CHUNK.min(total - start);
            let mut values = vec![0.0; count * d];
            for (number, target) in (start..).zip(values.chunks_exact_mut(d)) {
                let place = positions.place(number % positions.len());
                vectors.write(number / positions.len(), place, target);
            }
            let mut part = Block::of_vectors(d, values);
            part.fold(&vec![1.0; count], 0.0, 0);
            (part, count as f64)
        });
        for (part, own) in parts.collect::<Vec<_>>() {
            if folded + weight == 0.0 {
                *block = part;
            } else {
                block.merge(folded + weight, &part, own);
            }
            weight += own;
        }
    }
    weight
}

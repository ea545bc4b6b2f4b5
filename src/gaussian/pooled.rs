//! One Gaussian for all positions: their vectors go straight into sums, and none is kept.

use rayon::prelude::*;

use super::block::Block;
use super::positions::Positions;
use crate::embedding::PatchVectors;

/// So many vectors are summed up by themselves. Where they are cut depends on nothing else, so sums are
/// the same for any number of threads.
const CHUNK: usize = 1024;
/// So many sums are in memory at once.
const TOGETHER: usize = 8;

/// Takes all vectors into the sums of the only position of `block`, and gives their weight. `folded`: the
/// weight of what is there already.
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

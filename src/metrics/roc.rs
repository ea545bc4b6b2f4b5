//! The counts behind every curve, and the area under the ROC curve.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use rayon::prelude::*;

use super::curve::corners;
use super::{PixelScores, undefined};
use crate::Result;

/// How well image scores separate defective from good images: the chance that a defective image
/// scores higher than a good one, ties counting one half.
///
/// # Errors
///
/// [`Error::ShapeMismatch`](crate::Error::ShapeMismatch) if the lengths differ,
/// [`Error::NotFinite`](crate::Error::NotFinite) if a score is NaN or infinite,
/// [`Error::UndefinedMetric`](crate::Error::UndefinedMetric) unless there are both defective and
/// good images.
pub fn image_auroc(scores: &[f32], defective: &[bool]) -> Result<f64> {
    let images = [PixelScores::of_images(scores, defective)?];
    area(&images, OF_IMAGES)
}

/// How well pixel scores separate defective from normal pixels, over the pixels of all images.
///
/// # Errors
///
/// [`Error::UndefinedMetric`](crate::Error::UndefinedMetric) unless there are both defective and
/// normal pixels.
pub fn pixel_auroc(images: &[PixelScores]) -> Result<f64> {
    area(images, OF_PIXELS)
}

/// The metric, and what it is undefined without.
type Names = (&'static str, [&'static str; 2]);

const OF_IMAGES: Names = ("image AUROC", ["there is no defective image", "there is no good image"]);
const OF_PIXELS: Names =
    ("pixel AUROC", ["there is no defective pixel", "there is no normal pixel"]);

fn area(images: &[PixelScores], (metric, missing): Names) -> Result<f64> {
    let steps = steps(images);
    // Twice the number of pairs in the right order, as a tie is half a pair.
    let (mut twice, mut defective, mut below) = (0u128, 0u128, 0u128);
    for step in &steps.ascending {
        below += u128::from(step.gap);
        let (count, tied) = (u128::from(step.count), u128::from(step.tied));
        twice += count * (2 * below + tied);
        defective += count;
        below += tied;
    }
    let normal = below + u128::from(steps.above);
    match (defective, normal) {
        (0, _) => Err(undefined(metric, missing[0])),
        (_, 0) => Err(undefined(metric, missing[1])),
        _ => Ok(twice as f64 / (2 * defective * normal) as f64),
    }
}

/// The ROC curve of image scores, for drawing: the corners `[rate of false alarms, rate of defects
/// found]` from (0, 0) to (1, 1), about `count` of them where there are more.
///
/// # Errors
///
/// As [`image_auroc`].
pub fn image_roc_curve(scores: &[f32], defective: &[bool], count: usize) -> Result<Vec<[f64; 2]>> {
    curve(&[PixelScores::of_images(scores, defective)?], OF_IMAGES, count)
}

/// The ROC curve of pixel scores, as [`image_roc_curve`].
///
/// # Errors
///
/// As [`pixel_auroc`].
pub fn pixel_roc_curve(images: &[PixelScores], count: usize) -> Result<Vec<[f64; 2]>> {
    curve(images, OF_PIXELS, count)
}

fn curve(images: &[PixelScores], (metric, missing): Names, count: usize) -> Result<Vec<[f64; 2]>> {
    let steps = steps(images);
    let lines = || {
        let descending = steps.ascending.iter().rev();
        let of_steps =
            descending.flat_map(|s| [[s.tied as f64, s.count as f64], [s.gap as f64, 0.0]]);
        std::iter::once([steps.above as f64, 0.0]).chain(of_steps)
    };
    let end = lines().fold([0.0; 2], |end, line| [end[0] + line[0], end[1] + line[1]]);
    match end {
        [_, 0.0] => Err(undefined(metric, missing[0])),
        [0.0, _] => Err(undefined(metric, missing[1])),
        _ => Ok(corners(lines(), end, count)),
    }
}

/// What happens at a distinct score of defective pixels.
pub(super) struct Step {
    pub(super) key: u32,
    /// Defective pixels with the score.
    pub(super) count: u64,
    /// Normal pixels with the score.
    pub(super) tied: u64,
    /// Normal pixels with a lower score, but higher than that of the step before.
    pub(super) gap: u64,
}

pub(super) struct Steps {
    pub(super) ascending: Vec<Step>,
    /// Normal pixels that score higher than every defective one.
    pub(super) above: u64,
}

/// The steps of a ROC curve.
pub(super) fn steps(images: &[PixelScores]) -> Steps {
    let mut scores: Vec<u32> = images.par_iter().flat_map_iter(|i| defective_keys(*i)).collect();
    scores.par_sort_unstable();
    let groups = || scores.chunk_by(|a, b| a == b);
    let keys: Vec<u32> = groups().map(|g| g[0]).collect();
    let normal = NormalCounts::new(images, &keys);
    let step = |(i, g): (usize, &[u32])| Step {
        key: g[0],
        count: g.len() as u64,
        tied: normal.tied(i),
        gap: normal.below(i),
    };
    Steps { ascending: groups().enumerate().map(step).collect(), above: normal.below(keys.len()) }
}

fn defective_keys(image: PixelScores) -> impl Iterator<Item = u32> {
    image.pixels().filter(|(_, defective)| *defective).map(|(score, _)| key(score))
}

/// An integer that orders as the score does. Adding zero turns -0 into 0, which it equals.
pub(super) fn key(score: f32) -> u32 {
    let bits = (score + 0.0).to_bits();
    if bits >> 31 == 0 { bits | 1 << 31 } else { !bits }
}

/// The score of a [`key`].
pub(super) fn score(key: u32) -> f32 {
    f32::from_bits(if key >> 31 == 0 { !key } else { key & !(1 << 31) })
}

/// How many normal pixels lie between and on given keys.
pub(super) struct NormalCounts {
    /// Below the first key, on it, between it and the second, on the second, ...
    slots: Vec<AtomicU64>,
}

impl NormalCounts {
    /// Counts around `keys`, which ascend strictly.
    pub(super) fn new(images: &[PixelScores], keys: &[u32]) -> Self {
        // Few enough for the cache, many enough for little overhead.
        const CHUNK: usize = 1 << 16;
        let slots: Vec<_> = (0..=2 * keys.len()).map(|_| AtomicU64::new(0)).collect();
        let index = KeyIndex::new(keys);
        images.par_iter().flat_map(|image| image.par_parts(CHUNK)).for_each(|part| {
            let mut buffer = Buffer::new(&slots);
            for (score, _) in part.pixels().filter(|(_, defective)| !defective) {
                buffer.add(index.slot(key(score)));
            }
            buffer.flush();
        });
        Self { slots }
    }

    /// On the key `i`.
    pub(super) fn tied(&self, i: usize) -> u64 {
        self.slots[2 * i + 1].load(Relaxed)
    }

    /// Below the key `i` and above the one before it.
    pub(super) fn below(&self, i: usize) -> u64 {
        self.slots[2 * i].load(Relaxed)
    }
}

/// Gathers increments of the same slot before they reach the shared counts. One table of counts
/// serves all threads, as a table each could need more memory than the scores; without the buffer
/// the threads would queue for the few slots that most pixels fall into.
struct Buffer<'a> {
    slots: &'a [AtomicU64],
    pending: [(usize, u64); 256],
}

impl<'a> Buffer<'a> {
    fn new(slots: &'a [AtomicU64]) -> Self {
        Self { slots, pending: [(0, 0); 256] }
    }

    fn add(&mut self, slot: usize) {
        let pending = &mut self.pending[slot % 256];
        if pending.0 != slot {
            self.slots[pending.0].fetch_add(pending.1, Relaxed);
            *pending = (slot, 0);
        }
        pending.1 += 1;
    }

    fn flush(self) {
        for (slot, count) in self.pending {
            self.slots[slot].fetch_add(count, Relaxed);
        }
    }
}

/// Finds a key among sorted ones: the leading bits of its distance from the lowest give a short
/// range by table lookup, in which it is searched for. There are no more entries than keys.
struct KeyIndex<'a> {
    keys: &'a [u32],
    shift: u32,
    /// For each value of the leading bits, the first key that has it or a higher one.
    starts: Vec<usize>,
}

impl<'a> KeyIndex<'a> {
    fn new(keys: &'a [u32]) -> Self {
        let (Some(first), Some(last)) = (keys.first(), keys.last()) else {
            return Self { keys, shift: 0, starts: Vec::new() };
        };
        let mut shift = 0;
        while ((last - first) >> shift) as usize >= keys.len() {
            shift += 1;
        }
        let mut starts = Vec::with_capacity(keys.len() + 1);
        for (i, key) in keys.iter().enumerate() {
            let bucket = ((key - first) >> shift) as usize;
            while starts.len() <= bucket {
                starts.push(i);
            }
        }
        starts.push(keys.len());
        Self { keys, shift, starts }
    }

    /// Twice the number of lower keys, plus one if `key` is itself among them.
    fn slot(&self, key: u32) -> usize {
        let Some(distance) = self.keys.first().and_then(|first| key.checked_sub(*first)) else {
            return 0;
        };
        let bucket = (distance >> self.shift) as usize;
        let (Some(&start), Some(&end)) = (self.starts.get(bucket), self.starts.get(bucket + 1))
        else {
            return 2 * self.keys.len();
        };
        match self.keys[start..end].binary_search(&key) {
            Ok(i) => 2 * (start + i) + 1,
            Err(i) => 2 * (start + i),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Error;

    #[test]
    fn keys_order_as_scores_do() {
        let ascending = [f32::MIN, -2.0, -1.0, -f32::MIN_POSITIVE, 0.0, 1e-45, 1.0, 2.0, f32::MAX];
        for pair in ascending.windows(2) {
            assert!(key(pair[0]) < key(pair[1]), "{pair:?}");
        }
        for s in ascending {
            assert_eq!(score(key(s)), s);
        }
        assert_eq!(key(-0.0), key(0.0));
    }

    #[test]
    fn edge_cases() {
        assert_eq!(image_auroc(&[0.0, -0.0], &[true, false]).unwrap(), 0.5);
        assert_eq!(image_auroc(&[-3.0, -2.0], &[false, true]).unwrap(), 1.0);
        assert_eq!(image_auroc(&[7.0; 9], &[false, true].repeat(5)[..9]).unwrap(), 0.5);
        for labels in [&[true][..], &[false], &[]] {
            let result = image_auroc(&vec![1.0; labels.len()], labels);
            assert!(matches!(result, Err(Error::UndefinedMetric { .. })), "{labels:?}");
        }
        assert!(matches!(pixel_auroc(&[]), Err(Error::UndefinedMetric { .. })));
        assert!(matches!(image_auroc(&[1.0], &[]), Err(Error::ShapeMismatch { .. })));
        let nan = image_auroc(&[1.0, f32::NAN], &[true, false]);
        assert!(matches!(nan, Err(Error::NotFinite { .. })));
    }

    #[test]
    fn pixels_are_checked() {
        let shape = |r: Result<PixelScores>| matches!(r, Err(Error::ShapeMismatch { .. }));
        assert!(shape(PixelScores::new(&[1.0; 5], &[true; 6], [2, 3])));
        assert!(shape(PixelScores::new(&[1.0; 6], &[true; 5], [2, 3])));
        assert!(shape(PixelScores::new(&[], &[], [usize::MAX, 2])));
        let infinite = PixelScores::new(&[f32::INFINITY], &[true], [1, 1]);
        assert!(matches!(infinite, Err(Error::NotFinite { .. })));
    }

    /// Enough to fill several chunks, and more slots than the buffer holds.
    #[test]
    fn many_pixels() {
        let scores: Vec<f32> =
            (0..90_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 14) as f32).collect();
        let truth: Vec<bool> = (0..90_000).map(|i| i % 17 == 0).collect();
        let of =
            |class| scores.iter().zip(&truth).filter(move |(_, t)| **t == class).map(|(s, _)| *s);
        let mut normal: Vec<f32> = of(false).collect();
        normal.sort_by(f32::total_cmp);
        let below =
            |s: f32| normal.partition_point(|n| *n < s) + normal.partition_point(|n| *n <= s);
        let expected = of(true).map(below).sum::<usize>() as f64
            / (2 * normal.len() * of(true).count()) as f64;
        let image = PixelScores::new(&scores, &truth, [300, 300]).unwrap();
        assert_eq!(pixel_auroc(&[image]).unwrap(), expected);
    }

    /// Scores with ties and negative ones among them, or nearly without ties.
    fn labelled() -> impl Strategy<Value = Vec<(f32, bool)>> {
        let coarse = (-4i8..5).prop_map(|v| f32::from(v) / 2.0);
        let score = prop_oneof![coarse, -1e3f32..1e3, Just(-0.0)];
        prop::collection::vec((score, any::<bool>()), 0..60)
    }

    proptest! {
        #[test]
        fn auroc_counts_pairs(data in labelled(), split in 0usize..60) {
            let (scores, truth): (Vec<f32>, Vec<bool>) = data.iter().copied().unzip();
            let (mut right, mut pairs) = (0.0, 0.0);
            for (p, _) in data.iter().filter(|d| d.1) {
                for (n, _) in data.iter().filter(|d| !d.1) {
                    right += if p > n { 1.0 } else if p == n { 0.5 } else { 0.0 };
                    pairs += 1.0;
                }
            }
            let split = split.min(data.len());
            let images = [0..split, split..data.len()]
                .map(|r| PixelScores::new(&scores[r.clone()], &truth[r.clone()], [1, r.len()]).unwrap());
            if pairs == 0.0 {
                prop_assert!(image_auroc(&scores, &truth).is_err());
                prop_assert!(pixel_auroc(&images).is_err());
            } else {
                prop_assert!((image_auroc(&scores, &truth).unwrap() - right / pairs).abs() < 1e-12);
                prop_assert_eq!(pixel_auroc(&images).unwrap(), image_auroc(&scores, &truth).unwrap());
            }
        }

        #[test]
        fn slots_are_found(
            mut keys in prop::collection::vec(prop_oneof![0u32..40, any::<u32>()], 0..50),
            others in prop::collection::vec(prop_oneof![0u32..40, any::<u32>()], 50),
        ) {
            keys.sort_unstable();
            keys.dedup();
            let index = KeyIndex::new(&keys);
            for k in keys.iter().chain(&others).chain(&[0, u32::MAX]) {
                let lower = keys.iter().filter(|o| *o < k).count();
                prop_assert_eq!(index.slot(*k), 2 * lower + usize::from(keys.contains(k)));
            }
        }
    }
}

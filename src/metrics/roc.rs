//! The ROC curve and its area, and the counts that the other metrics use, too.

use rayon::prelude::*;

use super::counts::NormalCounts;
use super::curve::corners;
use super::pixel_scores::{PixelScores, undefined};
use crate::error::Result;
use crate::ordered::key;

/// The area under the ROC curve of image scores: the probability that a defective image scores
/// higher than a good one. A tie counts one half.
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

/// The area under the ROC curve of pixel scores, over the pixels of all images.
///
/// # Errors
///
/// [`Error::UndefinedMetric`](crate::Error::UndefinedMetric) unless there are both defective and
/// normal pixels.
pub fn pixel_auroc(images: &[PixelScores]) -> Result<f64> {
    area(images, OF_PIXELS)
}

/// The metric's name, and the messages for no defective and no good example.
type Names = (&'static str, [&'static str; 2]);

const OF_IMAGES: Names = ("image AUROC", ["there is no defective image", "there is no good image"]);
const OF_PIXELS: Names =
    ("pixel AUROC", ["there is no defective pixel", "there is no normal pixel"]);

fn area(images: &[PixelScores], (metric, missing): Names) -> Result<f64> {
    let steps = Steps::of(images);
    // Twice the number of correctly ordered pairs: a tie counts as half a pair.
    let (mut twice, mut defective, mut below) = (0u128, 0u128, 0u128);
    for step in steps.ascending() {
        below += u128::from(step.gap);
        let (count, tied) = (u128::from(step.count), u128::from(step.tied));
        twice += count * (2 * below + tied);
        defective += count;
        below += tied;
    }
    let normal = below + u128::from(steps.above());
    match (defective, normal) {
        (0, _) => Err(undefined(metric, missing[0])),
        (_, 0) => Err(undefined(metric, missing[1])),
        _ => Ok(twice as f64 / (2 * defective * normal) as f64),
    }
}

/// The ROC curve of image scores, for drawing: points `[false positive rate, true positive rate]`
/// from (0, 0) to (1, 1), thinned to about `count`.
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
    let steps = Steps::of(images);
    let lines = || {
        let of_steps =
            steps.descending().flat_map(|s| [[s.tied as f64, s.count as f64], [s.gap as f64, 0.0]]);
        std::iter::once([steps.above() as f64, 0.0]).chain(of_steps)
    };
    let end = lines().fold([0.0; 2], |end, line| [end[0] + line[0], end[1] + line[1]]);
    match end {
        [_, 0.0] => Err(undefined(metric, missing[0])),
        [0.0, _] => Err(undefined(metric, missing[1])),
        _ => Ok(corners(lines(), end, count)),
    }
}

/// The counts at one distinct score of defective pixels.
pub(super) struct Step {
    pub(super) key: u32,
    /// Defective pixels with the score.
    pub(super) count: u64,
    /// Normal pixels with the score.
    pub(super) tied: u64,
    /// Normal pixels between this score and the next lower step's.
    pub(super) gap: u64,
}

/// The steps of a ROC curve.
pub(super) struct Steps {
    /// The keys of all defective pixels' scores, ascending.
    defective: Vec<u32>,
    /// The number of distinct keys.
    distinct: usize,
    normal: NormalCounts,
}

impl Steps {
    pub(super) fn of(images: &[PixelScores]) -> Self {
        let mut defective: Vec<u32> =
            images.par_iter().flat_map_iter(|i| defective_keys(*i)).collect();
        defective.par_sort_unstable();
        let groups = defective.chunk_by(|a, b| a == b);
        let keys: Vec<u32> = groups.map(|group| group[0]).collect();
        let normal = NormalCounts::new(images, &keys);
        Self { distinct: keys.len(), defective, normal }
    }

    /// The number of defective pixels.
    pub(super) fn defective(&self) -> u64 {
        self.defective.len() as u64
    }

    /// The number of normal pixels that score higher than every defective pixel.
    pub(super) fn above(&self) -> u64 {
        self.normal.below(self.distinct)
    }

    pub(super) fn ascending(&self) -> impl Iterator<Item = Step> {
        let groups = self.defective.chunk_by(|a, b| a == b);
        (0..self.distinct).zip(groups).map(|(i, group)| self.step(i, group))
    }

    pub(super) fn descending(&self) -> impl Iterator<Item = Step> {
        let groups = self.defective.chunk_by(|a, b| a == b).rev();
        (0..self.distinct).rev().zip(groups).map(|(i, group)| self.step(i, group))
    }

    fn step(&self, i: usize, group: &[u32]) -> Step {
        Step {
            key: group[0],
            count: group.len() as u64,
            tied: self.normal.tied(i),
            gap: self.normal.below(i),
        }
    }
}

fn defective_keys(image: PixelScores) -> impl Iterator<Item = u32> {
    image.pixels().filter(|(_, defective)| *defective).map(|(score, _)| key(score))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::error::Error;

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

    /// Positive and negative scores, with many ties or nearly none.
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
    }
}

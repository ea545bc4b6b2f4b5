//! The area under the per-region overlap curve.

use rayon::prelude::*;

use super::counts::NormalCounts;
use super::curve::corners;
use super::pixel_scores::{PixelScores, undefined};
use crate::error::{Error, Result};
use crate::ordered::key;
use crate::regions::connected_regions;

/// The false positive rate up to which the literature integrates (Bergmann et al. 2021). A
/// segmentation with more false positives is of no practical use.
pub const DEFAULT_FPR_LIMIT: f64 = 0.3;

/// The area under the per-region overlap (PRO) curve from zero to the false positive rate
/// `fpr_limit`, divided by `fpr_limit`; in `[0, 1]`.
///
/// The PRO at a threshold is the mean, over the 8-connected defective regions of all images, of the
/// share of a region that is found. The false positive rate is over the normal pixels of all
/// images. Unlike in [`pixel_auroc`](super::pixel_auroc), a small region counts as much as a large
/// one.
///
/// The curve has a point for every distinct score. It is interpolated linearly, also at the limit.
///
/// # Errors
///
/// [`Error::InvalidConfig`] if the limit is not in `(0, 1]`, [`Error::UndefinedMetric`] unless there
/// are both defective and normal pixels.
pub fn aupro(images: &[PixelScores], fpr_limit: f64) -> Result<f64> {
    if !(fpr_limit > 0.0 && fpr_limit <= 1.0) {
        let reason = format!("must be above 0 and at most 1, is {fpr_limit}");
        return Err(Error::config("fpr_limit", reason));
    }
    let overlap = Overlap::new(images, fpr_limit)?;
    let limit = fpr_limit * overlap.normal as f64;
    let (mut x, mut y, mut area) = (0.0, 0.0, 0.0);
    for [dx, dy] in overlap.lines() {
        let width = f64::clamp(limit - x, 0.0, dx);
        if width > 0.0 {
            area += width * (y + 0.5 * dy * width / dx);
        }
        (x, y) = (x + dx, y + dy);
    }
    // Rounding in the sum of overlaps could lift a perfect score above one.
    Ok((area / (limit * overlap.regions as f64)).min(1.0))
}

/// The per-region overlap curve, for drawing: points `[false positive rate, per-region overlap]`
/// from (0, 0) to (1, 1), thinned to about `count`.
///
/// # Errors
///
/// [`Error::UndefinedMetric`] unless there are both defective and normal pixels.
pub fn pro_curve(images: &[PixelScores], count: usize) -> Result<Vec<[f64; 2]>> {
    let overlap = Overlap::new(images, f64::INFINITY)?;
    let end = [overlap.normal as f64, overlap.regions as f64];
    Ok(corners(overlap.lines(), end, count))
}

/// The per-region overlap curve, complete at least up to a given false positive rate.
struct Overlap {
    /// For each defective pixel, the key of its score (upper 32 bits) and the area of its region
    /// (lower 32 bits); sorted.
    pixels: Vec<u64>,
    counts: NormalCounts,
    keys: usize,
    normal: u64,
    regions: usize,
}

impl Overlap {
    fn new(images: &[PixelScores], fpr_limit: f64) -> Result<Self> {
        // Pixels below `lowest` come after the limit and need not be sorted.
        let (normal, lowest) = top_normal(images, fpr_limit);
        let of_images: Vec<_> =
            images.par_iter().map(|i| region_pixels(*i, lowest)).collect::<Result<_>>()?;
        let regions: usize = of_images.iter().map(|i| i.0).sum();
        if regions == 0 {
            return Err(undefined("AUPRO", "there is no defective region"));
        }
        let mut pixels: Vec<_> = of_images.into_iter().flat_map(|i| i.1).collect();
        pixels.par_sort_unstable();
        let keys: Vec<u32> = pixels.chunk_by(same_key).map(|g| (g[0] >> 32) as u32).collect();
        let counts = NormalCounts::new(images, &keys);
        let keys = keys.len();
        if normal == 0 {
            return Err(undefined("AUPRO", "there is no normal pixel"));
        }
        Ok(Self { pixels, counts, keys, normal, regions })
    }

    /// The curve's segments `[new false positives, newly found regions]`, from the highest score
    /// down. Between the scores of defective pixels, only false positives grow. At such a score,
    /// all its pixels come at once, which gives a slanted segment.
    fn lines(&self) -> impl Iterator<Item = [f64; 2]> {
        let groups = self.pixels.chunk_by(same_key).rev();
        let of_keys = (0..self.keys).rev().zip(groups).flat_map(|(i, group)| {
            let found = group.iter().map(|pixel| 1.0 / f64::from(*pixel as u32)).sum();
            [[self.counts.tied(i) as f64, found], [self.counts.below(i) as f64, 0.0]]
        });
        std::iter::once([self.counts.below(self.keys) as f64, 0.0]).chain(of_keys)
    }
}

/// The number of normal pixels, and a key that at least `share` of them reach; 0 if there is no
/// such key.
fn top_normal(images: &[PixelScores], share: f64) -> (u64, u32) {
    // A histogram over the upper 16 bits of the keys.
    let add = |mut counts: Vec<u64>, image: &PixelScores| {
        let normal = image.pixels().filter(|(_, defective)| !defective);
        normal.for_each(|(score, _)| counts[key(score) as usize >> 16] += 1);
        counts
    };
    let empty = || vec![0_u64; 1 << 16];
    let sum = |mut a: Vec<u64>, b: Vec<u64>| {
        a.iter_mut().zip(b).for_each(|(a, b)| *a += b);
        a
    };
    let counts = images.par_iter().fold(empty, add).reduce(empty, sum);
    let normal: u64 = counts.iter().sum();
    let mut above = 0;
    let reached = counts.iter().enumerate().rev().find(|(_, count)| {
        above += *count;
        above as f64 >= share * normal as f64
    });
    (normal, reached.map_or(0, |(half, _)| (half as u32) << 16))
}

fn same_key(a: &u64, b: &u64) -> bool {
    a >> 32 == b >> 32
}

/// The number of regions in an image, and for each defective pixel with a key of at least `lowest`
/// the key and the area of its region, packed into one `u64`.
fn region_pixels(image: PixelScores, lowest: u32) -> Result<(usize, Vec<u64>)> {
    let width = image.size[1].max(1);
    let mut rows = image.truth.chunks(width).enumerate().filter(|(_, row)| row.contains(&true));
    let Some((first, _)) = rows.next() else { return Ok((0, Vec::new())) };
    let last = rows.next_back().map_or(first, |(row, _)| row);
    // Defects are mostly small, so only the rows that contain them are searched.
    let pixels = first * width..(last + 1) * width;
    let (truth, size) = (&image.truth[pixels.clone()], [last + 1 - first, width]);
    let regions = match image.region {
        None => connected_regions(truth, size)?,
        // Only the part of a defect inside the region of interest counts.
        Some(region) => {
            let region = &region[pixels.clone()];
            let inside: Vec<bool> = truth.iter().zip(region).map(|(t, r)| *t && *r).collect();
            connected_regions(&inside, size)?
        }
    };
    let keys = image.scores[pixels].iter().map(|score| key(*score));
    let found = keys.zip(regions.labels()).filter_map(|(key, label)| {
        // `connected_regions` refuses 2^32 pixels or more, so an area fits into 32 bits.
        let area = regions.area(*label).filter(|_| key >= lowest)?;
        Some(u64::from(key) << 32 | area as u64)
    });
    Ok((regions.areas().len(), found.collect()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn one(scores: &[f32], truth: &[bool], size: [usize; 2], limit: f64) -> Result<f64> {
        aupro(&[PixelScores::new(scores, truth, size)?], limit)
    }

    #[test]
    fn edge_cases() {
        let undefined = |r| matches!(r, Err(Error::UndefinedMetric { .. }));
        assert!(undefined(aupro(&[], 0.3)));
        assert!(undefined(one(&[], &[], [0, 0], 0.3)));
        assert!(undefined(one(&[1.0], &[true], [1, 1], 0.3)));
        assert!(undefined(one(&[1.0], &[false], [1, 1], 0.3)));
        for limit in [0.0, -0.1, 1.1, f64::NAN] {
            let result = one(&[1.0, 2.0], &[true, false], [1, 2], limit);
            assert!(matches!(result, Err(Error::InvalidConfig { field: "fpr_limit", .. })));
        }
        assert_eq!(one(&[-1.0, -2.0], &[true, false], [1, 2], 0.3).unwrap(), 1.0);
        assert_eq!(one(&[-2.0, -1.0], &[true, false], [1, 2], 1.0).unwrap(), 0.0);
        let tied = one(&[0.0, -0.0], &[true, false], [1, 2], 0.3).unwrap();
        assert!((tied - 0.15).abs() < 1e-15);
    }

    #[test]
    fn small_regions_count_as_much_as_large_ones() {
        let truth = [true, true, true, true, false, true];
        let scores = [9.0, 9.0, 9.0, 9.0, 5.0, 1.0];
        assert_eq!(one(&scores, &truth, [1, 6], 1.0).unwrap(), 0.5);
    }

    /// Reference: predicts the masks anew at every score.
    fn naive(images: &[(Vec<f32>, Vec<bool>)], size: [usize; 2], limit: f64) -> Option<f64> {
        let mut thresholds: Vec<f32> = images.iter().flat_map(|i| i.0.clone()).collect();
        thresholds.sort_by(|a, b| b.total_cmp(a));
        let regions: Vec<_> =
            images.iter().map(|i| connected_regions(&i.1, size).unwrap()).collect();
        let (mut last, mut area) = ((0.0, 0.0), 0.0);
        for t in thresholds {
            let (mut false_positives, mut normal, mut overlaps) = (0.0, 0.0, Vec::new());
            for ((scores, truth), regions) in images.iter().zip(&regions) {
                normal += truth.iter().filter(|t| !**t).count() as f64;
                false_positives += scores
                    .iter()
                    .zip(truth)
                    .filter(|(s, defective)| !**defective && **s >= t)
                    .count() as f64;
                for label in 1..=regions.areas().len() as u32 {
                    let inside = scores.iter().zip(regions.labels()).filter(|(_, l)| **l == label);
                    let found = inside.clone().filter(|(s, _)| **s >= t).count();
                    overlaps.push(found as f64 / inside.count() as f64);
                }
            }
            if normal == 0.0 || overlaps.is_empty() {
                return None;
            }
            let mut next: (f64, f64) =
                (false_positives / normal, overlaps.iter().sum::<f64>() / overlaps.len() as f64);
            let end = next;
            if next.0 > limit && last.0 < limit {
                let part = (limit - last.0) / (next.0 - last.0);
                next = (limit, last.1 + part * (next.1 - last.1));
            }
            if next.0 <= limit {
                area += (next.0 - last.0) * (next.1 + last.1) / 2.0;
            }
            last = end;
        }
        Some(area / limit)
    }

    proptest! {
        #[test]
        fn as_by_every_threshold(
            size in [1usize..7, 1usize..7],
            levels in 1u8..9,
            pixels in prop::collection::vec((any::<u8>(), 0u8..3), 72),
            limit in prop_oneof![Just(1.0), Just(0.3), 0.01f64..1.0],
        ) {
            let area = size[0] * size[1];
            let images: Vec<(Vec<f32>, Vec<bool>)> = pixels[..2 * area]
                .chunks(area)
                .map(|c| c.iter().map(|(s, t)| (f32::from(s % (1 << (levels - 1))) - 3.0, *t == 0)).unzip())
                .collect();
            let scored: Vec<_> =
                images.iter().map(|(s, t)| PixelScores::new(s, t, size).unwrap()).collect();
            match (naive(&images, size, limit), aupro(&scored, limit)) {
                (Some(expected), Ok(actual)) => {
                    prop_assert!((expected - actual).abs() < 1e-9);
                    let curve = pro_curve(&scored, usize::MAX).unwrap();
                    let end = curve[curve.len() - 1];
                    prop_assert!((end[0] - 1.0).abs() + (end[1] - 1.0).abs() < 1e-9);
                    let trapezoid = |p: &[[f64; 2]]| (p[1][0] - p[0][0]) * (p[1][1] + p[0][1]) / 2.0;
                    let area: f64 = curve.windows(2).map(trapezoid).sum();
                    prop_assert!((area - aupro(&scored, 1.0).unwrap()).abs() < 1e-9);
                }
                (None, Err(Error::UndefinedMetric { .. })) => {}
                other => prop_assert!(false, "{other:?}"),
            }
        }
    }
}

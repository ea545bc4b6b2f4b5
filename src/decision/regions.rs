//! Connected regions of pixels that reach a threshold.

use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::regions::connected_regions;
use crate::scoring::AnomalyMap;

/// A connected region of pixels that reach the pixel threshold.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct AnomalyRegion {
    /// The first row that it touches.
    pub top: usize,
    /// The first column that it touches.
    pub left: usize,
    /// The number of rows from the first to the last.
    pub height: usize,
    /// The number of columns from the first to the last.
    pub width: usize,
    /// The number of its pixels.
    pub area: usize,
    /// Its highest score.
    pub peak: f32,
    /// Its mean score.
    pub mean: f32,
}

/// The regions of pixels that score at least `threshold`, with at least `smallest_area` pixels,
/// highest peak first. Pixels that touch at a corner are connected.
pub(crate) fn anomaly_regions(
    map: &AnomalyMap,
    threshold: f32,
    smallest_area: usize,
) -> Result<Vec<AnomalyRegion>> {
    let marked: Vec<bool> = map.values().iter().map(|&score| score >= threshold).collect();
    let regions = connected_regions(&marked, map.size())?;
    let empty = AnomalyRegion {
        top: usize::MAX,
        left: usize::MAX,
        height: 0,
        width: 0,
        area: 0,
        peak: f32::NEG_INFINITY,
        mean: 0.0,
    };
    let mut defects = vec![empty; regions.areas().len()];
    let mut sums = vec![0.0_f64; defects.len()];
    let width = map.size()[1];
    let pixels = map.values().iter().zip(regions.labels()).enumerate();
    for (place, (&score, &label)) in pixels.filter(|(_, (_, label))| **label > 0) {
        let (y, x) = (place / width, place % width);
        let defect = &mut defects[label as usize - 1];
        defect.top = defect.top.min(y);
        defect.height = y + 1 - defect.top;
        // The left end may still move, so until the loop ends, `width` holds the right end.
        defect.left = defect.left.min(x);
        defect.width = defect.width.max(x + 1);
        defect.area += 1;
        defect.peak = defect.peak.max(score);
        sums[label as usize - 1] += f64::from(score);
    }
    for (defect, sum) in defects.iter_mut().zip(sums) {
        defect.width -= defect.left;
        defect.mean = (sum / defect.area as f64) as f32;
    }
    defects.retain(|defect| defect.area >= smallest_area);
    defects.sort_by(|a, b| b.peak.total_cmp(&a.peak));
    Ok(defects)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boxes_areas_and_scores() {
        let rows = [
            [0.0, 5.0, 0.0, 0.0, 0.0],
            [7.0, 0.0, 0.0, 0.0, 9.0],
            [0.0, 6.0, 0.0, 0.0, 0.0],
            [0.0, 0.0, 0.0, 4.9, 0.0],
        ];
        let map = AnomalyMap::new([4, 5], rows.concat()).unwrap();
        let single =
            AnomalyRegion { top: 1, left: 4, height: 1, width: 1, area: 1, peak: 9.0, mean: 9.0 };
        let bent =
            AnomalyRegion { top: 0, left: 0, height: 3, width: 2, area: 3, peak: 7.0, mean: 6.0 };
        assert_eq!(anomaly_regions(&map, 5.0, 1).unwrap(), [single, bent]);
        assert_eq!(anomaly_regions(&map, 5.0, 2).unwrap(), [bent]);
        assert_eq!(anomaly_regions(&map, 10.0, 1).unwrap(), []);
        assert_eq!(anomaly_regions(&map, -1.0, 1).unwrap()[0].area, 20);
    }
}

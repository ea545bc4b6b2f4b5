//! Connected regions of a mask.

use crate::error::{Error, Result};

/// The regions of a mask, numbered from one in the order of their first pixels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Regions {
    labels: Vec<u32>,
    areas: Vec<usize>,
}

impl Regions {
    /// The label of each pixel's region, 0 outside of all regions. Row-major.
    pub fn labels(&self) -> &[u32] {
        &self.labels
    }

    /// The number of pixels of each region, in the order of labels, from 1.
    pub fn areas(&self) -> &[usize] {
        &self.areas
    }

    /// The number of pixels of the region with this label, `None` for the background.
    pub fn area(&self, label: u32) -> Option<usize> {
        (label as usize).checked_sub(1).and_then(|i| self.areas.get(i)).copied()
    }
}

/// The regions of set pixels that touch along a side or at a corner (8-connected), as benchmarks
/// count defects. `size` is `[height, width]`.
///
/// # Errors
///
/// [`Error::ShapeMismatch`] if the mask does not have `height * width` pixels, or has 2^32 pixels
/// or more.
pub fn connected_regions(mask: &[bool], size: [usize; 2]) -> Result<Regions> {
    if size[0].checked_mul(size[1]) != Some(mask.len()) {
        return Err(Error::shape("mask", format!("{size:?} pixels (height, width)"), mask.len()));
    }
    if u32::try_from(mask.len()).is_err() {
        return Err(Error::shape("mask", "fewer than 2^32 pixels", mask.len()));
    }
    let width = size[1];
    // Provisional labels, and the parent of each label: a lower label of the same region, or itself.
    let mut labels = vec![0u32; mask.len()];
    let mut parents = vec![0u32];
    for i in (0..mask.len()).filter(|i| mask[*i]) {
        let (left, right) = (i % width > 0, i % width + 1 < width);
        let earlier =
            [(left, 1), (left, width + 1), (true, width), (right, width.saturating_sub(1))];
        let mut label = 0;
        for (inside, back) in earlier {
            let Some(other) = i.checked_sub(back).filter(|_| inside).map(|j| labels[j]) else {
                continue;
            };
            if other != 0 {
                label = if label == 0 {
                    root(&parents, other)
                } else {
                    join(&mut parents, label, other)
                };
            }
        }
        if label == 0 {
            label = parents.len() as u32;
            parents.push(label);
        }
        labels[i] = label;
    }

    // A label's parent is lower, so one pass in order resolves all chains.
    let mut areas = Vec::new();
    for i in 1..parents.len() {
        if parents[i] as usize == i {
            areas.push(0);
            parents[i] = areas.len() as u32;
        } else {
            parents[i] = parents[parents[i] as usize];
        }
    }
    for label in labels.iter_mut().filter(|l| **l != 0) {
        *label = parents[*label as usize];
        areas[*label as usize - 1] += 1;
    }
    Ok(Regions { labels, areas })
}

fn root(parents: &[u32], mut label: u32) -> u32 {
    while parents[label as usize] != label {
        label = parents[label as usize];
    }
    label
}

/// Merges the regions of two labels, and returns the lowest label.
fn join(parents: &mut [u32], a: u32, b: u32) -> u32 {
    let (a, b) = (root(parents, a), root(parents, b));
    parents[a.max(b) as usize] = a.min(b);
    a.min(b)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn edge_cases() {
        for (mask, size) in [(&[][..], [0, 0]), (&[], [0, 3]), (&[false; 6], [2, 3])] {
            assert!(connected_regions(mask, size).unwrap().areas().is_empty());
        }
        let pixel = connected_regions(&[true], [1, 1]).unwrap();
        assert_eq!((pixel.labels(), pixel.areas()), (&[1][..], &[1][..]));
        assert_eq!([0, 1, 2].map(|l| pixel.area(l)), [None, Some(1), None]);
        assert!(matches!(connected_regions(&[true], [1, 2]), Err(Error::ShapeMismatch { .. })));
    }

    #[test]
    fn corners_connect_but_borders_do_not_wrap() {
        let mask = [0, 0, 1, 1, 0, 0, 0, 1, 0].map(|v| v == 1);
        assert_eq!(connected_regions(&mask, [3, 3]).unwrap().labels(), [0, 0, 1, 2, 0, 0, 0, 2, 0]);
    }

    fn flood_fill(mask: &[bool], [height, width]: [usize; 2]) -> Regions {
        let mut regions = Regions { labels: vec![0; mask.len()], areas: Vec::new() };
        for start in 0..mask.len() {
            if !mask[start] || regions.labels[start] != 0 {
                continue;
            }
            regions.areas.push(0);
            let label = regions.areas.len() as u32;
            let mut queue = vec![(start / width, start % width)];
            while let Some((y, x)) = queue.pop() {
                let i = y * width + x;
                if mask[i] && regions.labels[i] == 0 {
                    regions.labels[i] = label;
                    regions.areas[label as usize - 1] += 1;
                    for ny in y.saturating_sub(1)..(y + 2).min(height) {
                        queue.extend((x.saturating_sub(1)..(x + 2).min(width)).map(|nx| (ny, nx)));
                    }
                }
            }
        }
        regions
    }

    proptest! {
        #[test]
        fn as_by_flood_fill(
            size in [1usize..14, 1usize..14],
            density in 0u8..5,
            values in prop::collection::vec(0u8..4, 169),
        ) {
            let mask: Vec<bool> = values[..size[0] * size[1]].iter().map(|v| *v < density).collect();
            prop_assert_eq!(connected_regions(&mask, size).unwrap(), flood_fill(&mask, size));
        }
    }
}

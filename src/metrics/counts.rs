//! Counts normal pixels between the scores of defective pixels.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use rayon::prelude::*;

use super::pixel_scores::PixelScores;
use crate::ordered::key;

/// The number of normal pixels at each key and between keys.
pub(super) struct NormalCounts {
    /// Counts below the first key, equal to it, between it and the second, equal to the second, ...
    slots: Vec<AtomicU64>,
}

impl NormalCounts {
    /// `keys` must be strictly ascending.
    pub(super) fn new(images: &[PixelScores], keys: &[u32]) -> Self {
        // Large groups load the counts into the cache less often. Small groups need less memory and
        // balance the threads better.
        let pixels: usize = images.iter().map(|image| image.scores.len()).sum();
        let size = (pixels / (4 * rayon::current_num_threads())).clamp(1 << 16, 1 << 24);
        Self::by_groups(images, keys, size)
    }

    /// First sorts each group of about `size` pixels into ranges of keys. The keys may exceed the
    /// cache, and random access to them would take most of the time.
    fn by_groups(images: &[PixelScores], keys: &[u32], size: usize) -> Self {
        let index = KeyIndex::new(keys);
        let slots: Vec<_> = (0..=2 * keys.len()).map(|_| AtomicU64::new(0)).collect();
        let parts: Vec<PixelScores> = images.iter().flat_map(|i| i.parts(size)).collect();
        let groups = groups(&parts, size);
        groups.into_par_iter().for_each_init(
            || vec![Vec::new(); index.part_count()],
            |sorted, group| {
                let (mut below, mut above) = (0, 0);
                let pixels = group.iter().flat_map(PixelScores::pixels);
                for (score, _) in pixels.filter(|(_, defective)| !defective) {
                    let key = key(score);
                    match index.place(key) {
                        Place::Below => below += 1,
                        Place::Part(part) => sorted[part].push(key),
                        Place::Above => above += 1,
                    }
                }
                slots[0].fetch_add(below, Relaxed);
                slots[2 * keys.len()].fetch_add(above, Relaxed);
                let mut counts = Vec::new();
                for (part, found) in sorted.iter_mut().enumerate().filter(|(_, f)| !f.is_empty()) {
                    let range = index.slots(part);
                    counts.clear();
                    counts.resize(range.len(), 0);
                    for key in found.drain(..) {
                        counts[index.slot(key) - range.start] += 1;
                    }
                    for (slot, &count) in slots[range].iter().zip(&counts) {
                        if count > 0 {
                            slot.fetch_add(count, Relaxed);
                        }
                    }
                }
            },
        );
        Self { slots }
    }

    /// Normal pixels equal to key `i`.
    pub(super) fn tied(&self, i: usize) -> u64 {
        self.slots[2 * i + 1].load(Relaxed)
    }

    /// Normal pixels below key `i` and above the key before it.
    pub(super) fn below(&self, i: usize) -> u64 {
        self.slots[2 * i].load(Relaxed)
    }
}

/// Groups consecutive parts to about `size` pixels.
fn groups<'a, 'b>(parts: &'a [PixelScores<'b>], size: usize) -> Vec<&'a [PixelScores<'b>]> {
    let (mut groups, mut first, mut pixels) = (Vec::new(), 0, 0);
    for (i, part) in parts.iter().enumerate() {
        pixels += part.scores.len();
        if pixels >= size {
            groups.push(&parts[first..=i]);
            (first, pixels) = (i + 1, 0);
        }
    }
    groups.push(&parts[first..]);
    groups
}

/// Finds a key among sorted keys. The leading bits of its distance from the lowest key select a
/// short range from a table, which is then searched. The table has at most as many ranges as there
/// are keys.
struct KeyIndex<'a> {
    keys: &'a [u32],
    shift: u32,
    /// For each value of the leading bits, the index of the first key with this or a higher value.
    starts: Vec<usize>,
    /// The number of further bits to drop from the leading bits to get the number of a part.
    part_shift: u32,
}

/// Where a key lies relative to the indexed keys.
enum Place {
    Below,
    Part(usize),
    Above,
}

impl<'a> KeyIndex<'a> {
    /// Few enough to write to all parts alternately, many enough that one part fits into the cache.
    const PARTS: usize = 1024;

    fn new(keys: &'a [u32]) -> Self {
        let (Some(first), Some(last)) = (keys.first(), keys.last()) else {
            return Self { keys, shift: 0, starts: Vec::new(), part_shift: 0 };
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
        let mut part_shift = 0;
        while (starts.len() - 1) >> part_shift >= Self::PARTS {
            part_shift += 1;
        }
        starts.push(keys.len());
        Self { keys, shift, starts, part_shift }
    }

    fn part_count(&self) -> usize {
        match self.starts.len() {
            0 => 0,
            ends => ((ends - 2) >> self.part_shift) + 1,
        }
    }

    fn place(&self, key: u32) -> Place {
        match self.keys {
            [first, .., last] | [first @ last] if (*first..=*last).contains(&key) => {
                Place::Part(((key - first) >> self.shift >> self.part_shift) as usize)
            }
            [first, ..] if key > *first => Place::Above,
            _ => Place::Below,
        }
    }

    /// The slots of the keys in a part.
    fn slots(&self, part: usize) -> std::ops::Range<usize> {
        let end = ((part + 1) << self.part_shift).min(self.starts.len() - 1);
        2 * self.starts[part << self.part_shift]..2 * self.starts[end] + 1
    }

    /// Twice the number of lower indexed keys, plus one if `key` is indexed.
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

    fn some_keys() -> impl Strategy<Value = Vec<u32>> {
        let keys = prop::collection::vec(prop_oneof![0u32..40, any::<u32>()], 0..50);
        keys.prop_map(|mut keys| {
            keys.sort_unstable();
            keys.dedup();
            keys
        })
    }

    proptest! {
        #[test]
        fn slots_are_found(
            keys in some_keys(),
            others in prop::collection::vec(prop_oneof![0u32..40, any::<u32>()], 50),
        ) {
            let index = KeyIndex::new(&keys);
            for k in keys.iter().chain(&others).chain(&[0, u32::MAX]) {
                let lower = keys.iter().filter(|o| *o < k).count();
                let slot = 2 * lower + usize::from(keys.contains(k));
                prop_assert_eq!(index.slot(*k), slot);
                match index.place(*k) {
                    Place::Below => prop_assert_eq!(slot, 0),
                    Place::Part(part) => {
                        prop_assert!(part < index.part_count() && index.slots(part).contains(&slot));
                    }
                    Place::Above => prop_assert_eq!(slot, 2 * keys.len()),
                }
            }
        }

        #[test]
        fn groups_of_any_size_count_the_same(
            pixels in prop::collection::vec((-20i8..20, any::<bool>()), 1..200),
            split in 0usize..200,
            size in 1usize..50,
        ) {
            let (scores, truth): (Vec<f32>, Vec<bool>) =
                pixels.iter().map(|(s, t)| (f32::from(*s), *t)).unzip();
            let split = split.min(scores.len());
            let images = [0..split, split..scores.len()]
                .map(|r| PixelScores::new(&scores[r.clone()], &truth[r.clone()], [1, r.len()]).unwrap());
            let mut keys: Vec<u32> = pixels.iter().filter(|p| p.1).map(|p| key(p.0.into())).collect();
            keys.sort_unstable();
            keys.dedup();
            let counts = NormalCounts::by_groups(&images, &keys, size);
            let normal = || pixels.iter().filter(|p| !p.1).map(|p| key(p.0.into()));
            for (i, k) in keys.iter().enumerate() {
                prop_assert_eq!(counts.tied(i), normal().filter(|n| n == k).count() as u64);
                let lower = i.checked_sub(1).map(|before| keys[before]);
                let between = normal().filter(|n| n < k && lower.is_none_or(|lower| *n > lower));
                prop_assert_eq!(counts.below(i), between.count() as u64);
            }
            let above = normal().filter(|n| keys.last().is_none_or(|last| n > last)).count();
            prop_assert_eq!(counts.below(keys.len()), above as u64);
        }
    }
}

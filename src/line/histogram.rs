//! A histogram of durations in a fixed amount of memory.

use serde::{Deserialize, Serialize};

use std::time::Duration;

/// Each power of two is divided into this many slots of equal width.
const SLOTS: usize = 1 << SLOT_BITS;
const SLOT_BITS: u32 = 5;
/// The number of slots for 64-bit nanoseconds.
const COUNT: usize = (64 - SLOT_BITS as usize + 1) * SLOTS;

/// Counts durations on a logarithmic scale, in 15 KB for any number of durations.
///
/// A percentile is the upper end of the slot of the exact value, but at most the maximum. It is
/// never too low, and at most 1/32 (3.1 %) too high. Durations below 64 ns, the maximum and the
/// mean are exact.
///
/// ```
/// use padim::line::LatencyHistogram;
/// use std::time::Duration;
///
/// let mut histogram = LatencyHistogram::default();
/// (1..=100).for_each(|ms| histogram.record(Duration::from_millis(ms)));
/// let p90 = histogram.percentile(0.9);
/// assert!(p90 >= Duration::from_millis(90) && p90 <= Duration::from_millis(93));
/// assert_eq!(histogram.max(), Duration::from_millis(100));
/// ```
#[derive(Clone)]
pub struct LatencyHistogram {
    slots: Vec<u64>,
    count: u64,
    sum: u128,
    max: u64,
}

impl Default for LatencyHistogram {
    fn default() -> Self {
        Self { slots: vec![0; COUNT], count: 0, sum: 0, max: 0 }
    }
}

impl std::fmt::Debug for LatencyHistogram {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.summary().fmt(f)
    }
}

/// A summary of durations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Percentiles {
    /// How many durations there were.
    pub count: u64,
    /// Half took at most this long.
    pub p50: Duration,
    /// Nine tenths took at most this long.
    pub p90: Duration,
    /// 99 of 100 took at most this long.
    pub p99: Duration,
    /// The longest.
    pub max: Duration,
    /// The mean.
    pub mean: Duration,
}

impl LatencyHistogram {
    /// Adds a duration. Durations above 584 years count as 584 years.
    pub fn record(&mut self, duration: Duration) {
        let nanoseconds = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        self.slots[slot(nanoseconds)] += 1;
        self.count += 1;
        self.sum += u128::from(nanoseconds);
        self.max = self.max.max(nanoseconds);
    }

    /// How many durations there were.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The longest.
    pub fn max(&self) -> Duration {
        Duration::from_nanos(self.max)
    }

    /// The mean; 0 without any duration.
    pub fn mean(&self) -> Duration {
        let mean = self.sum.checked_div(u128::from(self.count)).unwrap_or(0);
        Duration::from_nanos(u64::try_from(mean).unwrap_or(u64::MAX))
    }

    /// The shortest duration that at least the given share (in `[0, 1]`) of all durations do not
    /// exceed, to the histogram's precision; 0 without any duration.
    pub fn percentile(&self, share: f64) -> Duration {
        let rank = ((share * self.count as f64).ceil() as u64).clamp(1, self.count.max(1));
        let mut below = 0;
        for (slot, count) in self.slots.iter().enumerate() {
            below += count;
            if below >= rank {
                return Duration::from_nanos(upper_end(slot).min(self.max));
            }
        }
        self.max()
    }

    /// The usual percentiles.
    pub fn summary(&self) -> Percentiles {
        Percentiles {
            count: self.count,
            p50: self.percentile(0.5),
            p90: self.percentile(0.9),
            p99: self.percentile(0.99),
            max: self.max(),
            mean: self.mean(),
        }
    }
}

/// The slot of a value. Values below `2 * SLOTS` have their own slots. Above, the power of two and
/// the `SLOT_BITS` bits after the leading one select the slot.
fn slot(value: u64) -> usize {
    let shift = (63 - SLOT_BITS).saturating_sub(value.leading_zeros());
    shift as usize * SLOTS + (value >> shift) as usize
}

/// The largest value of a slot.
fn upper_end(slot: usize) -> u64 {
    let shift = (slot / SLOTS).saturating_sub(1);
    let first = (slot - shift * SLOTS) as u64;
    (first << shift) + ((1 << shift) - 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn slots_follow_each_other_without_gaps() {
        assert_eq!((slot(0), slot(63), slot(64), slot(u64::MAX)), (0, 63, 64, COUNT - 1));
        assert_eq!(upper_end(COUNT - 1), u64::MAX);
        for number in 0..COUNT - 1 {
            let last = upper_end(number);
            assert_eq!((slot(last), slot(last + 1)), (number, number + 1));
        }
        assert_eq!(LatencyHistogram::default().summary(), Percentiles::default());
    }

    proptest! {
        #[test]
        fn percentiles_are_near_the_exact_ones(
            nanoseconds in prop::collection::vec((0_u32..64, any::<u64>()), 1..300),
            share in 0.0f64..=1.0,
        ) {
            // All magnitudes are equally frequent.
            let mut values: Vec<u64> = nanoseconds.iter().map(|(bits, v)| v >> bits).collect();
            let mut histogram = LatencyHistogram::default();
            values.iter().for_each(|&value| histogram.record(Duration::from_nanos(value)));
            values.sort_unstable();
            let rank = ((share * values.len() as f64).ceil() as usize).max(1);
            let exact = values[rank - 1];
            let ours = histogram.percentile(share).as_nanos() as u64;
            prop_assert!(ours >= exact && ours - exact <= exact / 32, "{ours} for {exact}");
            prop_assert_eq!(histogram.max().as_nanos() as u64, values[values.len() - 1]);
            let sum: u128 = values.iter().map(|&v| u128::from(v)).sum();
            prop_assert_eq!(histogram.mean().as_nanos(), sum / values.len() as u128);
        }
    }
}

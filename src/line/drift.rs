//! Detects changes in the scores of good parts: a conformal test for change, with a guaranteed rate
//! of false alarms.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::decision::Thresholds;
use crate::error::{Error, Result};
use crate::names::builders;
use crate::ordered;
use crate::random::Random;

/// The settings of a drift monitor.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct DriftConfig {
    /// A lower bound on the mean number of good parts until a false alarm, above 1 and at most
    /// 1e12. Default: 100,000. A ten times larger value delays alarms only a little (see
    /// [`DriftMonitor`]).
    pub parts_per_false_alarm: f64,
    /// The seed of the random order of parts with equal scores. Default: 0.
    pub seed: u64,
}

builders!(DriftConfig {
    with_parts_per_false_alarm: parts_per_false_alarm, f64;
    with_seed: seed, u64;
});

impl Default for DriftConfig {
    fn default() -> Self {
        Self { parts_per_false_alarm: 100_000.0, seed: 0 }
    }
}

impl DriftConfig {
    /// Checks the settings.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidConfig`] unless `parts_per_false_alarm` is a number above 1 and at most 1e12.
    pub fn validate(&self) -> Result<()> {
        let parts = self.parts_per_false_alarm;
        if parts > 1.0 && parts <= 1e12 {
            return Ok(());
        }
        let reason = format!("must be above 1 and at most 1e12, is {parts}");
        Err(Error::config("parts_per_false_alarm", reason))
    }
}

/// The direction in which scores changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum DriftDirection {
    /// Good parts score higher: wear, dirt, other light, other material.
    Up,
    /// Good parts score lower: images out of focus, say, or the same image again and again.
    Down,
}

/// An alarm: the scores of good parts have changed.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct DriftAlarm {
    /// The number of the part that raised the alarm, counted from 1 over the parts that passed.
    pub part: u64,
    /// About where the change began: the first part after the last one without any evidence of a
    /// change.
    pub since: u64,
    /// The direction in which scores changed.
    pub direction: DriftDirection,
    /// The statistic at the alarm; at least [`DriftConfig::parts_per_false_alarm`].
    pub statistic: f64,
}

/// Watches the scores of parts that passed, and raises an alarm when they change.
///
/// Each score is ranked among the scores of the calibration and of all earlier parts, which gives a
/// smoothed conformal p-value `p`. While nothing changes, these p-values are uniform and
/// independent, for any distribution of the scores. Six bets are placed against that, three for
/// each direction: `e p^(e - 1)` with `e` = 0.3, 0.5 and 0.75, and the same of `1 - p`. Each bet
/// has a Shiryaev-Roberts statistic, `R = (1 + R) bet`. The mean of the six raises the alarm when
/// it reaches [`DriftConfig::parts_per_false_alarm`]. The alarm stays raised.
///
/// # What is promised
///
/// If good parts and calibration images are exchangeable (from the same production, in an order
/// that does not matter), then exactly, on average over calibrations:
///
/// - the mean number of parts until a false alarm is at least `parts_per_false_alarm` (`R` minus
///   the number of parts is a martingale);
/// - within the first `m` parts, the probability of a false alarm is at most
///   `m / parts_per_false_alarm`.
///
/// Ranks among the calibration scores alone would not give this: they share the sampling error of
/// the calibration, which looks like a change after some thousands of parts. If neighboring parts
/// resemble each other more than others, nothing is promised, and alarms are more frequent.
///
/// Parts that pass score below the threshold, so only calibration scores below it are used. The
/// score that defines the threshold is left out, which keeps the promise exact. Scores of a
/// cross-fitted calibration ([`Padim::fit_calibrated`](crate::Padim::fit_calibrated)) come from
/// other Gaussians than the detector's, and are not used: a change is then detected only relative
/// to the first parts.
///
/// # How soon
///
/// The delay after 1,000 good parts with 100 calibration images, for a shift of the scores in
/// standard deviations (normal scores, mean of 200 runs):
///
/// | shift | parts until the alarm, one false alarm in 10,000 | one in 100,000 |
/// |---|---|---|
/// | 0.5 | 94 | 125 |
/// | 1 | 29 | 38 |
/// | 2 | 10 | 13 |
/// | -0.5 | 74 | 106 |
/// | -1 | 20 | 26 |
/// | -2 | 6 | 8 |
///
/// Memory does not grow: scores are counted in bins of the leading 11 bits of the mantissa
/// (relative width 1/2,000). The monitor can be saved and loaded with `serde`.
///
/// ```
/// use padim::Thresholds;
/// use padim::line::{DriftConfig, DriftMonitor};
///
/// let mut monitor = DriftMonitor::new(DriftConfig::default(), Some(&Thresholds::fixed(100.0)))?;
/// let scores = (0..500).map(|i| 10.0 + (i * 37 % 101) as f32 / 50.0);
/// assert!(scores.clone().all(|score| monitor.observe(score).is_none()));
/// // The lamp gets weaker.
/// let alarm = scores.map(|score| 1.2 * score).find_map(|score| monitor.observe(score));
/// println!("{alarm:?}");
/// assert!(alarm.is_some_and(|alarm| alarm.part < 530));
/// # Ok::<(), padim::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Saved", into = "Saved")]
pub struct DriftMonitor {
    config: DriftConfig,
    /// Parts that pass score below this.
    limit: Option<f32>,
    /// The number of scores in each bin, by the bin's key.
    counts: BTreeMap<u32, u64>,
    /// The sum of `counts`.
    total: u64,
    parts: u64,
    bets: [Bet; 2 * STRENGTHS.len()],
    recent: f64,
    alarm: Option<DriftAlarm>,
}

/// The exponents `e` of the bets.
const STRENGTHS: [f64; 3] = [0.3, 0.5, 0.75];
/// The weight of a part in [`DriftMonitor::recent_p_value`].
const RECENT: f64 = 1.0 / 64.0;
/// The largest value of a statistic, so that it stays finite.
const LARGEST: f64 = 1e300;

/// The state of a bet.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
struct Bet {
    /// The Shiryaev-Roberts statistic.
    statistic: f64,
    /// Page's statistic: the gain since the start that is best for the bet.
    gain: f64,
    /// The part at that start.
    since: u64,
}

impl DriftMonitor {
    /// A monitor that has seen only the calibration scores of the thresholds, if there are any.
    ///
    /// # Errors
    ///
    /// As [`DriftConfig::validate`] and [`Thresholds::validate`].
    pub fn new(config: DriftConfig, decision: Option<&Thresholds>) -> Result<Self> {
        config.validate()?;
        decision.map_or(Ok(()), Thresholds::validate)?;
        let mut monitor = Self {
            config,
            // A calibrated threshold is just above a calibration score, so the limit is that score.
            // Given the limit, the calibration scores below it and the scores of parts that pass
            // are exchangeable.
            limit: decision.map(|decision| decision.image.next_down()),
            counts: BTreeMap::new(),
            total: 0,
            parts: 0,
            bets: [Bet::default(); 2 * STRENGTHS.len()],
            recent: 0.5,
            alarm: None,
        };
        let calibration = decision.and_then(|decision| decision.calibration.as_ref());
        for &score in calibration.filter(|c| !c.is_cross_fitted()).map_or(&[][..], |c| c.scores()) {
            if monitor.passes(score) {
                monitor.count(score);
            }
        }
        Ok(monitor)
    }

    fn passes(&self, score: f32) -> bool {
        score.is_finite() && self.limit.is_none_or(|limit| score < limit)
    }

    /// Adds the score of the next part. A part that did not pass is ignored. Returns the alarm only
    /// at the part that raises it.
    pub fn observe(&mut self, image_score: f32) -> Option<DriftAlarm> {
        if !self.passes(image_score) {
            return None;
        }
        let p = self.p_value(image_score);
        self.count(image_score);
        self.parts += 1;
        self.recent += RECENT * (p - self.recent);
        let (up, down) = self.bets.split_at_mut(STRENGTHS.len());
        for (bet, strength) in up.iter_mut().zip(STRENGTHS) {
            bet.place(p, strength, self.parts);
        }
        for (bet, strength) in down.iter_mut().zip(STRENGTHS) {
            bet.place(1.0 - p, strength, self.parts);
        }
        let statistic = self.statistic();
        if self.alarm.is_some() || statistic < self.config.parts_per_false_alarm {
            return None;
        }
        let best = (0..).zip(&self.bets).max_by(|a, b| a.1.statistic.total_cmp(&b.1.statistic));
        self.alarm = best.map(|(number, bet): (usize, _)| DriftAlarm {
            part: self.parts,
            since: bet.since,
            direction: match number < STRENGTHS.len() {
                true => DriftDirection::Up,
                false => DriftDirection::Down,
            },
            statistic,
        });
        self.alarm
    }

    /// The relative rank among all earlier scores, in `(0, 1)`, small for high scores. Equal scores
    /// are ordered randomly.
    fn p_value(&self, score: f32) -> f64 {
        let key = key(score);
        let equal = self.counts.get(&key).copied().unwrap_or(0);
        let above: u64 = self.counts.range(key + 1..).map(|(_, count)| count).sum();
        let share = Random::of(self.config.seed, self.parts).between(0.0, 1.0);
        let p = (above as f64 + share * (equal + 1) as f64) / (self.total + 1) as f64;
        // At 0, the gain of a bet would be infinite.
        p.clamp(1e-12, 1.0 - 1e-12)
    }

    fn count(&mut self, score: f32) {
        *self.counts.entry(key(score)).or_insert(0) += 1;
        self.total += 1;
    }

    /// The evidence for a change. It is about 1 or less most of the time, and raises the alarm at
    /// [`DriftConfig::parts_per_false_alarm`].
    pub fn statistic(&self) -> f64 {
        let sum: f64 = self.bets.iter().map(|bet| bet.statistic / self.bets.len() as f64).sum();
        sum.min(LARGEST)
    }

    /// The exponentially weighted mean p-value of about the last 64 parts: about 0.5 while nothing
    /// changes, less if scores rise.
    pub fn recent_p_value(&self) -> f64 {
        self.recent
    }

    /// The alarm, if it has been raised. It stays raised: make a new monitor when its cause is gone.
    pub fn alarm(&self) -> Option<DriftAlarm> {
        self.alarm
    }

    /// How many parts have passed.
    pub fn parts(&self) -> u64 {
        self.parts
    }

    /// The settings.
    pub fn config(&self) -> &DriftConfig {
        &self.config
    }
}

impl Bet {
    /// Bets on a p-value, which is uniform in `(0, 1)` if there is no change.
    fn place(&mut self, p: f64, strength: f64, part: u64) {
        let odds = strength * p.powf(strength - 1.0);
        self.statistic = ((1.0 + self.statistic) * odds).min(LARGEST);
        if self.gain <= 1.0 {
            self.since = part;
            self.gain = 1.0;
        }
        self.gain = (self.gain * odds).min(LARGEST);
    }
}

/// The bin of a score, by its sign, its exponent and 11 bits of its mantissa. It rises with the score.
fn key(score: f32) -> u32 {
    ordered::key(score) >> 12
}

/// The saved form of a monitor.
#[derive(Serialize, Deserialize)]
struct Saved {
    config: DriftConfig,
    limit: Option<f32>,
    counts: BTreeMap<u32, u64>,
    parts: u64,
    bets: [Bet; 2 * STRENGTHS.len()],
    recent: f64,
    alarm: Option<DriftAlarm>,
}

impl From<DriftMonitor> for Saved {
    fn from(monitor: DriftMonitor) -> Self {
        let DriftMonitor { config, limit, counts, parts, bets, recent, alarm, .. } = monitor;
        Self { config, limit, counts, parts, bets, recent, alarm }
    }
}

impl TryFrom<Saved> for DriftMonitor {
    type Error = Error;

    fn try_from(saved: Saved) -> Result<Self> {
        let Saved { config, limit, counts, parts, bets, recent, alarm } = saved;
        config.validate()?;
        let total = counts.values().try_fold(0_u64, |sum, &count| sum.checked_add(count));
        let total = total.filter(|total| *total < 1 << 60 && parts < 1 << 60);
        let won = |bet: &Bet| bet.statistic >= 0.0 && bet.gain >= 0.0;
        match total {
            Some(total) if bets.iter().all(won) && (0.0..=1.0).contains(&recent) => {
                Ok(Self { config, limit, counts, total, parts, bets, recent, alarm })
            }
            _ => Err(Error::config("monitor", "the saved state is damaged")),
        }
    }
}

#[cfg(test)]
mod tests;

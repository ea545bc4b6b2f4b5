//! Whether good parts still look as they did: a conformal test for change, with a known rate of false
//! alarms.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::decision::Decision;
use crate::error::{Error, Result};
use crate::random::Random;

/// How rare false alarms are.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct DriftConfig {
    /// How many good parts pass until there is a false alarm, on average and at least. Default: 100,000.
    /// Ten times as many let a change be noticed a little later (see [`DriftMonitor`]).
    pub parts_per_false_alarm: f64,
    /// For the order of parts with the same score, which is drawn. Default: 0.
    pub seed: u64,
}

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

/// Which way scores went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum DriftDirection {
    /// Good parts look stranger: wear, dirt, another light, another material.
    Up,
    /// They look less strange: a picture out of focus, say, or the same one again and again.
    Down,
}

/// That good parts have changed.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct DriftAlarm {
    /// Which of the parts that passed has raised it, counted from 1.
    pub part: u64,
    /// About where the change began: the part behind the last at which there was nothing to be seen of
    /// it.
    pub since: u64,
    /// Which way scores went.
    pub direction: DriftDirection,
    /// The statistic at that moment; at least [`DriftConfig::parts_per_false_alarm`].
    pub statistic: f64,
}

/// Watches the scores of parts that passed, and raises an alarm when they change.
///
/// Each score gets its rank among those of the calibration and of all parts before (a smoothed conformal
/// p-value). While nothing changes, these ranks are even and independent, whatever the distribution of the
/// scores. Six bets against that are made, three strengths each way: `e p^(e - 1)` with `e` = 0.3, 0.5 and
/// 0.75, and the same of `1 - p`. Shiryaev and Roberts' statistic `R = (1 + R) bet`, the mean over the six,
/// raises the alarm when it reaches [`DriftConfig::parts_per_false_alarm`]. It stays raised.
///
/// # What is promised
///
/// If good parts are exchangeable (drawn from the same production in no order that matters), and those of
/// the calibration with them, then exactly, on average over calibrations:
///
/// - until a false alarm, at least `parts_per_false_alarm` parts pass on average (`R` less the number of
///   parts is a martingale);
/// - within the first `m` parts, the probability of a false alarm is at most `m / parts_per_false_alarm`.
///
/// Ranks among the calibration alone would not do: they share its luck, which after some thousands of parts
/// looks like a change. Where neighbouring parts resemble each other more than others, nothing is promised,
/// and alarms are more frequent.
///
/// Parts that pass score below the threshold, so only calibration scores below it are compared with; the
/// one that the threshold stands on is left out, which keeps the promise exact. Scores of a cross-fitted
/// calibration ([`Padim::fit_calibrated`](crate::Padim::fit_calibrated)) come from other Gaussians than the
/// detector's, and are not used: a change is then noticed against the first parts only.
///
/// # How soon
///
/// After 1,000 good parts with 100 calibration images, for scores that shift by so many of their standard
/// deviations (normal scores, mean of 200 runs):
///
/// | shift | parts until the alarm, one false in 10,000 | one false in 100,000 |
/// |---|---|---|
/// | 0.5 | 94 | 125 |
/// | 1 | 29 | 38 |
/// | 2 | 10 | 13 |
/// | -0.5 | 74 | 106 |
/// | -1 | 20 | 26 |
/// | -2 | 6 | 8 |
///
/// Memory does not grow: scores are counted by their first 11 binary digits (a part in 2,000). The monitor
/// can be saved and loaded by `serde`.
///
/// ```
/// use padim::Decision;
/// use padim::line::{DriftConfig, DriftMonitor};
///
/// let mut monitor = DriftMonitor::new(DriftConfig::default(), Some(&Decision::fixed(100.0)))?;
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
    /// Scores from here on are not of parts that passed.
    limit: Option<f32>,
    /// How many scores there were, by their first digits.
    counts: BTreeMap<u32, u64>,
    /// All of these.
    total: u64,
    parts: u64,
    bets: [Bet; 2 * STRENGTHS.len()],
    recent: f64,
    alarm: Option<DriftAlarm>,
}

/// The exponents of the bets.
const STRENGTHS: [f64; 3] = [0.3, 0.5, 0.75];
/// The weight of a part in [`DriftMonitor::recent_p_value`].
const RECENT: f64 = 1.0 / 64.0;
/// Statistics grow no further.
const LARGEST: f64 = 1e300;

/// What a bet has won.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
struct Bet {
    /// Shiryaev and Roberts' statistic.
    statistic: f64,
    /// Page's: the gain since the moment that is best for the bet.
    gain: f64,
    /// That moment.
    since: u64,
}

impl DriftMonitor {
    /// A monitor that has seen no parts but those of the decision's calibration, if there is one.
    ///
    /// # Errors
    ///
    /// As [`DriftConfig::validate`] and [`Decision::validate`].
    pub fn new(config: DriftConfig, decision: Option<&Decision>) -> Result<Self> {
        config.validate()?;
        decision.map_or(Ok(()), Decision::validate)?;
        let mut monitor = Self {
            config,
            // A calibrated threshold is just above a score of the calibration, the limit that score
            // itself: given it, those below and those of parts that pass are exchangeable.
            limit: decision.map(|decision| decision.image_threshold.next_down()),
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

    /// Takes in the score of the next part. One that did not pass is left out. Gives the alarm at the part
    /// that raises it.
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

    /// The rank among all before, in `(0, 1)`, small for high scores. Equal ones are in an order that is
    /// drawn.
    fn p_value(&self, score: f32) -> f64 {
        let key = key(score);
        let equal = self.counts.get(&key).copied().unwrap_or(0);
        let above: u64 = self.counts.range(key + 1..).map(|(_, count)| count).sum();
        let share = Random::of(self.config.seed, self.parts).between(0.0, 1.0);
        let p = (above as f64 + share * (equal + 1) as f64) / (self.total + 1) as f64;
        // 0 would win everything.
        p.clamp(1e-12, 1.0 - 1e-12)
    }

    fn count(&mut self, score: f32) {
        *self.counts.entry(key(score)).or_insert(0) += 1;
        self.total += 1;
    }

    /// How much speaks for a change: it is about 1 or less for most of the time, and an alarm at
    /// [`DriftConfig::parts_per_false_alarm`].
    pub fn statistic(&self) -> f64 {
        let sum: f64 = self.bets.iter().map(|bet| bet.statistic / self.bets.len() as f64).sum();
        sum.min(LARGEST)
    }

    /// The mean p-value of recent parts, the last 64 or so: about 0.5 while nothing changes, less when
    /// parts look stranger.
    pub fn recent_p_value(&self) -> f64 {
        self.recent
    }

    /// The alarm, if it has been raised. It stays: make a new monitor when its cause is gone.
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
    /// `p`: even in `(0, 1)` if there is no change.
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

/// The sign, the exponent and the first digits of a number, as a number that grows with it.
fn key(score: f32) -> u32 {
    // Of the two zeros one.
    let bits = (score + 0.0).to_bits();
    let ascending = if bits >> 31 == 0 { bits | 1 << 31 } else { !bits };
    ascending >> 12
}

/// As it is saved.
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
            _ => Err(Error::config("monitor", "what was saved of it is damaged")),
        }
    }
}

#[cfg(test)]
mod tests;

//! Bootstrap confidence intervals: how much a metric varies with other images of the same kind.

use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::names::builders;
use crate::random::Random;

/// A confidence interval of a metric.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Interval {
    /// The lower end.
    pub low: f64,
    /// The upper end.
    pub high: f64,
}

/// The settings of the percentile bootstrap.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Bootstrap {
    /// The number of resampled sets of images. Default: 1000.
    pub draws: usize,
    /// The confidence level, above 0 and below 1. Default: 0.95.
    pub confidence: f64,
    /// The seed of the draws: the same seed gives the same interval. Default: 0.
    pub seed: u64,
}

builders!(Bootstrap {
    with_draws: draws, usize;
    with_confidence: confidence, f64;
    with_seed: seed, u64;
});

impl Default for Bootstrap {
    fn default() -> Self {
        Self { draws: 1000, confidence: 0.95, seed: 0 }
    }
}

impl Bootstrap {
    /// The percentile interval of a metric over `images` images (Efron 1979). Each draw takes
    /// `images` images with replacement and passes their indices to `metric`. Draws in which the
    /// metric is undefined (without a defective image, say) are left out.
    ///
    /// ```
    /// use padim::metrics::{Bootstrap, image_auroc};
    ///
    /// let scores: Vec<f32> = (0..60).map(|i| ((i * 37) % 60) as f32 + if i < 20 { 25.0 } else { 0.0 }).collect();
    /// let defective: Vec<bool> = (0..60).map(|i| i < 20).collect();
    /// let interval = Bootstrap::default().interval(scores.len(), |drawn| {
    ///     let scores: Vec<f32> = drawn.iter().map(|&i| scores[i]).collect();
    ///     let defective: Vec<bool> = drawn.iter().map(|&i| defective[i]).collect();
    ///     image_auroc(&scores, &defective)
    /// })?;
    /// let whole = image_auroc(&scores, &defective)?;
    /// assert!(interval.low < whole && whole < interval.high);
    /// # Ok::<(), padim::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::InvalidConfig`] for zero draws or a confidence that is not above 0 and below 1,
    /// [`Error::UndefinedMetric`] for zero images or if the metric is undefined in more than half
    /// of the draws, and any other error of `metric`.
    pub fn interval(
        &self,
        images: usize,
        metric: impl Fn(&[usize]) -> Result<f64> + Sync,
    ) -> Result<Interval> {
        let Self { draws, confidence, seed } = *self;
        if draws == 0 {
            return Err(Error::config("draws", "must be at least 1"));
        }
        if !(confidence > 0.0 && confidence < 1.0) {
            let reason = format!("must be above 0 and below 1, is {confidence}");
            return Err(Error::config("confidence", reason));
        }
        if images == 0 {
            let reason = "there is no image to draw".into();
            return Err(Error::UndefinedMetric { metric: "interval", reason });
        }
        let draw = |number: usize| {
            let mut random = Random::of(seed, number as u64);
            let drawn: Vec<usize> = (0..images).map(|_| random.below(images)).collect();
            match metric(&drawn) {
                Ok(value) => Ok(Some(value)),
                Err(Error::UndefinedMetric { .. }) => Ok(None),
                Err(error) => Err(error),
            }
        };
        let values = (0..draws).into_par_iter().map(draw).collect::<Result<Vec<Option<f64>>>>()?;
        let mut values: Vec<f64> = values.into_iter().flatten().collect();
        if values.is_empty() || 2 * values.len() < draws {
            let reason = format!("it is undefined in {} of {draws} draws", draws - values.len());
            return Err(Error::UndefinedMetric { metric: "interval", reason });
        }
        values.sort_by(f64::total_cmp);
        let quantile = |share: f64| {
            // Linear interpolation between neighbors.
            let place = share * (values.len() - 1) as f64;
            let (below, part) = (place.floor(), place.fract());
            let value = |i: usize| values[i.min(values.len() - 1)];
            value(below as usize) * (1.0 - part) + value(below as usize + 1) * part
        };
        let tail = (1.0 - confidence) / 2.0;
        Ok(Interval { low: quantile(tail), high: quantile(1.0 - tail) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_of_a_mean_is_the_normal_one() {
        let values: Vec<f64> = (0..400).map(|i| f64::from(i * 7919 % 400)).collect();
        let mean = |drawn: &[usize]| {
            Ok(drawn.iter().map(|&i| values[i]).sum::<f64>() / drawn.len() as f64)
        };
        let interval =
            Bootstrap { draws: 4000, ..Bootstrap::default() }.interval(400, mean).unwrap();
        // The standard deviation of 0..400 is 115.5, that of their mean 5.77.
        assert!((interval.low - (199.5 - 1.96 * 5.774)).abs() < 0.6, "{interval:?}");
        assert!((interval.high - (199.5 + 1.96 * 5.774)).abs() < 0.6, "{interval:?}");
        let again = Bootstrap { draws: 4000, ..Bootstrap::default() }.interval(400, mean).unwrap();
        assert_eq!(interval, again);
        let narrow =
            Bootstrap { draws: 4000, confidence: 0.5, seed: 3 }.interval(400, mean).unwrap();
        assert!(narrow.low > interval.low && narrow.high < interval.high);
    }

    #[test]
    fn draws_in_which_the_metric_is_undefined_do_not_count() {
        let undefined = || Error::UndefinedMetric { metric: "x", reason: String::new() };
        let rarely = |drawn: &[usize]| if drawn[0] == 0 { Err(undefined()) } else { Ok(1.0) };
        let interval = Bootstrap::default().interval(10, rarely).unwrap();
        assert_eq!(interval, Interval { low: 1.0, high: 1.0 });
        let often = |drawn: &[usize]| if drawn[0] == 0 { Ok(1.0) } else { Err(undefined()) };
        let result = Bootstrap::default().interval(10, often);
        assert!(matches!(result, Err(Error::UndefinedMetric { .. })));
        let empty = Bootstrap::default().interval(0, |_| Err(undefined()));
        assert!(matches!(empty, Err(Error::UndefinedMetric { .. })));
        for broken in [
            Bootstrap { draws: 0, ..Bootstrap::default() },
            Bootstrap { confidence: 1.0, ..Bootstrap::default() },
            Bootstrap { confidence: f64::NAN, ..Bootstrap::default() },
        ] {
            let result = broken.interval(10, |_| Ok(0.0));
            assert!(matches!(result, Err(Error::InvalidConfig { .. })));
        }
    }
}

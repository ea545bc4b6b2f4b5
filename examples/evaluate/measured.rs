//! The metrics of the test images of a cell, of some of them, and of random draws.

use std::collections::BTreeMap;

use padim::Error;
use padim::metrics::{self, Bootstrap, Interval, PixelScores};

use crate::cell::{Curves, METRICS, Metrics, Wishes};
use crate::common::Outcome;

/// The results of test images.
#[derive(Clone, Copy)]
pub struct Measured<'a> {
    pub scores: &'a [f32],
    pub defective: &'a [bool],
    /// `None` for images that localization leaves out.
    pub pixels: &'a [Option<PixelScores<'a>>],
}

impl Measured<'_> {
    /// Calls `work` with the results of some of the images.
    pub fn of<T>(&self, chosen: &[usize], work: impl FnOnce(Measured) -> T) -> T {
        let scores: Vec<f32> = chosen.iter().map(|&i| self.scores[i]).collect();
        let defective: Vec<bool> = chosen.iter().map(|&i| self.defective[i]).collect();
        let pixels: Vec<Option<PixelScores>> = chosen.iter().map(|&i| self.pixels[i]).collect();
        work(Measured { scores: &scores, defective: &defective, pixels: &pixels })
    }

    fn pixels(&self) -> Vec<PixelScores<'_>> {
        self.pixels.iter().copied().flatten().collect()
    }

    fn metric(&self, name: &str, limit: f64) -> padim::Result<f64> {
        let pixels = &self.pixels();
        match name {
            "image_auroc" => metrics::image_auroc(self.scores, self.defective),
            "image_average_precision" => {
                metrics::image_average_precision(self.scores, self.defective)
            }
            "image_f1_max" => Ok(metrics::image_f1_max(self.scores, self.defective)?.f1),
            "pixel_auroc" => metrics::pixel_auroc(pixels),
            "pixel_average_precision" => metrics::pixel_average_precision(pixels),
            "pixel_f1_max" => Ok(metrics::pixel_f1_max(pixels)?.f1),
            _ => metrics::aupro(pixels, limit),
        }
    }

    pub fn metrics(&self, limit: f64) -> Outcome<Metrics> {
        let metric = |(name, _)| -> Outcome<_> {
            Ok((String::from(name), defined(self.metric(name, limit))?))
        };
        METRICS.into_iter().map(metric).collect()
    }

    pub fn intervals(&self, wishes: &Wishes) -> Outcome<BTreeMap<String, [f64; 2]>> {
        let mut intervals = BTreeMap::new();
        let bootstrap = Bootstrap::default().with_draws(wishes.interval_draws);
        for (name, _) in METRICS.into_iter().filter(|_| wishes.interval_draws > 0) {
            let interval = bootstrap.interval(self.scores.len(), |drawn| {
                self.of(drawn, |part| part.metric(name, wishes.aupro_limit))
            });
            if let Some(Interval { low, high, .. }) = defined(interval)? {
                intervals.insert(name.to_owned(), [low, high]);
            }
        }
        Ok(intervals)
    }

    pub fn curves(&self) -> Outcome<Curves> {
        const CORNERS: usize = 200;
        let pixels = &self.pixels();
        Ok(Curves {
            image_roc: defined(metrics::image_roc_curve(self.scores, self.defective, CORNERS))?,
            pixel_roc: defined(metrics::pixel_roc_curve(pixels, CORNERS))?,
            pro: defined(metrics::pro_curve(pixels, CORNERS))?,
        })
    }
}

/// Converts an undefined metric to `None`, for example without masks or without defective images.
pub fn defined<T>(result: padim::Result<T>) -> padim::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(Error::UndefinedMetric { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

//! Computes the statistics of a fit's images.

use super::good_peak::LastImages;
use super::input_summary::InputSummary;
use super::padim::Padim;
use super::progress::{FitStage, Report, report};
use crate::embedding::Embedding;
use crate::error::{Error, Result};
use crate::gaussian::GaussianStatistics;
use crate::host::LARGEST_BUFFER;
use crate::preprocess::{ImageInput, InputReport};

impl Padim {
    /// Computes the network's input size and the statistics of images, notes them in the summary,
    /// and keeps the embeddings of the last ones. All
    /// images must have input size `size`; if `None`, the first image sets it.
    pub(super) fn gather<I>(
        &self,
        mut size: Option<[usize; 2]>,
        images: I,
        summary: &mut InputSummary,
        last: &mut LastImages,
        progress: &mut Report<'_>,
    ) -> Result<([usize; 2], GaussianStatistics)>
    where
        I: IntoIterator,
        I::Item: Into<ImageInput>,
    {
        let mut known: Option<GaussianStatistics> = None;
        let mut waiting = Waiting::default();
        let mut note = |name: &str, report: &InputReport| {
            summary.add(name, report);
            self.require_levels(name, report)
        };
        self.embed_all(images, &mut size, &mut note, |embedding, done, total| {
            let statistics = match &mut known {
                Some(statistics) => statistics,
                None => {
                    let [_, dimension, height, width] = embedding.shape();
                    let statistics = known.insert(self.statistics(dimension, [height, width])?);
                    statistics.reserve(total.unwrap_or(0));
                    statistics
                }
            };
            let may_be_last = LastImages::may_be_among(done, total);
            waiting.push((embedding, may_be_last), statistics, last)?;
            report(progress, FitStage::Embedding, done, total)
        })?;
        match (size, known) {
            (Some(input_size), Some(mut statistics)) => {
                waiting.flush(&mut statistics, last)?;
                Ok((input_size, statistics))
            }
            _ => Err(Error::TooFewImages { count: 0 }),
        }
    }
}

/// Embeddings that wait on their device, so that it need not wait for each batch to be read. The CPU
/// computes the sums, because they need 64 bits, which few devices support.
#[derive(Default)]
struct Waiting {
    /// Each with whether it may hold one of the last images.
    embeddings: Vec<(Embedding, bool)>,
    bytes: usize,
}

impl Waiting {
    fn push(
        &mut self,
        (embedding, may_be_last): (Embedding, bool),
        statistics: &mut GaussianStatistics,
        last: &mut LastImages,
    ) -> Result<()> {
        let is_host = matches!(embedding, Embedding::Vectors(_));
        self.bytes += 4 * embedding.shape().iter().product::<usize>();
        self.embeddings.push((embedding, may_be_last));
        let full = is_host || self.bytes >= 2 * LARGEST_BUFFER;
        if full { self.flush(statistics, last) } else { Ok(()) }
    }

    fn flush(&mut self, statistics: &mut GaussianStatistics, last: &mut LastImages) -> Result<()> {
        self.bytes = 0;
        self.embeddings.drain(..).try_for_each(|(embedding, may_be_last)| {
            let vectors = embedding.into_vectors()?;
            statistics.update(&*vectors)?;
            if may_be_last {
                last.push(0, &*vectors);
            }
            Ok(())
        })
    }
}

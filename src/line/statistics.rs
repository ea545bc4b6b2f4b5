//! Counts and latencies of a line.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::config::Outcome;
use super::histogram::{LatencyHistogram, Percentiles};

/// The counts and latencies of a line so far. At any time, `submitted` is the sum of `predicted`,
/// `failed`, `dropped` and `in_flight`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct LineStatistics {
    /// Images that were submitted.
    pub submitted: u64,
    /// Images whose score was given to the sink.
    pub predicted: u64,
    /// Images whose error was given to the sink.
    pub failed: u64,
    /// Images that were dropped.
    pub dropped: u64,
    /// Images that have not reached the sink yet.
    pub in_flight: u64,
    /// The most images that were in the line at once, without those that were dropped.
    pub most_in_flight: u64,
    /// The number of batches that the network ran.
    pub batches: u64,
    /// How often the sink has failed or panicked.
    pub sink_failures: u64,
    /// The message of the sink's last failure.
    pub last_sink_failure: Option<String>,
    /// The latencies of images that were not dropped.
    pub latency: LineLatency,
}

/// The latencies of images, in total and by stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct LineLatency {
    /// From the submission until the sink gets the result.
    pub total: Percentiles,
    /// From the submission until a decoder takes the image.
    pub waiting: Percentiles,
    /// Decoding and resizing.
    pub decoding: Percentiles,
    /// From the decoding until the network takes the batch. Images that could not be decoded are
    /// left out here and in `predicting`.
    pub batching: Percentiles,
    /// In the network, together with the batch.
    pub predicting: Percentiles,
    /// From the end of the last stage until the sink takes the result, after all earlier results.
    pub ordering: Percentiles,
    /// In the sink.
    pub sinking: Percentiles,
}

/// When an image reached each stage.
#[derive(Debug, Clone, Copy)]
pub(super) struct Times {
    pub submitted: Instant,
    pub begun: Option<Instant>,
    pub decoded: Option<Instant>,
    pub batched: Option<Instant>,
    pub predicted: Option<Instant>,
}

impl Times {
    pub fn now() -> Self {
        let submitted = Instant::now();
        Self { submitted, begun: None, decoded: None, batched: None, predicted: None }
    }
}

/// The data behind [`LineStatistics`].
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub submitted: u64,
    pub predicted: u64,
    pub failed: u64,
    pub dropped: u64,
    pub most_in_flight: usize,
    pub batches: u64,
    pub sink_failures: u64,
    pub last_sink_failure: Option<String>,
    total: LatencyHistogram,
    /// Waiting, decoding, batching, predicting.
    stages: [LatencyHistogram; 4],
    ordering: LatencyHistogram,
    pub sinking: LatencyHistogram,
}

impl Counts {
    /// Counts a result on its way to the sink, and returns its latency.
    pub fn deliver(&mut self, outcome: &Outcome, times: &Times) -> Duration {
        let now = Instant::now();
        let total = now.duration_since(times.submitted);
        match outcome {
            Outcome::Predicted(_) => self.predicted += 1,
            Outcome::Failed(_) => self.failed += 1,
            Outcome::Dropped => {
                self.dropped += 1;
                return total;
            }
        }
        self.total.record(total);
        let Times { submitted, begun, decoded, batched, predicted } = *times;
        let passed = [Some(submitted), begun, decoded, batched, predicted];
        for (stage, ends) in self.stages.iter_mut().zip(passed.windows(2)) {
            if let [Some(from), Some(to)] = ends {
                stage.record(to.duration_since(*from));
            }
        }
        if let Some(last) = passed.into_iter().flatten().last() {
            self.ordering.record(now.duration_since(last));
        }
        total
    }

    pub fn statistics(&self) -> LineStatistics {
        let [waiting, decoding, batching, predicting] =
            [0, 1, 2, 3].map(|stage: usize| self.stages[stage].summary());
        LineStatistics {
            submitted: self.submitted,
            predicted: self.predicted,
            failed: self.failed,
            dropped: self.dropped,
            in_flight: self.submitted - self.predicted - self.failed - self.dropped,
            most_in_flight: self.most_in_flight as u64,
            batches: self.batches,
            sink_failures: self.sink_failures,
            last_sink_failure: self.last_sink_failure.clone(),
            latency: LineLatency {
                total: self.total.summary(),
                waiting,
                decoding,
                batching,
                predicting,
                ordering: self.ordering.summary(),
                sinking: self.sinking.summary(),
            },
        }
    }
}

//! How a line works, and what comes out of it.

use std::sync::Arc;
use std::time::Duration;

use image::DynamicImage;
use serde::{Deserialize, Serialize};

#[cfg(doc)]
use crate::detector::Detector;
use crate::detector::Prediction;
use crate::error::{Error, Result};
use crate::names::builders;
use crate::names::named;

/// What happens to a submitted image if the queue is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum DropPolicy {
    /// [`Line::submit`](crate::line::Line::submit) waits until there is room: nothing is dropped.
    #[default]
    Wait,
    /// The image that has waited longest is dropped, in favor of the newest.
    DropOldest,
    /// The submitted image is dropped, in favor of those in the line.
    DropNewest,
}

named!(
    DropPolicy,
    "drop",
    [
        ("wait", DropPolicy::Wait),
        ("drop-oldest", DropPolicy::DropOldest),
        ("drop-newest", DropPolicy::DropNewest)
    ]
);

/// What a line does after its sink has failed or panicked. The result at which it failed counts as
/// given to the sink.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum SinkFailure {
    /// Goes on with the next result; the failure is counted and its message kept.
    #[default]
    GoOn,
    /// Takes no more images. All images in the line are dropped, and listed in the [`LineReport`](crate::line::LineReport).
    Stop,
}

named!(SinkFailure, "sink_failure", [("go-on", SinkFailure::GoOn), ("stop", SinkFailure::Stop)]);

/// The settings of a line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct LineConfig {
    /// The most images that may wait for a decoder. Default: 32.
    pub queue: usize,
    /// The number of threads that decode and resize. Default: 2.
    pub decoders: usize,
    /// The most images that go through the network at once. Default: 8.
    pub batch: usize,
    /// How long the first image of a batch waits for others. Default: 5 ms. This matters only if
    /// few images come: while the network works, the next batch gathers anyway.
    pub batch_wait: Duration,
    /// What happens to a submitted image if the queue is full. Default: [`Line::submit`](crate::line::Line::submit) waits.
    pub drop: DropPolicy,
    /// What happens after the sink has failed. Default: the line goes on.
    pub sink_failure: SinkFailure,
    /// Whether the sink gets the decoded images, too, without a copy. They stay in memory until then.
    /// Default: `false`.
    pub keep_images: bool,
}

builders!(LineConfig {
    with_queue: queue, usize;
    with_decoders: decoders, usize;
    with_batch: batch, usize;
    with_batch_wait: batch_wait, Duration;
    with_drop: drop, DropPolicy;
    with_sink_failure: sink_failure, SinkFailure;
    with_keep_images: keep_images, bool;
});

impl Default for LineConfig {
    fn default() -> Self {
        Self {
            queue: 32,
            decoders: 2,
            batch: 8,
            batch_wait: Duration::from_millis(5),
            drop: DropPolicy::Wait,
            sink_failure: SinkFailure::GoOn,
            keep_images: false,
        }
    }
}

impl LineConfig {
    /// Checks the settings.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidConfig`] for the first setting that is out of range, with its range.
    pub fn validate(&self) -> Result<()> {
        let settings = [
            ("queue", self.queue, 1 << 20),
            ("decoders", self.decoders, 256),
            ("batch", self.batch, 4096),
        ];
        match settings.iter().find(|(_, value, most)| !(1..=*most).contains(value)) {
            Some(&(field, value, most)) => {
                Err(Error::config(field, format!("must be in 1..={most}, got {value}")))
            }
            None if self.batch_wait > Duration::from_secs(3600) => {
                let reason = format!("must be an hour at most, is {:?}", self.batch_wait);
                Err(Error::config("batch_wait", reason))
            }
            None => Ok(()),
        }
    }

    /// The most images in the line at once, from submission until the sink is done with them: the
    /// queue, one for each decoder, and three batches (one gathers, one is in the network, one
    /// waits for the sink). This bounds the memory.
    pub fn most_in_flight(&self) -> usize {
        self.queue + self.most_begun()
    }

    /// The most of these images that a decoder has already taken.
    pub(crate) fn most_begun(&self) -> usize {
        self.decoders + 3 * self.batch
    }
}

/// The result of an image.
#[derive(Debug)]
#[non_exhaustive]
pub enum Outcome {
    /// The image was scored.
    Predicted(Prediction),
    /// The image could not be scored: damaged, of the wrong size, ...
    Failed(Error),
    /// The image was dropped, because the queue was full.
    Dropped,
}

/// What the sink gets for an image.
#[derive(Debug)]
#[non_exhaustive]
pub struct LineResult<T> {
    /// How many images were submitted before it.
    pub number: u64,
    /// The id that it was submitted with.
    pub id: T,
    /// The result.
    pub outcome: Outcome,
    /// The decoded image, if [`LineConfig::keep_images`] says so and it could be decoded.
    pub image: Option<Arc<DynamicImage>>,
    /// The time from its submission until the sink gets the result.
    pub latency: Duration,
}

/// The result of a submission.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Submitted {
    /// The image is in the line.
    Accepted,
    /// The image is in the line, and the image that had waited longest was dropped.
    DroppedOldest,
    /// The image was dropped.
    Dropped,
}

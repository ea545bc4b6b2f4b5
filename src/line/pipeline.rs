//! The threads of a line.

use std::sync::Arc;
use std::thread::{Builder, JoinHandle};
use std::time::Instant;

use super::config::{LineConfig, LineResult, Outcome, SinkFailure, Submitted};
use super::queue::Queue;
use super::statistics::LineStatistics;
use crate::caught::{Panic, caught};
use crate::detector::{Predictor, PreparedImage};
use crate::error::{Error, Result};
use crate::preprocess::ImageInput;

/// An error of a sink.
pub type SinkError = Box<dyn std::error::Error + Send + Sync>;

/// A bounded pipeline around a detector: decode, gather a batch, predict, call the sink.
///
/// Any thread may submit images. The sink runs in its own thread and gets every result in the order
/// of submission. A slow sink slows the line down or makes it drop images, as [`LineConfig::drop`]
/// says; memory stays bounded. The sink must not submit to its own line, because the line may wait
/// for the sink. The ids of dropped images wait for the sink, too: at 65,536 of them,
/// [`submit`](Self::submit) waits under any policy.
///
/// Panics are caught. After a panic of a decoder, its image has the result [`Error::Panicked`];
/// after a panic of the network, its whole batch. A panic of the sink counts as its failure
/// ([`SinkFailure`]). Dropping a line finishes it.
pub struct Line<T> {
    queue: Arc<Queue<T>>,
    threads: Vec<JoinHandle<()>>,
}

impl<T> std::fmt::Debug for Line<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Line").field("statistics", &self.queue.statistics()).finish_non_exhaustive()
    }
}

/// The final report of a line.
#[derive(Debug)]
#[non_exhaustive]
pub struct LineReport<T> {
    /// The final statistics; no image is in flight.
    pub statistics: LineStatistics,
    /// The ids of the images in the line when its sink's failure stopped it, in the order of
    /// submission. They count as dropped, and the sink has not seen them.
    pub undelivered: Vec<T>,
}

impl<T: Send + 'static> Line<T> {
    /// Starts the threads.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidConfig`] for settings out of range, or if the operating system starts no
    /// threads.
    pub fn start(
        detector: Arc<impl Predictor + ?Sized + 'static>,
        config: LineConfig,
        sink: impl FnMut(LineResult<T>) -> Result<(), SinkError> + Send + 'static,
    ) -> Result<Self> {
        config.validate()?;
        let no_threads = |reason: String| Error::config("decoders", reason);
        let pool = |name: &'static str, threads: usize| {
            rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .thread_name(move |number| format!("{name}-{number}"))
                .build()
                .map_err(|error| no_threads(error.to_string()))
        };
        // Resizing uses rayon. With their own pool, decoders do not wait for jobs of the network,
        // and each thread resizes its image alone.
        let decoders = pool("decoder", config.decoders)?;
        // The network needs its own pool, too: all threads of the caller's pool may be in `submit`,
        // waiting for the network.
        let network = pool("network", rayon::current_num_threads())?;
        let (failure, keep_images) = (config.sink_failure, config.keep_images);
        let queue = Arc::new(Queue::new(config));
        // If a thread cannot be started, dropping the line ends the others.
        let mut line = Self { queue: Arc::clone(&queue), threads: Vec::new() };
        let (own, shared) = (Arc::clone(&queue), Arc::clone(&detector));
        line.spawn("line-decoders", move || {
            decoders.broadcast(|_| decode(&own, &*shared, keep_images));
        })?;
        let own = Arc::clone(&queue);
        line.spawn("line-network", move || network.install(|| predict(&own, &*detector)))?;
        line.spawn("line-sink", move || deliver(&queue, failure, sink))?;
        Ok(line)
    }

    fn spawn(&mut self, name: &str, work: impl FnOnce() + Send + 'static) -> Result<()> {
        let thread = Builder::new().name(name.to_owned()).spawn(work);
        self.threads.push(thread.map_err(|error| Error::config("decoders", error.to_string()))?);
        Ok(())
    }
}

impl<T> Line<T> {
    /// Submits an image. If the queue is full, this waits or an image is dropped, as
    /// [`LineConfig::drop`] says.
    ///
    /// # Errors
    ///
    /// [`Error::LineClosed`] if the line was stopped by its sink's failure. The image is then not
    /// counted as submitted.
    pub fn submit(&self, id: T, image: impl Into<ImageInput>) -> Result<Submitted> {
        self.queue.submit(id, image.into())
    }

    /// The statistics so far.
    pub fn statistics(&self) -> LineStatistics {
        self.queue.statistics()
    }

    /// Takes no more images, finishes those that are in the line, and ends its threads.
    pub fn finish(mut self) -> LineReport<T> {
        self.end();
        LineReport {
            statistics: self.queue.statistics(),
            undelivered: self.queue.take_undelivered(),
        }
    }

    fn end(&mut self) {
        self.queue.close();
        for thread in self.threads.drain(..) {
            // The threads catch panics themselves.
            let _ = thread.join();
        }
    }
}

impl<T> Drop for Line<T> {
    fn drop(&mut self) {
        self.end();
    }
}

fn decode<T>(queue: &Queue<T>, detector: &(impl Predictor + ?Sized), keep_images: bool) {
    while let Some((number, image)) = queue.take_waiting() {
        let prepared = caught("preparing the image", || detector.prepare(image, keep_images));
        queue.set_prepared(number, prepared.unwrap_or_else(|panic| Err(panic.error())));
    }
}

fn predict<T>(queue: &Queue<T>, detector: &(impl Predictor + ?Sized)) {
    while let Some((numbers, images)) = queue.take_batch() {
        let outcomes = outcomes(detector, images, numbers.len());
        queue.set_outcomes(numbers.into_iter().zip(outcomes));
    }
}

/// Exactly one outcome for each image, even if the network panics.
fn outcomes(
    detector: &(impl Predictor + ?Sized),
    images: Vec<PreparedImage>,
    count: usize,
) -> impl Iterator<Item = Outcome> {
    const WHAT: &str = "the network";
    let (results, message) = match caught(WHAT, || detector.predict_prepared(images)) {
        Ok(results) => (results, String::new()),
        Err(Panic { message, .. }) => (Vec::new(), message),
    };
    let missing = move || Outcome::Failed(Error::Panicked { what: WHAT, message: message.clone() });
    let known = results.into_iter().map(|result| match result {
        Ok(prediction) => Outcome::Predicted(prediction),
        Err(error) => Outcome::Failed(error),
    });
    known.chain(std::iter::repeat_with(missing)).take(count)
}

fn deliver<T>(
    queue: &Queue<T>,
    failure: SinkFailure,
    mut sink: impl FnMut(LineResult<T>) -> Result<(), SinkError>,
) {
    while let Some(result) = queue.take_result() {
        let dropped = matches!(result.outcome, Outcome::Dropped);
        let begin = Instant::now();
        let message = match caught("the sink", || sink(result)) {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(format!("the sink failed: {error}")),
            Err(panic) => Some(panic.error().to_string()),
        };
        queue.set_sunk(dropped, begin.elapsed());
        if let Some(message) = message {
            queue.set_sink_failure(message.clone());
            if failure == SinkFailure::Stop {
                queue.stop(message);
            }
        }
    }
}

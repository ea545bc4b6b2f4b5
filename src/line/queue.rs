//! The state of all images in a line, behind one lock that is held only briefly.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use image::DynamicImage;

use super::config::{DropPolicy, LineConfig, LineResult, Outcome, Submitted};
use super::statistics::LineStatistics;
use super::statistics::{Counts, Times};
use crate::detector::PreparedImage;
use crate::error::{Error, Result};
use crate::preprocess::ImageInput;

/// The most dropped images whose ids may wait for the sink. Beyond, [`Queue::submit`] waits under
/// any policy.
pub(super) const MOST_DROPPED: usize = 1 << 16;

/// The state of all images. Decoders take the oldest image first, and only a limited number, so the
/// oldest unfinished image is always in progress, and there is no deadlock.
pub(super) struct Queue<T> {
    config: LineConfig,
    state: Mutex<State<T>>,
    /// Wakes threads that submit.
    room: Condvar,
    /// Wakes decoders.
    work: Condvar,
    /// Wakes the network.
    prepared: Condvar,
    /// Wakes the sink.
    finished: Condvar,
}

struct State<T> {
    phase: Phase,
    /// All images that the sink has not taken, in the order of their numbers.
    slots: VecDeque<Slot<T>>,
    /// The number of the first slot.
    first: u64,
    /// Images that no decoder has taken.
    waiting: VecDeque<(u64, ImageInput)>,
    decoding: usize,
    /// Images that are ready for a batch, and since when.
    prepared: VecDeque<(u64, PreparedImage, Instant)>,
    /// The number of images that a decoder has taken and the sink is not done with.
    begun: usize,
    /// The number of dropped images that the sink is not done with.
    dropped: usize,
    /// The ids of images that were in the line when it stopped.
    undelivered: Vec<T>,
    counts: Counts,
}

struct Slot<T> {
    id: T,
    times: Times,
    outcome: Option<Outcome>,
    /// The decoded image, if it is to be kept.
    image: Option<Arc<DynamicImage>>,
}

#[derive(Debug, Clone, PartialEq)]
enum Phase {
    Open,
    /// Takes no more images, and finishes those it has.
    Closing,
    /// Takes no more images, and drops those it has.
    Stopped(String),
}

impl<T> Queue<T> {
    pub fn new(config: LineConfig) -> Self {
        let state = State {
            phase: Phase::Open,
            slots: VecDeque::new(),
            first: 0,
            waiting: VecDeque::new(),
            decoding: 0,
            prepared: VecDeque::new(),
            begun: 0,
            dropped: 0,
            undelivered: Vec::new(),
            counts: Counts::default(),
        };
        Self {
            config,
            state: Mutex::new(state),
            room: Condvar::new(),
            work: Condvar::new(),
            prepared: Condvar::new(),
            finished: Condvar::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        // Nothing in here panics while it holds the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn submit(&self, id: T, image: ImageInput) -> Result<Submitted> {
        let mut state = self.lock();
        // Freed after the lock is released, because freeing a large image takes time.
        let _displaced;
        let submitted = loop {
            match &state.phase {
                Phase::Open => {}
                Phase::Closing => return Err(closed("it is being finished")),
                Phase::Stopped(reason) => return Err(closed(reason)),
            }
            let full = state.waiting.len() >= self.config.queue;
            let wait = full && self.config.drop == DropPolicy::Wait;
            if wait || state.dropped >= MOST_DROPPED {
                state = wait_on(&self.room, state);
            } else if full && self.config.drop == DropPolicy::DropNewest {
                state.push(id, Some(Outcome::Dropped));
                break Submitted::Dropped;
            } else {
                let oldest = if full { state.waiting.pop_front() } else { None };
                if let Some((number, _)) = &oldest {
                    state.set_outcome(*number, Outcome::Dropped);
                }
                let number = state.push(id, None);
                state.waiting.push_back((number, image));
                let dropped = oldest.is_some();
                _displaced = oldest;
                break if dropped { Submitted::DroppedOldest } else { Submitted::Accepted };
            }
        };
        if submitted != Submitted::Accepted {
            state.dropped += 1;
            self.finished.notify_one();
        }
        if submitted != Submitted::Dropped {
            self.work.notify_one();
        }
        let in_flight = state.waiting.len() + state.begun;
        state.counts.most_in_flight = state.counts.most_in_flight.max(in_flight);
        drop(state);
        Ok(submitted)
    }

    /// Waits for the oldest image that no decoder has taken; `None` if no more will come.
    pub fn take_waiting(&self) -> Option<(u64, ImageInput)> {
        let mut state = self.lock();
        loop {
            if state.begun < self.config.most_begun()
                && let Some((number, image)) = state.waiting.pop_front()
            {
                state.begun += 1;
                state.decoding += 1;
                state.stamp(number, |times| &mut times.begun);
                self.room.notify_one();
                return Some((number, image));
            }
            if state.phase != Phase::Open && state.waiting.is_empty() {
                return None;
            }
            state = wait_on(&self.work, state);
        }
    }

    pub fn set_prepared(&self, number: u64, image: Result<PreparedImage>) {
        let mut state = self.lock();
        state.decoding -= 1;
        state.stamp(number, |times| &mut times.decoded);
        match image {
            Ok(image) => {
                if let Some(slot) = state.slot(number) {
                    slot.image = image.image().cloned();
                }
                state.prepared.push_back((number, image, Instant::now()));
            }
            Err(error) => {
                state.set_outcome(number, Outcome::Failed(error));
                self.finished.notify_one();
            }
        }
        // Also after a bad image: it may have been the last one that the network waits for.
        self.prepared.notify_one();
    }

    /// Waits until the next batch is full or has waited long enough; `None` if no more will come.
    pub fn take_batch(&self) -> Option<(Vec<u64>, Vec<PreparedImage>)> {
        let mut state = self.lock();
        loop {
            let open = state.phase == Phase::Open;
            let Some((_, _, since)) = state.prepared.front() else {
                if !open && state.waiting.is_empty() && state.decoding == 0 {
                    return None;
                }
                state = wait_on(&self.prepared, state);
                continue;
            };
            let left = self.config.batch_wait.saturating_sub(since.elapsed());
            if !open || state.prepared.len() >= self.config.batch || left.is_zero() {
                break;
            }
            state = wait_on_for(&self.prepared, state, left);
        }
        let count = state.prepared.len().min(self.config.batch);
        let taken: Vec<_> = state.prepared.drain(..count).collect();
        state.counts.batches += 1;
        let batch = taken.into_iter().map(|(number, image, _)| {
            state.stamp(number, |times| &mut times.batched);
            (number, image)
        });
        Some(batch.unzip())
    }

    pub fn set_outcomes(&self, outcomes: impl Iterator<Item = (u64, Outcome)>) {
        let mut state = self.lock();
        for (number, outcome) in outcomes {
            state.stamp(number, |times| &mut times.predicted);
            state.set_outcome(number, outcome);
        }
        self.finished.notify_one();
    }

    /// Waits for the next result in the order of submission; `None` if no more will come.
    pub fn take_result(&self) -> Option<LineResult<T>> {
        let mut state = self.lock();
        loop {
            let ready = state.slots.front().is_some_and(|slot| slot.outcome.is_some());
            let front = if ready { state.slots.pop_front() } else { None };
            if let Some(Slot { id, times, outcome: Some(outcome), image }) = front {
                let number = state.first;
                state.first += 1;
                let latency = state.counts.deliver(&outcome, &times);
                return Some(LineResult { number, id, outcome, image, latency });
            }
            if state.phase != Phase::Open && state.slots.is_empty() {
                return None;
            }
            state = wait_on(&self.finished, state);
        }
    }

    /// Records that the sink is done with a result, of a dropped image or of one that a decoder had
    /// taken.
    pub fn set_sunk(&self, dropped: bool, took: Duration) {
        let mut state = self.lock();
        if dropped {
            state.dropped = state.dropped.saturating_sub(1);
            self.room.notify_one();
        } else {
            state.begun -= 1;
            state.counts.sinking.record(took);
            self.work.notify_one();
        }
    }

    pub fn set_sink_failure(&self, message: String) {
        let mut state = self.lock();
        state.counts.sink_failures += 1;
        state.counts.last_sink_failure = Some(message);
    }

    /// Takes no more images, and finishes those in the line.
    pub fn close(&self) {
        let mut state = self.lock();
        if state.phase == Phase::Open {
            state.phase = Phase::Closing;
        }
        self.wake_all();
    }

    /// Takes no more images, and drops those in the line.
    pub fn stop(&self, reason: String) {
        let mut state = self.lock();
        let state = &mut *state;
        state.phase = Phase::Stopped(reason);
        state.counts.dropped += state.slots.len() as u64;
        state.undelivered.extend(state.slots.drain(..).map(|slot| slot.id));
        state.first = state.counts.submitted;
        state.waiting.clear();
        state.prepared.clear();
        self.wake_all();
    }

    fn wake_all(&self) {
        for condition in [&self.room, &self.work, &self.prepared, &self.finished] {
            condition.notify_all();
        }
    }

    pub fn statistics(&self) -> LineStatistics {
        self.lock().counts.statistics()
    }

    pub fn take_undelivered(&self) -> Vec<T> {
        std::mem::take(&mut self.lock().undelivered)
    }
}

impl<T> State<T> {
    fn push(&mut self, id: T, outcome: Option<Outcome>) -> u64 {
        let number = self.counts.submitted;
        self.counts.submitted += 1;
        self.slots.push_back(Slot { id, times: Times::now(), outcome, image: None });
        number
    }

    /// `None` after the line was stopped.
    fn slot(&mut self, number: u64) -> Option<&mut Slot<T>> {
        let place = usize::try_from(number.checked_sub(self.first)?).ok()?;
        self.slots.get_mut(place)
    }

    fn stamp(&mut self, number: u64, time: impl Fn(&mut Times) -> &mut Option<Instant>) {
        if let Some(slot) = self.slot(number) {
            *time(&mut slot.times) = Some(Instant::now());
        }
    }

    fn set_outcome(&mut self, number: u64, outcome: Outcome) {
        if let Some(slot) = self.slot(number) {
            slot.outcome = Some(outcome);
        }
    }
}

fn closed(reason: &str) -> Error {
    Error::LineClosed { reason: reason.to_owned() }
}

fn wait_on<'a, S>(condition: &Condvar, guard: MutexGuard<'a, S>) -> MutexGuard<'a, S> {
    condition.wait(guard).unwrap_or_else(PoisonError::into_inner)
}

fn wait_on_for<'a, S>(
    condition: &Condvar,
    guard: MutexGuard<'a, S>,
    time: Duration,
) -> MutexGuard<'a, S> {
    condition.wait_timeout(guard, time).unwrap_or_else(PoisonError::into_inner).0
}

//! Batches of images; the next batch is prepared while the network works.

use rayon::prelude::*;

use super::prepared::{Item, PREPARING, Prepared, Steps};
use crate::caught::caught_for;
use crate::error::{Error, Result};
use crate::preprocess::{DecodeOptions, ImageInput, OpenedImage};

/// The number of items, if the iterator knows it.
pub(super) fn exact_count(items: &impl Iterator) -> Option<usize> {
    let (lower, upper) = items.size_hint();
    upper.filter(|&upper| upper == lower)
}

/// The number of images, and the images. If the iterator does not know the number, it is collected
/// first; for file names, this takes little memory.
pub(super) fn counted<I>(images: I) -> (usize, impl Iterator<Item = ImageInput>)
where
    I: IntoIterator,
    I::Item: Into<ImageInput>,
{
    let images = images.into_iter();
    let (count, known, collected) = match exact_count(&images) {
        Some(count) => (count, Some(images), Vec::new()),
        None => {
            let collected: Vec<ImageInput> = images.map(Into::into).collect();
            (collected.len(), None, collected)
        }
    };
    (count, known.into_iter().flatten().map(Into::into).chain(collected))
}

/// Splits a stream of images into batches. Prepares the next batch while the current one is processed,
/// so that at most two are in memory.
pub(super) struct Batches<'a, I, T> {
    inputs: std::iter::Fuse<I>,
    prepare: Box<Prepare<'a, T>>,
    batch_size: usize,
    count: usize,
    ready: Option<Vec<Item<T>>>,
}

/// A function that prepares an image; the second argument is its name.
type Prepare<'a, T> = dyn Fn(ImageInput, &str) -> Result<T> + Send + Sync + 'a;

impl<'a, I> Batches<'a, I, Prepared>
where
    I: Iterator,
    I::Item: Into<ImageInput>,
{
    /// Batches of network input.
    pub fn new(inputs: I, steps: Steps<'a>, batch_size: usize) -> Self {
        let prepare = move |input, name: &str| Prepared::new(input, name, steps);
        Self::with(inputs, Box::new(prepare), batch_size)
    }
}

impl<I> Batches<'static, I, OpenedImage>
where
    I: Iterator,
    I::Item: Into<ImageInput>,
{
    /// Decoded images, in batches of one.
    pub fn decoded(inputs: I, options: DecodeOptions) -> Self {
        let open = move |input: ImageInput, name: &str| {
            caught_for(PREPARING, name, || input.open(name, options))
        };
        Self::with(inputs, Box::new(open), 1)
    }
}

impl<'a, I, T> Batches<'a, I, T>
where
    I: Iterator,
    I::Item: Into<ImageInput>,
    T: Send,
{
    fn with(inputs: I, prepare: Box<Prepare<'a, T>>, batch_size: usize) -> Self {
        Self { inputs: inputs.fuse(), prepare, batch_size, count: 0, ready: None }
    }

    /// Runs `work` on the next batch, if there is one.
    pub fn advance<R>(&mut self, work: impl FnOnce(Vec<Item<T>>) -> R) -> Option<R> {
        let current = match self.ready.take() {
            Some(ready) => ready,
            None => {
                let inputs = self.take();
                prepare(inputs, &self.prepare)
            }
        };
        if current.is_empty() {
            return None;
        }
        let upcoming = self.take();
        let mut prepared = Vec::new();
        let how = &self.prepare;
        // The network runs on the calling thread, because GPU backends expect this.
        let result = rayon::in_place_scope(|scope| {
            scope.spawn(|_| prepared = prepare(upcoming, how));
            work(current)
        });
        self.ready = Some(prepared);
        Some(result)
    }

    /// Runs `work` on the first item.
    pub fn first<R>(mut self, work: impl FnOnce(Item<T>) -> Result<R>) -> Result<R> {
        let result = self.advance(|batch| batch.into_iter().next().map(work)).flatten();
        result.unwrap_or(Err(Error::TooFewImages { count: 0 }))
    }

    fn take(&mut self) -> Vec<(String, ImageInput)> {
        let first = self.count;
        let inputs = self.inputs.by_ref().take(self.batch_size).map(Into::into);
        let named: Vec<(String, ImageInput)> = inputs
            .zip(first..)
            .map(|(input, number)| {
                (input.name().unwrap_or_else(|| format!("number {number}")), input)
            })
            .collect();
        self.count += named.len();
        named
    }
}

fn prepare<T: Send>(inputs: Vec<(String, ImageInput)>, how: &Prepare<'_, T>) -> Vec<Item<T>> {
    inputs
        .into_par_iter()
        .map(|(name, input)| {
            let prepared = how(input, &name);
            Item { name, prepared }
        })
        .collect()
}

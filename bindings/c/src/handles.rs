//! Handles: numbers that stand for objects of this library.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::status::{Failure, Outcome};

/// No number is used twice, whatever the kind of its object.
static NEXT: AtomicU64 = AtomicU64::new(1);

/// The living objects of a kind.
pub struct Handles<T> {
    objects: Mutex<Option<HashMap<u64, Arc<T>>>>,
    kind: &'static str,
}

impl<T> Handles<T> {
    pub const fn new(kind: &'static str) -> Self {
        Self { objects: Mutex::new(None), kind }
    }

    fn objects(&self) -> MutexGuard<'_, Option<HashMap<u64, Arc<T>>>> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps an object, and gives its handle.
    pub fn insert(&self, object: T) -> u64 {
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        self.objects().get_or_insert_default().insert(id, Arc::new(object));
        id
    }

    pub fn get(&self, id: u64) -> Outcome<Arc<T>> {
        let found = self.objects().as_ref().and_then(|objects| objects.get(&id).cloned());
        found.ok_or_else(|| self.unknown(id))
    }

    /// Gives up a handle. Its object lives as long as calls use it.
    pub fn remove(&self, id: u64) -> Outcome<Arc<T>> {
        let removed = self.objects().as_mut().and_then(|objects| objects.remove(&id));
        removed.ok_or_else(|| self.unknown(id))
    }

    fn unknown(&self, id: u64) -> Failure {
        let kind = self.kind;
        Failure::argument(format!(
            "there is no {kind} with the handle {id}: it was freed, or is the handle of something else"
        ))
    }
}

//! A cache of one value, for the key that was requested last.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// The value for the key that was requested last. Each clone caches its own key, so that clones
/// with different keys do not evict each other's values. Clones with the same key share one value.
///
/// A cache changes no result, so `PartialEq` and `Debug` ignore it.
pub(crate) struct Latest<Key, Value> {
    own: Mutex<Option<(Key, Arc<Value>)>>,
    /// The values that this cache and its clones hold.
    all: Arc<Mutex<Others<Key, Value>>>,
}

type Others<Key, Value> = Vec<(Key, Weak<Value>)>;

impl<Key: PartialEq + Clone, Value> Latest<Key, Value> {
    /// The value for this key, from the cache or from `make`. Threads that need another value from
    /// a clone wait meanwhile, so `make` must not use rayon (see `threads.rs`).
    pub fn get(&self, key: Key, make: impl FnOnce(&Key) -> Value) -> Arc<Value> {
        {
            let mut own = lock(&self.own);
            if let Some((_, value)) = own.as_ref().filter(|(of, _)| *of == key) {
                return Arc::clone(value);
            }
            // Free the old value before the new one takes memory.
            *own = None;
        }
        let value = {
            let mut all = lock(&self.all);
            all.retain(|(_, value)| value.strong_count() > 0);
            let there = all.iter().find(|(of, _)| *of == key);
            there.and_then(|(_, value)| value.upgrade()).unwrap_or_else(|| {
                let value = Arc::new(make(&key));
                all.push((key.clone(), Arc::downgrade(&value)));
                value
            })
        };
        *lock(&self.own) = Some((key, Arc::clone(&value)));
        value
    }
}

/// Ignores poisoning: a panic in `make` has stored no value.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<Key: Clone, Value> Clone for Latest<Key, Value> {
    fn clone(&self) -> Self {
        Self { own: Mutex::new(lock(&self.own).clone()), all: Arc::clone(&self.all) }
    }
}

impl<Key, Value> Default for Latest<Key, Value> {
    fn default() -> Self {
        Self { own: Mutex::default(), all: Arc::default() }
    }
}

impl<Key, Value> PartialEq for Latest<Key, Value> {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl<Key, Value> fmt::Debug for Latest<Key, Value> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Latest")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::{AssertUnwindSafe, catch_unwind};

    #[test]
    fn only_another_key_makes_another_value() {
        let latest = Latest::default();
        let made = |key: i32| latest.get(key, |key| key * 10);
        let first = made(1);
        assert_eq!(*first, 10);
        assert!(Arc::ptr_eq(&first, &made(1)));
        assert_eq!(*made(2), 20);
        drop(first);
        assert_eq!(*latest.get(1, |_| 11), 11, "nobody has kept the first one");
    }

    #[test]
    fn clones_share_values_and_do_not_take_each_others_away() {
        let card0 = Latest::default();
        let (card1, other) = (card0.clone(), card0.clone());
        let first = card0.get(0, |_| "on card 0");
        let second = card1.get(1, |_| "on card 1");
        for _ in 0..3 {
            assert!(Arc::ptr_eq(&first, &card0.get(0, |_| unreachable!())));
            assert!(Arc::ptr_eq(&second, &card1.get(1, |_| unreachable!())));
        }
        // A clone from before the value was made.
        assert!(Arc::ptr_eq(&first, &other.get(0, |_| unreachable!())));
        drop((first, card0));
        assert_eq!(*other.get(0, |_| unreachable!()), "on card 0");
        drop(other);
        assert_eq!(*card1.get(0, |_| "made again"), "made again");
    }

    #[test]
    fn the_old_value_is_gone_before_the_new_one_is_made() {
        let latest = Latest::default();
        let old = Arc::downgrade(&latest.get(1, |_| 1));
        assert!(old.upgrade().is_some());
        latest.get(2, |_| {
            assert!(old.upgrade().is_none());
            2
        });
    }

    #[test]
    fn a_value_that_could_not_be_made_is_asked_for_again() {
        let latest = Latest::default();
        let failing = AssertUnwindSafe(|| latest.get(1, |_| -> i32 { panic!("no") }));
        assert!(catch_unwind(failing).is_err());
        assert_eq!(*latest.get(1, |_| 5), 5);
    }
}

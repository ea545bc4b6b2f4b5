//! What was last asked for, kept in case that it is asked for again.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

/// The value for the key that was last asked for, which all clones share. It says nothing that its owner
/// does not, so that any two are equal and look alike.
pub(crate) struct Latest<Key, Value>(Arc<Mutex<Option<(Key, Value)>>>);

impl<Key: PartialEq, Value: Clone> Latest<Key, Value> {
    /// The value for this key: the one that is there, or a new one. Whoever asks meanwhile waits.
    pub fn get(&self, key: Key, make: impl FnOnce(&Key) -> Value) -> Value {
        // Whoever panicked while making one left none.
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, value)) = last.as_ref().filter(|(of, _)| *of == key) {
            return value.clone();
        }
        // The old one goes before there is room for the new one.
        *last = None;
        let value = make(&key);
        last.insert((key, value)).1.clone()
    }
}

impl<Key, Value> Clone for Latest<Key, Value> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<Key, Value> Default for Latest<Key, Value> {
    fn default() -> Self {
        Self(Arc::default())
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
    use std::sync::Weak;

    #[test]
    fn only_another_key_makes_another_value() {
        let latest = Latest::default();
        let made = |key: i32| latest.get(key, |key| Arc::new(key * 10));
        let first = made(1);
        assert_eq!(*first, 10);
        assert!(
            Arc::ptr_eq(&first, &made(1))
                && Arc::ptr_eq(&first, &latest.clone().get(1, |_| unreachable!()))
        );
        assert_eq!(*made(2), 20);
        assert!(!Arc::ptr_eq(&first, &made(1)));
    }

    #[test]
    fn the_old_value_is_gone_before_the_new_one_is_made() {
        let latest = Latest::default();
        let old: Weak<i32> = Arc::downgrade(&latest.get(1, |_| Arc::new(1)));
        assert!(old.upgrade().is_some());
        latest.get(2, |_| {
            assert!(old.upgrade().is_none());
            Arc::new(2)
        });
    }

    #[test]
    fn a_value_that_could_not_be_made_is_asked_for_again() {
        let latest = Latest::default();
        let failing = AssertUnwindSafe(|| latest.get(1, |_| -> i32 { panic!("no") }));
        assert!(catch_unwind(failing).is_err());
        assert_eq!(latest.get(1, |_| 5), 5);
    }
}

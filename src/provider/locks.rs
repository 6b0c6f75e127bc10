//! One lock a function: two changes of the same function never overlap, those of different ones do.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crate::function::FunctionKey;

/// Locks by function; one that nobody holds takes no memory for long.
#[derive(Debug, Default)]
pub struct KeyLocks(Mutex<HashMap<FunctionKey, Weak<Mutex<()>>>>);

impl KeyLocks {
    /// The lock of `key`. Hold [`KeyLock::hold`]'s guard while changing the function.
    pub fn of(&self, key: &FunctionKey) -> KeyLock {
        let mut locks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(lock) = locks.get(key).and_then(Weak::upgrade) {
            return KeyLock(lock);
        }
        locks.retain(|_, lock| lock.strong_count() > 0);
        let lock = Arc::new(Mutex::new(()));
        locks.insert(key.clone(), Arc::downgrade(&lock));
        KeyLock(lock)
    }
}

/// One function's lock.
#[derive(Debug)]
pub struct KeyLock(Arc<Mutex<()>>);

impl KeyLock {
    /// Waits until nobody else changes the function.
    pub fn hold(&self) -> MutexGuard<'_, ()> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

//! Locks of what connections share in memory.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks, also after a panic with the lock held: the task that panicked is gone, and must not take every
/// other with it.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

//! Locking what handles and tasks share.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks. That somebody panicked who held the lock is ignored: a panic ends the callback or the task that
/// it is in, and is not to end all others that come by.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

//! A callback that its owner can end from anywhere, even while it runs (I6).

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::ThreadId;

/// One registered callback.
pub(crate) struct Slot<C> {
    callback: Mutex<Option<C>>,
    /// Who runs it now.
    runner: Mutex<Option<ThreadId>>,
    open: AtomicBool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Notes who runs the callback, for as long as that takes.
struct Run<'a> {
    runner: &'a Mutex<Option<ThreadId>>,
}

impl<'a> Run<'a> {
    fn new(runner: &'a Mutex<Option<ThreadId>>) -> Self {
        *lock(runner) = Some(std::thread::current().id());
        Self { runner }
    }
}

impl Drop for Run<'_> {
    fn drop(&mut self) {
        *lock(self.runner) = None;
    }
}

impl<C> Slot<C> {
    pub(crate) fn new(callback: C) -> Self {
        Self {
            callback: Mutex::new(Some(callback)),
            runner: Mutex::new(None),
            open: AtomicBool::new(true),
        }
    }

    /// Enters the callback, unless it was ended. It is entered by one thread at a time.
    pub(crate) fn enter<T>(&self, with: impl FnOnce(&mut C) -> T) -> Option<T> {
        let mut callback = lock(&self.callback);
        if !self.open.load(Ordering::Acquire) {
            return None;
        }
        let _run = Run::new(&self.runner);
        callback.as_mut().map(with)
    }

    /// Waits for a run on another thread to end; after this it is never entered again.
    pub(crate) fn close(&self) {
        self.open.store(false, Ordering::Release);
        if *lock(&self.runner) == Some(std::thread::current().id()) {
            return;
        }
        // Dropped when it is unlocked again: it may own what closes this very slot.
        let callback = lock(&self.callback).take();
        drop(callback);
    }
}

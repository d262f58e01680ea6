//! A callback that its owner can end from anywhere, even while it runs (I6).

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::ThreadId;

use crate::lock::lock;

/// One registered callback.
pub(crate) struct Callback<F> {
    function: Mutex<Option<F>>,
    /// Who runs it now.
    runner: Mutex<Option<ThreadId>>,
    open: AtomicBool,
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

impl<F> Callback<F> {
    pub(crate) fn new(function: F) -> Self {
        Self {
            function: Mutex::new(Some(function)),
            runner: Mutex::new(None),
            open: AtomicBool::new(true),
        }
    }

    /// Enters the callback, unless it was ended. It is entered by one thread at a time.
    pub(crate) fn enter<T>(&self, with: impl FnOnce(&mut F) -> T) -> Option<T> {
        let mut function = lock(&self.function);
        if !self.open.load(Ordering::Acquire) {
            return None;
        }
        let _run = Run::new(&self.runner);
        function.as_mut().map(with)
    }

    /// Waits for a run on another thread to end; after this it is never entered again.
    pub(crate) fn close(&self) {
        self.open.store(false, Ordering::Release);
        if *lock(&self.runner) == Some(std::thread::current().id()) {
            return;
        }
        // Dropped when it is unlocked again: it may own what closes this very callback.
        let function = lock(&self.function).take();
        drop(function);
    }
}

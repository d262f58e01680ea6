//! Panics that are caught, and told as errors: sled has some where files are damaged.

use std::cell::Cell;

thread_local! {
    /// Whether this thread is within what catches them.
    static TOLD: Cell<bool> = const { Cell::new(false) };
}

/// Has panics that are told as errors logged at level debug, and all others told as ever.
pub(crate) fn keep_quiet_of_those_that_are_told() {
    let tell = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if TOLD.get() {
            tracing::debug!("{panic}");
        } else {
            tell(panic);
        }
    }));
}

/// Runs what catches the panics within it.
pub(crate) fn told_as_errors<T>(call: impl FnOnce() -> T) -> T {
    struct Within;
    impl Drop for Within {
        fn drop(&mut self) {
            TOLD.set(false);
        }
    }
    TOLD.set(true);
    let _within = Within;
    call()
}

#[cfg(test)]
mod tests {
    use std::panic::{catch_unwind, set_hook, take_hook};
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;

    use super::*;

    static TOLD_OF: AtomicUsize = AtomicUsize::new(0);

    #[test]
    fn a_panic_is_kept_quiet_of_only_where_it_is_told_as_an_error() {
        let (me, others) = (thread::current().id(), take_hook());
        set_hook(Box::new(move |panic| {
            if thread::current().id() == me {
                TOLD_OF.fetch_add(1, Ordering::Relaxed);
            } else {
                others(panic);
            }
        }));
        keep_quiet_of_those_that_are_told();
        let fail = || drop(catch_unwind(|| panic!("damaged")));
        told_as_errors(fail);
        assert_eq!(TOLD_OF.load(Ordering::Relaxed), 0);
        fail();
        assert_eq!(TOLD_OF.load(Ordering::Relaxed), 1);
    }
}

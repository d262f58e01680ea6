//! Whether the store takes what is written: what whoever watches a relay is told.

use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use outlive_core::store::StoreError;

use crate::lock::lock;

/// What became of the last write to the store. The writer of the mailboxes says it, and anybody may ask.
#[derive(Debug, Default)]
pub(crate) struct Health {
    failure: Mutex<Option<String>>,
    failed: AtomicU64,
}

impl Health {
    /// A write has ended.
    pub(crate) fn written(&self, result: &Result<(), StoreError>) {
        if result.is_err() {
            self.failed.fetch_add(1, Ordering::Relaxed);
        }
        *lock(&self.failure) = result.as_ref().err().map(reason);
    }

    /// How many writes have failed since the relay started.
    pub(crate) fn failed_writes(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    /// Why the last write failed, if it did.
    pub(crate) fn failure(&self) -> Option<String> {
        lock(&self.failure).clone()
    }
}

/// What anybody may know of an error: no path, and nothing of what was written.
fn reason(error: &StoreError) -> String {
    let reason = match error {
        StoreError::Full => "the disk is full",
        StoreError::Damaged { .. } => "it is damaged",
        StoreError::Closed => "it is closed",
        StoreError::Io(error) => {
            return match error.raw_os_error() {
                // The system's own words, without what somebody may have put around them.
                Some(code) => io::Error::from_raw_os_error(code).to_string(),
                None => error.kind().to_string(),
            };
        }
        // What keeps a store from being opened, and what is not known here.
        _ => "it failed",
    };
    reason.to_owned()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn what_is_told_of_a_failure_has_no_path_in_it() {
        let path = "/home/alice/mailboxes";
        let io = |error: io::Error| StoreError::Io(Arc::new(error));
        let denied = io::Error::new(io::ErrorKind::PermissionDenied, path);
        let errors = [
            io(denied),
            StoreError::InUse { path: path.into() },
            StoreError::Damaged { what: path.into() },
        ];
        for error in errors {
            let health = Health::default();
            health.written(&Err(error.clone()));
            let told = health.failure().expect("a failure");
            assert!(error.to_string().contains(path));
            assert!(!told.contains(path) && !told.is_empty(), "{told}");
        }
        // What an operator looks up.
        let health = Health::default();
        health.written(&Err(io(io::Error::from_raw_os_error(5))));
        let told = health.failure().expect("a failure");
        assert!(told.contains("os error 5"), "{told}");
    }
}

//! The one place where the runtime asks what time it is.

use std::time::{SystemTime, UNIX_EPOCH};

use outlive_core::{Now, WallTime};
use tokio::time::Instant;

/// A clock that counts from the node's start.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    start: Instant,
}

impl Clock {
    pub(crate) fn new() -> Self {
        Self {
            start: Instant::now(),
        }
    }

    pub(crate) fn now(&self) -> Now {
        let wall = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let wall = WallTime(u64::try_from(wall.as_millis()).unwrap_or(u64::MAX));
        Now {
            elapsed: self.start.elapsed(),
            wall,
        }
    }

    /// The moment at which `elapsed` has passed.
    pub(crate) fn at(&self, elapsed: std::time::Duration) -> Instant {
        self.start + elapsed
    }
}

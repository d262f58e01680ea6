//! Time as an input. The engine has no clock: whoever drives it says what time it is.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// A moment of the wall clock, in milliseconds since 1970-01-01 UTC. Used for what outlives a
/// process: when a message was sent, when it expires.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct WallTime(pub u64);

impl WallTime {
    /// The moment `duration` later.
    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        Self(
            self.0
                .saturating_add(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)),
        )
    }

    /// How long it is until `later`; zero if that has passed.
    #[must_use]
    pub const fn until(self, later: Self) -> Duration {
        Duration::from_millis(later.0.saturating_sub(self.0))
    }
}

/// For an app that shows or compares it. What is too late for the system's clock is 1970 to it.
impl From<WallTime> for SystemTime {
    fn from(at: WallTime) -> Self {
        let since = Duration::from_millis(at.0);
        UNIX_EPOCH.checked_add(since).unwrap_or(UNIX_EPOCH)
    }
}

/// The present: a clock that only moves forward, and the wall clock beside it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Time since some fixed moment of this process. Never goes back.
    pub elapsed: Duration,
    /// The wall clock. May jump; used for TTLs alone.
    pub wall: WallTime,
}

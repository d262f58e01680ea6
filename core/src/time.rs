//! Time as an input. The engine has no clock: whoever drives it says what time it is.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// A moment of the wall clock, in milliseconds since 1970-01-01 UTC: when a message was sent, as an app
/// shows it.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct WallTime(pub u64);

impl WallTime {
    /// The moment `duration` later.
    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(millis(duration)))
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

/// A moment of a store's own clock, in milliseconds: when what is kept there expires. That clock is set
/// once, by the wall clock, and goes by what has passed from then on, so that it is of no consequence to it
/// that the wall clock is set. Two moments say how much lies between them, and none what date it is.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct StoreTime(pub u64);

impl StoreTime {
    /// The moment `duration` later.
    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(millis(duration)))
    }

    /// How long it is until `later`; zero if that has passed.
    #[must_use]
    pub const fn until(self, later: Self) -> Duration {
        Duration::from_millis(later.0.saturating_sub(self.0))
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The present, by three clocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Time since some fixed moment of this process. Never goes back.
    pub elapsed: Duration,
    /// By the store's own clock. Goes on while no process runs, and does not jump.
    pub store: StoreTime,
    /// By the wall clock, which may be set to anything at any time.
    pub wall: WallTime,
}

impl Now {
    /// The present when so much more has passed, and no clock was set meanwhile.
    #[must_use]
    pub fn after(self, passed: Duration) -> Self {
        Self {
            elapsed: self.elapsed.saturating_add(passed),
            store: self.store.plus(passed),
            wall: self.wall.plus(passed),
        }
    }
}

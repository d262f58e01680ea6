//! Another link carries for some seconds, to show what it takes in.
//!
//! That shows only while a link is full, and one that carries nothing never is. So while a direct link
//! takes in little, another has a turn: a short one, and seldom, since a relay's work is not free. When
//! the next may be is remembered for the session, whatever becomes of its links.

use std::time::Duration;

use crate::Generation;

/// The longest that one lasts. It ends as soon as it has told something, which takes two seconds of
/// being full; who has no more to send learns nothing.
const LONGEST: Duration = Duration::from_secs(4);

/// From one to the next: as long as what was learned counts.
const PAUSE: Duration = Duration::from_secs(300);

/// The trials of a session's links.
#[derive(Clone, Copy, Debug, Default)]
pub(super) enum Trial {
    /// There was none yet.
    #[default]
    Never,
    /// There is one.
    On {
        /// Whose turn it is.
        tries: Generation,
        /// Since when.
        since: Duration,
    },
    /// There was one.
    Over {
        /// When it had begun.
        since: Duration,
    },
}

impl Trial {
    /// Whether it is time for one.
    pub(super) fn is_due(&self, now: Duration) -> bool {
        match self {
            Self::Never => true,
            Self::On { .. } => false,
            Self::Over { since } => now >= *since + PAUSE,
        }
    }

    /// Begins one of this link.
    pub(super) const fn begin(&mut self, link: Generation, now: Duration) {
        *self = Self::On {
            tries: link,
            since: now,
        };
    }

    pub(super) const fn end(&mut self) {
        if let Self::On { since, .. } = *self {
            *self = Self::Over { since };
        }
    }

    /// The link whose turn it is.
    pub(super) const fn of(&self) -> Option<Generation> {
        match self {
            Self::On { tries, .. } => Some(*tries),
            Self::Never | Self::Over { .. } => None,
        }
    }

    /// When the one that is on has lasted long enough.
    pub(super) fn deadline(&self) -> Option<Duration> {
        match self {
            Self::On { since, .. } => Some(*since + LONGEST),
            Self::Never | Self::Over { .. } => None,
        }
    }
}

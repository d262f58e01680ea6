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
        /// Who carries again if it tells nothing.
        rests: Generation,
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

    /// Begins one of a link, while the one that carries now rests.
    pub(super) const fn begin(&mut self, tries: Generation, rests: Generation, now: Duration) {
        *self = Self::On {
            tries,
            rests,
            since: now,
        };
    }

    /// Ends the one that is on. Returns who carried before.
    pub(super) const fn end(&mut self) -> Option<Generation> {
        let Self::On { since, rests, .. } = *self else {
            return None;
        };
        *self = Self::Over { since };
        Some(rests)
    }

    /// A link takes the place of the one whose turn it is, or of the one that rests.
    pub(super) fn replace(&mut self, old: Generation, new: Generation) {
        if let Self::On { tries, rests, .. } = self {
            for link in [tries, rests] {
                if *link == old {
                    *link = new;
                }
            }
        }
    }

    /// The link whose turn it is.
    pub(super) const fn of(&self) -> Option<Generation> {
        match self {
            Self::On { tries, .. } => Some(*tries),
            Self::Never | Self::Over { .. } => None,
        }
    }

    /// The link that rests meanwhile.
    pub(super) const fn rests(&self) -> Option<Generation> {
        match self {
            Self::On { rests, .. } => Some(*rests),
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

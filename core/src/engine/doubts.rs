//! When a packet is reason to doubt the keys there are.
//!
//! Anybody who reaches us can make a packet that names unknown keys, and play old ones again. Each
//! new set of keys pushes an old one out, so neither may bring about many.

use std::time::Duration;

use crate::limits::{HANDSHAKE_AGAIN, HANDSHAKE_MOST, KEYS_PROVEN};

/// What a packet shows that gives no proof of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Doubt {
    /// It names keys that we do not have: whoever sent it.
    UnknownKeys,
    /// The peer has sealed it, now or long ago.
    Old,
}

/// The handshakes that were begun for nothing but doubt.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Doubts {
    /// When the peer has shown last that it uses our keys.
    proven: Option<Duration>,
    begun: Option<Duration>,
    /// From then until the next.
    wait: Duration,
}

impl Doubts {
    /// A fresh packet came under the keys that we seal under.
    pub(super) const fn proved(&mut self, now: Duration) {
        self.proven = Some(now);
    }

    /// Whether a packet makes the keys doubtful.
    pub(super) fn counts(&self, doubt: Doubt, now: Duration) -> bool {
        doubt == Doubt::Old || past(self.proven, KEYS_PROVEN, now)
    }

    /// Whether a doubt is reason enough for a handshake. Each is followed by a longer wait.
    pub(super) fn heed(&mut self, doubt: Doubt, now: Duration) -> bool {
        if !self.counts(doubt, now) || !past(self.begun, self.wait, now) {
            return false;
        }
        self.wait = if past(self.begun, HANDSHAKE_MOST * 4, now) {
            HANDSHAKE_AGAIN
        } else {
            (self.wait * 2).min(HANDSHAKE_MOST)
        };
        self.begun = Some(now);
        true
    }
}

/// Whether so much time has passed since then.
fn past(at: Option<Duration>, wait: Duration, now: Duration) -> bool {
    at.is_none_or(|at| now >= at + wait)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn doubts_that_do_not_end_are_heeded_ever_more_rarely() {
        let mut doubts = Doubts::default();
        let heeded = (0..24 * 3_600)
            .filter(|&second| doubts.heed(Doubt::Old, at(second)))
            .count();
        assert!((24..40).contains(&heeded), "{heeded} times in a day");
    }

    #[test]
    fn keys_that_the_peer_uses_are_not_doubted_for_a_packet_that_names_others() {
        let mut doubts = Doubts::default();
        doubts.proved(at(1));
        assert!(!doubts.heed(Doubt::UnknownKeys, at(2)));
        assert!(doubts.heed(Doubt::Old, at(2)));
        let mut doubts = Doubts::default();
        doubts.proved(at(1));
        assert!(doubts.heed(Doubt::UnknownKeys, at(1) + KEYS_PROVEN));
    }

    #[test]
    fn after_hours_without_a_doubt_the_next_is_heeded_at_once_and_the_one_after_it_soon() {
        let mut doubts = Doubts::default();
        for second in 0..600 {
            doubts.heed(Doubt::Old, at(second));
        }
        assert!(doubts.heed(Doubt::Old, at(24 * 3_600)));
        assert!(doubts.heed(Doubt::Old, at(24 * 3_600) + HANDSHAKE_AGAIN));
    }
}

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
    /// Since when packets that count as seen come from starts that are known, and none that is fresh.
    behind: Option<Duration>,
    begun: Option<Duration>,
    /// From then until the next.
    wait: Duration,
}

impl Doubts {
    /// A fresh packet came under the keys that we seal under.
    pub(super) const fn proved(&mut self, now: Duration) {
        self.proven = Some(now);
    }

    /// A fresh packet came under keys that the peer has not left.
    pub(super) const fn refreshed(&mut self) {
        self.behind = None;
    }

    /// A packet that counts as seen came from a start that is known, under keys that the peer has not left; or
    /// a fresh one under keys that it has.
    /// Whether that has gone on for so long that it is not for packets that come twice, or late: a peer whose
    /// store went back in time counts from further back, and what it sealed before can come in between.
    pub(super) fn is_behind(&mut self, now: Duration) -> bool {
        let since = *self.behind.get_or_insert(now);
        now >= since + KEYS_PROVEN
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
    fn packets_that_count_as_seen_are_a_doubt_when_for_long_no_other_comes() {
        let mut doubts = Doubts::default();
        assert!(!doubts.is_behind(at(1)));
        assert!(!doubts.is_behind(at(60)));
        doubts.refreshed();
        assert!(!doubts.is_behind(at(61)));
        assert!(!doubts.is_behind(at(120)));
        assert!(doubts.is_behind(at(121)));
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

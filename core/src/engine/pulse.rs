//! Whether the other end of a link is there, and how soon it answers.

use std::time::Duration;

use super::quality::{Merit, Quality};
use crate::limits::{LINK_SILENCE, PING_IDLE};
use crate::wire::frame::{Frame, Token};

/// Before the round trip of a link is known, acks count as overdue after this time.
pub(super) const FIRST_OVERDUE: Duration = Duration::from_secs(1);

/// An answer that is overdue and has been awaited for this long may never come: another link to the
/// peer is worth a try. Shorter, and a few lost packets are taken for the end of a link; longer, and
/// a network that was gone for some seconds is waited for by the clocks of its transports, which have
/// backed off.
const DOUBT: Duration = Duration::from_secs(1);

/// How long a Ping may wait behind our own packets before it counts all the same: then so does
/// everything else that the session says. A link of 2 MB/s or more is never that full.
const OWN_QUEUE: Duration = Duration::from_secs(2);

/// How long a relay may take to bring a Pong. Then it was lost, as what matters only now may be there,
/// and another Ping takes the place of its own: on a direct link it is said again instead.
const PONG_LOST: Duration = Duration::from_secs(10);

/// What the other end has to say back over the link, to show that it is there.
#[derive(Clone, Copy, Debug)]
struct Challenge {
    token: [u8; 8],
    /// When it was said last.
    said: Duration,
    /// Whether it was said again: its answer then does not tell the round trip.
    repeated: bool,
}

/// A Ping on its way.
#[derive(Clone, Copy, Debug)]
struct Ping {
    token: [u8; 8],
    said: Duration,
    /// Whether much of our own went before it: then its answer tells nothing of the way.
    behind_our_own: bool,
}

/// The signs of life of a link.
#[derive(Debug)]
pub(super) struct Pulse {
    /// Whether the other end is the peer itself. Behind a relay it may be away: there no answer is overdue.
    direct: bool,
    /// When something authentic came over the link last.
    heard: Duration,
    /// Since when something was sent that asks for an answer.
    waiting: Option<Duration>,
    /// The challenge on its way.
    challenge: Option<Challenge>,
    /// The Ping on its way, and when it was said first.
    ping: Option<Ping>,
    /// When one was said last.
    pinged: Duration,
    /// How it answers.
    pub(super) quality: Quality,
}

impl Pulse {
    pub(super) fn new(direct: bool, now: Duration) -> Self {
        Self {
            direct,
            heard: now,
            waiting: None,
            challenge: None,
            ping: None,
            pinged: now,
            quality: Quality::default(),
        }
    }

    /// Something was sent that asks for an answer.
    pub(super) fn asks(&mut self, now: Duration) {
        if self.direct && self.waiting.is_none() {
            self.waiting = Some(now);
        }
    }

    /// Something authentic came: the link lives.
    pub(super) const fn heard(&mut self, now: Duration) {
        self.heard = now;
        self.waiting = None;
    }

    /// What the other end is to answer, to show that it is there.
    pub(super) fn challenge(&mut self, token: [u8; 8], now: Duration) -> Frame {
        self.say_challenge(Challenge {
            token,
            said: now,
            repeated: false,
        })
    }

    /// The same once more, if it is time. Whatever else is heard on the link answers nothing.
    pub(super) fn challenge_again(&mut self, now: Duration) -> Option<Frame> {
        let due = |challenge: &Challenge| now >= challenge.said + self.patience();
        let challenge = self.challenge.filter(due)?;
        Some(self.say_challenge(Challenge {
            said: now,
            repeated: true,
            ..challenge
        }))
    }

    fn say_challenge(&mut self, challenge: Challenge) -> Frame {
        self.challenge = Some(challenge);
        self.asks(challenge.said);
        Frame::PathChallenge(Token(challenge.token))
    }

    /// An answer to a challenge came. Returns whether it was the awaited one.
    pub(super) fn answered(&mut self, token: [u8; 8], now: Duration) -> bool {
        let awaited = |challenge: &mut Challenge| challenge.token == token;
        let Some(challenge) = self.challenge.take_if(awaited) else {
            return false;
        };
        if !challenge.repeated {
            self.quality
                .measured(now.saturating_sub(challenge.said), now);
        }
        true
    }

    /// A Ping, or the one on its way once more: its answer tells how long it took in all.
    pub(super) fn ping(&mut self, token: [u8; 8], behind_our_own: bool, now: Duration) -> Frame {
        let fresh = Ping {
            token,
            said: now,
            behind_our_own,
        };
        if self.pong_lost(now) {
            self.ping = None;
        }
        let Ping { token, .. } = *self.ping.get_or_insert(fresh);
        self.pinged = now;
        Frame::Ping(Token(token))
    }

    /// A Pong came. Returns whether it was the awaited one.
    pub(super) fn pong(&mut self, token: [u8; 8], now: Duration) -> bool {
        let Some(ping) = self.ping.take_if(|ping| ping.token == token) else {
            return false;
        };
        if !ping.behind_our_own {
            self.quality.measured(now.saturating_sub(ping.said), now);
        }
        true
    }

    fn pong_lost(&self, now: Duration) -> bool {
        let lost = |ping: &Ping| now >= ping.said + PONG_LOST;
        !self.direct && self.ping.as_ref().is_some_and(lost)
    }

    /// Whether none is waited for, and the last was said `every` ago.
    pub(super) fn sample_due(&self, every: Duration, now: Duration) -> bool {
        let waits = self.ping.is_some() && !self.pong_lost(now);
        !waits && now >= self.pinged + every
    }

    /// How good the link is at the moment.
    pub(super) fn merit(&self, now: Duration) -> Merit {
        let waited = self.ping.map_or(Duration::ZERO, |ping| {
            let waited = now.saturating_sub(ping.said);
            if ping.behind_our_own && waited <= OWN_QUEUE {
                Duration::ZERO
            } else {
                waited
            }
        });
        self.quality.merit(waited, now)
    }

    /// How long acks may take before they count as overdue.
    fn patience(&self) -> Duration {
        self.quality
            .round_trip()
            .map_or(FIRST_OVERDUE, |round_trip| {
                (round_trip * 3 + Duration::from_millis(100)).min(LINK_SILENCE / 2)
            })
    }

    /// Whether an answer is overdue: what waits for it goes over another link too.
    pub(super) fn overdue(&self, now: Duration) -> bool {
        self.waiting
            .is_some_and(|since| now >= since + self.patience())
    }

    /// Whether the link to the peer itself may be dead, so that another is worth a try.
    pub(super) fn doubtful(&self, now: Duration) -> bool {
        self.direct && self.doubted_at().is_some_and(|at| at <= now)
    }

    fn doubted_at(&self) -> Option<Duration> {
        self.waiting.map(|since| since + self.patience().max(DOUBT))
    }

    /// Whether the link is dead.
    pub(super) fn silent(&self, now: Duration) -> bool {
        self.waiting
            .is_some_and(|since| now >= since + LINK_SILENCE)
    }

    /// Whether a Ping is due: the link was silent for long, or an answer is overdue.
    pub(super) fn ping_due(&self, now: Duration) -> bool {
        self.direct
            && (self.ping.is_none() || now >= self.pinged + self.patience() * 4)
            && (now >= self.heard + PING_IDLE || self.overdue(now))
    }

    /// When time alone changes something of these, on a direct link.
    pub(super) fn deadline(&self, now: Duration) -> Option<Duration> {
        let silent = self.waiting.map(|since| since + LINK_SILENCE);
        let overdue = self
            .waiting
            .map(|since| since + self.patience())
            .filter(|at| *at > now);
        let challenge = self
            .challenge
            .map(|challenge| challenge.said + self.patience());
        let doubt = self.doubted_at().filter(|at| *at > now);
        let again = self.ping.map(|_| self.pinged + self.patience() * 4);
        let idle = match again {
            Some(again) => again.max(self.heard + PING_IDLE),
            None => self.heard + PING_IDLE,
        };
        [silent, overdue, doubt, challenge, Some(idle)]
            .into_iter()
            .flatten()
            .min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T: Duration = Duration::from_secs(100);

    #[test]
    fn acks_are_overdue_long_before_a_link_is_dead() {
        let mut pulse = Pulse::new(true, T);
        pulse.quality.measured(Duration::from_millis(50), T);
        pulse.asks(T);
        let later = T + Duration::from_millis(300);
        assert!(pulse.overdue(later) && pulse.ping_due(later) && !pulse.silent(later));
        assert!(pulse.silent(T + LINK_SILENCE));
        pulse.heard(later);
        assert!(!pulse.overdue(T + LINK_SILENCE));
    }

    #[test]
    fn a_pong_that_a_relay_never_brings_is_not_waited_for_for_ever() {
        let (ms, every) = (Duration::from_millis, Duration::from_millis(500));
        let mut pulse = Pulse::new(false, T);
        pulse.ping([1; 8], false, T);
        assert!(!pulse.sample_due(every, T + every));
        let later = T + PONG_LOST;
        assert!(pulse.sample_due(every, later));
        pulse.ping([2; 8], false, later);
        assert!(!pulse.pong([1; 8], later + ms(10)), "it is forgotten");
        assert!(pulse.pong([2; 8], later + ms(20)));
        assert_eq!(pulse.quality.round_trip(), Some(ms(20)));
    }
}

//! One link bound to a session: what is on its way over it, and whether the other end is there.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::acks::Acks;
use super::bulk::BulkWindow;
use super::flight::Flight;
use super::quality::{Merit, Quality, Standing};
use super::refusals::Refusals;
use crate::limits::{LINK_SILENCE, PING_IDLE, RELAY_FLIGHT};
use crate::link::{LinkClass, LinkInput, LinkState};
use crate::runs::RunSet;
use crate::wire::frame::{Frame, Token};
use crate::{ChannelId, EnvelopeId, Generation, Position};

/// Small frames that wait for a link to be writable. More are left out: they matter only now.
pub(super) const REPLIES: usize = 64;

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

/// For how long after a Resume went to a mailbox Acks bear it too. The peer has fetched it by then, or is
/// away, and says a Resume itself when it comes back.
const RESUME_KEPT: Duration = Duration::from_secs(1);

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

/// A link bound to the session.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) generation: Generation,
    pub(super) class: LinkClass,
    /// Order of preference among links of one class; the lowest is used first.
    pub(super) rank: u8,
    /// Whether its transport takes packets at the moment.
    pub(super) writable: bool,
    /// What was sent on it and is not acknowledged.
    pub(super) sent: BTreeMap<ChannelId, RunSet<Position>>,
    /// Packets its relay has not answered.
    pub(super) flights: BTreeMap<EnvelopeId, Flight>,
    /// How many of these may carry files.
    pub(super) bulk: BulkWindow,
    /// The number of the next packet.
    pub(super) next_envelope: EnvelopeId,
    /// Connected when the other end has answered a challenge over it. Until then others go before it.
    pub(super) state: LinkState,
    /// The challenge on its way.
    challenge: Option<Challenge>,
    /// Whether the handshake is to be said, even if nothing else is.
    pub(super) keys_due: bool,
    /// When an initiation was said on it last.
    pub(super) initiated: Option<Duration>,
    /// When an initiation was answered on it that was not the newest word of the peer.
    pub(super) responded: Option<Duration>,
    /// Packets that came over it and did not open.
    pub(super) forged: u32,
    /// Whether a Resume is to be sent.
    pub(super) resume_due: bool,
    /// When one was said last, unless it was said again with an Ack.
    resumed: Option<Duration>,
    /// Whether the peer is to be told what we listen to.
    pub(super) subscribe_due: bool,
    /// What is to be acknowledged on it.
    pub(super) acks: Acks,
    /// Frames that matter only now.
    pub(super) replies: VecDeque<Frame>,
    /// What its relay did not take.
    pub(super) refusals: Refusals,
    /// When something authentic came over it last.
    heard: Duration,
    /// Since when something was sent on it that asks for an answer.
    waiting: Option<Duration>,
    /// The Ping on its way, and when it was said first.
    ping: Option<Ping>,
    /// When one was said last.
    pinged: Duration,
    /// How it answers.
    pub(super) quality: Quality,
    /// Whether it is good enough to carry.
    pub(super) standing: Standing,
}

impl Link {
    pub(super) fn new(generation: Generation, class: LinkClass, rank: u8, now: Duration) -> Self {
        Self {
            generation,
            class,
            rank,
            writable: true,
            sent: BTreeMap::new(),
            flights: BTreeMap::new(),
            bulk: BulkWindow::default(),
            next_envelope: EnvelopeId(1),
            state: match class {
                LinkClass::Direct => LinkState::Connecting,
                // Whoever signs in to a relay was answered by it.
                LinkClass::Relayed(_) => LinkState::Connected,
            },
            challenge: None,
            keys_due: false,
            initiated: None,
            responded: None,
            forged: 0,
            resume_due: false,
            resumed: None,
            subscribe_due: false,
            acks: Acks::default(),
            replies: VecDeque::new(),
            refusals: Refusals::default(),
            heard: now,
            waiting: None,
            ping: None,
            pinged: now,
            quality: Quality::default(),
            standing: Standing::default(),
        }
    }

    /// A Resume is said, with Acks if there are any.
    pub(super) fn resumes(&mut self, acks: bool, now: Duration) {
        self.resume_due = false;
        self.resumed = (!acks).then_some(now);
    }

    /// Acks are said. In a mailbox they take the place of a Resume that went out just before: what it says
    /// is said again with them.
    pub(super) fn keep_resume(&mut self, now: Duration) {
        let just_before = self.resumed.is_some_and(|at| now < at + RESUME_KEPT);
        self.resume_due |= just_before && !self.is_direct();
    }

    pub(super) const fn is_direct(&self) -> bool {
        matches!(self.class, LinkClass::Direct)
    }

    /// Which is used first by its kind alone, the lowest: direct before relayed, then by rank.
    pub(super) const fn preference(&self) -> (bool, u8) {
        (!self.is_direct(), self.rank)
    }

    /// Whether it leads the same way, over the same relay if over one, and is as good in kind.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        self.class == other.class && self.rank == other.rank
    }

    /// Whether the other end has shown that it is there.
    pub(super) fn validated(&self) -> bool {
        self.state == LinkState::Connected
    }

    /// What can't happen to a link in its state does not: a second challenge interrupts nothing more.
    fn on(&mut self, input: LinkInput) {
        self.state = self.state.on(input).unwrap_or(self.state);
    }

    /// A number for the next packet.
    pub(super) fn envelope(&mut self) -> EnvelopeId {
        let envelope = self.next_envelope;
        self.next_envelope = EnvelopeId(envelope.0.saturating_add(1));
        envelope
    }

    /// Whether its relay takes another packet of messages.
    pub(super) fn has_room(&self, now: Duration) -> bool {
        self.is_direct() || (self.flights.len() < RELAY_FLIGHT && !self.refusals.hold(now))
    }

    /// Whether it may carry in place of a link that lags or rests. A relay that refuses now and then may
    /// not: both would take turns.
    pub(super) fn may_stand_in(&self, now: Duration) -> bool {
        let refuses = self.refusals.lately(now) || self.refusals.hold(now);
        self.validated() && !self.standing.lags() && !refuses
    }

    /// Whether its relay takes another packet with something of a file, beside what others say.
    pub(super) fn has_room_for_bulk(&self) -> bool {
        let bulk = |flight: &&Flight| flight.bulk.is_some();
        self.is_direct()
            || self
                .bulk
                .has_room(self.flights.values().filter(bulk).count())
    }

    /// Whether it takes another of the app's frames that matter only now. The session's own have room
    /// beside them.
    pub(super) fn has_room_for_volatile(&self) -> bool {
        self.replies.len() < REPLIES / 2
    }

    /// Queues a frame that matters only now. Returns whether there was room.
    pub(super) fn reply(&mut self, frame: Frame) -> bool {
        let room = self.replies.len() < REPLIES;
        if room {
            self.replies.push_back(frame);
        }
        room
    }

    /// Queues a frame that is waited for, or the last of all: what waits makes room for it.
    pub(super) fn say_at_any_rate(&mut self, frame: Frame) {
        self.replies.truncate(REPLIES - 1);
        self.replies.push_back(frame);
    }

    /// Something was sent that asks for an answer.
    pub(super) fn asks(&mut self, now: Duration) {
        if self.is_direct() && self.waiting.is_none() {
            self.waiting = Some(now);
        }
    }

    /// Something authentic came: the link lives.
    pub(super) const fn heard(&mut self, now: Duration) {
        self.heard = now;
        self.waiting = None;
    }

    /// Has the other end show that it is there. Until it does, links that have go before this one.
    pub(super) fn challenge(&mut self, token: [u8; 8], now: Duration) {
        self.on(LinkInput::Interrupted);
        self.say_challenge(Challenge {
            token,
            said: now,
            repeated: false,
        });
    }

    /// The same once more, if it is time. Whatever else is heard on the link answers nothing.
    pub(super) fn challenge_again(&mut self, now: Duration) {
        let due = |challenge: &Challenge| now >= challenge.said + self.patience();
        if let Some(challenge) = self.challenge.filter(due) {
            self.say_challenge(Challenge {
                said: now,
                repeated: true,
                ..challenge
            });
        }
    }

    fn say_challenge(&mut self, challenge: Challenge) {
        self.challenge = Some(challenge);
        self.say_at_any_rate(Frame::PathChallenge(Token(challenge.token)));
        self.asks(challenge.said);
    }

    /// An answer to a challenge came. Returns whether it was the awaited one.
    pub(super) fn answered(&mut self, token: [u8; 8], now: Duration) -> bool {
        let awaited = |challenge: &mut Challenge| challenge.token == token;
        let Some(challenge) = self.challenge.take_if(awaited) else {
            return false;
        };
        self.on(LinkInput::Up);
        if !challenge.repeated {
            self.quality
                .measured(now.saturating_sub(challenge.said), now);
        }
        true
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

    /// Says a Ping, or the one on its way once more: its answer tells how long it took in all.
    pub(super) fn ping(&mut self, token: [u8; 8], behind_our_own: bool, now: Duration) {
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
        self.say_at_any_rate(Frame::Ping(Token(token)));
    }

    /// Whether it is to be asked how long an answer takes, `every` so often.
    pub(super) fn sample_due(&self, every: Duration, now: Duration) -> bool {
        let waits = self.ping.is_some() && !self.pong_lost(now);
        self.validated() && !waits && now >= self.pinged + every
    }

    fn pong_lost(&self, now: Duration) -> bool {
        let lost = |ping: &Ping| now >= ping.said + PONG_LOST;
        !self.is_direct() && self.ping.as_ref().is_some_and(lost)
    }

    /// How good it is at the moment.
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
        self.is_direct() && self.doubted_at().is_some_and(|at| at <= now)
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
        self.is_direct()
            && (self.ping.is_none() || now >= self.pinged + self.patience() * 4)
            && (now >= self.heard + PING_IDLE || self.overdue(now))
    }

    /// When time alone changes something about the link.
    pub(super) fn deadline(&self, now: Duration) -> Option<Duration> {
        if !self.is_direct() {
            return self.refusals.deadline(now);
        }
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
        [
            silent,
            overdue,
            doubt,
            challenge,
            Some(idle),
            self.acks.deadline().filter(|at| *at > now),
        ]
        .into_iter()
        .flatten()
        .min()
    }
}

#[cfg(test)]
mod tests;

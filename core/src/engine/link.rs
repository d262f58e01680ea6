//! One link bound to a session: what it is, and what is on its way over it.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::acks::Acks;
use super::bulk::BulkWindow;
use super::flight::Flight;
use super::pulse::Pulse;
use super::quality::Standing;
use super::refusals::Refusals;
use crate::limits::RELAY_FLIGHT;
use crate::link::{LinkClass, LinkInput, LinkState, Reads};
use crate::runs::RunSet;
use crate::wire::frame::Frame;
use crate::{ChannelId, EnvelopeId, Generation, Position};

/// Small frames that wait for a link to be writable. More are left out: they matter only now.
pub(super) const REPLIES: usize = 64;

/// For how long after a Resume went to a mailbox Acks bear it too. The peer has fetched it by then, or is
/// away, and says a Resume itself when it comes back.
const RESUME_KEPT: Duration = Duration::from_secs(1);

/// A link bound to the session.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) generation: Generation,
    pub(super) class: LinkClass,
    /// Order of preference among links of one class; the lowest is used first.
    pub(super) rank: u8,
    /// Whether the peer reads what is left at its relay. Where it does not, nothing is said.
    pub(super) reads: Reads,
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
    /// Whether the other end answers, and how.
    pub(super) pulse: Pulse,
    /// Whether it is good enough to carry.
    pub(super) standing: Standing,
}

impl Link {
    pub(super) fn new(generation: Generation, class: LinkClass, rank: u8, now: Duration) -> Self {
        Self {
            generation,
            class,
            rank,
            reads: Reads::default(),
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
            pulse: Pulse::new(matches!(class, LinkClass::Direct), now),
            standing: Standing::default(),
        }
    }

    /// It leads to the peer from now on: who `asks` for something says a Resume.
    pub(super) fn begin(&mut self, asks: bool) {
        self.resume_due = self.is_direct() || asks;
        self.subscribe_due = true;
        // What mattered before matters no more.
        self.replies.clear();
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

    /// Which is used first by its kind alone, the lowest: direct before relayed, then where the peer has its
    /// mailbox, then by rank.
    pub(super) const fn preference(&self) -> (bool, Reads, u8) {
        (!self.is_direct(), self.reads, self.rank)
    }

    /// Whether what is said on it gets to the peer.
    pub(super) fn leads_to_peer(&self) -> bool {
        self.reads != Reads::Never
    }

    /// Whether it leads the same way, over the same relay if over one, and is as good in kind.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        self.class == other.class && self.rank == other.rank && self.reads == other.reads
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
        self.leads_to_peer() && self.validated() && !self.standing.lags() && !refuses
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

    /// Has the other end show that it is there. Until it does, links that have go before this one.
    pub(super) fn challenge(&mut self, token: [u8; 8], now: Duration) {
        self.on(LinkInput::Interrupted);
        let challenge = self.pulse.challenge(token, now);
        self.say_at_any_rate(challenge);
    }

    /// The same once more, if it is time.
    pub(super) fn challenge_again(&mut self, now: Duration) {
        if let Some(challenge) = self.pulse.challenge_again(now) {
            self.say_at_any_rate(challenge);
        }
    }

    /// An answer to a challenge came. Returns whether it was the awaited one.
    pub(super) fn answered(&mut self, token: [u8; 8], now: Duration) -> bool {
        let awaited = self.pulse.answered(token, now);
        if awaited {
            self.on(LinkInput::Up);
        }
        awaited
    }

    /// Says a Ping, or the one on its way once more.
    pub(super) fn ping(&mut self, token: [u8; 8], behind_our_own: bool, now: Duration) {
        let ping = self.pulse.ping(token, behind_our_own, now);
        self.say_at_any_rate(ping);
    }

    /// Whether it is to be asked how long an answer takes, `every` so often.
    pub(super) fn sample_due(&self, every: Duration, now: Duration) -> bool {
        self.validated() && self.pulse.sample_due(every, now)
    }

    /// When time alone changes something about the link.
    pub(super) fn deadline(&self, now: Duration) -> Option<Duration> {
        if !self.is_direct() {
            return self.refusals.deadline(now);
        }
        let acks = self.acks.deadline().filter(|at| *at > now);
        acks.into_iter().chain(self.pulse.deadline(now)).min()
    }
}

#[cfg(test)]
mod tests;

//! The engine: one session's protocol as a pure state machine.
//!
//! ```text
//!   send ──▶ outbox ──▶ [store] ──▶ links ──▶ packets out
//!   packets in ──▶ streams ──▶ [store] ──▶ inbox ──▶ app, and only then acks
//! ```
//!
//! An engine has no socket, clock, thread or randomness of its own. The contract of its use, as in
//! quinn-proto and str0m: call one of the inputs, then [`poll`](Engine::poll) until it returns
//! nothing, then wait for the next input or for [`deadline`](Engine::deadline). The same inputs
//! give the same outputs, which is what makes the simulation repeatable.
//!
//! It keeps two copies of the session's record: what is true now, and what the store holds. All it
//! says to the peer or the app is drawn from the second (I4).

mod acks;
mod asked;
mod attempts;
#[cfg(feature = "sabotage")]
mod bounds;
mod bulk;
mod commands;
mod consumed;
mod custody;
mod doubts;
mod ending;
mod event;
mod flight;
mod gaps;
mod hands;
mod handshake;
mod inbox;
mod link;
mod links;
mod measuring;
mod outbox;
mod overtaken;
mod packets;
mod parking;
#[cfg(feature = "plain")]
mod plain;
mod pulse;
mod pump;
mod quality;
mod reading;
mod refusals;
mod renewal;
mod resume;
mod rules;
mod sealing;
mod seen;
mod segments;
mod stored;
mod streams;
mod timers;
mod trial;
mod unsaid;
mod unsealing;
mod volatile;
mod writes;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

pub use attempts::Skipped;
pub use event::{
    DropReason, Event, External, Output, SendError, SendOptions, Stage, Ticket, Transmit, Violation,
};
pub use packets::Taken;
pub use rules::Rule;
pub use stored::Stored;

pub use crate::record::Ending;

use self::asked::Asked;
use self::hands::Hands;
use self::link::Link;
use self::links::Links;
use self::measuring::Gauge;
use self::outbox::Sending;
use self::parking::{Crowded, Parked};
use self::reading::Reading;
use self::rules::Rules;
use self::sealing::Sealing;
use self::segments::Held;
use self::timers::Probe;
use self::unsaid::Unsaid;
use self::writes::Writes;
use crate::limits::InboxLimits;
use crate::link::{LinkClass, LinkState, Reads};
use crate::record::Session;
use crate::wire::frame::{CloseReason, Frame};
use crate::{ChannelId, Entropy, EnvelopeId, Epoch, Generation, Now, PeerId, Seq};

/// A session's protocol.
pub struct Engine {
    peer: PeerId,
    start: u32,
    live: Session,
    durable: Session,
    /// Whether the store holds the session at all.
    stored: bool,
    stopped: bool,
    now: Now,
    entropy: Entropy,
    /// What the envelopes of each link are counted from. Links outlive an engine whose store failed: what
    /// their relays still answer to it means none of the envelopes of the next.
    first_envelope: EnvelopeId,
    sealing: Sealing,
    rules: Rules,
    writes: Writes,
    sending: BTreeMap<ChannelId, Sending>,
    weights: BTreeMap<ChannelId, u8>,
    links: Links,
    /// What is said once a link leads to the peer.
    unsaid: Unsaid,
    gauge: Gauge,
    asked: VecDeque<Asked>,
    held: BTreeMap<(Epoch, ChannelId), BTreeMap<Seq, Held>>,
    hands: Hands,
    inbox_limits: InboxLimits,
    /// The lowest of each channel that was turned away because there was no room for it, by the
    /// stream that it is of, as long as those are not too many.
    parked: BTreeMap<(Epoch, ChannelId), Parked>,
    /// Links whose mailboxes hold what was turned away.
    crowded: Crowded,
    /// Messages that came since the engine was opened, without signals.
    received: u64,
    listening: BTreeSet<ChannelId>,
    peer_listens: BTreeSet<ChannelId>,
    /// Why the peer has ended its use of the session, if nothing else has come from it since.
    peer_closed: Option<CloseReason>,
    probe: Probe,
    reading: Option<Reading>,
    /// The channel of the last read: others have their turn before it.
    read_last: Option<ChannelId>,
    /// When commits are told to the peer.
    tell_consumed: Option<(Duration, BTreeSet<Epoch>)>,
    /// When changes are written that nobody waits for.
    write_lazily: Option<Duration>,
    outputs: VecDeque<Output>,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine")
            .field("peer", &self.peer)
            .field("epoch", &self.live.epoch)
            .field("links", &self.links.len())
            .field("outstanding", &self.live.outstanding())
            .finish_non_exhaustive()
    }
}

impl Engine {
    /// The peer at the other end.
    #[must_use]
    pub const fn peer(&self) -> PeerId {
        self.peer
    }

    /// The session as the store holds it.
    #[must_use]
    pub const fn session(&self) -> &Session {
        &self.durable
    }

    /// The link that carries what is to be sent at the moment.
    #[must_use]
    pub const fn carrier(&self) -> Option<Generation> {
        self.links.best()
    }

    /// The links bound to the session, with their states. A direct one is connected when the peer has
    /// answered over it, and disconnected from when this host may have moved until the peer has answered
    /// again; one to a relay is connected.
    pub fn link_states(&self) -> impl Iterator<Item = (Generation, LinkState)> {
        self.links.iter().map(|link| (link.generation, link.state))
    }

    /// Whether a link to the peer itself has not answered for so long that another one is worth a
    /// try, beside it: what is under way goes over whichever answers first. None is while one of the
    /// best kind that there is answers.
    #[must_use]
    pub fn doubts_a_link(&self) -> bool {
        let now = self.now.elapsed;
        let direct = || self.links.iter().filter(|link| link.is_direct());
        let best = direct().map(|link| link.rank).min();
        let is_sound =
            |link: &Link| Some(link.rank) == best && link.validated() && !link.pulse.doubtful(now);
        direct().any(|link| link.pulse.doubtful(now)) && !direct().any(is_sound)
    }

    /// Whether the peer has not acknowledged everything.
    #[must_use]
    pub fn outstanding(&self) -> bool {
        self.live.outstanding()
    }

    /// How many messages have become whole since the engine was opened; signals are not counted. What
    /// [`receive`](Self::receive) adds to it came by that packet, and by no other before it.
    #[must_use]
    pub const fn messages_received(&self) -> u64 {
        self.received
    }

    /// Whether nothing is on its way to or from the store, and nothing waits to be written.
    #[must_use]
    pub const fn at_rest(&self) -> bool {
        !self.writes.pending() && self.reading.is_none() && self.write_lazily.is_none()
    }

    /// Binds a link. Its generation must be higher than any before.
    pub fn bind(&mut self, generation: Generation, class: LinkClass, rank: u8, now: Now) {
        self.now = now;
        let mut link = Link::new(generation, class, rank, now.elapsed);
        link.next_envelope = self.first_envelope;
        link.begin(self.wants_answer());
        if link.is_direct() {
            link.challenge(self.entropy.token(), now.elapsed);
            if !self.rules.keeps(Rule::Validate) {
                link.state = LinkState::Connected;
            }
        }
        if link.is_direct() {
            for sending in self.sending.values_mut() {
                sending.limit = None;
                sending.crowded = false;
            }
        }
        if let Some(generation) = self.links.bind(link, now.elapsed) {
            self.crowded.remove(&generation);
            self.outputs.push_back(Output::Drop {
                generation,
                reason: DropReason::TooMany,
            });
        }
        if let Some(link) = self.links.get(generation) {
            self.unsaid.say_on(link);
        }
        self.probe.restart(now.elapsed);
    }

    /// Whether the peer reads what is left at the relay of a link: it does, unless this says otherwise. While
    /// it does not, the link is for what comes over it. `rank` is its order among links of its kind from now
    /// on.
    pub fn peer_reads(&mut self, generation: Generation, reads: Reads, rank: u8, now: Now) {
        self.now = now;
        let asks = self.wants_answer();
        let Some(link) = self.links.get(generation) else {
            return;
        };
        let before = (link.reads, std::mem::replace(&mut link.rank, rank));
        if before == (reads, rank) {
            return;
        }
        let before = std::mem::replace(&mut link.reads, reads);
        if before == Reads::Never && reads != Reads::Never {
            link.begin(asks);
            self.unsaid.say_on(link);
            self.probe.restart(now.elapsed);
        }
        self.links.choose(now.elapsed);
        if reads == Reads::Never {
            self.take_back_unsaid(generation);
        }
    }

    /// This host may be somewhere else now. Direct links have to show that they still lead to the
    /// peer; what is under way on them goes over the others too.
    pub fn network_changed(&mut self, now: Now) {
        self.now = now;
        let others = self.links.len() > 1;
        for link in self.links.iter_mut().filter(|link| link.is_direct()) {
            link.challenge(self.entropy.token(), now.elapsed);
            self.probe.spread |= others;
        }
        self.links.choose(now.elapsed);
    }

    /// A link is gone. What was sent on it and not acknowledged goes over another at once.
    pub fn unbind(&mut self, generation: Generation, now: Now) {
        self.now = now;
        self.let_go(generation);
    }

    /// Gives up a link: the runtime is told to let go of it too.
    fn give_up_link(&mut self, generation: Generation, reason: DropReason) {
        if self.let_go(generation) {
            self.outputs.push_back(Output::Drop { generation, reason });
        }
    }

    /// Lets go of a link and of what its mailbox holds: the next one brings that. Returns whether it was
    /// bound.
    fn let_go(&mut self, generation: Generation) -> bool {
        let was_bound = self.links.unbind(generation, self.now.elapsed);
        if was_bound {
            self.crowded.remove(&generation);
            self.probe.spread = false;
        }
        was_bound
    }

    /// Whether the link's transport takes packets. A link is writable when bound.
    pub fn writable(&mut self, generation: Generation, writable: bool, now: Now) {
        self.now = now;
        if let Some(link) = self.links.get(generation) {
            link.writable = writable;
        }
    }

    /// The store failed. The engine is over: what it had in memory was never said to anybody; load
    /// the session again when the store works.
    pub fn stop(&mut self) {
        self.stopped = true;
        self.outputs.clear();
    }

    /// Time has passed.
    pub fn tick(&mut self, now: Now) {
        self.now = now;
        if !self.stopped {
            self.time_passed();
        }
    }

    /// What waits for company is said with what is polled next: this process is about to end.
    pub fn hasten(&mut self, now: Now) {
        if let Some((at, _)) = &mut self.tell_consumed {
            *at = now.elapsed;
        }
        for link in self.links.iter_mut() {
            link.acks.hasten();
        }
        self.tick(now);
    }

    /// The next thing to do. Poll until there is none.
    pub fn poll(&mut self) -> Option<Output> {
        if self.outputs.is_empty() && !self.stopped {
            self.pump();
            if self.writes.ready() {
                let batch = self.next_batch();
                self.outputs.push_back(Output::Write(batch));
            }
            if self.reading.is_none() && !self.writes.blocks_reads() {
                self.next_read();
            }
        }
        self.outputs.pop_front()
    }

    /// The next thing to do that has followed already from what the engine was told. Unlike
    /// [`poll`](Self::poll) it seeks nothing more to do: one packet carries what several inputs ask for.
    pub fn poll_following(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Ends our use of the session: the peer is told if it is there.
    pub fn close(&mut self, reason: CloseReason, now: Now) {
        self.now = now;
        let frame = Frame::Close(crate::wire::frame::Close { reason });
        for link in self.links.iter_mut() {
            // Behind it, what we listen to would open what it ends.
            link.subscribe_due = false;
            link.say_at_any_rate(frame.clone());
        }
    }
}

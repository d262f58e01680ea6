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
mod attempts;
#[cfg(feature = "sabotage")]
mod bounds;
mod bulk;
mod commands;
mod consumed;
mod doubts;
mod event;
mod flight;
mod gaps;
mod inbox;
mod link;
mod links;
mod measuring;
mod outbox;
mod overtaken;
mod packets;
mod parking;
mod pump;
mod quality;
mod reading;
mod resume;
mod rules;
mod sealing;
mod seen;
mod streams;
mod timers;
mod trial;
mod volatile;
mod writes;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;

pub use attempts::Skipped;
pub use event::{
    DropReason, Event, External, Output, SendError, SendOptions, Stage, Ticket, Transmit, Violation,
};
pub use packets::Taken;
pub use rules::Rule;

pub use crate::record::Ending;

use self::commands::Found;
use self::link::Link;
use self::links::Links;
use self::measuring::Gauge;
use self::outbox::Sending;
use self::parking::Parked;
use self::reading::Reading;
use self::resume::Asked;
use self::rules::Rules;
use self::sealing::Sealing;
use self::streams::Held;
use self::timers::Probe;
use self::writes::Writes;
use crate::limits::InboxLimits;
use crate::link::{LinkClass, LinkState};
use crate::record::{Key, Record, RecordError, SegmentRecord, Session};
use crate::transport::Refusal;
use crate::wire::frame::{CloseReason, Frame};
use crate::{
    ChannelId, Entropy, EnvelopeId, Epoch, Generation, Identity, Now, PeerId, Position, RunSet, Seq,
};

/// A session's protocol.
pub struct Engine {
    peer: PeerId,
    start: u32,
    live: Session,
    durable: Session,
    /// Whether the store holds the session at all.
    stored: bool,
    stopped: bool,
    /// Whether what is being taken in only claims to be the peer's: see
    /// [`receive_claimed`](Self::receive_claimed).
    claimed: bool,
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
    gauge: Gauge,
    asked: VecDeque<Asked>,
    held: BTreeMap<(Epoch, ChannelId), BTreeMap<Seq, Held>>,
    /// What the app has in hand and has not committed, with the seqs of its first and last segment.
    handed: BTreeMap<ChannelId, BTreeMap<Position, (Epoch, Seq, Seq)>>,
    /// What the app has committed since the engine was opened.
    done: BTreeMap<ChannelId, RunSet<Position>>,
    /// The end of the last of these in each stream.
    committed: BTreeMap<(Epoch, ChannelId), Seq>,
    inbox_limits: InboxLimits,
    /// The lowest of each channel that was turned away because there was no room for it, by the
    /// stream that it is of, unless that is forgotten.
    parked: BTreeMap<(Option<Epoch>, ChannelId), Parked>,
    /// Links whose mailboxes hold what was turned away.
    crowded: BTreeSet<Generation>,
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

/// A session as it was read from the store.
#[derive(Clone, Default)]
pub struct Stored {
    /// The value under [`Key::Session`], if there is one.
    pub session: Option<Bytes>,
    /// The records in [`Key::all_segments`].
    pub segments: Vec<(Bytes, Bytes)>,
}

/// Shows how much there is, not what: records hold keys and payloads.
impl std::fmt::Debug for Stored {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stored")
            .field("session", &self.session.as_ref().map(Bytes::len))
            .field("segments", &self.segments.len())
            .finish()
    }
}

impl Engine {
    /// The engine of the session of `identity` with `peer`, as it is in the store; a new session if it is not.
    ///
    /// `start` is the number of this start of the process, which only grows; `entropy` must come
    /// from fresh randomness at every start.
    ///
    /// # Errors
    /// [`RecordError`] if what the store holds can't be used.
    pub fn open(
        identity: &Identity,
        peer: PeerId,
        start: u32,
        stored: &Stored,
        mut entropy: Entropy,
        now: Now,
    ) -> Result<Self, RecordError> {
        let (session, known) = match &stored.session {
            Some(bytes) => (Session::from_bytes(bytes)?, true),
            None => (Session::new(entropy.epoch()), false),
        };
        let mut held = BTreeMap::<_, BTreeMap<_, _>>::new();
        for (key, value) in &stored.segments {
            let Ok(Key::Segment(_, epoch, channel, seq)) = Key::of_peer(peer, key) else {
                continue;
            };
            let waits = session
                .stream(epoch)
                .and_then(|stream| stream.channels.get(&channel))
                .is_some_and(|rx| rx.held.contains(seq));
            if waits {
                let segment = Held::of(&SegmentRecord::from_bytes(value)?);
                held.entry((epoch, channel))
                    .or_default()
                    .insert(seq, segment);
            }
        }
        let sending = session
            .out
            .iter()
            .map(|(&channel, out)| (channel, Sending::new(out.next)))
            .collect();
        let sealing = Sealing::new(identity, &session.keys, &mut entropy);
        // An app that did not live to hear of these hears of them now.
        let outputs = session.gaps().map(|(channel, gap)| {
            Output::Event(Event::Gap {
                channel,
                epoch: gap.epoch,
                first: gap.first,
                last: gap.last,
            })
        });
        Ok(Self {
            outputs: outputs.collect(),
            peer,
            start,
            durable: session.clone(),
            live: session,
            stored: known,
            stopped: false,
            claimed: false,
            now,
            sealing,
            first_envelope: entropy.envelope(),
            entropy,
            rules: Rules::default(),
            writes: Writes::default(),
            sending,
            weights: BTreeMap::new(),
            links: Links::default(),
            gauge: Gauge::default(),
            asked: VecDeque::new(),
            held,
            handed: BTreeMap::new(),
            done: BTreeMap::new(),
            committed: BTreeMap::new(),
            inbox_limits: InboxLimits::default(),
            parked: BTreeMap::new(),
            crowded: BTreeSet::new(),
            received: 0,
            listening: BTreeSet::new(),
            peer_listens: BTreeSet::new(),
            peer_closed: None,
            probe: Probe::default(),
            reading: None,
            read_last: None,
            tell_consumed: None,
            write_lazily: None,
        })
    }

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
            |link: &Link| Some(link.rank) == best && link.validated() && !link.doubtful(now);
        direct().any(|link| link.doubtful(now)) && !direct().any(is_sound)
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
        link.resume_due = link.is_direct() || self.wants_answer();
        if link.is_direct() {
            link.challenge(self.entropy.token(), now.elapsed);
            if !self.rules.keeps(Rule::Validate) {
                link.state = LinkState::Connected;
            }
        }
        link.subscribe_due = true;
        if link.is_direct() {
            for sending in self.sending.values_mut() {
                sending.limit = None;
                sending.crowded = false;
            }
        }
        if let Some(generation) = self.links.bind(link, now.elapsed) {
            self.outputs.push_back(Output::Drop {
                generation,
                reason: DropReason::TooMany,
            });
        }
        self.probe.restart(now.elapsed);
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
        if self.links.unbind(generation, now.elapsed).is_some() {
            self.crowded.remove(&generation);
            self.probe.spread = false;
        }
    }

    /// Whether the link's transport takes packets. A link is writable when bound.
    pub fn writable(&mut self, generation: Generation, writable: bool, now: Now) {
        self.now = now;
        if let Some(link) = self.links.get(generation) {
            link.writable = writable;
        }
    }

    /// The relay behind a link holds this packet.
    pub fn accepted(&mut self, generation: Generation, envelope: EnvelopeId, now: Now) {
        self.now = now;
        let Some(link) = self.links.get(generation) else {
            return;
        };
        let Some(flight) = link.flights.remove(&envelope) else {
            return;
        };
        link.refusals = 0;
        if let Some(said) = flight.bulk {
            link.bulk
                .answered(now.elapsed.saturating_sub(said), now.elapsed);
        }
        let LinkClass::Relayed(store) = link.class else {
            return;
        };
        self.in_custody(store, &flight.runs);
        self.probe.progress(now.elapsed);
    }

    /// The relay behind a link did not take this packet.
    pub fn refused(
        &mut self,
        generation: Generation,
        envelope: EnvelopeId,
        reason: Refusal,
        now: Now,
    ) {
        self.now = now;
        let Some(link) = self.links.get(generation) else {
            return;
        };
        let Some(flight) = link.flights.remove(&envelope) else {
            return;
        };
        if reason.may_pass() {
            link.refused(now.elapsed);
            for &(channel, position) in &flight.runs {
                link.sent
                    .entry(channel)
                    .or_default()
                    .remove_run(position, position.next());
            }
            for (channel, first, id) in flight.heads {
                let event = Event::Held {
                    channel,
                    first,
                    id,
                    reason,
                };
                self.outputs.push_back(Output::Event(event));
            }
        } else {
            link.refused_one(now.elapsed);
            for (channel, position) in flight.runs {
                let found = self.end_message(channel, position, Ending::Refused(reason));
                // Which message it is of is known when it goes out again, to be refused once more.
                if found == Found::Elsewhere
                    && let Some(link) = self.links.get(generation)
                    && let Some(sent) = link.sent.get_mut(&channel)
                {
                    sent.remove_run(position, position.next());
                }
            }
        }
        self.links.choose(now.elapsed);
    }

    /// What relays refused may be taken from now on: it is handed to them again at once.
    pub fn ask_relays_again(&mut self, now: Now) {
        self.now = now;
        for link in self.links.iter_mut() {
            link.forget_refusals();
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

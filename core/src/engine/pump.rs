//! What leaves on which link, in which order.
//!
//! On a direct link one packet carries everything but files, which have packets and a lane of their
//! own, so that nothing waits behind them. Through a relay, packets are of three classes,
//! because they wait in a mailbox differently: segments are kept, of Resume and Ack only the newest
//! matters, and the rest matters only now.

use super::Engine;
use super::event::{Output, Transmit};
use super::flight::Flight;
use super::rules::Rule;
use crate::limits::{FIRST_FLIGHT, SEGMENT_BYTES};
use crate::link::LinkClass;
use crate::record::{Ending, OutboxState};
use crate::transport::{Class, Lane};
use crate::wire::frame::{Data, First, Frame, Skip};
use crate::wire::packet::PacketBuilder;
use crate::{ChannelId, Digest, Generation, Position, Seq, StoreTime};

/// Bytes a channel of weight 1 sends before it is another channel's turn.
const TURN: usize = 2 * SEGMENT_BYTES;

/// The weight of a channel unless it was given another.
const WEIGHT: u8 = 4;

/// The weight of files: they yield to everything else.
const FILE_WEIGHT: u8 = 1;

/// What holds up the segments of a channel on a direct link. Always the same: what is to stay in
/// order stays on one lane.
pub(super) fn lane(channel: ChannelId) -> Lane {
    if channel == ChannelId::FILES {
        Lane::Bulk
    } else {
        Lane::Interactive
    }
}

/// What is known of a packet's frames when it is sealed and sent.
#[derive(Default)]
struct Contents {
    /// Whether a handshake is among them.
    handshake: bool,
    /// The segments among them.
    flight: Flight,
    /// When the last of them expires.
    expires: Option<StoreTime>,
    /// What holds it up on a direct link.
    lane: Option<Lane>,
}

impl Engine {
    /// How much of a link a channel gets when several have something to send: shares are in
    /// proportion to weights. Signaling goes before all.
    pub fn set_weight(&mut self, channel: ChannelId, weight: u8) {
        self.weights.insert(channel, weight.max(1));
    }

    pub(super) fn pump(&mut self) {
        self.spread_if_overdue();
        for generation in self.links.order() {
            while self.packet(generation) {}
        }
    }

    /// What is said of our own stream may be said: the store holds the present epoch.
    fn settled(&self) -> bool {
        self.stored && self.live.epoch == self.durable.epoch
    }

    /// Sends one packet on a link, if there is anything to say on it.
    fn packet(&mut self, generation: Generation) -> bool {
        let Some(link) = self.links.get(generation) else {
            return false;
        };
        let direct = link.is_direct();
        if !link.leads_to_peer() || !link.writable || !self.can_seal() {
            return false;
        }
        let mut builder = PacketBuilder::new();
        let handshake = self.say_state(generation, &mut builder);
        let mut class = Class::NewestOnly;
        if direct || builder.is_empty() {
            class = Class::NowOrNever;
            self.say_replies(generation, &mut builder);
        }
        let mut contents = Contents {
            handshake,
            ..Contents::default()
        };
        if direct || builder.is_empty() {
            class = Class::Keep;
            // What is said before is not to wait behind a file.
            contents.lane = (direct && !builder.is_empty()).then_some(Lane::Interactive);
            self.say_messages(generation, &mut builder, &mut contents);
        }
        if builder.is_empty() {
            return false;
        }
        // What waits for company is not to wait behind a file with it.
        if direct && contents.lane != Some(Lane::Bulk) {
            self.say_acks(generation, &mut builder);
        }
        self.transmit(generation, class, builder, contents);
        true
    }

    fn transmit(
        &mut self,
        generation: Generation,
        class: Class,
        mut builder: PacketBuilder,
        contents: Contents,
    ) {
        let Contents {
            handshake,
            flight,
            expires,
            lane,
        } = contents;
        if self.pads(generation) {
            builder.pad();
        }
        // What does not seal stays unsent, as if it were lost on its way.
        let Some(packet) = self.seal(generation, &builder.finish(), handshake) else {
            return;
        };
        let Some(link) = self.links.get(generation) else {
            return;
        };
        let envelope = link.envelope();
        if !link.is_direct() && !flight.runs.is_empty() {
            link.flights.insert(envelope, flight);
        }
        let expires = expires.unwrap_or_else(|| self.now.store.plus(crate::limits::MESSAGE_TTL));
        let transmit = Transmit {
            generation,
            envelope,
            class,
            expires,
            lane: lane.unwrap_or(Lane::Interactive),
            packet,
        };
        self.outputs.push_back(Output::Transmit(transmit));
    }

    /// Resume and Acks, and the handshake with them. Returns whether there is one.
    fn say_state(&mut self, generation: Generation, builder: &mut PacketBuilder) -> bool {
        let settled = self.settled();
        let now = self.now.elapsed;
        let (due, shaking) = (self.handshake_due(generation), self.is_shaking_hands());
        let epoch = self.live.peer_epoch;
        let Some(link) = self.links.get(generation) else {
            return false;
        };
        if shaking {
            // A handshake is said again with each Ack that is said.
            link.acks.hasten();
        }
        let mut acks = link.acks.press(now);
        let resume = link.resume_due && settled;
        if due || resume || acks {
            for frame in self.handshake_frames(generation) {
                // There is room for two of them in any packet.
                let _ = builder.push(&frame);
            }
        }
        let handshake = !builder.is_empty();
        let Some(link) = self.links.get(generation) else {
            return handshake;
        };
        if handshake
            && !(acks || resume || link.is_direct())
            && let Some(epoch) = epoch
        {
            // In a mailbox it takes the place of the Ack that was said last.
            link.acks.owe(epoch, None);
            acks = link.acks.press(now);
        }
        if acks {
            link.keep_resume(now);
        }
        if link.resume_due && settled {
            link.resumes(acks, now);
            if let Some(resume) = self.resume_for(generation) {
                let asks = resume.answer;
                if builder.push(&Frame::Resume(resume))
                    && asks
                    && let Some(link) = self.links.get(generation)
                {
                    link.pulse.asks(now);
                }
            }
        }
        if acks {
            self.say_acks(generation, builder);
        }
        handshake
    }

    fn say_acks(&mut self, generation: Generation, builder: &mut PacketBuilder) {
        let now = self.now.elapsed;
        let Some(link) = self.links.get(generation) else {
            return;
        };
        for (epoch, answers) in link.acks.take(now) {
            let ack = Frame::Ack(self.ack_for(epoch, answers));
            if !builder.push(&ack)
                && let Some(link) = self.links.get(generation)
            {
                link.acks.owe(epoch, answers);
            }
        }
    }

    /// What matters only now, and behind it what we listen to: a word that we ceased to may be older.
    fn say_replies(&mut self, generation: Generation, builder: &mut PacketBuilder) {
        let Some(link) = self.links.get(generation) else {
            return;
        };
        while let Some(frame) = link.replies.front() {
            if !builder.push(frame) {
                return;
            }
            link.replies.pop_front();
        }
        if link.subscribe_due {
            let said = self
                .subscriptions()
                .is_none_or(|frame| builder.push(&frame));
            if let Some(link) = self.links.get(generation) {
                link.subscribe_due = !said;
            }
        }
    }

    /// Segments, and the word that some will not come.
    fn say_messages(
        &mut self,
        generation: Generation,
        builder: &mut PacketBuilder,
        contents: &mut Contents,
    ) {
        let carries = self.links.best() == Some(generation) || self.probe.spread;
        let now = self.now.elapsed;
        let settled = self.settled();
        let Some(link) = self.links.get(generation) else {
            return;
        };
        if !carries || !settled || !link.has_room(now) {
            return;
        }
        let direct = link.is_direct();
        while let Some((channel, position)) = self.next_segment(generation, contents.lane) {
            let Some(frame) = self.segment_frame(channel, position) else {
                break;
            };
            if !builder.push(&frame) {
                break;
            }
            contents.lane = direct.then(|| lane(channel));
            let flight = &mut contents.flight;
            let until = self.sent(generation, channel, position, &frame, flight);
            contents.expires = contents.expires.max(until);
        }
        if !contents.flight.runs.is_empty() {
            self.probe.start(now);
            self.measure();
        }
    }

    /// Notes that a segment leaves on a link. Returns when it expires.
    fn sent(
        &mut self,
        generation: Generation,
        channel: ChannelId,
        position: Position,
        frame: &Frame,
        flight: &mut Flight,
    ) -> Option<StoreTime> {
        let now = self.now.elapsed;
        flight.runs.push((channel, position));
        if lane(channel) == Lane::Bulk {
            flight.bulk = Some(now);
        }
        if let Frame::Data(data) = frame {
            flight.note_head(channel, position, data.id);
        }
        if let Some(link) = self.links.get(generation) {
            link.sent.entry(channel).or_default().insert(position);
            link.pulse.asks(now);
            link.acks.segment_sent(now);
        }
        let sending = self.sending.get_mut(&channel)?;
        sending.high = sending.high.max(position.next());
        if let Frame::Data(data) = frame {
            sending.credit = sending.credit.saturating_sub(data.payload.len().max(64));
        }
        match frame {
            Frame::Data(_) => sending.record(position).map(|record| record.expires),
            // That something expired has to be heard even after it has.
            _ => Some(self.now.store.plus(crate::limits::MESSAGE_TTL)),
        }
    }

    /// The segment that goes next on a link: signaling first, then each channel in its turn. A
    /// packet that is on a lane already takes what goes on the same, until it is another's turn.
    fn next_segment(
        &mut self,
        generation: Generation,
        begun: Option<Lane>,
    ) -> Option<(ChannelId, Position)> {
        let fits = |channel| begun.is_none_or(|begun| begun == lane(channel));
        let mut ready = Vec::new();
        let channels: Vec<ChannelId> = self
            .stated(Rule::DataAfterDurable)
            .out
            .keys()
            .copied()
            .collect();
        let bulk = self.links.get(generation)?.has_room_for_bulk();
        for channel in channels {
            if lane(channel) == Lane::Bulk && !bulk {
                continue;
            }
            if let Some(position) = self.next_on(generation, channel) {
                if channel == ChannelId::SIGNALING && fits(channel) {
                    return Some((channel, position));
                }
                ready.push((channel, position));
            }
        }
        let with_credit = |engine: &Self, channel: &ChannelId| {
            engine
                .sending
                .get(channel)
                .is_some_and(|sending| sending.credit > 0)
        };
        let next = ready.iter().find(|(channel, _)| with_credit(self, channel));
        if let Some(found) = next {
            return Some(*found).filter(|(channel, _)| fits(*channel));
        }
        for (channel, _) in &ready {
            let default = if *channel == ChannelId::FILES {
                FILE_WEIGHT
            } else {
                WEIGHT
            };
            let weight = self.weights.get(channel).copied().unwrap_or(default);
            if let Some(sending) = self.sending.get_mut(channel) {
                sending.credit = TURN * usize::from(weight);
            }
        }
        let next = ready.first().copied();
        next.filter(|(channel, _)| fits(*channel))
    }

    /// The next position of a channel to send on a link. What has expired ends on the way.
    fn next_on(&mut self, generation: Generation, channel: ChannelId) -> Option<Position> {
        let now = self.now.store;
        loop {
            let position = self.unsent(generation, channel)?;
            let sending = self.sending.get_mut(&channel)?;
            let Some(record) = sending.record(position) else {
                sending.wanted = Some(position);
                return None;
            };
            if record.state != OutboxState::Live || record.expires > now {
                return Some(position);
            }
            self.end_message(channel, position, Ending::Expired);
        }
    }

    /// The first position of a channel that a link may take and has not.
    fn unsent(&mut self, generation: Generation, channel: ChannelId) -> Option<Position> {
        let end = self.stated(Rule::DataAfterDurable).out.get(&channel)?.next;
        let live = self.live.out.get(&channel)?;
        let link = self.links.get(generation)?;
        let sending = self.sending.get(&channel)?;
        let custody = match link.class {
            LinkClass::Relayed(store) => live.custody.iter().find(|c| c.store == store),
            LinkClass::Direct => None,
        };
        let sent = link.sent.get(&channel);
        let mut position = live.low;
        loop {
            let mut next = sending.held.first_gap(position);
            next = sending.ending.first_gap(next);
            next = sent.map_or(next, |sent| sent.first_gap(next));
            next = custody.map_or(next, |custody| custody.held.first_gap(next));
            if next == position {
                break;
            }
            position = next;
        }
        if position >= end {
            return None;
        }
        if link.is_direct() {
            let first = Seq(live.seq(live.low).0.saturating_add(FIRST_FLIGHT));
            if live.seq(position) >= sending.limit.unwrap_or(first) {
                return None;
            }
        }
        Some(position)
    }

    fn segment_frame(&self, channel: ChannelId, position: Position) -> Option<Frame> {
        let out = self.live.out.get(&channel)?;
        let record = self.sending.get(&channel)?.record(position)?;
        let (epoch, seq) = (self.live.epoch, out.seq(position));
        Some(match record.state {
            OutboxState::Tombstone => {
                let digest = Digest::default().with(record.id, record.index);
                Frame::Skip(Skip {
                    epoch,
                    channel,
                    first: seq,
                    last: seq,
                    digest,
                })
            }
            // Never among those in memory: its segments are, when their content was read.
            OutboxState::External(_) => return None,
            OutboxState::Live => Frame::Data(Data {
                epoch,
                channel,
                seq,
                id: record.id,
                index: record.index,
                count: record.count,
                again: (position < out.again_below).then(|| self.first_offer(channel, position)),
                payload: record.payload.clone(),
            }),
        })
    }

    /// Under which epoch and seq a position was offered first, as far as is remembered.
    fn first_offer(&self, channel: ChannelId, position: Position) -> First {
        let first = self
            .live
            .past
            .iter()
            .filter_map(|past| past.channels.get(&channel).map(|of| (past.epoch, of)))
            .find(|(_, of)| of.base < position && position < of.high);
        match (first, self.live.out.get(&channel)) {
            (Some((epoch, of)), _) => First {
                epoch,
                seq: Seq(position.since(of.base)),
            },
            (None, Some(out)) => First {
                epoch: self.live.epoch,
                seq: out.seq(position),
            },
            (None, None) => First {
                epoch: self.live.epoch,
                seq: Seq::FIRST,
            },
        }
    }
}

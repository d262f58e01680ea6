//! What the app asks for: sending, and taking back.

use bytes::Bytes;

use super::Engine;
use super::event::{Event, External, SendError, SendOptions, Ticket};
use super::outbox::{Sending, Sweep};
use super::writes::After;
use crate::limits::{
    CHANNELS, MESSAGE_BYTES, MESSAGE_TTL, OUTBOX_BYTES, OUTBOX_MESSAGES, SEGMENT_BYTES,
};
use crate::record::{Ending, Key, OnceRecord, OutChannel, OutboxRecord, OutboxState, Record};
use crate::{ChannelId, Now, Position, TransferId, WallTime};

/// What came of taking a message back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// Its record is in memory.
    Here,
    /// It has to be read first, or is gone.
    Elsewhere,
}

/// Where the payload of a message is.
enum Body<'a> {
    /// Here, cut into segments.
    Here(Vec<Bytes>),
    /// In a file.
    Elsewhere(&'a External),
}

impl Body<'_> {
    fn segments(&self) -> u32 {
        let segments = match self {
            Self::Here(segments) => segments.len() as u64,
            Self::Elsewhere(External { extent, beginning }) => {
                let bytes = extent.length.saturating_add(beginning.len() as u64);
                bytes.div_ceil(SEGMENT_BYTES as u64).max(1)
            }
        };
        u32::try_from(segments).unwrap_or(u32::MAX)
    }
}

impl Engine {
    /// Takes a message for sending. It is durable, and goes out, once the batch that the next
    /// [`poll`](Engine::poll) asks for is written; [`Event::Progress`] tells.
    ///
    /// # Errors
    /// [`SendError`]; nothing was changed then.
    pub fn send(
        &mut self,
        channel: ChannelId,
        payload: &Bytes,
        options: &SendOptions,
        now: Now,
    ) -> Result<Ticket, SendError> {
        self.now = now;
        if payload.len() > MESSAGE_BYTES {
            return Err(SendError::TooLarge {
                size: payload.len(),
                limit: MESSAGE_BYTES,
            });
        }
        let waiting = |out: &OutChannel| (out.next.since(out.offer), out.bytes());
        let (segments, bytes) = self
            .live
            .out
            .values()
            .map(waiting)
            .fold((0, 0), |(a, b): (u64, u64), (c, d)| {
                (a.saturating_add(c), b.saturating_add(d))
            });
        if segments >= OUTBOX_MESSAGES || bytes.saturating_add(payload.len() as u64) > OUTBOX_BYTES
        {
            return Err(SendError::Full);
        }
        let mut rest = payload.clone();
        let count = payload.len().div_ceil(SEGMENT_BYTES).max(1);
        let segments = (0..count).map(|_| rest.split_to(rest.len().min(SEGMENT_BYTES)));
        self.queue(channel, Body::Here(segments.collect()), options)
    }

    /// Takes a message whose payload stays in a file. It is like any other, but for its record, which
    /// says where the payload is: [`Output::Content`](super::Output::Content) asks for it when its
    /// turn comes. It is part of what a message taken by [`send`](Self::send) began, which has found
    /// room in the outbox: so there is room for it too.
    ///
    /// # Errors
    /// [`SendError`]; nothing was changed then.
    pub fn send_external(
        &mut self,
        channel: ChannelId,
        external: &External,
        options: &SendOptions,
        now: Now,
    ) -> Result<Ticket, SendError> {
        self.now = now;
        let beginning = external.beginning.len() as u64;
        let size = external.extent.length.saturating_add(beginning);
        if size > MESSAGE_BYTES as u64 || beginning >= SEGMENT_BYTES as u64 {
            return Err(SendError::TooLarge {
                size: usize::try_from(size).unwrap_or(usize::MAX),
                limit: MESSAGE_BYTES,
            });
        }
        self.queue(channel, Body::Elsewhere(external), options)
    }

    /// Gives up what waits of a transfer: its messages end as [`Ending::Cancelled`]. Forgotten when
    /// the engine goes, so call it again if records of the transfer may be left then.
    pub fn give_up(&mut self, channel: ChannelId, transfer: TransferId, now: Now) {
        self.now = now;
        let (Some(out), Some(sending)) =
            (self.live.out.get(&channel), self.sending.get_mut(&channel))
        else {
            return;
        };
        sending.given_up.insert(transfer);
        match &mut sending.sweep {
            Some(sweep) => sweep.again = true,
            None => sending.sweep = Some(Sweep::of(out)),
        }
    }

    /// Has a record that is none of the engine's own written, or deleted, in the same batch as what
    /// was just asked for.
    pub fn note(&mut self, key: Key, value: Option<Bytes>) {
        match value {
            Some(value) => self.writes.batch().put(key.to_bytes(), value),
            None => self.writes.batch().delete(key.to_bytes()),
        }
    }

    fn queue(
        &mut self,
        channel: ChannelId,
        body: Body<'_>,
        options: &SendOptions,
    ) -> Result<Ticket, SendError> {
        if self.stopped {
            return Err(SendError::Stopped);
        }
        if self.live.out.len() >= CHANNELS && !self.live.out.contains_key(&channel) {
            return Err(SendError::Channels { limit: CHANNELS });
        }
        if self.live.keys.sending.is_none() {
            // Its handshake is said with it.
            self.begin_handshake();
        }
        self.expect_answer();
        let id = self.entropy.message_id();
        let expires = self.now.wall.plus(options.ttl.unwrap_or(MESSAGE_TTL));
        let out = self.live.out.entry(channel).or_default();
        let sending = self
            .sending
            .entry(channel)
            .or_insert_with(|| Sending::new(out.next));
        let (first, before) = (out.next, out.next_tally);
        let count = body.segments();
        let mut record = OutboxRecord {
            id,
            index: 0,
            count,
            before,
            tally: before,
            sent: self.now.wall,
            expires,
            state: OutboxState::Live,
            once: options.once,
            payload: Bytes::new(),
        };
        match body {
            Body::Here(segments) => {
                for (index, payload) in (0..count).zip(segments) {
                    out.next_tally = out.next_tally.with(id, index, payload.len());
                    record = OutboxRecord {
                        index,
                        tally: out.next_tally,
                        payload,
                        ..record
                    };
                    let key = Key::Outbox(self.peer, channel, out.next).to_bytes();
                    self.writes.batch().put(key, record.to_bytes());
                    sending.keep(out.next, record.clone());
                    out.next = out.next.next();
                }
            }
            Body::Elsewhere(External { extent, beginning }) => {
                record.index = count.saturating_sub(1);
                record.state = OutboxState::External(*extent);
                record.payload = beginning.clone();
                if let Some((last, _)) = record.segments(*extent).last() {
                    out.next_tally = last.tally;
                }
                record.tally = out.next_tally;
                out.next = first.plus(u64::from(count));
                let key = Key::Outbox(self.peer, channel, out.next.minus(1)).to_bytes();
                self.writes.batch().put(key, record.to_bytes());
            }
        }
        out.earliest_expiry = Some(out.earliest_expiry.map_or(expires, |old| old.min(expires)));
        if let Some(sweep) = &mut sending.sweep {
            sweep.note(expires);
        }
        let ticket = Ticket {
            id,
            channel,
            first,
            end: out.next,
        };
        if let Some(hash) = options.once {
            let record = OnceRecord {
                id,
                channel,
                first,
                end: ticket.end,
                ended: None,
            };
            let key = Key::Once(self.peer, hash).to_bytes();
            self.writes.batch().put(key, record.to_bytes());
        }
        Ok(ticket)
    }

    /// Has the session written even if nothing was sent or came: the app opened it, and its peer is
    /// known from now on.
    pub fn keep(&mut self, now: Now) {
        self.now = now;
        if !self.stored {
            self.writes.touch();
        }
    }

    /// Takes a message back if no part of it can have left this device. Returns whether it will
    /// not be sent; [`Event::Ended`] tells when that is durable.
    pub fn cancel(&mut self, ticket: Ticket, now: Now) -> bool {
        self.now = now;
        let Some(sending) = self.sending.get(&ticket.channel) else {
            return false;
        };
        // Under an earlier epoch, what lies below `again_below` may have left too.
        let again_below = self
            .live
            .out
            .get(&ticket.channel)
            .map_or(Position(0), |out| out.again_below);
        let left = ticket.first < sending.high.max(again_below);
        if left
            || sending
                .record(ticket.first)
                .is_none_or(|record| record.id != ticket.id)
        {
            return false;
        }
        self.end_message(ticket.channel, ticket.first, Ending::Cancelled) == Found::Here
    }

    /// The app waits to hear that everything below `position` was committed by the peer's app.
    pub fn await_consumed(&mut self, channel: ChannelId, position: Position, now: Now) {
        self.now = now;
        self.expect_answer();
        if let Some(sending) = self.sending.get_mut(&channel) {
            sending.awaited = sending.awaited.max(position);
        }
    }

    /// Ends the message that `position` belongs to: its segments become tombstones.
    pub(super) fn end_message(
        &mut self,
        channel: ChannelId,
        position: Position,
        how: Ending,
    ) -> Found {
        let Some(sending) = self.sending.get(&channel) else {
            return Found::Elsewhere;
        };
        if sending.ending.contains(position) {
            return Found::Here;
        }
        let Some(record) = sending.record(position).cloned() else {
            return Found::Elsewhere;
        };
        self.end_record(channel, position, &record, how);
        Found::Here
    }

    fn end_record(
        &mut self,
        channel: ChannelId,
        position: Position,
        record: &OutboxRecord,
        how: Ending,
    ) {
        if record.state == OutboxState::Tombstone {
            return;
        }
        let Some(out) = self.live.out.get_mut(&channel) else {
            return;
        };
        let start = record.first(position);
        let end = start.plus(u64::from(record.count));
        // Not from what the peer lacks on: if its store goes back, or under a new epoch, a message is
        // offered from its first segment, and one that lies elsewhere has no record of that.
        let first = start.max(out.stored);
        for at in first.0..end.0 {
            let index = u32::try_from(Position(at).since(start)).unwrap_or(u32::MAX);
            let key = Key::Outbox(self.peer, channel, Position(at)).to_bytes();
            self.writes
                .batch()
                .put(key, record.tombstone(index).to_bytes());
        }
        for custody in &mut out.custody {
            custody.held.remove_run(first, end);
        }
        for link in self.links.iter_mut() {
            link.sent.entry(channel).or_default().remove_run(first, end);
            // What a relay says of it from now on says nothing of the Skip in its place.
            for flight in link.flights.values_mut() {
                flight.forget(channel, first, end);
            }
        }
        if let Some(sending) = self.sending.get_mut(&channel) {
            sending.ends(first, end);
        }
        if let Some(hash) = record.once {
            let once = OnceRecord {
                id: record.id,
                channel,
                first: start,
                end,
                ended: Some(how),
            };
            let key = Key::Once(self.peer, hash).to_bytes();
            self.writes.batch().put(key, once.to_bytes());
        }
        self.writes.rewrites_outbox();
        self.defer(After::Tombstones {
            channel,
            first,
            end,
        });
        self.defer(After::Event(Event::Ended {
            channel,
            id: record.id,
            end,
            how,
        }));
    }

    pub(super) fn end_unless_ending(
        &mut self,
        channel: ChannelId,
        position: Position,
        record: &OutboxRecord,
        how: Ending,
    ) {
        let sending = self.sending.get(&channel);
        if sending.is_some_and(|sending| !sending.ending.contains(position)) {
            self.end_record(channel, position, record, how);
        }
    }

    /// Whether a channel is being searched for what has expired.
    fn is_swept(&self, channel: ChannelId) -> bool {
        let sending = self.sending.get(&channel);
        sending.is_some_and(|sending| sending.sweep.is_some())
    }

    /// When there is something to look for next that may have expired.
    pub(super) fn next_expiry(&self) -> Option<WallTime> {
        self.live
            .out
            .iter()
            .filter(|(_, out)| out.low < out.next)
            .filter(|(channel, _)| !self.is_swept(**channel))
            .filter_map(|(_, out)| out.earliest_expiry)
            .min()
    }
}

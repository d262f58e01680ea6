//! What the app asks for: sending, and taking back.

use bytes::Bytes;

use super::Engine;
use super::ending::Ended;
use super::event::{External, SendError, SendOptions, Ticket};
use super::outbox::{Sending, Sweep};
use crate::limits::{
    CHANNELS, MESSAGE_BYTES, MESSAGE_TTL, OUTBOX_BYTES, OUTBOX_MESSAGES, SEGMENT_BYTES,
};
use crate::record::{Ending, Key, OnceRecord, OutChannel, OutboxRecord, OutboxState, Record};
use crate::store::Batch;
use crate::{ChannelId, Now, Position, StoreTime, TransferId};

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
    /// [`poll`](Engine::poll) asks for is written; [`Event::Progress`](super::Event::Progress) tells.
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
        let expires = self.now.store.plus(options.ttl.unwrap_or(MESSAGE_TTL));
        let out = self.live.out.entry(channel).or_default();
        let sending = self
            .sending
            .entry(channel)
            .or_insert_with(|| Sending::new(out.next));
        let (first, before) = (out.next, out.next_tally);
        let count = body.segments();
        let record = OutboxRecord {
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
        let batch = self.writes.batch();
        let key = |position| Key::Outbox(self.peer, channel, position).to_bytes();
        match body {
            Body::Here(segments) => put_segments(record, segments, out, sending, batch, key),
            Body::Elsewhere(external) => put_external(record, external, out, batch, key),
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
    /// not be sent; [`Event::Ended`](super::Event::Ended) tells when that is durable.
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
        self.end_message(ticket.channel, ticket.first, Ending::Cancelled) == Ended::Now
    }

    /// The app waits to hear that everything below `position` was committed by the peer's app.
    pub fn await_consumed(&mut self, channel: ChannelId, position: Position, now: Now) {
        self.now = now;
        self.expect_answer();
        if let Some(sending) = self.sending.get_mut(&channel) {
            sending.awaited = sending.awaited.max(position);
        }
    }

    /// Whether a channel is being searched for what has expired.
    fn is_swept(&self, channel: ChannelId) -> bool {
        let sending = self.sending.get(&channel);
        sending.is_some_and(|sending| sending.sweep.is_some())
    }

    /// When there is something to look for next that may have expired.
    pub(super) fn next_expiry(&self) -> Option<StoreTime> {
        self.live
            .out
            .iter()
            .filter(|(_, out)| out.low < out.next)
            .filter(|(channel, _)| !self.is_swept(**channel))
            .filter_map(|(_, out)| out.earliest_expiry)
            .min()
    }
}

/// Puts a message into the outbox whose payload is cut into these segments.
fn put_segments(
    message: OutboxRecord,
    segments: Vec<Bytes>,
    out: &mut OutChannel,
    sending: &mut Sending,
    batch: &mut Batch,
    key: impl Fn(Position) -> Bytes,
) {
    for (index, payload) in (0..message.count).zip(segments) {
        out.next_tally = out.next_tally.with(message.id, index, payload.len());
        let record = OutboxRecord {
            index,
            tally: out.next_tally,
            payload,
            ..message.clone()
        };
        batch.put(key(out.next), record.to_bytes());
        sending.keep(out.next, record);
        out.next = out.next.next();
    }
}

/// Puts a message into the outbox whose payload stays in a file: the record of its last segment alone.
fn put_external(
    message: OutboxRecord,
    external: &External,
    out: &mut OutChannel,
    batch: &mut Batch,
    key: impl Fn(Position) -> Bytes,
) {
    let External { extent, beginning } = external;
    let mut record = OutboxRecord {
        index: message.count.saturating_sub(1),
        state: OutboxState::External(*extent),
        payload: beginning.clone(),
        ..message
    };
    if let Some((last, _)) = record.segments(*extent).last() {
        out.next_tally = last.tally;
    }
    record.tally = out.next_tally;
    out.next = out.next.plus(u64::from(record.count));
    batch.put(key(out.next.minus(1)), record.to_bytes());
}

//! Segments as they come: they become messages in the inbox, in order, once (I1, I2, I3).
//!
//! Nothing here is acknowledged before it is durable: the record that acknowledgements are drawn
//! from is the one in the store.

use bytes::Bytes;

use super::Engine;
use super::event::Violation;
use super::packets::Taken;
use super::parking::Parked;
use super::writes::After;
use crate::record::{InboxBody, Key, Partial, Record, SegmentRecord};
use crate::wire::frame::Data;
use crate::{ChannelId, Digest, Epoch, Generation, MessageId, Seq};

/// What is known of a segment that waits in the store.
#[derive(Clone, Copy, Debug)]
pub(super) enum Held {
    Data { part: Part, bytes: usize },
    Skip { last: Seq, digest: Digest },
}

/// Which part of which message a segment is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part {
    pub(super) id: MessageId,
    pub(super) index: u32,
    pub(super) count: u32,
    pub(super) redelivered: bool,
}

impl Held {
    pub(super) fn of(record: &SegmentRecord) -> Self {
        let elsewhere = match record {
            SegmentRecord::Placed { placed, .. } => usize::try_from(*placed).unwrap_or(usize::MAX),
            _ => 0,
        };
        match record {
            SegmentRecord::Data {
                id,
                index,
                count,
                redelivered,
                payload: here,
            }
            | SegmentRecord::Placed {
                id,
                index,
                count,
                redelivered,
                beginning: here,
                ..
            } => Self::Data {
                part: Part {
                    id: *id,
                    index: *index,
                    count: *count,
                    redelivered: *redelivered,
                },
                bytes: here.len().saturating_add(elsewhere),
            },
            SegmentRecord::Skip { last, digest } => Self::Skip {
                last: *last,
                digest: *digest,
            },
        }
    }
}

impl Engine {
    pub(super) fn on_data(
        &mut self,
        generation: Generation,
        data: Data,
    ) -> Result<Taken, Violation> {
        #[cfg(feature = "sabotage")]
        if self.take_against_rules(&data)? {
            self.owe_ack(generation, data.epoch);
            return Ok(Taken::Yes);
        }
        let Data {
            epoch,
            channel,
            seq,
            id,
            index,
            count,
            again,
            payload,
        } = data;
        let place = self.place(epoch, channel)?;
        let next = place.map_or(Seq::FIRST, |rx| rx.next);
        let known = place.is_some_and(|rx| rx.held.contains(seq));
        let part = Part {
            id,
            index,
            count,
            redelivered: again.is_some(),
        };
        if seq < next || known {
            // A duplicate is acknowledged, or it would come for ever.
            self.owe_ack(generation, epoch);
            return Ok(Taken::Yes);
        }
        if !self.has_room(epoch, channel, next, seq) {
            return Ok(self.turn_away(epoch, channel, Parked::Segment(seq)));
        }
        if seq == next {
            self.check_part(epoch, channel, seq, part)?;
        }
        self.take_place(epoch, channel)?;
        if let Some(first) = again
            && first.epoch != epoch
        {
            self.note_first(epoch, channel, first)?;
        }
        if seq == next {
            self.accept(epoch, channel, part, Some(payload), 0);
            self.drain(epoch, channel);
        } else {
            let record = SegmentRecord::Data {
                id,
                index,
                count,
                redelivered: part.redelivered,
                payload,
            };
            self.hold(epoch, channel, seq, seq, &record);
        }
        self.owe_ack(generation, epoch);
        Ok(Taken::Yes)
    }

    /// What came is acknowledged on this link, once it is durable.
    pub(super) fn owe_ack(&mut self, generation: Generation, epoch: Epoch) {
        self.defer(After::Ack {
            generation,
            epoch,
            answers: None,
        });
    }

    /// Keeps what came before its turn.
    pub(super) fn hold(
        &mut self,
        epoch: Epoch,
        channel: ChannelId,
        seq: Seq,
        last: Seq,
        record: &SegmentRecord,
    ) {
        let key = Key::Segment(self.peer, epoch, channel, seq).to_bytes();
        self.writes.batch().put(key, record.to_bytes());
        self.held
            .entry((epoch, channel))
            .or_default()
            .insert(seq, Held::of(record));
        if let Ok(rx) = self.receiving(epoch, channel) {
            rx.held.insert_run(seq, last.next());
        }
    }

    /// Whether the next segment may be this part of a message.
    fn check_part(
        &self,
        epoch: Epoch,
        channel: ChannelId,
        seq: Seq,
        part: Part,
    ) -> Result<(), Violation> {
        let continues = match self.place(epoch, channel)?.and_then(|rx| rx.partial) {
            None => part.index == 0,
            Some(partial) => {
                part.id == partial.id
                    && part.count == partial.count
                    && partial.first.0.saturating_add(u64::from(part.index)) == seq.0
            }
        };
        if continues {
            Ok(())
        } else {
            Err(Violation::Message)
        }
    }

    /// Takes the next segment of a channel. Its payload is in the store already if not given.
    pub(super) fn accept(
        &mut self,
        epoch: Epoch,
        channel: ChannelId,
        part: Part,
        payload: Option<Bytes>,
        stored_bytes: usize,
    ) {
        let Ok(rx) = self.receiving(epoch, channel) else {
            return;
        };
        let seq = rx.next;
        rx.next = seq.next();
        rx.digest = rx.digest.with(part.id, part.index);
        let redelivered = part.redelivered || rx.seen.contains(seq);
        let bytes = payload.as_ref().map_or(stored_bytes, Bytes::len) as u64;
        let mut partial = rx.partial.take().unwrap_or(Partial {
            id: part.id,
            first: seq,
            count: part.count,
            redelivered: false,
            bytes: 0,
        });
        partial.redelivered |= redelivered;
        partial.bytes = partial.bytes.saturating_add(bytes);
        let last = part.index.saturating_add(1) >= part.count;
        if !last {
            rx.partial = Some(partial);
        }
        let part = Part {
            redelivered: partial.redelivered,
            ..part
        };
        match payload {
            Some(payload) if part.count == 1 => {
                self.deliver(epoch, channel, seq, part, InboxBody::Inline(payload), bytes);
                return;
            }
            Some(payload) => {
                let record = SegmentRecord::Data {
                    id: part.id,
                    index: part.index,
                    count: part.count,
                    redelivered,
                    payload,
                };
                let key = Key::Segment(self.peer, epoch, channel, seq).to_bytes();
                self.writes.batch().put(key, record.to_bytes());
            }
            None => {}
        }
        if last {
            let body = InboxBody::Segments(part.count);
            self.deliver(epoch, channel, seq, part, body, partial.bytes);
        }
    }

    /// Takes what waited for the segment that just came.
    pub(super) fn drain(&mut self, epoch: Epoch, channel: ChannelId) {
        self.drain_below(epoch, channel, Seq(u64::MAX));
    }

    /// The same, but only what begins below `end`.
    pub(super) fn drain_below(&mut self, epoch: Epoch, channel: ChannelId, end: Seq) {
        loop {
            let Ok(rx) = self.receiving(epoch, channel) else {
                return;
            };
            let next = rx.next;
            if next >= end {
                return;
            }
            let Some(held) = self.held.get_mut(&(epoch, channel)) else {
                return;
            };
            // What a Skip has overtaken is of no use any more.
            let Some((&first, &what)) = held.first_key_value() else {
                self.held.remove(&(epoch, channel));
                return;
            };
            if first > next {
                return;
            }
            held.remove(&first);
            if let Ok(rx) = self.receiving(epoch, channel) {
                rx.held.remove_below(first.next());
            }
            match what {
                Held::Data { part, bytes } if first == next => {
                    if self.check_part(epoch, channel, first, part).is_ok() {
                        self.accept(epoch, channel, part, None, bytes);
                    } else {
                        // Its message lost its head to a Skip: it can't become whole. It counts in
                        // the digest all the same, as it does at the sender.
                        let digest = Digest::default().with(part.id, part.index);
                        self.delete_segment(epoch, channel, first);
                        self.step_over(epoch, channel, first, Some(digest));
                    }
                }
                Held::Data { .. } => self.delete_segment(epoch, channel, first),
                Held::Skip { last, digest } => {
                    self.delete_segment(epoch, channel, first);
                    if first == next {
                        self.step_over(epoch, channel, last, Some(digest));
                    }
                }
            }
        }
    }

    pub(super) fn delete_segment(&mut self, epoch: Epoch, channel: ChannelId, seq: Seq) {
        let key = Key::Segment(self.peer, epoch, channel, seq);
        self.writes.batch().delete(key.to_bytes());
    }

    pub(super) fn delete_segments(
        &mut self,
        epoch: Epoch,
        channel: ChannelId,
        first: Seq,
        end: Seq,
    ) {
        // A message has a bounded number of segments, and so has this loop.
        let end = end.0.min(
            first
                .0
                .saturating_add(u64::from(crate::limits::MESSAGE_SEGMENTS)),
        );
        for seq in first.0..end {
            self.delete_segment(epoch, channel, Seq(seq));
        }
    }
}

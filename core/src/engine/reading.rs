//! What is read again: records to go on sending, the one that an acknowledgement names, those that may
//! have expired; and the content of messages that lie elsewhere. One read is on its way at a time.

use std::ops::Bound;
use std::time::Duration;

use bytes::Bytes;

use super::Engine;
use super::event::Output;
use super::outbox::Sweep;
use crate::limits::{READ_BYTES, READ_RECORDS};
use crate::record::{Ending, Key, OutboxRecord, OutboxState, Record, RecordError};
use crate::store::ReadLimit;
use crate::{ChannelId, Now, Position};

/// What a read on its way is for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Reading {
    /// To go on sending.
    Fill(ChannelId),
    /// As that, of so many bytes of a message that lies elsewhere, from the segment at this position.
    Content(ChannelId, Position, u64),
    /// To check an acknowledgement's digest.
    Check(ChannelId, Position),
    /// To find what has expired.
    Sweep(ChannelId),
    /// Of what a write has changed meanwhile: what is found is not what there is any more.
    Overtaken,
}

impl Engine {
    /// What the last [`Output::Read`] found.
    ///
    /// # Errors
    /// [`RecordError`] if a record is damaged.
    pub fn read(&mut self, rows: &[(Bytes, Bytes)], now: Now) -> Result<(), RecordError> {
        self.now = now;
        let Some(reading) = self.reading.take() else {
            return Ok(());
        };
        let mut records: Vec<(_, OutboxRecord)> = Vec::with_capacity(rows.len());
        for (key, value) in rows {
            if let Ok(Key::Outbox(_, _, position)) = Key::of_peer(self.peer, key) {
                records.push((position, Record::from_bytes(value)?));
            }
        }
        match reading {
            Reading::Fill(channel) => self.filled(channel, records),
            Reading::Check(channel, position) => {
                let record = records.iter().find_map(|(at, r)| r.of(*at, position));
                self.checked(channel, position, record);
            }
            Reading::Sweep(channel) => self.swept(channel, &records),
            Reading::Content(..) | Reading::Overtaken => {}
        }
        Ok(())
    }

    /// What the last [`Output::Content`] asked for; none if the file can't be read, or is not what it
    /// was. Then its message ends as [`Ending::Unreadable`].
    pub fn content(&mut self, content: Option<Bytes>, now: Now) {
        self.now = now;
        let Some(Reading::Content(channel, from, length)) = self.reading.take() else {
            return;
        };
        match content {
            Some(content) if content.len() as u64 == length => {
                self.content_read(channel, from, content);
            }
            _ => self.content_lost(channel, from),
        }
    }

    /// What the last [`Output::Content`] asked for can't be read now: it is asked for again at `at`, in
    /// the driver's elapsed time. Only what is behind it on its channel waits for that.
    pub fn content_later(&mut self, at: Duration, now: Now) {
        self.now = now;
        let Some(Reading::Content(channel, ..)) = self.reading.take() else {
            return;
        };
        if let Some(sending) = self.sending.get_mut(&channel) {
            sending.wanted = None;
            sending.content_at = Some(at);
        }
    }

    pub(super) fn next_read(&mut self) {
        // However fast one is read, the others have their turn.
        let behind = self.read_last.map_or(Bound::Unbounded, Bound::Excluded);
        if !self.read_one_of((behind, Bound::Unbounded)) {
            self.read_one_of((Bound::Unbounded, Bound::Unbounded));
        }
    }

    /// Asks for what the first of these channels needs. Returns whether one needs something.
    fn read_one_of(&mut self, channels: (Bound<ChannelId>, Bound<ChannelId>)) -> bool {
        let limit = ReadLimit {
            records: READ_RECORDS,
            bytes: READ_BYTES,
        };
        let now = self.now.elapsed;
        for (&channel, sending) in self.sending.range_mut(channels) {
            let Some(out) = self.durable.out.get(&channel) else {
                continue;
            };
            let (reading, from, count) = if let Some(ack) = sending.ack {
                let last = ack.next.minus(1);
                (Reading::Check(channel, last), last, 1)
            } else if let Some(wanted) = sending.take_wanted(now) {
                if let Some(extent) = sending.content(wanted) {
                    sending.content_at = None;
                    self.reading = Some(Reading::Content(channel, wanted, extent.length));
                    self.read_last = Some(channel);
                    self.outputs.push_back(Output::Content(extent));
                    return true;
                }
                (Reading::Fill(channel), wanted, READ_RECORDS)
            } else if let Some(sweep) = sending.sweep.filter(|sweep| sweep.end <= out.next) {
                (Reading::Sweep(channel), sweep.at, READ_RECORDS)
            } else {
                continue;
            };
            if from >= out.next && !matches!(reading, Reading::Sweep(_)) {
                continue;
            }
            self.reading = Some(reading);
            self.read_last = Some(channel);
            let range = Key::outbox(self.peer, channel, from, out.next);
            let limit = ReadLimit {
                records: count,
                ..limit
            };
            self.outputs.push_back(Output::Read { range, limit });
            return true;
        }
        false
    }

    /// An acknowledgement's record was read.
    fn checked(&mut self, channel: ChannelId, position: Position, record: Option<OutboxRecord>) {
        let Some(sending) = self.sending.get_mut(&channel) else {
            return;
        };
        let Some(ack) = sending.ack else { return };
        match record {
            Some(record) if ack.next.minus(1) == position => {
                sending.ack = None;
                self.acknowledge(channel, ack, &record);
            }
            // A later acknowledgement took its place: its own record is read next.
            Some(_) => {}
            // What it acknowledges has left the outbox meanwhile.
            None => sending.ack = None,
        }
    }

    /// Records were read to go on sending.
    fn filled(&mut self, channel: ChannelId, records: Vec<(Position, OutboxRecord)>) {
        let Some(sending) = self.sending.get_mut(&channel) else {
            return;
        };
        let Some(out) = self.live.out.get(&channel) else {
            return;
        };
        // Asked for again while this was read, most likely; what is missing yet is asked for anew.
        sending.wanted = None;
        let offer = out.offer;
        for (position, record) in records.into_iter().rev() {
            // What ends meanwhile was read as it was before.
            if position < offer || sending.ending.contains(position) {
                continue;
            }
            match record.state {
                OutboxState::External(_) => sending.keep_elsewhere(position, record),
                OutboxState::Live | OutboxState::Tombstone => sending.load(position, record),
            }
        }
    }

    /// The content was read of those segments of a message that begin at `from`.
    fn content_read(&mut self, channel: ChannelId, from: Position, mut content: Bytes) {
        let Some(sending) = self.sending.get_mut(&channel) else {
            return;
        };
        // As when records were read.
        sending.wanted = None;
        let Some((at, record)) = sending.elsewhere(from) else {
            return;
        };
        let OutboxState::External(extent) = record.state else {
            return;
        };
        let start = record.first(at);
        let mut segments = Vec::new();
        let skipped = usize::try_from(from.since(start)).unwrap_or(usize::MAX);
        for (segment, part) in record.segments(extent).skip(skipped) {
            let length = usize::try_from(part.length).unwrap_or(usize::MAX);
            if length > content.len() {
                break;
            }
            let here = content.split_to(length);
            let payload = if segment.payload.is_empty() {
                here
            } else {
                [segment.payload, here].concat().into()
            };
            let position = start.plus(u64::from(segment.index));
            let segment = OutboxRecord {
                state: OutboxState::Live,
                payload,
                ..segment
            };
            segments.push((position, segment));
        }
        for (position, segment) in segments.into_iter().rev() {
            sending.load(position, segment);
        }
    }

    /// The content of a message can't be read: it ends.
    fn content_lost(&mut self, channel: ChannelId, from: Position) {
        let Some(sending) = self.sending.get_mut(&channel) else {
            return;
        };
        sending.wanted = None;
        if let Some((at, record)) = sending.elsewhere(from) {
            let record = record.clone();
            self.end_unless_ending(channel, at, &record, Ending::Unreadable);
        }
    }

    /// Looks for messages whose time is over. Until it has looked at all, the record says that there may
    /// be some: a start in between begins anew.
    pub(super) fn start_sweeps(&mut self) {
        for (channel, out) in &self.live.out {
            if out.earliest_expiry.is_some_and(|at| at <= self.now.store)
                && let Some(sending) = self.sending.get_mut(channel)
                && sending.sweep.is_none()
            {
                sending.sweep = Some(Sweep::of(out));
            }
        }
    }

    /// Records were read to find those that have expired.
    fn swept(&mut self, channel: ChannelId, records: &[(Position, OutboxRecord)]) {
        let Some(sending) = self.sending.get_mut(&channel) else {
            return;
        };
        let Some(mut sweep) = sending.sweep.take() else {
            return;
        };
        let all_given_up = std::mem::take(&mut sending.given_up);
        let low = self
            .live
            .out
            .get(&channel)
            .map_or(Position(0), |out| out.low);
        for (position, record) in records {
            if *position < sweep.at {
                continue;
            }
            sweep.at = position.next();
            if record.state == OutboxState::Tombstone || *position < low {
                continue;
            }
            let given_up = matches!(
                record.state,
                OutboxState::External(extent) if all_given_up.contains(&extent.transfer)
            );
            if given_up || record.expires <= self.now.store {
                sweep.at = position.plus(u64::from(record.count.saturating_sub(record.index)));
                let how = if given_up {
                    Ending::Cancelled
                } else {
                    Ending::Expired
                };
                self.end_unless_ending(channel, *position, record, how);
            } else {
                sweep.note(record.expires);
            }
        }
        let (Some(out), Some(sending)) = (
            self.live.out.get_mut(&channel),
            self.sending.get_mut(&channel),
        ) else {
            return;
        };
        let done = records.is_empty();
        if done {
            out.earliest_expiry = sweep.earliest;
        }
        if !done || sweep.again {
            sending.sweep = Some(if done { Sweep::of(out) } else { sweep });
            sending.given_up = all_given_up;
        }
    }
}

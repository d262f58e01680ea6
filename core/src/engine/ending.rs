//! Messages that end before the peer has them: their segments become tombstones.

use super::Engine;
use super::event::Event;
use super::writes::After;
use crate::record::{Ending, Key, OnceRecord, OutboxRecord, OutboxState, Record};
use crate::{ChannelId, Position};

/// What came of ending a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// Its record was in memory: it has ended.
    Now,
    /// Its record has to be read first, or is gone.
    OnceRead,
}

impl Engine {
    /// Ends the message that `position` belongs to: its segments become tombstones.
    pub(super) fn end_message(
        &mut self,
        channel: ChannelId,
        position: Position,
        how: Ending,
    ) -> Ended {
        let Some(sending) = self.sending.get(&channel) else {
            return Ended::OnceRead;
        };
        if sending.ending.contains(position) {
            return Ended::Now;
        }
        let Some(record) = sending.record(position).cloned() else {
            return Ended::OnceRead;
        };
        self.end_record(channel, position, &record, how);
        Ended::Now
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

    /// The same with the record at hand, if it has not ended already.
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
}

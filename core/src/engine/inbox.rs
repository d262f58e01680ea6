//! The inbox: whole messages, until the app has committed them (I2, I3).

use std::collections::BTreeSet;

use super::Engine;
use super::segments::Part;
use super::writes::After;
use crate::limits::CONSUMED_DELAY;
use crate::record::{InboxBody, InboxRecord, Key, Record};
use crate::{ChannelId, Epoch, Generation, Now, Position, Seq};

impl Engine {
    /// Puts a whole message into the inbox.
    pub(super) fn deliver(
        &mut self,
        epoch: Epoch,
        channel: ChannelId,
        last: Seq,
        part: Part,
        body: InboxBody,
        bytes: u64,
    ) {
        let inbox = self.live.inboxes.entry(channel).or_default();
        let position = inbox.next;
        inbox.next = position.next();
        inbox.messages = inbox.messages.saturating_add(1);
        inbox.bytes = inbox.bytes.saturating_add(bytes);
        self.live.waiting.came(channel, epoch);
        self.received = self
            .received
            .saturating_add(u64::from(channel != ChannelId::SIGNALING));
        let gap = self
            .receiving(epoch, channel)
            .ok()
            .and_then(|rx| rx.gap.take());
        let record = InboxRecord {
            id: part.id,
            epoch,
            last,
            gap,
            redelivered: part.redelivered,
            start: self.start,
            attempts: 0,
            received: self.now.wall,
            body,
        };
        let key = Key::Inbox(self.peer, channel, position).to_bytes();
        self.writes.batch().put(key, record.to_bytes());
    }

    /// The app has this message in hand. Returns whether it does: not if it was committed meanwhile
    /// by who had it in hand before.
    pub fn hand(&mut self, channel: ChannelId, position: Position, record: &InboxRecord) -> bool {
        let count = match record.body {
            InboxBody::Inline(_) => 1,
            InboxBody::Segments(count) => u64::from(count),
        };
        let first = Seq(record.last.0.saturating_sub(count.saturating_sub(1)));
        let seqs = (first, record.last);
        self.hands.take(record.epoch, channel, position, seqs)
    }

    /// The app is done with a message of `bytes` bytes that it has in hand. Nothing happens if it
    /// has it not.
    pub fn commit(
        &mut self,
        channel: ChannelId,
        position: Position,
        record: &InboxRecord,
        bytes: u64,
        now: Now,
    ) {
        self.now = now;
        let epoch = record.epoch;
        let Some((first, last)) = self.hands.commit(epoch, channel, position) else {
            return;
        };
        let before: Vec<_> = self.live.consumed(channel).collect();
        self.writes
            .batch()
            .delete(Key::Inbox(self.peer, channel, position).to_bytes());
        if matches!(record.body, InboxBody::Segments(_)) {
            self.delete_segments(epoch, channel, first, last.next());
        }
        if let Some(inbox) = self.live.inboxes.get_mut(&channel) {
            inbox.messages = inbox.messages.saturating_sub(1);
            inbox.bytes = inbox.bytes.saturating_sub(bytes);
        }
        self.live.waiting.committed(channel, epoch);
        let messages = self.live.inboxes.get(&channel);
        let messages = messages.map_or(0, |inbox| inbox.messages);
        for stream in &mut self.live.streams {
            let Some(rx) = stream.channels.get_mut(&channel) else {
                continue;
            };
            if self.live.waiting.is_none(channel, stream.epoch, messages) {
                // Those that were committed before this start are not known one by one.
                rx.consumed = rx.came();
            } else if let Some(done) = self.hands.done_below(stream.epoch, channel) {
                rx.consumed = rx.consumed.max(done).min(rx.next);
                rx.pass_gap();
            }
        }
        let changed = self
            .live
            .consumed(channel)
            .filter(|of| !before.contains(of));
        let mut told: BTreeSet<Epoch> = changed.map(|(of, _)| of).collect();
        told.insert(epoch);
        // What the peer sends now may wait for the room.
        told.extend(self.live.peer_epoch);
        let at = now.elapsed + CONSUMED_DELAY;
        let tell = self
            .tell_consumed
            .get_or_insert_with(|| (at, BTreeSet::new()));
        tell.1.append(&mut told);
        self.unpark();
    }

    /// Says once more what the app has committed of the streams beside `present`: an Ack of it may have
    /// been lost, and nothing else tells their sender, who asks.
    pub(super) fn tell_consumed_earlier(&mut self, generation: Generation, present: Epoch) {
        let channels: BTreeSet<ChannelId> = self
            .live
            .streams
            .iter()
            .flat_map(|stream| stream.channels.keys().copied())
            .collect();
        let told: BTreeSet<Epoch> = channels
            .into_iter()
            .flat_map(|channel| self.live.consumed(channel))
            .filter(|&(epoch, consumed)| epoch != present && consumed >= Seq::FIRST)
            .map(|(epoch, _)| epoch)
            .collect();
        for epoch in told {
            self.defer(After::Ack {
                generation,
                epoch,
                answers: None,
            });
        }
    }
}

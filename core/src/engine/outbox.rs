//! The sending side of a channel in memory: a bounded part of the outbox, and what is known of it.
//!
//! Keeps I7: what is here is a cache of records that are all in the store too. Keeps I4: nothing
//! in here is offered to a link before [`Session::out`](crate::record::Session) on disk covers it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::limits::{OUTBOX_CACHE_BYTES, READ_BYTES, READ_RECORDS, SEGMENT_BYTES};
use crate::record::{Extent, OutChannel, OutboxRecord, OutboxState};
use crate::runs::RunSet;
use crate::{Digest, Position, Seq, StoreTime, TransferId};

/// Bytes a record costs beside its payload, roughly.
const RECORD_BYTES: usize = 128;

/// Messages that lie elsewhere whose records are in memory.
const MESSAGES_ELSEWHERE: usize = 2 * READ_RECORDS;

/// An acknowledgement whose digest can't be checked before a record is read.
#[derive(Clone, Copy, Debug)]
pub(super) struct PendingAck {
    /// One past what it acknowledges.
    pub(super) next: Position,
    /// The digest it names.
    pub(super) digest: Digest,
}

/// The sending side of a channel.
#[derive(Debug)]
pub(super) struct Sending {
    cache: BTreeMap<Position, OutboxRecord>,
    cached_bytes: usize,
    /// Messages that lie elsewhere and are not acknowledged, by the place of their record, as far as
    /// they were read.
    elsewhere: BTreeMap<Position, OutboxRecord>,
    /// One past the highest position that may have been sent under the present epoch.
    pub(super) high: Position,
    /// What the peer holds out of order. Holds retransmission back, no more.
    pub(super) held: RunSet<Position>,
    /// What is becoming a tombstone, but is not on disk yet.
    pub(super) ending: RunSet<Position>,
    /// The first seq a direct link has no room for, once the peer told.
    pub(super) limit: Option<Seq>,
    /// Whether the peer has no room for more.
    pub(super) crowded: bool,
    /// Up to where the peer had everything when it last answered a question on a direct link.
    pub(super) answered: Option<Position>,
    /// An acknowledgement that waits for a record.
    pub(super) ack: Option<PendingAck>,
    /// A record that is wanted to go on sending.
    pub(super) wanted: Option<Position>,
    /// When content may be asked for again that could not be read.
    pub(super) content_at: Option<Duration>,
    /// Where a search for messages that are to end goes on.
    pub(super) sweep: Option<Sweep>,
    /// Transfers that were given up: what waits of them ends as the search finds it.
    pub(super) given_up: BTreeSet<TransferId>,
    /// What the app waits to hear consumed.
    pub(super) awaited: Position,
    /// Bytes this channel may still send in its turn.
    pub(super) credit: usize,
}

/// A search for messages that have expired, or belong to a transfer that was given up.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sweep {
    /// Where it goes on.
    pub(super) at: Position,
    /// Where the outbox ended when it began. It reads nothing before the store holds all of that: what
    /// it did not see would never expire.
    pub(super) end: Position,
    /// The earliest expiry among what stays, and what was queued since.
    pub(super) earliest: Option<StoreTime>,
    /// Whether there is something new to look for, so that it begins anew when it is done.
    pub(super) again: bool,
}

impl Sweep {
    /// One of all that is offered on a channel.
    pub(super) const fn of(out: &OutChannel) -> Self {
        Self {
            at: out.offer,
            end: out.next,
            earliest: None,
            again: false,
        }
    }

    /// Something expires then, and stays.
    pub(super) fn note(&mut self, expires: StoreTime) {
        self.earliest = Some(self.earliest.map_or(expires, |old| old.min(expires)));
    }
}

impl Sending {
    /// A channel of which nothing is in memory. After a start every record counts as possibly
    /// sent, so `high` is where the outbox ends.
    pub(super) fn new(high: Position) -> Self {
        Self {
            cache: BTreeMap::new(),
            cached_bytes: 0,
            elsewhere: BTreeMap::new(),
            high,
            held: RunSet::default(),
            ending: RunSet::default(),
            limit: None,
            crowded: false,
            answered: None,
            ack: None,
            wanted: None,
            content_at: None,
            sweep: None,
            given_up: BTreeSet::new(),
            awaited: Position::default(),
            credit: 0,
        }
    }

    /// The record at `position`, if it is in memory.
    pub(super) fn record(&self, position: Position) -> Option<&OutboxRecord> {
        self.cache.get(&position)
    }

    /// Bytes of the records in memory, roughly.
    pub(super) const fn cached_bytes(&self) -> usize {
        self.cached_bytes
    }

    /// How large a segment is: the mean of those in memory, or as large as one can be.
    pub(super) fn bytes_of_a_segment(&self) -> u64 {
        let mean = self.cached_bytes.checked_div(self.cache.len());
        mean.unwrap_or(SEGMENT_BYTES) as u64
    }

    /// Whether more records of messages that lie elsewhere are in memory than may be.
    #[cfg(feature = "sabotage")]
    pub(super) fn is_overgrown(&self) -> bool {
        self.elsewhere.len() > MESSAGES_ELSEWHERE
    }

    /// Keeps a record that was just written, if there is room.
    pub(super) fn keep(&mut self, position: Position, record: OutboxRecord) {
        if self.cached_bytes + cost(&record) <= OUTBOX_CACHE_BYTES {
            self.insert(position, record);
        }
    }

    /// Keeps a record that was read because it is needed; others make room.
    pub(super) fn load(&mut self, position: Position, record: OutboxRecord) {
        self.insert(position, record);
        while self.cached_bytes > OUTBOX_CACHE_BYTES {
            let Some((&first, _)) = self.cache.first_key_value() else {
                break;
            };
            let Some((&last, _)) = self.cache.last_key_value() else {
                break;
            };
            // What lies before is sent already, most likely; what lies far behind comes later.
            let victim = if first < position { first } else { last };
            if victim == position {
                break;
            }
            self.remove(victim);
        }
    }

    /// Keeps the record of a message that lies elsewhere. If there are many, those before are
    /// forgotten: they are read again when they are needed.
    pub(super) fn keep_elsewhere(&mut self, position: Position, record: OutboxRecord) {
        if self.elsewhere.len() >= MESSAGES_ELSEWHERE {
            self.elsewhere.clear();
        }
        self.elsewhere.insert(position, record);
    }

    /// The record of the message that lies elsewhere and has a segment at `position`, and where it
    /// is, as far as that is known.
    pub(super) fn elsewhere(&self, position: Position) -> Option<(Position, &OutboxRecord)> {
        let (&at, record) = self.elsewhere.range(position..).next()?;
        (record.first(at) <= position).then_some((at, record))
    }

    /// Which of a file is needed to go on from `position`, if its message lies elsewhere: some
    /// segments' worth.
    pub(super) fn content(&self, position: Position) -> Option<Extent> {
        let (at, record) = self.elsewhere(position)?;
        let OutboxState::External(extent) = record.state else {
            return None;
        };
        let before = usize::try_from(position.since(record.first(at))).ok()?;
        let mut parts = record.segments(extent).skip(before).map(|(_, part)| part);
        let mut wanted = parts.next()?;
        while wanted.length < READ_BYTES as u64
            && let Some(part) = parts.next()
        {
            wanted.length = wanted.length.saturating_add(part.length);
        }
        Some(wanted)
    }

    /// Takes the position that is wanted to go on sending, unless its content is to be asked for later.
    pub(super) fn take_wanted(&mut self, now: Duration) -> Option<Position> {
        let wanted = self.wanted.take()?;
        let later = self.content_at.is_some_and(|at| at > now);
        (!later || self.content(wanted).is_none()).then_some(wanted)
    }

    /// What lies elsewhere and ends before `position` is not needed any more.
    pub(super) fn forget_elsewhere(&mut self, position: Position) {
        while let Some(first) = self.elsewhere.first_entry()
            && *first.key() < position
        {
            first.remove();
        }
    }

    fn insert(&mut self, position: Position, record: OutboxRecord) {
        self.cached_bytes += cost(&record);
        if let Some(old) = self.cache.insert(position, record) {
            self.cached_bytes = self.cached_bytes.saturating_sub(cost(&old));
        }
    }

    fn remove(&mut self, position: Position) {
        if let Some(old) = self.cache.remove(&position) {
            self.cached_bytes = self.cached_bytes.saturating_sub(cost(&old));
        }
    }

    /// The peer has everything below `low`, and nothing below `offer` is offered any more.
    pub(super) fn acknowledged(&mut self, low: Position, offer: Position) {
        self.held.remove_below(low);
        self.ending.remove_below(low);
        self.high = self.high.max(low);
        if self.ack.is_some_and(|ack| ack.next <= low) {
            self.ack = None;
        }
        while let Some((&first, _)) = self.cache.first_key_value()
            && first < offer
        {
            self.remove(first);
        }
    }

    /// These are to be tombstones: of a message that lies elsewhere there is one for each segment.
    pub(super) fn ends(&mut self, first: Position, end: Position) {
        self.ending.insert_run(first, end);
        self.elsewhere.retain(|at, _| !(first..end).contains(at));
    }

    /// These are tombstones on disk now.
    pub(super) fn ended(&mut self, first: Position, end: Position) {
        self.ending.remove_run(first, end);
        for (_, record) in self.cache.range_mut(first..end) {
            self.cached_bytes = self.cached_bytes.saturating_sub(cost(record));
            *record = record.tombstone(record.index);
            self.cached_bytes += cost(record);
        }
    }

    /// A new epoch begins at `offer`: nothing was sent under it.
    pub(super) fn renewed(&mut self, offer: Position) {
        self.high = offer;
        self.held.clear();
        self.limit = None;
        self.crowded = false;
        self.answered = None;
        self.ack = None;
    }

    /// Whether the record at `position` is known to be a tombstone.
    #[cfg(test)]
    pub(super) fn is_tombstone(&self, position: Position) -> bool {
        self.record(position)
            .is_some_and(|record| record.state == OutboxState::Tombstone)
    }
}

fn cost(record: &OutboxRecord) -> usize {
    record.payload.len() + RECORD_BYTES
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::record::Tally;
    use crate::{MessageId, StoreTime, WallTime};

    fn record(bytes: usize) -> OutboxRecord {
        OutboxRecord {
            id: MessageId([1; 16]),
            index: 0,
            count: 1,
            before: Tally::default(),
            tally: Tally::default(),
            sent: WallTime(0),
            expires: StoreTime(1),
            state: OutboxState::Live,
            once: None,
            payload: Bytes::from(vec![0; bytes]),
        }
    }

    #[test]
    fn a_backlog_does_not_stay_in_memory() {
        let mut sending = Sending::new(Position(1));
        for n in 0..10_000 {
            sending.keep(Position(n), record(1_000));
        }
        assert!(sending.cached_bytes <= OUTBOX_CACHE_BYTES);
        assert!(sending.record(Position(0)).is_some());
        assert!(sending.record(Position(9_999)).is_none());
        for n in 5_000..6_000 {
            sending.load(Position(n), record(1_000));
        }
        assert!(sending.cached_bytes <= OUTBOX_CACHE_BYTES);
        assert!(sending.record(Position(5_999)).is_some());
    }

    #[test]
    fn a_tombstone_keeps_no_payload() {
        let mut sending = Sending::new(Position(1));
        sending.keep(Position(1), record(1_000));
        sending.ending.insert(Position(1));
        sending.ended(Position(1), Position(2));
        assert!(sending.is_tombstone(Position(1)));
        assert!(sending.cached_bytes < 1_000);
        assert!(sending.ending.is_empty());
    }
}

//! The session itself: everything but the payloads.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Gap, Record, RecordError, SkipNumber, Tally, Waiting, decode};
use crate::limits::SEGMENT_BYTES;
use crate::runs::RunSet;
use crate::seal::Keys;
use crate::{ChannelId, Digest, Epoch, MessageId, Position, Seq, StoreId, StoreTime, WallTime};

/// A session on disk. The engine holds two: what is true now, and what the store holds; only the
/// second may be spoken of (I4).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// Our epoch.
    pub epoch: Epoch,
    /// Our earlier epochs, oldest first.
    pub past: Vec<PastEpoch>,
    /// The peer's epoch, if we ever heard one.
    pub peer_epoch: Option<Epoch>,
    /// What we send.
    pub out: BTreeMap<ChannelId, OutChannel>,
    /// What we receive: a stream for each epoch of the peer, oldest first.
    pub streams: Vec<RxStream>,
    /// What waits for the app.
    pub inboxes: BTreeMap<ChannelId, InboxState>,
    /// Whether the session is in the index of those with work.
    pub work: bool,
    /// When the peer was heard last.
    pub last_seen: Option<WallTime>,
    /// What packets are sealed and opened with.
    pub keys: Keys,
    /// Of which streams it is what waits for the app.
    pub waiting: Waiting,
}

/// An epoch of ours that is over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PastEpoch {
    /// The epoch.
    pub epoch: Epoch,
    /// What was sent under it.
    pub channels: BTreeMap<ChannelId, PastChannel>,
}

/// What was sent on a channel under a past epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PastChannel {
    /// The position that was seq 0.
    pub base: Position,
    /// One past the highest position that may have been sent.
    pub high: Position,
}

/// The sending side of a channel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutChannel {
    /// The position that is seq 0 under the present epoch: seq = position - base.
    pub base: Position,
    /// The sum over all positions up to and with `base`.
    pub base_sum: Digest,
    /// The first position that has a record in the store.
    pub stored: Position,
    /// The lowest position offered to the peer: the first of the message that holds `low`.
    pub offer: Position,
    /// The tally of all positions below `offer`.
    pub offer_tally: Tally,
    /// The first position the peer has not acknowledged.
    pub low: Position,
    /// The tally of all positions below `low`.
    pub low_tally: Tally,
    /// The position of the next segment.
    pub next: Position,
    /// The tally of all positions below `next`.
    pub next_tally: Tally,
    /// Below this, a segment may have been sent under an earlier epoch.
    pub again_below: Position,
    /// The first position the peer's app has not committed.
    pub consumed: Position,
    /// What relays hold for us.
    pub custody: Vec<Custody>,
    /// No message on the channel expires earlier.
    pub earliest_expiry: Option<StoreTime>,
}

/// What one relay holds of a channel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Custody {
    /// The relay's store.
    pub store: StoreId,
    /// The positions it holds.
    pub held: RunSet<Position>,
}

/// What we receive under one epoch of the peer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RxStream {
    /// The peer's epoch.
    pub epoch: Epoch,
    /// Its channels.
    pub channels: BTreeMap<ChannelId, RxChannel>,
}

/// The receiving side of a channel under one epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RxChannel {
    /// The first seq that is missing.
    pub next: Seq,
    /// The digest over all seqs below it.
    pub digest: Digest,
    /// What came out of order and waits in the store.
    pub held: RunSet<Seq>,
    /// Seqs whose messages came, or may have come, under another epoch.
    pub seen: RunSet<Seq>,
    /// The message whose segments are coming in.
    pub partial: Option<Partial>,
    /// The first seq the app has not committed.
    pub consumed: Seq,
    /// What is missing behind the last message that came: the next one takes it along.
    pub gap: Option<Gap>,
}

impl Default for RxChannel {
    fn default() -> Self {
        Self {
            next: Seq::FIRST,
            digest: Digest::default(),
            held: RunSet::default(),
            seen: RunSet::default(),
            partial: None,
            consumed: Seq::FIRST,
            gap: None,
        }
    }
}

/// A message of several segments, some of which have come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Partial {
    /// The message.
    pub id: MessageId,
    /// The seq of its first segment.
    pub first: Seq,
    /// How many segments it has.
    pub count: u32,
    /// Whether it may have come before.
    pub redelivered: bool,
    /// Bytes of payload so far.
    pub bytes: u64,
}

/// The inbox of a channel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InboxState {
    /// The position of the next message that arrives.
    pub next: Position,
    /// Messages waiting.
    pub messages: u64,
    /// Bytes waiting.
    pub bytes: u64,
    /// The number of the next message that is skipped.
    pub skip: SkipNumber,
}

impl Session {
    /// A session that never saw a message.
    #[must_use]
    pub fn new(epoch: Epoch) -> Self {
        Self {
            epoch,
            past: Vec::new(),
            peer_epoch: None,
            out: BTreeMap::new(),
            streams: Vec::new(),
            inboxes: BTreeMap::new(),
            work: false,
            last_seen: None,
            keys: Keys::default(),
            waiting: Waiting::default(),
        }
    }

    /// Whether the peer has not acknowledged everything.
    #[must_use]
    pub fn outstanding(&self) -> bool {
        self.out.values().any(|channel| channel.low < channel.next)
    }

    /// Whether there is something to do without anything coming from outside: the peer has not
    /// acknowledged everything, or requests wait for an answer of ours.
    #[must_use]
    pub fn has_work(&self) -> bool {
        let waits = |channel| {
            let inbox = self.inboxes.get(&channel);
            inbox.is_some_and(|inbox| inbox.messages > 0)
        };
        self.outstanding() || waits(ChannelId::REQUESTS) || waits(ChannelId::FILE_REPLIES)
    }

    /// What is missing on each channel, with no message behind it yet that tells of it.
    pub fn gaps(&self) -> impl Iterator<Item = (ChannelId, Gap)> + '_ {
        let channels = self.streams.iter().flat_map(|stream| &stream.channels);
        channels.filter_map(|(&channel, rx)| Some((channel, rx.gap?)))
    }

    /// Bytes, at most, that the peer has us keep: messages the app has not committed, segments that
    /// wait for others, and what is remembered of copies.
    #[must_use]
    pub fn kept_bytes(&self) -> u64 {
        // About what a record has beyond its payload.
        const RECORD_BYTES: u64 = 128;
        // Two numbers.
        const RUN_BYTES: u64 = 20;
        let inboxes = self.inboxes.values();
        let waiting = inboxes.map(|of| {
            of.bytes
                .saturating_add(of.messages.saturating_mul(RECORD_BYTES))
        });
        let channels = self.streams.iter().flat_map(|of| of.channels.values());
        let coming = channels.map(|rx| {
            let held = rx
                .held
                .iter()
                .map(|(first, end)| end.0.saturating_sub(first.0));
            let held = held.fold(0, u64::saturating_add);
            let partial = rx.partial.map_or(0, |partial| partial.bytes);
            let seen = (rx.seen.runs() as u64).saturating_mul(RUN_BYTES);
            partial
                .saturating_add(held.saturating_mul(SEGMENT_BYTES as u64 + RECORD_BYTES))
                .saturating_add(seen)
        });
        waiting.chain(coming).fold(0, u64::saturating_add)
    }

    /// The peer's epoch that was heard of last: another one than before if the peer may have lost its
    /// state meanwhile.
    #[must_use]
    pub fn heard_last(&self) -> Option<Epoch> {
        self.streams.last().map(|stream| stream.epoch)
    }

    /// The stream of one of the peer's epochs.
    #[must_use]
    pub fn stream(&self, epoch: Epoch) -> Option<&RxStream> {
        self.streams.iter().find(|stream| stream.epoch == epoch)
    }

    /// What the peer is told that the app has committed of a channel, under each of its epochs. What is
    /// committed of a stream, its sender takes for committed of those before it: as long as messages of
    /// one of those wait for the app it is 0, which says nothing.
    pub(crate) fn consumed(&self, channel: ChannelId) -> impl Iterator<Item = (Epoch, Seq)> + '_ {
        let mut earlier_wait = false;
        self.streams.iter().filter_map(move |stream| {
            let rx = stream.channels.get(&channel)?;
            let consumed = if earlier_wait { Seq(0) } else { rx.consumed };
            earlier_wait |= !rx.is_committed();
            Some((stream.epoch, consumed))
        })
    }
}

impl RxChannel {
    /// Whether the app has committed all messages that have come. Of an incomplete one it knows nothing.
    pub(crate) fn is_committed(&self) -> bool {
        self.came() <= self.consumed
    }

    /// What lies below it has come as whole messages, or never will.
    pub(crate) fn came(&self) -> Seq {
        self.partial.map_or(self.next, |partial| partial.first)
    }

    /// What was stepped over counts as committed when what lies before it is: nobody else will ever
    /// commit it, and a sender may wait for that.
    pub(crate) fn pass_gap(&mut self) {
        if let Some(gap) = self.gap.filter(|gap| gap.first <= self.consumed) {
            self.consumed = self.consumed.max(gap.last.next());
        }
    }
}

impl OutChannel {
    /// The seq of a position under the present epoch; 0 if it lies before it.
    #[must_use]
    pub const fn seq(&self, position: Position) -> Seq {
        Seq(position.since(self.base))
    }

    /// The position of a seq under the present epoch.
    #[must_use]
    pub const fn position(&self, seq: Seq) -> Position {
        self.base.plus(seq.0)
    }

    /// The digest that the peer has when it has everything up to `tally`.
    #[must_use]
    pub const fn digest(&self, tally: Tally) -> Digest {
        tally.digest.since(self.base_sum)
    }

    /// Bytes of payload that wait.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.next_tally.bytes.saturating_sub(self.offer_tally.bytes)
    }
}

impl Default for OutChannel {
    /// The channel of a new session: positions begin with 1.
    fn default() -> Self {
        let first = Position(1);
        Self {
            base: Position(0),
            base_sum: Digest::default(),
            stored: first,
            offer: first,
            offer_tally: Tally::default(),
            low: first,
            low_tally: Tally::default(),
            next: first,
            next_tally: Tally::default(),
            again_below: Position(0),
            consumed: first,
            custody: Vec::new(),
            earliest_expiry: None,
        }
    }
}

impl Record for Session {
    const WHAT: &'static str = "the record of a session";
    const FORMAT: u8 = 2;

    fn from_bytes(bytes: &[u8]) -> Result<Self, RecordError> {
        match bytes.split_first() {
            // It had no counts at its end: as if nothing were counted.
            Some((1, body)) => {
                let counted = [&[Self::FORMAT], body, &[0]].concat();
                decode(Self::WHAT, Self::FORMAT, &counted)
            }
            _ => decode(Self::WHAT, Self::FORMAT, bytes),
        }
    }
}

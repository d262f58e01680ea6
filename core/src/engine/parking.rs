//! How much a channel's inbox takes, and what becomes of what it has no room for: it is left where
//! it is, so that it holds up no other channel (I3).
//!
//! What came out of a mailbox is *parked*: it stays in custody there, but no longer counts as on
//! its way, so the relay delivers what lies behind it. When half of the inbox is free again, all
//! that was parked is asked for anew. On a direct link the sender never sends beyond the room it
//! was told of; what it sent before it was told, it sends again once there is room.
//!
//! Of an epoch that was never heard of, or was forgotten, what is too far ahead waits for the word
//! where its stream begins. With as many streams as are remembered, each that begins has another
//! forgotten, of which more may wait in the mailbox and begin it anew: so what was delivered before
//! begins only a few, until the peer says something new or another link is there.

use std::collections::BTreeSet;

use super::gaps::is_near;
use super::rules::Rule;
use super::{Engine, Output, Taken};
use crate::limits::{
    CHANNELS, DIRECT_WINDOW, HELD_SEGMENTS, InboxLimits, PEER_EPOCHS, SEGMENT_BYTES,
};
use crate::{ChannelId, EnvelopeId, Epoch, Generation, Seq};

/// The lowest of a stream that was turned away.
#[derive(Clone, Copy, Debug)]
pub(super) enum Parked {
    /// A segment, for which there has to be room.
    Segment(Seq),
    /// A Skip, which needs none, but its turn, or that it ends near enough to be held.
    Skip { first: Seq, last: Seq },
}

impl Parked {
    const fn first(self) -> Seq {
        match self {
            Self::Segment(first) | Self::Skip { first, .. } => first,
        }
    }
}

/// How many streams may begin in place of others that are forgotten, by what is delivered again. With
/// none left it waits in its mailbox.
const BEGINS: u32 = 16;

/// Streams of which it is remembered what was turned away, by channel. More comes with what is asked for
/// of these, or with the next link.
const PARKED: usize = CHANNELS * PEER_EPOCHS;

/// Links whose mailboxes hold what was turned away, and how many streams may still begin by it.
#[derive(Debug, Default)]
pub(super) struct Crowded {
    links: BTreeSet<Generation>,
    latest: Option<Generation>,
    begins: u32,
}

impl Crowded {
    fn parked(&mut self, generation: Generation) {
        self.links.insert(generation);
        if self.latest < Some(generation) {
            self.latest = Some(generation);
            self.begins = BEGINS;
        }
    }

    /// The peer said something new.
    pub(super) fn heard(&mut self) {
        self.begins = self.begins.saturating_add(1).min(BEGINS);
    }

    /// A stream took the place of another.
    pub(super) const fn began(&mut self) {
        self.begins = self.begins.saturating_sub(1);
    }

    /// A link is gone, and its mailbox with it.
    pub(super) fn remove(&mut self, generation: &Generation) {
        self.links.remove(generation);
    }
}

impl Engine {
    /// Whether what comes of an epoch may begin its stream, if there is none.
    fn may_begin(&self, epoch: Epoch) -> bool {
        !self.may_be_forgotten(epoch) || self.crowded.begins > 0
    }

    /// Sets what the inbox of each channel takes from now on. What is in it already stays.
    pub const fn set_inbox_limits(&mut self, limits: InboxLimits) {
        self.inbox_limits = limits;
    }

    /// How many more segments of a stream the inbox of a channel takes. One that is taken lowers it
    /// by one at most, so the room a sender was told of does not shrink while it uses it.
    fn room(&self, epoch: Epoch, channel: ChannelId) -> u64 {
        let InboxLimits { messages, bytes } = self.inbox_limits;
        let inbox = self.live.inboxes.get(&channel).copied();
        let inbox = inbox.unwrap_or_default();
        let stream = self.live.stream(epoch);
        let partial = stream
            .and_then(|stream| stream.channels.get(&channel)?.partial)
            .map_or(0, |partial| partial.bytes);
        let bytes = bytes.saturating_sub(inbox.bytes.saturating_add(partial));
        let room = messages
            .saturating_sub(inbox.messages)
            .min(bytes / SEGMENT_BYTES as u64);
        // A message may be larger than the inbox: that must not hold it up for ever.
        room.max(u64::from(inbox.messages == 0))
    }

    /// Whether a segment may be taken now: in its turn, or early and held.
    pub(super) fn has_room(&self, epoch: Epoch, channel: ChannelId, next: Seq, seq: Seq) -> bool {
        let window = self.room(epoch, channel).min(HELD_SEGMENTS);
        seq.0 < next.0.saturating_add(window) && self.may_begin(epoch)
    }

    /// Whether a Skip may be taken now: in its turn, or early and held.
    pub(super) fn has_turn(&self, epoch: Epoch, next: Seq, first: Seq, last: Seq) -> bool {
        (first <= next || is_near(next, last)) && self.may_begin(epoch)
    }

    /// The first seq there is no room for on a direct link. `next` itself while the channel is
    /// full: then nothing it lacks is missing.
    pub(super) fn credit_limit(&self, epoch: Epoch, channel: ChannelId, next: Seq) -> Seq {
        let full = self.parked.get(&(epoch, channel)).is_some_and(|parked| {
            let rx = self.live.stream(epoch).map(|stream| &stream.channels);
            rx.and_then(|channels| channels.get(&channel))
                .is_some_and(|rx| parked.first() <= rx.next)
        });
        let room = if full { 0 } else { self.room(epoch, channel) };
        Seq(next.0.saturating_add(room.min(DIRECT_WINDOW)))
    }

    /// There is no room for it: it is left where it is.
    pub(super) fn turn_away(&mut self, epoch: Epoch, channel: ChannelId, what: Parked) -> Taken {
        let of_it = (epoch, channel);
        if self.parked.len() < PARKED || self.parked.contains_key(&of_it) {
            let lowest = self.parked.entry(of_it).or_insert(what);
            if what.first() < lowest.first() {
                *lowest = what;
            }
        }
        Taken::NoRoom
    }

    /// The first seq that is missing of a channel, be it all of it.
    fn next_of(&self, epoch: Epoch, channel: ChannelId) -> Seq {
        let place = self.place(epoch, channel).ok().flatten();
        place.map_or(Seq::FIRST, |rx| rx.next)
    }

    /// Whether some of a stream was turned away.
    pub(super) fn has_parked(&self, epoch: Epoch) -> bool {
        let of_it = (epoch, ChannelId(0))..=(epoch, ChannelId(u16::MAX));
        self.parked.range(of_it).next().is_some()
    }

    /// Leaves an envelope in its mailbox, where others pass it.
    pub(super) fn park(&mut self, generation: Generation, envelope: EnvelopeId) {
        self.crowded.parked(generation);
        if !self.rules.keeps(Rule::Park) {
            return;
        }
        self.outputs.push_back(Output::Park {
            generation,
            envelope,
        });
    }

    /// Asks for what was parked, once there is room for the first of it and half of its inbox is
    /// free: asking for each message that is committed would bring all the others each time.
    pub(super) fn unpark(&mut self) {
        let before = self.parked.len();
        let mut parked = std::mem::take(&mut self.parked);
        parked.retain(|&(epoch, channel), lowest| {
            let inbox = self.live.inboxes.get(&channel).copied();
            let inbox = inbox.unwrap_or_default();
            let half_free = inbox.messages <= self.inbox_limits.messages / 2
                && inbox.bytes <= self.inbox_limits.bytes / 2;
            let next = self.next_of(epoch, channel);
            let fits = match *lowest {
                Parked::Segment(seq) => self.has_room(epoch, channel, next, seq),
                Parked::Skip { first, last } => self.has_turn(epoch, next, first, last),
            };
            !(half_free && fits)
        });
        self.parked = parked;
        if self.parked.len() < before {
            for generation in std::mem::take(&mut self.crowded.links) {
                self.outputs.push_back(Output::Redeliver { generation });
            }
        }
    }
}

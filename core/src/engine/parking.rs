//! How much a channel's inbox takes, and what becomes of what it has no room for: it is left where
//! it is, so that it holds up no other channel (I3).
//!
//! What came out of a mailbox is *parked*: it stays in custody there, but no longer counts as on
//! its way, so the relay delivers what lies behind it. When half of the inbox is free again, all
//! that was parked is asked for anew. On a direct link the sender never sends beyond the room it
//! was told of; what it sent before it was told, it sends again once there is room.

use super::gaps::is_near;
use super::rules::Rule;
use super::{Engine, Output, Taken};
use crate::limits::{DIRECT_WINDOW, HELD_SEGMENTS, InboxLimits, SEGMENT_BYTES};
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

impl Engine {
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
        seq.0 < next.0.saturating_add(window)
    }

    /// The first seq there is no room for on a direct link. `next` itself while the channel is
    /// full: then nothing it lacks is missing.
    pub(super) fn credit_limit(&self, epoch: Epoch, channel: ChannelId, next: Seq) -> Seq {
        let full = self
            .parked
            .get(&(Some(epoch), channel))
            .is_some_and(|parked| {
                let rx = self.live.stream(epoch).map(|stream| &stream.channels);
                rx.and_then(|channels| channels.get(&channel))
                    .is_some_and(|rx| parked.first() <= rx.next)
            });
        let room = if full { 0 } else { self.room(epoch, channel) };
        Seq(next.0.saturating_add(room.min(DIRECT_WINDOW)))
    }

    /// There is no room for it: it is left where it is.
    pub(super) fn turn_away(&mut self, epoch: Epoch, channel: ChannelId, what: Parked) -> Taken {
        let lowest = self.parked.entry((Some(epoch), channel)).or_insert(what);
        if what.first() < lowest.first() {
            *lowest = what;
        }
        Taken::NoRoom
    }

    /// A stream is forgotten. What was parked of it is asked for with what was of others.
    pub(super) fn forget_parked(&mut self, epoch: Epoch) {
        let of_it = (Some(epoch), ChannelId(0))..=(Some(epoch), ChannelId(u16::MAX));
        let channels: Vec<_> = self.parked.range(of_it).map(|((_, of), _)| *of).collect();
        for channel in channels {
            self.parked.remove(&(Some(epoch), channel));
            let any = Parked::Segment(Seq::FIRST);
            self.parked.insert((None, channel), any);
        }
    }

    /// Leaves an envelope in its mailbox, where others pass it.
    pub(super) fn park(&mut self, generation: Generation, envelope: EnvelopeId) {
        self.crowded.insert(generation);
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
            let has_room = |epoch| {
                let next = self.live.stream(epoch)?.channels.get(&channel)?.next;
                Some(match *lowest {
                    Parked::Segment(seq) => self.has_room(epoch, channel, next, seq),
                    Parked::Skip { first, last } => first <= next || is_near(next, last),
                })
            };
            // A stream that was forgotten has no place to wait for.
            !(half_free && epoch.and_then(has_room).unwrap_or(true))
        });
        self.parked = parked;
        if self.parked.len() < before {
            for generation in std::mem::take(&mut self.crowded) {
                self.outputs.push_back(Output::Redeliver { generation });
            }
        }
    }
}

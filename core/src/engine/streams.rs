//! The streams that come from the peer, and their channels: which there are, and which are forgotten.
//!
//! There is a stream for each epoch of the peer, because what waits in a mailbox may be older than
//! what came over another link. Only so many are remembered (I7). What comes in a stream is the
//! matter of [`segments`](super::segments).

use std::collections::BTreeMap;

use super::Engine;
use super::event::{Event, Violation};
use super::seen::{doubtful_channel, is_doubtful};
use super::writes::After;
use crate::limits::{CHANNELS, PEER_EPOCHS};
use crate::record::{RxChannel, RxStream};
use crate::{ChannelId, Epoch};

impl Engine {
    /// The receiving side of a channel if there is one; there may be room for one more if not.
    pub(super) fn place(
        &self,
        epoch: Epoch,
        channel: ChannelId,
    ) -> Result<Option<&RxChannel>, Violation> {
        let Some(stream) = self.live.stream(epoch) else {
            return Ok(None);
        };
        let place = stream.channels.get(&channel);
        if place.is_none() && stream.channels.len() >= CHANNELS {
            return Err(Violation::Channels);
        }
        Ok(place)
    }

    /// Has a place for what is taken. What is turned away begins no stream: it would come again and again,
    /// and have another forgotten each time.
    pub(super) fn take_place(&mut self, epoch: Epoch, channel: ChannelId) -> Result<(), Violation> {
        if self.may_be_forgotten(epoch) {
            self.crowded.began();
        }
        self.receiving(epoch, channel).map(|_| ())
    }

    /// The receiving side of a channel, made if need be.
    pub(super) fn receiving(
        &mut self,
        epoch: Epoch,
        channel: ChannelId,
    ) -> Result<&mut RxChannel, Violation> {
        let doubtful = self.may_be_forgotten(epoch);
        let stream = self.ensure_stream(epoch)?;
        self.channel_of(stream, channel, doubtful)
    }

    /// A channel of a stream, made if need be; of a stream that is `doubtful`, anything may be a copy.
    pub(super) fn channel_of(
        &mut self,
        stream: usize,
        channel: ChannelId,
        doubtful: bool,
    ) -> Result<&mut RxChannel, Violation> {
        let streams = &mut self.live.streams;
        let channels = &mut streams.get_mut(stream).ok_or(Violation::Channels)?.channels;
        if !channels.contains_key(&channel) {
            if channels.len() >= CHANNELS {
                return Err(Violation::Channels);
            }
            let begun = if doubtful || channels.values().any(is_doubtful) {
                doubtful_channel()
            } else {
                RxChannel::default()
            };
            channels.insert(channel, begun);
        }
        channels.get_mut(&channel).ok_or(Violation::Channels)
    }

    /// The index of the stream of one of the peer's epochs. An epoch never heard of is a reset of
    /// the peer, unless it is the first.
    pub(super) fn ensure_stream(&mut self, epoch: Epoch) -> Result<usize, Violation> {
        if let Some(known) = self.known_stream(epoch) {
            return Ok(known);
        }
        let stream = self.begin_stream(epoch, epoch)?;
        if self.live.peer_epoch.is_some() {
            self.defer(After::Event(Event::PeerReset { epoch }));
        } else {
            self.live.peer_epoch = Some(epoch);
        }
        Ok(stream)
    }

    pub(super) fn known_stream(&self, epoch: Epoch) -> Option<usize> {
        let mut streams = self.live.streams.iter();
        streams.position(|stream| stream.epoch == epoch)
    }

    /// Whether a stream that begins now may be one that was forgotten.
    pub(super) fn may_be_forgotten(&self, epoch: Epoch) -> bool {
        self.known_stream(epoch).is_none() && self.live.streams.len() >= PEER_EPOCHS
    }

    /// The stream of an epoch never heard of; that of `keep` stays.
    pub(super) fn begin_stream(&mut self, epoch: Epoch, keep: Epoch) -> Result<usize, Violation> {
        if self.live.streams.len() >= PEER_EPOCHS {
            self.forget_oldest_stream(keep)?;
        }
        self.live.streams.push(RxStream {
            epoch,
            channels: BTreeMap::new(),
        });
        self.writes.touch();
        Ok(self.live.streams.len() - 1)
    }

    /// The same for an epoch that the peer had before that of `later`.
    pub(super) fn begin_earlier_stream(
        &mut self,
        epoch: Epoch,
        later: Epoch,
    ) -> Result<usize, Violation> {
        let begun = self.begin_stream(epoch, later)?;
        let at = self.known_stream(later).unwrap_or(begun);
        if let Some(from_there) = self.live.streams.get_mut(at..=begun) {
            from_there.rotate_right(1);
        }
        Ok(at)
    }

    /// Forgets the oldest stream of which no message waits for the app, but not `keep`. If its epoch came
    /// again, its segments would be written where theirs lie. One of which more waits in a mailbox goes
    /// only if there is no other.
    fn forget_oldest_stream(&mut self, keep: Epoch) -> Result<(), Violation> {
        let over = |stream: &&(usize, &RxStream)| {
            let (_, stream) = stream;
            let committed = stream.channels.values().all(RxChannel::is_committed);
            let needed = stream.epoch == keep || Some(stream.epoch) == self.live.peer_epoch;
            committed && !needed
        };
        let streams = self.live.streams.iter().enumerate();
        let over: Vec<_> = streams.filter(|stream| over(&stream)).collect();
        let done = over.iter().find(|(_, of)| !self.has_parked(of.epoch));
        let oldest = done.or_else(|| over.first()).map(|&(oldest, _)| oldest);
        let stream = self.live.streams.remove(oldest.ok_or(Violation::Epochs)?);
        for (channel, rx) in stream.channels {
            self.hands.forget(stream.epoch, channel);
            if let Some(held) = self.held.remove(&(stream.epoch, channel)) {
                for seq in held.into_keys() {
                    self.delete_segment(stream.epoch, channel, seq);
                }
            }
            if let Some(partial) = rx.partial {
                self.delete_segments(stream.epoch, channel, partial.first, rx.next);
            }
        }
        Ok(())
    }
}

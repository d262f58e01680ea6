//! Volatile channels: what matters only now goes to whoever listens, and is kept nowhere.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::Engine;
use super::event::{Event, Output, SendError, Violation};
use crate::limits::{CHANNELS, VOLATILE_BYTES};
use crate::wire::frame::{Channels, Frame, Volatile};
use crate::{ChannelId, Generation, Now};

impl Engine {
    /// Listens to a volatile channel: the peer is told, and sends only then.
    pub fn listen(&mut self, channel: ChannelId, now: Now) {
        self.now = now;
        if self.listening.len() < CHANNELS && self.listening.insert(channel) {
            for link in self.links.iter_mut() {
                link.subscribe_due = true;
            }
        }
    }

    /// Ceases to listen to a volatile channel.
    pub fn unlisten(&mut self, channel: ChannelId, now: Now) {
        self.now = now;
        if self.listening.remove(&channel) {
            let channels = vec![channel];
            let frame = Frame::Unsubscribe(Channels { channels });
            for link in self.links.iter_mut() {
                // Without room for it now, it is said when something comes on the channel.
                link.reply(frame.clone());
            }
        }
    }

    /// The peer came back to the relay behind this link: what only matters now is told again.
    pub fn peer_appeared(&mut self, generation: Generation, now: Now) {
        self.now = now;
        if let Some(link) = self.links.get(generation) {
            link.subscribe_due = true;
        }
    }

    /// All that we listen to, for a link on which the peer is to be told.
    pub(super) fn subscriptions(&self) -> Option<Frame> {
        let channels: Vec<_> = self.listening.iter().copied().collect();
        (!channels.is_empty()).then_some(Frame::Subscribe(Channels { channels }))
    }

    /// Sends on a volatile channel. Returns whether it went towards a listener: if the peer does
    /// not listen, no link is up, or too much waits for it, nothing is sent.
    ///
    /// # Errors
    /// [`SendError::TooLarge`] above [`VOLATILE_BYTES`]; such messages are not cut.
    pub fn send_volatile(
        &mut self,
        channel: ChannelId,
        payload: Bytes,
        now: Now,
    ) -> Result<bool, SendError> {
        self.now = now;
        if payload.len() > VOLATILE_BYTES {
            return Err(SendError::TooLarge {
                size: payload.len(),
                limit: VOLATILE_BYTES,
            });
        }
        let Some(link) = self.links.get_best() else {
            return Ok(false);
        };
        if !self.peer_listens.contains(&channel) || !link.has_room_for_volatile() {
            return Ok(false);
        }
        Ok(link.reply(Frame::Volatile(Volatile { channel, payload })))
    }

    /// The channels that the peer listens to, as far as it has said so.
    #[must_use]
    pub const fn peer_listens(&self) -> &BTreeSet<ChannelId> {
        &self.peer_listens
    }

    /// What the peer listened to when this process had the session open before: it says so once for
    /// each link, and does not learn that an engine was loaded again.
    pub fn peer_listened(&mut self, channels: BTreeSet<ChannelId>) {
        self.peer_listens = channels;
    }

    pub(super) fn on_volatile(&mut self, generation: Generation, volatile: Volatile) {
        let Volatile { channel, payload } = volatile;
        if self.listening.contains(&channel) {
            let event = Event::Volatile { channel, payload };
            self.outputs.push_back(Output::Event(event));
        } else if let Some(link) = self.links.get_or_best(generation) {
            let channels = vec![channel];
            link.reply(Frame::Unsubscribe(Channels { channels }));
        }
    }

    /// The peer listens to these channels, or no longer.
    pub(super) fn on_listening(
        &mut self,
        channels: &[ChannelId],
        listening: bool,
    ) -> Result<(), Violation> {
        for &channel in channels {
            let changed = if listening {
                if self.peer_listens.len() >= CHANNELS && !self.peer_listens.contains(&channel) {
                    return Err(Violation::Channels);
                }
                self.peer_listens.insert(channel)
            } else {
                self.peer_listens.remove(&channel)
            };
            if changed {
                self.outputs
                    .push_back(Output::Event(Event::Listening { channel, listening }));
            }
        }
        Ok(())
    }
}

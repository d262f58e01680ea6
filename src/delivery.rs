//! A message in the app's hands, until the app is done with it.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use outlive_core::record::{Gap, InboxRecord};
use outlive_core::{ChannelId, Epoch, MessageId, PeerId, Position, Seq, WallTime};
use tokio::sync::oneshot;

use crate::error::Error;
use crate::hub::Hub;
use crate::payload::{Payload, Placed, without_payload};
use crate::route::Route;
use crate::task::Command;

/// A message in the app's hands. It stays in the inbox until it is committed.
pub struct Delivery {
    hub: Arc<Hub>,
    route: Route,
    channel: ChannelId,
    position: Position,
    attempt: u32,
    payload: Bytes,
    placed: Vec<Placed>,
    record: InboxRecord,
}

impl fmt::Debug for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delivery")
            .field("id", &self.record.id)
            .field("channel", &self.channel)
            .field("bytes", &self.payload.len())
            .field("attempt", &self.attempt)
            .finish_non_exhaustive()
    }
}

impl Delivery {
    pub(crate) fn new(
        hub: Arc<Hub>,
        route: Route,
        channel: ChannelId,
        position: Position,
        attempt: u32,
        record: InboxRecord,
        payload: Payload,
    ) -> Self {
        Self {
            hub,
            route,
            channel,
            position,
            attempt,
            payload: payload.bytes,
            placed: payload.placed,
            record,
        }
    }

    /// Who sent it.
    #[must_use]
    pub fn from(&self) -> PeerId {
        self.hub.peer
    }

    /// The channel it came on.
    #[must_use]
    pub const fn channel(&self) -> ChannelId {
        self.channel
    }

    /// Its name, the same at the sender.
    #[must_use]
    pub const fn id(&self) -> MessageId {
        self.record.id
    }

    /// The sender's epoch it came under.
    #[must_use]
    pub const fn epoch(&self) -> Epoch {
        self.record.epoch
    }

    /// The seq of its last segment: grows within an epoch and channel.
    #[must_use]
    pub const fn seq(&self) -> Seq {
        self.record.last
    }

    /// When it was complete here.
    #[must_use]
    pub const fn received(&self) -> WallTime {
        self.record.received
    }

    /// Whether it may have been in the app's hands before: after a restart between delivery and
    /// commit, or after one of the peers lost its state. Its [`id`](Self::id) is then the same.
    #[must_use]
    pub const fn redelivered(&self) -> bool {
        self.record.redelivered || self.attempt > 1
    }

    /// For the how-manieth time the app has it in hand, as far as is known: 1 the first time, one
    /// more for each time that it comes again, after a restart or when the inbox is taken anew.
    /// From the second time on it is on disk before this is returned, so that a message on which
    /// the app crashes shows by its number; [`skip`](Self::skip) ends that.
    #[must_use]
    pub const fn attempt(&self) -> u32 {
        self.attempt
    }

    /// What is missing between the message before it, of the same epoch, and this one: messages
    /// that expired, were taken back, or are of a past that our store does not remember.
    #[must_use]
    pub const fn gap_before(&self) -> Option<Gap> {
        self.record.gap
    }

    /// What was sent. Of a part of a file that a [`FileInbox`](crate::FileInbox) had accepted, what is
    /// in that file already is left out.
    #[must_use]
    pub const fn payload(&self) -> &Bytes {
        &self.payload
    }

    /// Bytes of all that was sent.
    fn bytes(&self) -> u64 {
        let here = self.payload.len() as u64;
        let placed = self.placed.iter();
        placed.fold(here, |bytes, placed| bytes.saturating_add(placed.length))
    }

    /// What of it is not in the payload, but in its file already.
    pub(crate) fn placed(&self) -> &[Placed] {
        &self.placed
    }

    /// The app is done with the message: it leaves the inbox, and the sender's receipt says consumed
    /// once everything before it on its channel is committed too, or skipped: commits may come in any
    /// order, but the sender hears up to where all are done. Returns when the commit is durable.
    ///
    /// Dropped half-way, the message may or may not be committed; if not, it comes again, marked.
    ///
    /// # Errors
    /// [`Error::Store`] or [`Error::Record`] if the store failed or what it holds can't be used,
    /// [`Error::Shutdown`], [`Error::Closed`] or [`Error::Blocked`] if the node was shut down, the
    /// session closed, or its peer blocked first. What was not written comes again.
    pub async fn commit(self) -> Result<(), Error> {
        let (reply, answer) = oneshot::channel();
        let bytes = self.bytes();
        let command = Command::Commit {
            channel: self.channel,
            position: self.position,
            record: without_payload(self.record),
            bytes,
            reply,
        };
        self.route.send(command).await?;
        answer.await.map_err(|_| self.route.gone())?
    }

    /// The app gives up on the message: it is [committed](Self::commit), so that it does not come again
    /// and holds no receipt up, and a record of it is kept here with the reason (up to
    /// [`SKIP_REASON_BYTES`](outlive_core::limits::SKIP_REASON_BYTES) of it), which
    /// [`Session::skipped`](crate::Session::skipped) lists. Returns when both are durable.
    ///
    /// Dropped half-way, the message may or may not be skipped; if not, it comes again, marked.
    ///
    /// # Errors
    /// [`Error::Store`] or [`Error::Record`] if the store failed or what it holds can't be used,
    /// [`Error::Shutdown`], [`Error::Closed`] or [`Error::Blocked`] if the node was shut down, the
    /// session closed, or its peer blocked first. What was not written comes again.
    pub async fn skip(self, reason: &str) -> Result<(), Error> {
        let (reply, answer) = oneshot::channel();
        let bytes = self.bytes();
        let command = Command::Skip {
            channel: self.channel,
            position: self.position,
            record: without_payload(self.record),
            payload: self.payload,
            bytes,
            attempts: self.attempt,
            reason: reason.to_owned(),
            reply,
        };
        self.route.send(command).await?;
        answer.await.map_err(|_| self.route.gone())?
    }
}

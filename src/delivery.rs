//! A message in the app's hands, until the app is done with it.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use outlive_core::record::Gap;
use outlive_core::{ChannelId, Epoch, MessageId, PeerId, Seq, WallTime};
use tokio::sync::oneshot;

use crate::error::Error;
use crate::hub::Hub;
use crate::payload::{Payload, Placed};
use crate::route::Route;
use crate::task::{Command, InHand};

/// A message in the app's hands. It stays in the inbox until it is committed.
pub struct Delivery {
    hub: Arc<Hub>,
    route: Route,
    in_hand: InHand,
    attempt: u32,
    payload: Payload,
}

impl fmt::Debug for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delivery")
            .field("id", &self.in_hand.record.id)
            .field("channel", &self.in_hand.channel)
            .field("bytes", &self.payload.bytes.len())
            .field("attempt", &self.attempt)
            .finish_non_exhaustive()
    }
}

impl Delivery {
    pub(crate) const fn new(
        hub: Arc<Hub>,
        route: Route,
        in_hand: InHand,
        attempt: u32,
        payload: Payload,
    ) -> Self {
        Self {
            hub,
            route,
            in_hand,
            attempt,
            payload,
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
        self.in_hand.channel
    }

    /// Its name, the same at the sender.
    #[must_use]
    pub const fn id(&self) -> MessageId {
        self.in_hand.record.id
    }

    /// The sender's epoch it came under.
    #[must_use]
    pub const fn epoch(&self) -> Epoch {
        self.in_hand.record.epoch
    }

    /// The seq of its last segment: grows within an epoch and channel.
    #[must_use]
    pub const fn seq(&self) -> Seq {
        self.in_hand.record.last
    }

    /// When it was complete here.
    #[must_use]
    pub const fn received(&self) -> WallTime {
        self.in_hand.record.received
    }

    /// Whether it may have been in the app's hands before: after a restart between delivery and
    /// commit, or after one of the peers lost its state. Its [`id`](Self::id) is then the same.
    #[must_use]
    pub const fn redelivered(&self) -> bool {
        self.in_hand.record.redelivered || self.attempt > 1
    }

    /// For the how-manieth time the app has it in hand, as far as is known: 1 the first time, one
    /// more for each time that it comes again, after a restart or when the inbox is taken anew. The first
    /// time leaves no trace on disk: one from before a restart counts as handed out once, also if nobody had
    /// taken it.
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
        self.in_hand.record.gap
    }

    /// What was sent. Of a part of a file that a [`FileInbox`](crate::FileInbox) had accepted, what is
    /// in that file already is left out.
    #[must_use]
    pub const fn payload(&self) -> &Bytes {
        &self.payload.bytes
    }

    /// What of it is not in the payload, but in its file already.
    pub(crate) fn placed(&self) -> &[Placed] {
        &self.payload.placed
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
        let command = Command::Commit {
            in_hand: self.in_hand,
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
        let command = Command::Skip {
            in_hand: self.in_hand,
            payload: self.payload.bytes,
            attempts: self.attempt,
            reason: reason.to_owned(),
            reply,
        };
        self.route.send(command).await?;
        answer.await.map_err(|_| self.route.gone())?
    }
}

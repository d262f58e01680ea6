//! Messages on their way into a session.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use outlive_core::ChannelId;
use outlive_core::engine::SendOptions;
use outlive_core::record::OnceRecord;
use tokio::sync::oneshot;

use super::{Session, for_apps};
use crate::error::Error;
use crate::receipt::Receipt;
use crate::route::Route;
use crate::task::Command;

/// How a message is to be sent.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sending<'a> {
    /// How long it may wait for its recipient; 30 days if not said.
    pub ttl: Option<Duration>,
    /// A key under which it is sent once; see [`Session::send_once`].
    pub once: Option<&'a [u8]>,
}

/// A message on its way to the disk.
#[must_use = "the message is durable only when `durable` has returned"]
pub struct Queuing {
    answer: oneshot::Receiver<Result<Receipt, Error>>,
    route: Route,
}

impl fmt::Debug for Queuing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Queuing")
    }
}

impl Queuing {
    /// Waits until the message is durable on this device. Dropped half-way, the message goes its way
    /// all the same, unless it could not be taken, which nobody hears then.
    ///
    /// # Errors
    /// As [`Session::send`], [`SendError::Full`](outlive_core::engine::SendError::Full) in
    /// [`Error::Send`] included: while the outbox is full at most 1,024 sends wait.
    pub async fn durable(self) -> Result<Receipt, Error> {
        self.answer.await.map_err(|_| self.route.gone())?
    }
}

impl Session {
    /// Sends a message. Returns when it is durable on this device, whether or not there is a
    /// network. While the outbox is full it waits; at most 1,024 sends of a session do, those of files
    /// and answers included, and one more fails at once.
    ///
    /// Dropped half-way, it has either queued the message or not touched anything. A message that waits
    /// for room goes on waiting, and is queued when there is some.
    ///
    /// # Errors
    /// [`Error::Send`] if the message can't be taken, with
    /// [`SendError::Full`](outlive_core::engine::SendError::Full) in it if too many wait already.
    /// [`Error::Store`] or [`Error::Record`] if the store failed or what it holds can't be used.
    /// [`Error::Requests`], [`Error::Signaling`] or [`Error::Reserved`] for a channel that is not for
    /// apps ([`ChannelId::is_for_apps`]). [`Error::Shutdown`], [`Error::Closed`] or [`Error::Blocked`]
    /// if the node was shut down, the session closed, or its peer blocked.
    pub async fn send(
        &self,
        channel: ChannelId,
        payload: impl Into<Bytes>,
    ) -> Result<Receipt, Error> {
        self.send_with(channel, payload, Sending::default()).await
    }

    /// As [`send`](Self::send), with a time to live or a key. It waits for room in the same way, and
    /// is as safe to drop.
    ///
    /// # Errors
    /// As [`send`](Self::send), [`SendError::Full`](outlive_core::engine::SendError::Full) included.
    pub async fn send_with(
        &self,
        channel: ChannelId,
        payload: impl Into<Bytes>,
        sending: Sending<'_>,
    ) -> Result<Receipt, Error> {
        let options = SendOptions {
            ttl: sending.ttl,
            once: sending.once.map(OnceRecord::hash),
        };
        self.queue(channel, payload.into(), options, true).await
    }

    /// As [`send`](Self::send), but never waits for room.
    ///
    /// # Errors
    /// As [`send`](Self::send), and [`SendError::Full`](outlive_core::engine::SendError::Full)
    /// whenever the outbox is full, or a message of the same channel waits for room in it.
    pub async fn try_send(
        &self,
        channel: ChannelId,
        payload: impl Into<Bytes>,
    ) -> Result<Receipt, Error> {
        self.queue(channel, payload.into(), SendOptions::default(), false)
            .await
    }

    /// Sends a message once: the same key again, also after a restart, sends nothing and returns
    /// the receipt of the first. If that ended before it was delivered, because it was taken back,
    /// its time was over or a relay refused it, the receipt says so: to send it after all, take
    /// another key.
    ///
    /// A key holds for this peer, whatever the channel: the same one on another channel is a repeat
    /// too. What a repeat carries is not compared with what was sent. The key's hash is kept on disk
    /// for good, so each key costs a small record. Waits for room as [`send`](Self::send) does, and is
    /// as safe to drop: if in doubt, call it again.
    ///
    /// # Errors
    /// As [`send`](Self::send), [`SendError::Full`](outlive_core::engine::SendError::Full) included.
    pub async fn send_once(
        &self,
        key: &[u8],
        channel: ChannelId,
        payload: impl Into<Bytes>,
    ) -> Result<Receipt, Error> {
        let options = SendOptions {
            ttl: None,
            once: Some(OnceRecord::hash(key)),
        };
        self.queue(channel, payload.into(), options, true).await
    }

    /// Hands a message over for sending, and returns before it is durable: to have many on their
    /// way to the disk at once. They go in the order in which this was called.
    ///
    /// Dropped half-way, it has either handed the message over, which then goes its way, or not touched
    /// anything.
    ///
    /// # Errors
    /// [`Error::Shutdown`], [`Error::Closed`] or [`Error::Blocked`], and for a channel that is not for
    /// apps as [`send`](Self::send). Whether the message was taken [`Queuing::durable`] tells.
    pub async fn start_send(
        &self,
        channel: ChannelId,
        payload: impl Into<Bytes>,
        sending: Sending<'_>,
    ) -> Result<Queuing, Error> {
        let options = SendOptions {
            ttl: sending.ttl,
            once: sending.once.map(OnceRecord::hash),
        };
        self.hand_over(channel, payload.into(), options, true).await
    }

    async fn hand_over(
        &self,
        channel: ChannelId,
        payload: Bytes,
        options: SendOptions,
        wait: bool,
    ) -> Result<Queuing, Error> {
        for_apps(channel)?;
        let (reply, answer) = oneshot::channel();
        self.route
            .send(Command::Send {
                channel,
                payload,
                options,
                wait,
                reply,
            })
            .await?;
        Ok(Queuing {
            answer,
            route: self.route.clone(),
        })
    }

    async fn queue(
        &self,
        channel: ChannelId,
        payload: Bytes,
        options: SendOptions,
        wait: bool,
    ) -> Result<Receipt, Error> {
        self.hand_over(channel, payload, options, wait)
            .await?
            .durable()
            .await
    }
}

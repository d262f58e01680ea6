//! What a session tells its app.

use bytes::Bytes;
use outlive_core::engine::Ending;
use outlive_core::transport::Refusal;
use outlive_core::wire::frame::CloseReason;
use outlive_core::{ChannelId, Epoch, Generation, MessageId, Seq};

use crate::trust::Trust;

/// Something that happened in a session. Comes with the session's state as of it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SessionEvent {
    /// A link was bound.
    LinkUp {
        /// Its number.
        generation: Generation,
    },
    /// A link is gone. The session goes on.
    LinkDown {
        /// Its number.
        generation: Generation,
    },
    /// The peer came to, or left, the relay.
    Presence {
        /// Whether it is there.
        online: bool,
    },
    /// A message waits in the inbox of this channel.
    Message {
        /// The channel.
        channel: ChannelId,
    },
    /// A message of ours ended before it was delivered.
    Ended {
        /// The channel.
        channel: ChannelId,
        /// The message.
        id: MessageId,
        /// Why.
        how: Ending,
    },
    /// A relay does not take our messages for now; they wait here and are tried again.
    Held {
        /// The channel.
        channel: ChannelId,
        /// The first of them.
        id: MessageId,
        /// Why.
        reason: Refusal,
    },
    /// Messages of the peer that will never come. [`Delivery::gap_before`](crate::Delivery::gap_before)
    /// tells the same in its place, and [`SessionState::gaps`](crate::SessionState::gaps) until there
    /// is a message behind them.
    Gap {
        /// The channel.
        channel: ChannelId,
        /// The peer's epoch.
        epoch: Epoch,
        /// The first seq.
        first: Seq,
        /// The last seq.
        last: Seq,
    },
    /// The peer lost its state; what is under way may come again, marked as redelivered.
    PeerReset {
        /// Its new epoch.
        epoch: Epoch,
    },
    /// Our own store went back in time; what waits is offered again.
    Renewed {
        /// Our new epoch.
        epoch: Epoch,
    },
    /// A message on a volatile channel we listen to.
    Volatile {
        /// The channel.
        channel: ChannelId,
        /// The payload.
        payload: Bytes,
    },
    /// The peer began, or ceased, to listen to a volatile channel.
    Listening {
        /// The channel.
        channel: ChannelId,
        /// Whether it listens.
        listening: bool,
    },
    /// The peer sent something on the requests channel that is neither a request nor an answer. It
    /// was let go of.
    MalformedRequest {
        /// The message.
        id: MessageId,
    },
    /// The peer ended its use of the session, or does not accept us. Told once for each reason until
    /// something else comes from the peer. What we send waits on disk all the same, until its time is over.
    PeerClosed {
        /// Why.
        reason: CloseReason,
    },
    /// What was decided about the peer has changed. If it is blocked, this is the last event.
    TrustChanged {
        /// How it is trusted now.
        trust: Trust,
    },
    /// The store failed; the session loads itself again when it works.
    StoreFailed,
}

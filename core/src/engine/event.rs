//! What goes into an engine and what comes out of it.

use std::ops::Range;

use bytes::Bytes;
use thiserror::Error;

use crate::record::{Ending, Extent};
use crate::store::{Batch, ReadLimit, StoreError};
use crate::transport::{Class, Lane, Refusal};
use crate::wire::WireError;
use crate::wire::frame::CloseReason;
use crate::{
    ChannelId, EnvelopeId, Epoch, Generation, MessageId, OpenError, Position, Seq, StoreTime,
};

/// What an engine wants done. Polled with [`Engine::poll`](super::Engine::poll) until there is
/// none left.
#[derive(Clone, Debug)]
pub enum Output {
    /// Send a packet on a link.
    Transmit(Transmit),
    /// Write a batch, then call [`Engine::written`](super::Engine::written). There is never more
    /// than one on its way.
    Write(Batch),
    /// Read records, then call [`Engine::read`](super::Engine::read). There is never more than one
    /// on its way.
    Read {
        /// The keys.
        range: Range<Bytes>,
        /// How much of them.
        limit: ReadLimit,
    },
    /// Read this of a file, then call [`Engine::content`](super::Engine::content), or
    /// [`Engine::content_later`](super::Engine::content_later). Never while a [`Read`](Self::Read) is on
    /// its way.
    Content(Extent),
    /// What this envelope brought is durable: its mailbox may drop it.
    Release {
        /// The link it came over.
        generation: Generation,
        /// The relay's number for it.
        envelope: EnvelopeId,
    },
    /// There is no room for what this envelope brought: let it stay in its mailbox, and what lies
    /// behind it come.
    Park {
        /// The link it came over.
        generation: Generation,
        /// The relay's number for it.
        envelope: EnvelopeId,
    },
    /// There is room again for what was parked: have it delivered again.
    Redeliver {
        /// The link to ask over.
        generation: Generation,
    },
    /// The link is dead, or the peer broke the protocol on it: let go of it.
    Drop {
        /// Which.
        generation: Generation,
        /// Why.
        reason: DropReason,
    },
    /// Something the app may want to know.
    Event(Event),
}

/// A packet to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// The link to send it on.
    pub generation: Generation,
    /// What its fate is reported under, on a link through a relay.
    pub envelope: EnvelopeId,
    /// How long it matters.
    pub class: Class,
    /// When it stops to matter.
    pub expires: StoreTime,
    /// What a direct link may hold it up by. What a channel sends is always on the same lane.
    pub lane: Lane,
    /// The packet.
    pub packet: Bytes,
}

/// How far messages got. Each stage includes those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// Durable here.
    Queued,
    /// Durable at a relay.
    Custody,
    /// Durable at the peer.
    Delivered,
    /// Committed by the peer's app.
    Consumed,
}

/// What the app may want to know. Everything it tells is durable.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// All messages of the channel that end below `below` are at least this far.
    Progress {
        /// The channel.
        channel: ChannelId,
        /// How far.
        stage: Stage,
        /// One past the last position that is.
        below: Position,
    },
    /// A message ended before it was delivered.
    Ended {
        /// The channel.
        channel: ChannelId,
        /// The message.
        id: MessageId,
        /// One past its last position.
        end: Position,
        /// Why.
        how: Ending,
    },
    /// A relay does not take our messages for the moment; they wait here.
    Held {
        /// The channel.
        channel: ChannelId,
        /// A segment it does not take: the first of its packet.
        first: Position,
        /// The message of that segment.
        id: MessageId,
        /// Why.
        reason: Refusal,
    },
    /// The inbox of the channel holds messages up to but not including this position.
    Inbox {
        /// The channel.
        channel: ChannelId,
        /// One past the last.
        end: Position,
    },
    /// These of the peer's messages will never come: they expired, were taken back, or are of a
    /// past that our store does not remember. Told again when the session is loaded, until a
    /// message behind them tells of it ([`InboxRecord::gap`](crate::record::InboxRecord::gap)).
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
    /// The peer lost its state, or its store went back in time: it has a new epoch.
    PeerReset {
        /// The new epoch.
        epoch: Epoch,
    },
    /// Our own store went back in time; what waits is offered again under a new epoch.
    Renewed {
        /// Our new epoch.
        epoch: Epoch,
    },
    /// A message on a volatile channel.
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
    /// The peer ended its use of the session. Told once for each reason until something else comes from
    /// the peer.
    PeerClosed {
        /// Why.
        reason: CloseReason,
    },
}

/// Why an engine gives up a link.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum DropReason {
    /// Nothing came back for too long.
    #[error("the link fell silent")]
    Silent,
    /// More links are bound than a session keeps.
    #[error("a session keeps no more links at once")]
    TooMany,
    /// The peer broke the protocol.
    #[error("the peer broke the protocol: {0}")]
    Violation(#[from] Violation),
}

/// What a peer did that no honest peer does. Costs it the link, never state (I9).
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Violation {
    /// The packet does not open.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The frames do not decode.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// More channels than a session may have.
    #[error("the peer opens more channels than a session may have")]
    Channels,
    /// More epochs than are kept apart, all with messages that the app has not committed.
    #[error(
        "the peer speaks of more epochs than are kept apart while messages of all of them wait"
    )]
    Epochs,
    /// A segment does not continue the message before it.
    #[error("a segment does not continue its message")]
    Message,
}

/// Why a message was not taken for sending. Nothing of it was stored.
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum SendError {
    /// The message is too large.
    #[error("the message has {size} bytes, {limit} are allowed; send it in parts")]
    TooLarge {
        /// Its bytes.
        size: usize,
        /// The most that is allowed.
        limit: usize,
    },
    /// As much waits for the peer as a session may hold.
    #[error("the outbox is full; wait until the peer has taken some of it")]
    Full,
    /// The session has as many channels as it may.
    #[error("the session has {limit} channels, no more are allowed")]
    Channels {
        /// The most that is allowed.
        limit: usize,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The engine stopped because its store failed; load the session again.
    #[error("the session stopped because its store failed")]
    Stopped,
}

/// How a message is to be sent.
#[derive(Clone, Debug, Default)]
pub struct SendOptions {
    /// How long it may wait for its recipient; [`limits::MESSAGE_TTL`](crate::limits::MESSAGE_TTL)
    /// if not said.
    pub ttl: Option<std::time::Duration>,
    /// A record to write in the same batch, so that the same send is known again.
    pub once: Option<[u8; 32]>,
}

/// A message whose payload lies in a file, but for its beginning.
#[derive(Clone, Debug)]
pub struct External {
    /// Where it lies.
    pub extent: Extent,
    /// What comes before that; less than a segment.
    pub beginning: Bytes,
}

/// A message taken for sending. It is durable when [`Stage::Queued`] has passed `end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// The message.
    pub id: MessageId,
    /// Its channel.
    pub channel: ChannelId,
    /// Its first position.
    pub first: Position,
    /// One past its last position.
    pub end: Position,
}

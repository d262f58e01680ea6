//! What can go wrong for an app.

use outlive_core::engine::{Ending, SendError};
use outlive_core::limits::BLOCKED_PEERS;
use outlive_core::record::RecordError;
use outlive_core::store::StoreError;
use outlive_core::{ChannelId, PeerId};
use thiserror::Error;

/// Why a node or a session could not do what it was asked to.
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum Error {
    /// The message was not taken. Nothing of it was stored.
    #[error(transparent)]
    Send(#[from] SendError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What the store holds can't be used.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The channel's inbox is in use.
    #[error("the inbox of channel {0} has a consumer already; drop that one first")]
    InboxTaken(ChannelId),
    /// The channel is for requests alone.
    #[error(
        "the messages of channel {0} are requests; send them with `request`, answer them with `on_request`"
    )]
    Requests(ChannelId),
    /// The channel is the library's own.
    #[error("the messages of channel {0} make direct links; use another channel")]
    Signaling(ChannelId),
    /// The channel is kept for what the library may need it for.
    #[error("channel {0} is reserved; use 1, or 16 and up")]
    Reserved(ChannelId),
    /// Requests are answered by another handler.
    #[error("requests have a handler here already; drop that one first")]
    HandlerTaken,
    /// What was given as the address of a relay can be none.
    #[error(
        "{0:?} can be no address of a relay: it has 1 to 256 characters, all of them visible ASCII"
    )]
    RelayAddress(String),
    /// A session with oneself.
    #[error("{0} is this node itself; a session needs two peers")]
    Oneself(PeerId),
    /// The peer is blocked.
    #[error("{0} is blocked; unblock it first")]
    Blocked(PeerId),
    /// No more peers can be blocked.
    #[error("{BLOCKED_PEERS} peers are blocked already; unblock some first")]
    TooManyBlocked,
    /// Somebody stands between the two peers, or a digit was misread.
    #[error(
        "the safety numbers differ; compare them again, and if they still do, somebody stands in between"
    )]
    SafetyNumber,
    /// The message ended before it was delivered.
    #[error(transparent)]
    Ended(#[from] Ending),
    /// The node was given no identity.
    #[error("the node has no identity; give it one with `Node::builder().identity(..)`")]
    NoIdentity,
    /// The node was given no store.
    #[error("the node has no store; give it one with `Node::builder().store(..)`")]
    NoStore,
    /// The store holds the sessions of somebody else, whose mail would go out under another name.
    #[error(
        "the store belongs to {store}, but the node was given the identity {given}; give it that one, or a \
         store of its own"
    )]
    OtherIdentity {
        /// Who started on the store first.
        store: PeerId,
        /// Who was to start on it now.
        given: PeerId,
    },
    /// The system gave no randomness.
    #[error("the operating system gave no random numbers")]
    Entropy,
    /// The message can't be taken back any more.
    #[error("the message has left this device, or may have; it can't be taken back")]
    TooLate,
    /// The session was closed.
    #[error("the session was closed; open it again with `Node::session`")]
    Closed,
    /// The node was shut down.
    #[error("the node was shut down")]
    Shutdown,
}

impl Error {
    /// Whether it will be the same at the next try.
    pub(crate) const fn is_damage(&self) -> bool {
        matches!(
            self,
            Self::Record(_) | Self::Store(StoreError::Damaged { .. })
        )
    }
}

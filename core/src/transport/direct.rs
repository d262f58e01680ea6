//! The seam to a peer itself, for transports that find it by the addresses it tells.
//!
//! ```text
//!   DirectTransport ─ bind ─▶ DirectEndpoint ─┬─ dial ───▶ DirectLink ─┬─▶ DirectSender
//!                             one socket      └─ accept ─▶             └─▶ DirectReceiver
//! ```
//!
//! A link is handed over in two halves, as a relay's connection is: each is owned by one task, and
//! nobody looks it up.

use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use super::TransportError;
use crate::{Identity, PeerId};

/// What a packet may be held up by. Packets of one lane arrive in order; between lanes there is
/// none, so what has to stay in order stays in one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    /// Signaling, control and messages that somebody waits for: never behind bulk.
    Interactive,
    /// Files and whatever else is large.
    Bulk,
}

/// A way to make links to peers themselves.
#[async_trait]
pub trait DirectTransport: Send + Sync + 'static {
    /// What it is called in states and logs: `quic`.
    fn name(&self) -> &'static str;

    /// Opens the node's socket. Everything made from it is `identity`'s.
    ///
    /// # Errors
    /// [`TransportError::Address`] if there can't be a socket at the address that was asked for.
    async fn bind(&self, identity: &Identity) -> Result<Arc<dyn DirectEndpoint>, TransportError>;
}

/// A socket that links are dialed from and accepted at. Dropping the last reference closes it and
/// all its links.
#[async_trait]
pub trait DirectEndpoint: Send + Sync + 'static {
    /// Where peers may reach this node at the moment, the most likely first: the addresses of its
    /// interfaces, and those that servers see it at. Takes at most a second or two, bounded by the
    /// transport; cancellation-safe.
    async fn addresses(&self) -> Vec<SocketAddr>;

    /// Dials a peer at all of `addresses` at once; the first that proves to be `peer` is it, the
    /// others are let go. Cancellation-safe: dropped half-way, no connection remains.
    ///
    /// # Errors
    /// [`TransportError::Unreachable`] if nobody answers, [`TransportError::Untrusted`] if those who
    /// do are somebody else.
    async fn dial(
        &self,
        peer: PeerId,
        addresses: &[SocketAddr],
    ) -> Result<DirectLink, TransportError>;

    /// The next link that a peer dialed. Whoever it is has proved it. Cancellation-safe.
    ///
    /// # Errors
    /// [`TransportError`] when the endpoint is closed.
    async fn accept(&self) -> Result<DirectLink, TransportError>;

    /// The addresses of this host have changed: moves the socket to them. Links live on over the new
    /// one.
    ///
    /// # Errors
    /// [`TransportError::Address`] if there is no network to move to; the old socket stays.
    async fn network_changed(&self) -> Result<(), TransportError>;

    /// Closes all links and the socket, and returns when nothing of both is left. Cancellation-safe:
    /// they are closed all the same.
    async fn close(&self);
}

/// A link to a peer that has proved who it is. Dropping both halves closes it.
pub struct DirectLink {
    /// The peer at its other end.
    pub peer: PeerId,
    /// Where it is, for states and logs. It may move.
    pub address: SocketAddr,
    /// Where packets go.
    pub sender: Box<dyn DirectSender>,
    /// Where they come from.
    pub receiver: Box<dyn DirectReceiver>,
}

impl std::fmt::Debug for DirectLink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DirectLink")
            .field("peer", &self.peer)
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

/// The sending half of a link.
#[async_trait]
pub trait DirectSender: Send + Sync {
    /// Sends packets, of each lane in order. Waits while the lane's buffer is full, and meanwhile the
    /// other lane may be sent on: as far as the transport has two, neither waits for the other. Not
    /// cancellation-safe: dropped half-way, the link is to be dropped too.
    ///
    /// # Errors
    /// [`TransportError`] if the link is gone.
    async fn send(&self, lane: Lane, packets: Vec<Bytes>) -> Result<(), TransportError>;

    /// Hands over what was sent and closes the link. Returns within a second, whatever the peer does.
    async fn close(&mut self);
}

/// The receiving half of a link.
#[async_trait]
pub trait DirectReceiver: Send {
    /// The next packet, of any lane. Cancellation-safe.
    ///
    /// # Errors
    /// [`TransportError`] says why the link ended.
    async fn receive(&mut self) -> Result<Bytes, TransportError>;
}

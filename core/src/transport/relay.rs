//! The seam to a relay: a connection to it carries the links of many sessions.
//!
//! A connection is handed over in two halves, each owned by one task: nobody looks up "the current
//! connection", so nothing that belongs to an old one can touch a new one (I5).

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use super::TransportError;
use crate::{EnvelopeId, Identity, PeerId, StoreId};

pub use crate::wire::relay::{
    Class, DeliveryToken, GoodbyeReason, Refusal, Sender, Slot, TokenError, TokenHash,
};

/// What a node hands to a relay connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outgoing {
    /// Forward or keep a packet.
    Submit {
        /// The sender's number for it, unique on this connection.
        envelope: EnvelopeId,
        /// Whom it is for.
        to: PeerId,
        /// How long it matters.
        class: Class,
        /// Seconds it may wait in the mailbox.
        ttl: u32,
        /// The packet.
        packet: Bytes,
    },
    /// These envelopes from `from` are safe here: the mailbox may drop them.
    Acknowledge {
        /// Their sender.
        from: Sender,
        /// The relay's numbers for them.
        envelopes: Vec<EnvelopeId>,
    },
    /// There is no room for these envelopes from `from`: the mailbox keeps them, and delivers what
    /// lies behind them.
    Park {
        /// Their sender.
        from: Sender,
        /// The relay's numbers for them.
        envelopes: Vec<EnvelopeId>,
    },
    /// Deliver what `from` has in my mailbox again, from the beginning: there was no room for it,
    /// now there is.
    Redeliver {
        /// Their sender.
        from: Sender,
    },
    /// Tell me when these peers come and go. Adds to what was asked before.
    Watch {
        /// The peers.
        peers: Vec<PeerId>,
    },
    /// From now on these tokens open my mailbox for whoever has them, and no others.
    AcceptUnidentified {
        /// Their hashes.
        tokens: Vec<TokenHash>,
    },
    /// Forward or keep a packet. On a connection that is nobody's only this may be sent, and only
    /// there.
    SubmitUnidentified {
        /// The sender's number for it, unique on this connection.
        envelope: EnvelopeId,
        /// Whom it is for.
        to: PeerId,
        /// What the recipient gave out.
        token: DeliveryToken,
        /// What stands for the sender.
        slot: Slot,
        /// How long it matters.
        class: Class,
        /// Seconds it may wait in the mailbox.
        ttl: u32,
        /// The packet, wrapped.
        packet: Bytes,
    },
}

/// What a relay connection hands to its node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Incoming {
    /// The relay holds this envelope durably.
    Accepted {
        /// The sender's number for it.
        envelope: EnvelopeId,
    },
    /// The relay does not take this envelope.
    Refused {
        /// The sender's number for it.
        envelope: EnvelopeId,
        /// Why.
        reason: Refusal,
    },
    /// A packet from a peer.
    Deliver {
        /// Who sent it, as the relay authenticated it, or what stands for who did not say.
        from: Sender,
        /// The relay's number for it, to be acknowledged; `None` for what matters only now.
        envelope: Option<EnvelopeId>,
        /// The packet.
        packet: Bytes,
    },
    /// A watched peer came or went.
    Presence {
        /// The peer.
        peer: PeerId,
        /// Whether it is signed in.
        online: bool,
    },
}

/// A relay connection, signed in. Dropping both halves closes it.
pub struct RelayConnection {
    /// Name of the relay's store: what custody is bound to.
    pub store: StoreId,
    /// Where outgoing envelopes go.
    pub sender: Box<dyn RelaySender>,
    /// Where incoming ones come from.
    pub receiver: Box<dyn RelayReceiver>,
}

impl std::fmt::Debug for RelayConnection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RelayConnection")
            .field("store", &self.store)
            .finish_non_exhaustive()
    }
}

/// Whether a relay with this store is in use under another address, so that no connection is to be made;
/// given whether the proof is tied to the connection.
pub type IsInUse<'a> = dyn Fn(StoreId, bool) -> bool + Send + Sync + 'a;

/// The way to one relay: makes connections to it, again and again.
#[async_trait]
pub trait RelayTransport: Send + Sync + 'static {
    /// The relay's address, for logs, state and errors.
    fn address(&self) -> &str;

    /// Connects and signs in. Cancellation-safe: dropped half-way, no connection remains.
    ///
    /// # Errors
    /// [`TransportError`]; only [`TransportError::Address`] is worth no second try.
    async fn connect(&self, identity: &Identity) -> Result<RelayConnection, TransportError>;

    /// Connects as [`connect`](Self::connect) does, if it is not a relay that is `in_use` under another
    /// address: which is asked for its store, and whether what proves who we are is tied to the connection, so
    /// that it can't be passed on to another relay. A transport that can asks before it proves anything. If
    /// not said otherwise, it is asked afterwards.
    ///
    /// # Errors
    /// As [`connect`](Self::connect), and [`TransportError::InUse`].
    async fn connect_apart(
        &self,
        identity: &Identity,
        in_use: &IsInUse<'_>,
    ) -> Result<RelayConnection, TransportError> {
        let connection = self.connect(identity).await?;
        if in_use(connection.store, false) {
            return Err(TransportError::InUse {
                address: self.address().to_owned(),
                store: connection.store,
            });
        }
        Ok(connection)
    }

    /// Dials the relay without telling it who we are: a connection for
    /// [`Outgoing::SubmitUnidentified`] and nothing else. Cancellation-safe as
    /// [`connect`](Self::connect) is.
    ///
    /// # Errors
    /// [`TransportError`]; [`TransportError::Unidentified`] if this transport has no such
    /// connections, which is so unless it says otherwise.
    async fn connect_unidentified(&self) -> Result<RelayConnection, TransportError> {
        Err(TransportError::Unidentified {
            address: self.address().to_owned(),
        })
    }
}

#[async_trait]
impl<T: RelayTransport + ?Sized> RelayTransport for Arc<T> {
    fn address(&self) -> &str {
        (**self).address()
    }

    async fn connect(&self, identity: &Identity) -> Result<RelayConnection, TransportError> {
        (**self).connect(identity).await
    }

    async fn connect_apart(
        &self,
        identity: &Identity,
        in_use: &IsInUse<'_>,
    ) -> Result<RelayConnection, TransportError> {
        (**self).connect_apart(identity, in_use).await
    }

    async fn connect_unidentified(&self) -> Result<RelayConnection, TransportError> {
        (**self).connect_unidentified().await
    }
}

/// The sending half of a relay connection.
#[async_trait]
pub trait RelaySender: Send {
    /// Sends all of `items`, in order, and flushes once. Waits while the connection's buffer is
    /// full. Not cancellation-safe: dropped half-way, the connection is to be dropped too.
    ///
    /// # Errors
    /// [`TransportError`] if the connection is gone.
    async fn send(&mut self, items: Vec<Outgoing>) -> Result<(), TransportError>;

    /// Says goodbye and closes the connection.
    async fn close(&mut self);
}

/// The receiving half of a relay connection.
#[async_trait]
pub trait RelayReceiver: Send {
    /// The next thing the relay says. Cancellation-safe. Answers the relay's liveness checks by
    /// itself, and fails when the relay has been silent for too long.
    ///
    /// # Errors
    /// [`TransportError`] says why the connection ended.
    async fn receive(&mut self) -> Result<Incoming, TransportError>;

    /// Whether anything came since this was asked last, if only a part of what the relay says.
    fn has_heard(&mut self) -> bool {
        false
    }

    /// Whether it is known that nothing comes any more, because this host has lost the address that
    /// the connection was made from. Asked when the network has changed.
    fn is_stranded(&self) -> bool {
        false
    }
}

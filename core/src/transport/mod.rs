//! The seams to the network: ways to a relay, which carries the links of many sessions over one
//! connection, and ways to a peer itself, one connection a link.

mod direct;
mod negotiated;
mod relay;

use thiserror::Error;

use crate::StoreId;

pub use self::direct::{
    DirectEndpoint, DirectLink, DirectReceiver, DirectSender, DirectTransport, Lane,
};
pub use self::negotiated::{
    NegotiatedConnection, NegotiatedEvent, NegotiatedLink, NegotiatedTransport,
};
pub use self::relay::{
    Class, DeliveryToken, GoodbyeReason, Incoming, IsInUse, Outgoing, Refusal, RelayConnection,
    RelayReceiver, RelaySender, RelayTransport, Sender, Slot, TokenError, TokenHash,
};

/// Why a connection could not be made, or ended.
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum TransportError {
    /// The address can't be used at all; trying again does not help.
    #[error("the address {address} can't be used: {reason}")]
    Address {
        /// The address as given.
        address: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Nobody answers there, for now.
    #[error("{address} can't be reached: {reason}")]
    Unreachable {
        /// The address as given.
        address: String,
        /// What the network said.
        reason: String,
    },
    /// Somebody answers there, but can't show a certificate that we trust for that name. Trying
    /// again helps once there is another certificate, or an authority more that is trusted.
    #[error("the certificate of {address} is not trusted: {reason}")]
    Untrusted {
        /// The address as given.
        address: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The other end would not let us in.
    #[error("the other end refused us: {0}")]
    Refused(String),
    /// The other end broke the protocol.
    #[error("the other end broke the protocol: {0}")]
    Protocol(String),
    /// The other end closed the connection, and said why.
    #[error("the relay closed the connection: {0}")]
    Closed(GoodbyeReason),
    /// The peer let the link go, and nothing is wrong.
    #[error("the peer closed it")]
    Finished,
    /// The relay there is in use already, under another address: over two connections it would take each
    /// for the successor of the other.
    #[error("the relay at {address} is in use under another address")]
    InUse {
        /// The address as given.
        address: String,
        /// The relay's store.
        store: StoreId,
    },
    /// The transport has no connections that do not say who we are.
    #[error("{address} can't be reached without saying who we are; use another transport")]
    Unidentified {
        /// The address as given.
        address: String,
    },
    /// A description of a connection can't be used. Another one may.
    #[error("the description can't be used: {0}")]
    Description(String),
    /// A candidate of the peer can't be used. Others may.
    #[error("the candidate can't be used: {0}")]
    Candidate(String),
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Broken(String),
}

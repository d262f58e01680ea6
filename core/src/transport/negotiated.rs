//! The seam to a peer itself, for transports that come to it by offers, answers and candidates.
//!
//! ```text
//!   Negotiator ─ Output ──▶ NegotiatedConnection ─┬─▶ DirectSender
//!              ◀── Event ──                       └─▶ DirectReceiver
//! ```
//!
//! A connection does one thing after the other, as the [`Negotiator`](crate::negotiator::Negotiator)
//! says, and tells what became of it. Each name of a negotiation that it tells is the one of the last
//! description that was made on it.

use std::net::SocketAddr;

use async_trait::async_trait;

use super::{DirectReceiver, DirectSender, TransportError};
use crate::Negotiation;

/// A way to make connections that are negotiated.
#[async_trait]
pub trait NegotiatedTransport: Send + Sync + 'static {
    /// What it is called in states and logs: `webrtc`.
    fn name(&self) -> &'static str;

    /// A connection without a description. Cancellation-safe: dropped half-way, nothing remains.
    ///
    /// # Errors
    /// [`TransportError::Address`] if there can't be a socket where it was asked for, or a server's
    /// address can't be read.
    async fn connection(&self) -> Result<Box<dyn NegotiatedConnection>, TransportError>;
}

/// A connection to a peer that can't be dialed: both have to describe themselves first.
///
/// It proves the peer to be the one who sent the description, and no more: as much as the way that
/// the description took can be trusted. Dropping it ends it, and the halves of its link with it.
///
/// The methods that take or make a description are not cancellation-safe: dropped half-way, the
/// connection is to be dropped too.
#[async_trait]
pub trait NegotiatedConnection: Send {
    /// Makes an offer and sets it as the local description. `restart`: ICE is restarted, which a
    /// connection must have been described for.
    ///
    /// # Errors
    /// [`TransportError::Description`] if that is not possible now.
    async fn offer(
        &mut self,
        negotiation: Negotiation,
        restart: bool,
    ) -> Result<String, TransportError>;

    /// Takes the last offer back.
    ///
    /// # Errors
    /// [`TransportError::Description`] if it can't: then so it is with the next description.
    async fn rollback(&mut self) -> Result<(), TransportError>;

    /// Sets an offer as the remote description, and its answer as the local one.
    ///
    /// # Errors
    /// [`TransportError::Description`] if the offer can't be used.
    async fn apply_offer(
        &mut self,
        negotiation: Negotiation,
        sdp: String,
    ) -> Result<String, TransportError>;

    /// Sets an answer as the remote description.
    ///
    /// # Errors
    /// [`TransportError::Description`] if the answer can't be used.
    async fn apply_answer(&mut self, sdp: String) -> Result<(), TransportError>;

    /// Adds a candidate of the peer. Empty: there are no more.
    ///
    /// # Errors
    /// [`TransportError::Candidate`] if it can't be used. The connection goes on without it.
    async fn add_candidate(&mut self, candidate: String) -> Result<(), TransportError>;

    /// What has become of it. Cancellation-safe. After [`NegotiatedEvent::Failed`] there is no more.
    async fn event(&mut self) -> NegotiatedEvent;

    /// Whether it is known that nothing comes any more, because this host has lost the address that
    /// it goes out by. Asked when the network has changed.
    async fn is_stranded(&mut self) -> bool {
        false
    }

    /// Ends it, and returns when no task and no socket of it is left: within a second or two,
    /// whatever the peer does. Cancellation-safe: it ends all the same.
    async fn close(&mut self);
}

/// What becomes of a connection.
pub enum NegotiatedEvent {
    /// It has found an address of its own. Empty: there are no more.
    Found {
        /// For which negotiation.
        negotiation: Negotiation,
        /// The candidate, as its `candidate` attribute.
        candidate: String,
    },
    /// It carries data for the first time.
    Up {
        /// The negotiation that led to it.
        negotiation: Negotiation,
        /// Its link. When both halves are gone, or the peer has closed it, the connection has failed.
        link: NegotiatedLink,
    },
    /// Nothing comes from the peer. That may pass.
    Silent {
        /// The last negotiation.
        negotiation: Negotiation,
    },
    /// It carries data again: after a silence, or over the way that a restart has found.
    Back {
        /// The last negotiation.
        negotiation: Negotiation,
    },
    /// The peer was not found, or has been silent for so long that only a restart of ICE helps.
    Down {
        /// The last negotiation.
        negotiation: Negotiation,
    },
    /// It is over, and a restart does not help.
    Failed {
        /// The last negotiation, if it was described.
        negotiation: Option<Negotiation>,
        /// Why.
        error: TransportError,
    },
}

impl std::fmt::Debug for NegotiatedEvent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            // A candidate is where somebody lives.
            Self::Found { negotiation, .. } => write!(f, "Found({negotiation})"),
            Self::Up { negotiation, .. } => write!(f, "Up({negotiation})"),
            Self::Silent { negotiation } => write!(f, "Silent({negotiation})"),
            Self::Back { negotiation } => write!(f, "Back({negotiation})"),
            Self::Down { negotiation } => write!(f, "Down({negotiation})"),
            Self::Failed { error, .. } => write!(f, "Failed({error})"),
        }
    }
}

/// The link of a connection.
pub struct NegotiatedLink {
    /// Where the peer is, for states and logs, if that is known. It may move.
    pub address: Option<SocketAddr>,
    /// Where packets go.
    pub sender: Box<dyn DirectSender>,
    /// Where they come from.
    pub receiver: Box<dyn DirectReceiver>,
}

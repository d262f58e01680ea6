//! What comes out of a negotiator.

use std::time::Duration;

use crate::Negotiation;
use crate::wire::signal::Signal;

/// What a [`Negotiator`](super::Negotiator) wants done, in this order and one after the other.
///
/// There is at most one connection at a time. What it tells later is named by the negotiation of the
/// last description that was made on it; of what it told under another name nothing counts, so that
/// a result that comes late does no harm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Let go of the connection, with all that is going on in it. The next description is made on a
    /// new one.
    Reset,
    /// Make an offer and set it as the local description: then
    /// [`described`](super::Negotiator::described).
    CreateOffer {
        /// Its name.
        negotiation: Negotiation,
        /// Restart ICE on the connection there is; otherwise there is none yet.
        restart: bool,
    },
    /// Take the offer back (`rollback` of RFC 8829). Nothing, if making it has failed.
    ///
    /// Not every implementation can. One that can't lets go of a connection whose first offer this
    /// was, as for [`Reset`](Self::Reset), and loses nothing by it; on any other it reports the next
    /// description as [`failed`](super::Negotiator::failed), and both peers make a new connection.
    Rollback,
    /// Set this offer as the remote description, make an answer, and set it as the local one: then
    /// [`described`](super::Negotiator::described).
    ApplyOffer {
        /// Its name.
        negotiation: Negotiation,
        /// The offer.
        sdp: String,
    },
    /// Set this answer as the remote description.
    ApplyAnswer {
        /// The name of the offer.
        negotiation: Negotiation,
        /// The answer.
        sdp: String,
    },
    /// Add a candidate of the peer. One that the connection does not like is passed over.
    AddCandidate {
        /// The negotiation it belongs to: the one that was last applied.
        negotiation: Negotiation,
        /// The candidate; empty if there are no more.
        candidate: String,
    },
    /// Send a signal as a message of [`ChannelId::SIGNALING`](crate::ChannelId::SIGNALING).
    Send {
        /// The signal.
        signal: Signal,
        /// How long it matters.
        ttl: Duration,
    },
    /// Take back what has not left this device of the signals of this negotiation
    /// ([`Signal::negotiation`]): nobody needs them any more.
    Cancel {
        /// The negotiation.
        negotiation: Negotiation,
    },
}

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// There is no connection, and none is tried for.
    Idle,
    /// There is none, and one will be tried for later.
    Waiting,
    /// Offer and answer are on their way.
    Negotiating(Negotiation),
    /// They have met, and the connection is not up yet.
    Connecting(Negotiation),
    /// The connection is up.
    Up(Negotiation),
}

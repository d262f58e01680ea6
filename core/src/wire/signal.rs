//! Signals: what the messages of [`ChannelId::SIGNALING`](crate::ChannelId::SIGNALING) hold.
//!
//! ```text
//! message = version kind body             version, kind: u8, body: postcard
//! ```
//!
//! What follows the body is left for later versions to use and skipped. A kind that is not known is
//! no error: the message is committed and passed over, so that later versions can say more.
//!
//! Offers, answers and candidates are those of [W3C WebRTC, section 10.7] (perfect negotiation),
//! trickled as in [RFC 8838]; their texts are those of [RFC 8829] and are not looked into here.
//!
//! [W3C WebRTC, section 10.7]: https://www.w3.org/TR/webrtc/#perfect-negotiation-example
//! [RFC 8838]: https://www.rfc-editor.org/rfc/rfc8838
//! [RFC 8829]: https://www.rfc-editor.org/rfc/rfc8829

use std::net::SocketAddr;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::WireError;
use crate::limits::{ADDRESSES, CANDIDATE_BYTES, MAILBOXES, SDP_BYTES};
use crate::{Mailbox, Negotiation, Round, is_relay_address};

/// The version of the messages.
pub const VERSION: u8 = 1;

/// One signal.
#[derive(Clone, PartialEq, Eq)]
pub enum Signal {
    /// Let us have a connection, or restart ICE on the one we have.
    Offer(Offer),
    /// Yes.
    Answer(Answer),
    /// An address at which the connection may be reached.
    Candidate(Candidate),
    /// This offer can't be taken: make another.
    Decline(Decline),
    /// No offers, please.
    Withdraw(Withdraw),
    /// Where the peer's own socket may be reached, beside all negotiations.
    Addresses(Addresses),
    /// Where the peer reads what is left for it.
    Mailboxes(Mailboxes),
}

/// A session description that asks for an answer.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// The name of what begins with it. It ends every negotiation that its sender began before.
    pub negotiation: Negotiation,
    /// The connection that ICE is restarted on. None: the sender has made a new one, and whatever
    /// there was is gone.
    pub restarts: Option<ConnectionId>,
    /// The description.
    pub sdp: String,
}

/// Name of a connection: of the negotiation it began with, and of who answered there. A peer that
/// starts anew and answers the same offer again does so with another connection.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ConnectionId {
    /// The first offer.
    pub offer: Negotiation,
    /// The random number that the one who answered it drew at its start.
    #[serde(with = "postcard::fixint::le")]
    pub answered: u64,
}

/// A session description that answers an offer.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// The negotiation of the offer.
    pub negotiation: Negotiation,
    /// The last round of the one who answers. All offers it made up to this one are taken back.
    pub own: Round,
    /// The random number that the one who answers drew at its start: after another start it may
    /// answer again, with another connection.
    #[serde(with = "postcard::fixint::le")]
    pub run: u64,
    /// The description.
    pub sdp: String,
}

/// An ICE candidate of either side.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Candidate {
    /// The negotiation whose descriptions it belongs to.
    pub negotiation: Negotiation,
    /// The random number that its sender drew at its start: that of the description it belongs to.
    #[serde(with = "postcard::fixint::le")]
    pub run: u64,
    /// The candidate, as its `candidate` attribute. Empty: there are no more.
    pub candidate: String,
}

/// An offer was not taken, for it is older than another, its connection is not known, or its
/// description does not work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decline {
    /// The offer.
    pub negotiation: Negotiation,
    /// The last round of its sender that was heard of. The next offer must come after it, and be of
    /// a new connection.
    pub above: Round,
}

/// Direct links by negotiation are not wanted, or not possible, until the sender makes an offer
/// itself. What there was of one is over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Withdraw {
    /// The round of its sender: all its offers up to this one are taken back.
    pub round: Round,
    /// The offer that it is said to, if one was made.
    pub declines: Option<Negotiation>,
}

/// Where the sender's own socket may be reached.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Addresses {
    /// Grows each time there is something new to say: the newest takes the place of all before.
    pub round: Round,
    /// The last round of the receiver that the sender has heard of. A receiver that lost its state
    /// learns from it where to go on.
    pub heard: Option<Round>,
    /// The addresses, the most likely first. None: it can't be, or does not want to be, reached.
    pub addresses: Vec<SocketAddr>,
    /// Whether the sender asks for the other's, because it is about to dial.
    pub reply: bool,
}

/// At which relays the sender has mailboxes, beside all negotiations. The last of an epoch takes the place of
/// all before.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mailboxes {
    /// The mailboxes, the best first. None: nothing is said about where they are.
    pub mailboxes: Vec<Mailbox>,
}

impl Signal {
    /// The number that names its kind on the wire.
    #[must_use]
    pub const fn kind(&self) -> u8 {
        match self {
            Self::Offer(_) => 1,
            Self::Answer(_) => 2,
            Self::Candidate(_) => 3,
            Self::Decline(_) => 4,
            Self::Withdraw(_) => 5,
            Self::Addresses(_) => 6,
            Self::Mailboxes(_) => 7,
        }
    }

    /// The negotiation that it is part of. What ends one is part of none.
    #[must_use]
    pub const fn negotiation(&self) -> Option<Negotiation> {
        match self {
            Self::Offer(Offer { negotiation, .. })
            | Self::Answer(Answer { negotiation, .. })
            | Self::Candidate(Candidate { negotiation, .. }) => Some(*negotiation),
            Self::Decline(_) | Self::Withdraw(_) | Self::Addresses(_) | Self::Mailboxes(_) => None,
        }
    }

    /// The bytes to send.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        fn body<T: Serialize>(kind: u8, value: &T) -> Vec<u8> {
            // Serialising into a growing vector can't fail for these types; an empty message would
            // be found out as malformed, never taken for another.
            postcard::to_extend(value, vec![VERSION, kind]).unwrap_or_default()
        }
        let kind = self.kind();
        match self {
            Self::Offer(offer) => body(kind, offer),
            Self::Answer(answer) => body(kind, answer),
            Self::Candidate(candidate) => body(kind, candidate),
            Self::Decline(decline) => body(kind, decline),
            Self::Withdraw(withdraw) => body(kind, withdraw),
            Self::Addresses(addresses) => body(kind, addresses),
            Self::Mailboxes(mailboxes) => body(kind, mailboxes),
        }
        .into()
    }

    /// Reads a signal. None if it is of a kind that a later version knows.
    ///
    /// # Errors
    /// [`WireError`] if the bytes are no signal of this version.
    pub fn decode(bytes: &[u8]) -> Result<Option<Self>, WireError> {
        fn body<T: DeserializeOwned>(what: &'static str, bytes: &[u8]) -> Result<T, WireError> {
            let (value, _) =
                postcard::take_from_bytes(bytes).map_err(WireError::malformed(what))?;
            Ok(value)
        }
        let (kind, rest) = match bytes {
            [VERSION, kind, rest @ ..] => (kind, rest),
            [VERSION] | [] => return Err(WireError::Length("a signal")),
            [_, ..] => return Err(WireError::Invalid("the signal is of another version")),
        };
        let signal = match kind {
            1 => Self::Offer(body("an Offer", rest)?),
            2 => Self::Answer(body("an Answer", rest)?),
            3 => Self::Candidate(body("a Candidate", rest)?),
            4 => Self::Decline(body("a Decline", rest)?),
            5 => Self::Withdraw(body("a Withdraw", rest)?),
            6 => Self::Addresses(body("an Addresses", rest)?),
            7 => Self::Mailboxes(body("a Mailboxes", rest)?),
            _ => return Ok(None),
        };
        signal.check()?;
        Ok(Some(signal))
    }

    /// Whether it may be said: nothing in it is larger than the protocol allows.
    ///
    /// # Errors
    /// [`WireError::TooLarge`] tells what is; [`WireError::Invalid`] if something is no address.
    pub fn check(&self) -> Result<(), WireError> {
        let (what, size, limit) = match self {
            Self::Offer(Offer { sdp, .. }) | Self::Answer(Answer { sdp, .. }) => {
                ("a session description", sdp.len(), SDP_BYTES)
            }
            Self::Candidate(candidate) => {
                ("a candidate", candidate.candidate.len(), CANDIDATE_BYTES)
            }
            Self::Addresses(addresses) => {
                ("a list of addresses", addresses.addresses.len(), ADDRESSES)
            }
            Self::Mailboxes(Mailboxes { mailboxes }) => {
                let mut relays = mailboxes.iter().map(|mailbox| &*mailbox.relay);
                if !relays.all(is_relay_address) {
                    return Err(WireError::Invalid("a mailbox is at no address"));
                }
                ("a list of mailboxes", mailboxes.len(), MAILBOXES)
            }
            Self::Decline(_) | Self::Withdraw(_) => return Ok(()),
        };
        if size > limit {
            return Err(WireError::TooLarge { what, size, limit });
        }
        Ok(())
    }
}

impl std::fmt::Debug for Signal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Offer(offer) => offer.fmt(f),
            Self::Answer(answer) => answer.fmt(f),
            Self::Candidate(candidate) => candidate.fmt(f),
            Self::Decline(decline) => decline.fmt(f),
            Self::Withdraw(withdraw) => withdraw.fmt(f),
            Self::Addresses(addresses) => addresses.fmt(f),
            Self::Mailboxes(mailboxes) => mailboxes.fmt(f),
        }
    }
}

// Descriptions, candidates and addresses tell where somebody is: they stay out of logs.

impl std::fmt::Debug for ConnectionId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}+{:08x}", self.offer, self.answered >> 32)
    }
}

impl std::fmt::Debug for Offer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            negotiation,
            restarts,
            sdp,
        } = self;
        write!(f, "Offer({negotiation}")?;
        if let Some(connection) = restarts {
            write!(f, " on {connection:?}")?;
        }
        write!(f, ", {} bytes)", sdp.len())
    }
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            negotiation,
            own,
            run: _,
            sdp,
        } = self;
        write!(f, "Answer({negotiation}, own {own}, {} bytes)", sdp.len())
    }
}

impl std::fmt::Debug for Candidate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            negotiation,
            run: _,
            candidate,
        } = self;
        write!(f, "Candidate({negotiation}, {} bytes)", candidate.len())
    }
}

impl std::fmt::Debug for Addresses {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            round,
            heard,
            addresses,
            reply,
        } = self;
        let count = addresses.len();
        write!(f, "Addresses({round}, heard {heard:?}, {count} of them")?;
        f.write_str(if *reply { ", yours?)" } else { ")" })
    }
}

impl std::fmt::Debug for Mailboxes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Mailboxes({} of them)", self.mailboxes.len())
    }
}

#[cfg(test)]
mod tests;

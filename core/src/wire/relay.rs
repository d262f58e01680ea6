//! What a peer and its relay say to each other, over one WebSocket.
//!
//! A binary WebSocket message holds one or more of these messages, back to back. Sign-in comes
//! first: [`ToRelay::Hello`], [`FromRelay::Challenge`], [`ToRelay::Proof`],
//! [`FromRelay::Welcome`]. Then both sides speak freely. A connection that is nobody's begins
//! with [`ToRelay::HelloUnidentified`] and [`FromRelay::WelcomeUnidentified`] instead.
//!
//! The relay is untrusted: it moves and keeps packets. What it says of them is a hint to the
//! engine, never a reason to drop a message (custody does not empty the outbox).

use std::fmt;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::WireError;
pub use super::sign_in::{
    Binding, EXPORTER_LABEL, Exported, check_proof, prove, sign_in_statement,
};
pub use super::unidentified::{DeliveryToken, Sender, Slot, TokenError, TokenHash};
use crate::{EnvelopeId, PeerId, StoreId, limits};

/// The version of these messages.
pub const VERSION: u16 = 1;

/// Bytes of one WebSocket message between a peer and its relay. A larger one ends the connection.
pub const MESSAGE_BYTES: usize = 256 * 1024;

/// Items in one list (acknowledged envelopes, watched peers).
pub const LIST_ITEMS: usize = 1_024;

/// Messages in one WebSocket message. The smallest take two bytes on the wire and fifty times as
/// much in memory; no sender has a use for so many.
pub const MESSAGES: usize = 8_192;

/// Tokens with which a mailbox can be opened. A recipient that names more ends the connection.
pub const TOKENS: usize = 8;

/// How long an envelope matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Class {
    /// Kept in the mailbox until the recipient acknowledges it or its TTL is over.
    Keep,
    /// Only the newest of this sender waits: control frames that tell everything anew.
    NewestOnly,
    /// Delivered if the recipient is signed in, dropped otherwise.
    NowOrNever,
}

/// Why the relay does not take an envelope.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Refusal {
    /// The recipient's mailbox is full. Worth another try later.
    MailboxFull,
    /// The packet is larger than this relay takes.
    TooLarge,
    /// This relay keeps nothing from this sender for this recipient.
    NotAllowed,
    /// The relay could not write. Worth another try later.
    Unavailable,
    /// The relay does not know this token of the recipient: not yet, or no more. Worth another try later:
    /// it is told at each sign-in of the recipient, and may have lost what it was told before.
    Token,
}

impl Refusal {
    /// Whether the same envelope may be taken later.
    #[must_use]
    pub const fn may_pass(self) -> bool {
        match self {
            Self::MailboxFull | Self::Unavailable | Self::Token => true,
            Self::TooLarge | Self::NotAllowed => false,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::MailboxFull => "the recipient's mailbox is full",
            Self::TooLarge => "the packet is too large for this relay",
            Self::NotAllowed => "the relay does not allow it",
            Self::Unavailable => "the relay could not store it",
            Self::Token => {
                "the relay does not know this delivery token: the recipient has to sign in there, or to \
                 give another"
            }
        })
    }
}

/// Why the relay closes a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum GoodbyeReason {
    /// The same peer signed in over a newer connection.
    Replaced,
    /// The relay is shutting down; it comes back or another one takes its place.
    Draining,
    /// The client broke the protocol.
    Protocol,
    /// The signature was wrong, or tied to another connection.
    Signature,
    /// The client speaks a version this relay does not.
    Version,
    /// The relay can not serve now.
    Busy,
}

impl fmt::Display for GoodbyeReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Replaced => "a newer connection of the same peer took over",
            Self::Draining => "it is shutting down",
            Self::Protocol => "what we sent was not understood",
            Self::Signature => {
                "our signature is not good on this connection; does something on the way end TLS?"
            }
            Self::Version => "it does not speak our version",
            Self::Busy => "it can not serve now",
        })
    }
}

/// What a peer says to its relay.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToRelay {
    /// The first message: who signs in.
    Hello {
        /// The version the client speaks.
        version: u16,
        /// Who it says it is.
        peer: PeerId,
    },
    /// The answer to a challenge.
    Proof {
        /// See [`sign_in_statement`].
        signature: Bytes,
    },
    /// Forward or keep a packet.
    Submit {
        /// The client's number for it.
        envelope: EnvelopeId,
        /// Whom it is for.
        to: PeerId,
        /// How long it matters.
        class: Class,
        /// Seconds it may wait.
        ttl: u32,
        /// The packet.
        packet: Bytes,
    },
    /// These envelopes are safe with me; drop them.
    Acknowledge {
        /// Their sender.
        from: Sender,
        /// The relay's numbers for them.
        envelopes: Vec<EnvelopeId>,
    },
    /// Deliver again, from the beginning, what is not acknowledged of this sender.
    Redeliver {
        /// The sender.
        from: Sender,
    },
    /// Tell me when these come and go.
    Watch {
        /// The peers.
        peers: Vec<PeerId>,
    },
    /// I have no room for these: keep them, and deliver what lies behind them. They come again when
    /// I ask with [`Redeliver`](Self::Redeliver), or sign in anew.
    Park {
        /// Their sender.
        from: Sender,
        /// The relay's numbers for them.
        envelopes: Vec<EnvelopeId>,
    },
    /// From now on these tokens open my mailbox for whoever has them, and no others. Durable.
    AcceptUnidentified {
        /// Their hashes, at most [`TOKENS`].
        tokens: Vec<TokenHash>,
    },
    /// The first message, in place of [`Hello`](Self::Hello), on a connection that stays nobody's.
    /// All that may follow is [`SubmitUnidentified`](Self::SubmitUnidentified).
    HelloUnidentified {
        /// The version the client speaks.
        version: u16,
    },
    /// Forward or keep a packet without saying from whom it is.
    SubmitUnidentified {
        /// The client's number for it.
        envelope: EnvelopeId,
        /// Whom it is for.
        to: PeerId,
        /// What the recipient gave out.
        token: DeliveryToken,
        /// What stands for the sender.
        slot: Slot,
        /// How long it matters.
        class: Class,
        /// Seconds it may wait.
        ttl: u32,
        /// The packet, wrapped ([`seal::wrap`](crate::seal::wrap)).
        packet: Bytes,
    },
}

/// What a relay says to a peer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromRelay {
    /// Sign this.
    Challenge {
        /// Random.
        nonce: [u8; 32],
        /// The relay's store.
        store: StoreId,
        /// What the proof has to be tied to. Who changes it on the way gains nothing: it is part
        /// of what is signed.
        binding: Binding,
    },
    /// Signed in.
    Welcome {
        /// Seconds an envelope may wait here at most.
        max_ttl: u32,
    },
    /// The envelope is durable here (class keep, newest-only), or was passed on or dropped (now-or-never).
    Accepted {
        /// The client's number for it.
        envelope: EnvelopeId,
    },
    /// The envelope is not taken.
    Refused {
        /// The client's number for it.
        envelope: EnvelopeId,
        /// Why.
        reason: Refusal,
    },
    /// A packet.
    Deliver {
        /// Who sent it.
        from: Sender,
        /// The relay's number for it; `None` for now-or-never.
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
    /// The last message: why the relay closes.
    Goodbye {
        /// The reason.
        reason: GoodbyeReason,
    },
    /// The answer to [`ToRelay::HelloUnidentified`]: go on.
    WelcomeUnidentified {
        /// The relay's store.
        store: StoreId,
        /// Seconds an envelope may wait here at most.
        max_ttl: u32,
    },
}

/// Adds a message to a WebSocket message under construction.
pub fn encode<M: Serialize>(message: &M, into: &mut Vec<u8>) {
    // Serialising these types into a growing vector can't fail: no maps, no unknown lengths.
    if let Ok(bytes) = postcard::to_allocvec(message) {
        into.extend_from_slice(&bytes);
    }
}

/// Reads all messages of one WebSocket message.
///
/// # Errors
/// [`WireError`] if the bytes are not one or more whole messages within the limits.
pub fn decode<M: DeserializeOwned + Checked>(bytes: &[u8]) -> Result<Vec<M>, WireError> {
    if bytes.len() > MESSAGE_BYTES {
        return Err(WireError::TooLarge {
            what: "a relay message",
            size: bytes.len(),
            limit: MESSAGE_BYTES,
        });
    }
    let mut rest = bytes;
    let mut messages = Vec::new();
    while !rest.is_empty() {
        let (message, tail) = postcard::take_from_bytes::<M>(rest)
            .map_err(WireError::malformed("a relay message"))?;
        message.check()?;
        at_most("a WebSocket message's list", messages.len() + 1, MESSAGES)?;
        messages.push(message);
        rest = tail;
    }
    Ok(messages)
}

/// A message with limits its types can't express.
pub trait Checked {
    /// Checks them.
    ///
    /// # Errors
    /// [`WireError`] if one is broken.
    fn check(&self) -> Result<(), WireError>;
}

fn at_most(what: &'static str, size: usize, limit: usize) -> Result<(), WireError> {
    if size > limit {
        Err(WireError::TooLarge { what, size, limit })
    } else {
        Ok(())
    }
}

impl Checked for ToRelay {
    fn check(&self) -> Result<(), WireError> {
        match self {
            Self::Proof { signature } => at_most("a signature", signature.len(), 64),
            Self::Submit { packet, .. } | Self::SubmitUnidentified { packet, .. } => {
                at_most("a packet", packet.len(), limits::PACKET_BYTES)
            }
            Self::AcceptUnidentified { tokens } => {
                at_most("a list of tokens", tokens.len(), TOKENS)
            }
            Self::Acknowledge { envelopes, .. } | Self::Park { envelopes, .. } => {
                at_most("a list of envelopes", envelopes.len(), LIST_ITEMS)
            }
            Self::Watch { peers } => at_most("a list of peers", peers.len(), LIST_ITEMS),
            Self::Hello { .. } | Self::HelloUnidentified { .. } | Self::Redeliver { .. } => Ok(()),
        }
    }
}

impl Checked for FromRelay {
    fn check(&self) -> Result<(), WireError> {
        match self {
            Self::Deliver { packet, .. } => at_most("a packet", packet.len(), limits::PACKET_BYTES),
            Self::Challenge { .. }
            | Self::Welcome { .. }
            | Self::WelcomeUnidentified { .. }
            | Self::Accepted { .. }
            | Self::Refused { .. }
            | Self::Presence { .. }
            | Self::Goodbye { .. } => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_messages_than_the_limit_are_none() {
        let message = ToRelay::Watch { peers: Vec::new() };
        let mut bytes = Vec::new();
        for _ in 0..MESSAGES {
            encode(&message, &mut bytes);
        }
        assert_eq!(decode::<ToRelay>(&bytes).map(|all| all.len()), Ok(MESSAGES));
        encode(&message, &mut bytes);
        assert!(decode::<ToRelay>(&bytes).is_err());
    }
}

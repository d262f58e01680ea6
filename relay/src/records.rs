//! What the relay keeps: keys and values in its store.
//!
//! ```text
//!   m recipient sender number      an envelope
//!   l recipient sender             which is the sender's newest-only envelope
//!   n recipient slot number        an envelope of somebody who did not say who it is
//!   k recipient slot               which is the newest-only envelope of a slot
//!   u recipient                    what the mailbox holds
//!   x expires recipient sender number    when the envelope's time is over
//!   y expires recipient slot number      the same for an envelope in a slot
//!   t recipient                    the tokens that open the mailbox
//!   c name                         settings of the relay itself
//! ```
//!
//! Slots have kinds of their own: whatever bytes somebody chooses for one, it is nobody else's.

use std::ops::Range;

use bytes::{BufMut, Bytes, BytesMut};
use outlive_core::record::prefix_range;
use outlive_core::transport::{Class, Sender, Slot};
use outlive_core::{EnvelopeId, PeerId, StoreTime};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The format of the values.
const FORMAT: u8 = 1;

/// Where the relay's store id is.
pub(crate) const STORE_ID: &[u8] = b"c/store-id";

/// Where the next number that was not given out yet is.
pub(crate) const NUMBERS: &[u8] = b"c/numbers";

/// Where it is kept where the clock stood by which mail grows old.
pub(crate) const CLOCK: &[u8] = b"c/clock";

/// An envelope in a mailbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Envelope {
    pub(crate) class: Class,
    pub(crate) expires: StoreTime,
    pub(crate) packet: Bytes,
}

/// The one newest-only envelope of a sender in a mailbox: enough to remove it without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Newest {
    pub(crate) number: EnvelopeId,
    pub(crate) expires: StoreTime,
    pub(crate) bytes: u64,
}

/// What a mailbox holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Usage {
    /// What is kept until it is acknowledged.
    pub(crate) kept: Amount,
    /// The newest-only envelopes.
    pub(crate) newest: Amount,
}

/// Envelopes, and the bytes of their packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Amount {
    pub(crate) envelopes: u64,
    pub(crate) bytes: u64,
}

impl Amount {
    /// With one envelope more; `None` if that is over the limits.
    pub(crate) fn plus(self, bytes: u64, most: Self) -> Option<Self> {
        let more = Self {
            envelopes: self.envelopes.saturating_add(1),
            bytes: self.bytes.saturating_add(bytes),
        };
        (more.envelopes <= most.envelopes && more.bytes <= most.bytes).then_some(more)
    }

    /// With one envelope less.
    pub(crate) const fn minus(self, bytes: u64) -> Self {
        Self {
            envelopes: self.envelopes.saturating_sub(1),
            bytes: self.bytes.saturating_sub(bytes),
        }
    }
}

pub(crate) fn to_value<T: Serialize>(record: &T) -> Bytes {
    // Serialising these types into a growing vector can't fail; an empty value is found out as
    // damaged when it is read.
    postcard::to_extend(record, vec![FORMAT])
        .map(Bytes::from)
        .unwrap_or_default()
}

pub(crate) fn from_value<T: DeserializeOwned>(value: &[u8]) -> Option<T> {
    match value.split_first() {
        Some((&FORMAT, body)) => postcard::from_bytes(body).ok(),
        _ => None,
    }
}

fn key(kind: u8, parts: &[&[u8]]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(88);
    bytes.put_u8(kind);
    for part in parts {
        bytes.put_slice(part);
    }
    bytes.freeze()
}

/// One of two kinds of key, and the bytes of the sender in it.
const fn kind_of(sender: &Sender, peer: u8, slot: u8) -> (u8, &[u8; 32]) {
    match sender {
        Sender::Peer(id) => (peer, id.as_bytes()),
        Sender::Slot(Slot(bytes)) => (slot, bytes),
    }
}

/// The peer that these bytes name, as a field of a message names one. Whether they can be anybody's
/// key is not looked at: what was taken for such a peer has to be found again, and removed.
fn peer(bytes: &[u8; 32]) -> Option<PeerId> {
    postcard::from_bytes(bytes).ok()
}

/// The sender with these bytes in a key of this kind.
fn sender(bytes: &[u8; 32], is_slot: bool) -> Option<Sender> {
    if is_slot {
        Some(Sender::Slot(Slot(*bytes)))
    } else {
        peer(bytes).map(Sender::Peer)
    }
}

pub(crate) fn envelope(recipient: &PeerId, sender: &Sender, number: EnvelopeId) -> Bytes {
    let (kind, sender) = kind_of(sender, b'm', b'n');
    key(
        kind,
        &[recipient.as_bytes(), sender, &number.0.to_be_bytes()],
    )
}

/// The envelopes of a sender behind a number.
pub(crate) fn envelopes_behind(
    recipient: &PeerId,
    sender: &Sender,
    number: EnvelopeId,
) -> Range<Bytes> {
    envelope(recipient, sender, EnvelopeId(number.0.saturating_add(1)))
        ..envelope(recipient, sender, EnvelopeId(u64::MAX))
}

/// The whole mailbox of a recipient: what peers sent, and what is in slots.
pub(crate) fn mailbox(recipient: &PeerId) -> [Range<Bytes>; 2] {
    [b'm', b'n'].map(|kind| prefix_range(&key(kind, &[recipient.as_bytes()])))
}

/// The first key behind all envelopes of a sender.
pub(crate) fn behind(recipient: &PeerId, sender: &Sender) -> Bytes {
    let (kind, sender) = kind_of(sender, b'm', b'n');
    prefix_range(&key(kind, &[recipient.as_bytes(), sender])).end
}

/// The sender and number that an envelope's key names.
pub(crate) fn sender_of(key: &[u8]) -> Option<(Sender, EnvelopeId)> {
    let (&kind, rest) = key.split_first()?;
    let (bytes, number) = rest.get(32..)?.split_first_chunk::<32>()?;
    let number = u64::from_be_bytes(number.try_into().ok()?);
    Some((sender(bytes, kind == b'n')?, EnvelopeId(number)))
}

pub(crate) fn newest(recipient: &PeerId, sender: &Sender) -> Bytes {
    let (kind, sender) = kind_of(sender, b'l', b'k');
    key(kind, &[recipient.as_bytes(), sender])
}

pub(crate) fn usage(recipient: &PeerId) -> Bytes {
    key(b'u', &[recipient.as_bytes()])
}

pub(crate) fn tokens(recipient: &PeerId) -> Bytes {
    key(b't', &[recipient.as_bytes()])
}

pub(crate) fn expiry(
    expires: StoreTime,
    recipient: &PeerId,
    sender: &Sender,
    number: EnvelopeId,
) -> Bytes {
    let (at, number) = (expires.0.to_be_bytes(), number.0.to_be_bytes());
    let (kind, sender) = kind_of(sender, b'x', b'y');
    key(kind, &[&at, recipient.as_bytes(), sender, &number])
}

/// Everything that expires up to and with this moment.
pub(crate) fn expired(now: StoreTime) -> [Range<Bytes>; 2] {
    let end = now.0.saturating_add(1).to_be_bytes();
    [b'x', b'y'].map(|kind| key(kind, &[])..key(kind, &[&end]))
}

/// The recipient, sender and number that an expiry's key names.
pub(crate) fn expiring(key: &[u8]) -> Option<(PeerId, Sender, EnvelopeId)> {
    let (&kind, rest) = key.split_first()?;
    let (recipient, rest) = rest.get(8..)?.split_first_chunk::<32>()?;
    let (bytes, number) = rest.split_first_chunk::<32>()?;
    let number = u64::from_be_bytes(number.try_into().ok()?);
    Some((
        peer(recipient)?,
        sender(bytes, kind == b'y')?,
        EnvelopeId(number),
    ))
}

#[cfg(test)]
mod tests {
    use outlive_core::Identity;

    use super::*;

    #[test]
    fn keys_survive_the_way_through_bytes() {
        let peer = |n| Identity::from_seed([n; 32]).peer_id();
        let (to, id, number) = (peer(1), peer(2), EnvelopeId(300));
        let senders = [Sender::Peer(id), Sender::Slot(Slot(*id.as_bytes()))];
        for (at, from) in senders.into_iter().enumerate() {
            let envelope = envelope(&to, &from, number);
            assert_eq!(sender_of(&envelope), Some((from, number)));
            let key = expiry(StoreTime(5), &to, &from, number);
            assert_eq!(expiring(&key), Some((to, from, number)));
            let expired = |at: usize, now| expired(StoreTime(now))[at].contains(&key);
            assert!(expired(at, 5) && !expired(at, 4) && !expired(1 - at, 5));
            assert!(envelopes_behind(&to, &from, EnvelopeId(299)).contains(&envelope));
            let mailbox = mailbox(&to);
            assert!(mailbox[at].contains(&envelope) && !mailbox[1 - at].contains(&envelope));
            assert!(behind(&to, &from) > envelope);
        }
        // A slot that has the bytes of a peer's id shares nothing with that peer.
        assert_ne!(newest(&to, &senders[0]), newest(&to, &senders[1]));
    }

    #[test]
    fn keys_name_peers_whatever_their_bytes_are() {
        let nobody = |n| peer(&[n; 32]).expect("as in a message");
        assert!((0..=u8::MAX).any(|n| PeerId::from_bytes([n; 32]).is_err()));
        for n in 0..=u8::MAX {
            let (to, from) = (nobody(n), Sender::Peer(nobody(n)));
            let key = expiry(StoreTime(5), &to, &from, EnvelopeId(7));
            assert_eq!(expiring(&key), Some((to, from, EnvelopeId(7))));
        }
    }

    #[test]
    fn an_amount_reaches_its_limit_and_no_further() {
        let most = Amount {
            envelopes: 2,
            bytes: 10,
        };
        let one = Amount::default().plus(4, most).expect("room");
        assert_eq!(one.plus(7, most), None);
        let two = one.plus(6, most).expect("room");
        assert_eq!(two.plus(0, most), None);
        assert_eq!(two.minus(6), one);
    }

    #[test]
    fn a_value_of_another_format_is_none() {
        let usage = Usage {
            kept: Amount {
                envelopes: 3,
                bytes: 4,
            },
            ..Usage::default()
        };
        let value = to_value(&usage);
        assert_eq!(from_value::<Usage>(&value), Some(usage));
        assert_eq!(from_value::<Usage>(&[&[9], &value[1..]].concat()), None);
        assert_eq!(from_value::<Usage>(b""), None);
    }
}

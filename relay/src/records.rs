//! What the relay keeps: keys and values in its store.
//!
//! ```text
//!   m recipient sender number      an envelope
//!   l recipient sender             which is the sender's newest-only envelope
//!   u recipient                    what the mailbox holds
//!   x expires recipient sender number    when the envelope's time is over
//!   c name                         settings of the relay itself
//! ```

use std::ops::Range;

use bytes::{BufMut, Bytes, BytesMut};
use outlive_core::record::prefix_range;
use outlive_core::transport::Class;
use outlive_core::{EnvelopeId, PeerId, WallTime};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The format of the values.
const FORMAT: u8 = 1;

/// Where the relay's store id is.
pub(crate) const STORE_ID: &[u8] = b"c/store-id";

/// Where the next number that was not given out yet is.
pub(crate) const NUMBERS: &[u8] = b"c/numbers";

/// An envelope in a mailbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Envelope {
    pub(crate) class: Class,
    pub(crate) expires: WallTime,
    pub(crate) packet: Bytes,
}

/// The one newest-only envelope of a sender in a mailbox: enough to remove it without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Newest {
    pub(crate) number: EnvelopeId,
    pub(crate) expires: WallTime,
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

pub(crate) fn envelope(recipient: &PeerId, sender: &PeerId, number: EnvelopeId) -> Bytes {
    key(
        b'm',
        &[
            recipient.as_bytes(),
            sender.as_bytes(),
            &number.0.to_be_bytes(),
        ],
    )
}

/// The envelopes of a sender behind a number.
pub(crate) fn envelopes_behind(
    recipient: &PeerId,
    sender: &PeerId,
    number: EnvelopeId,
) -> Range<Bytes> {
    envelope(recipient, sender, EnvelopeId(number.0.saturating_add(1)))
        ..envelope(recipient, sender, EnvelopeId(u64::MAX))
}

/// The whole mailbox of a recipient.
pub(crate) fn mailbox(recipient: &PeerId) -> Range<Bytes> {
    prefix_range(&key(b'm', &[recipient.as_bytes()]))
}

/// The rest of a mailbox behind all envelopes of a sender.
pub(crate) fn mailbox_behind(recipient: &PeerId, sender: &PeerId) -> Range<Bytes> {
    let end = mailbox(recipient).end;
    prefix_range(&key(b'm', &[recipient.as_bytes(), sender.as_bytes()])).end..end
}

/// The sender and number that an envelope's key names.
pub(crate) fn sender_of(key: &[u8]) -> Option<(PeerId, EnvelopeId)> {
    let rest = key.get(33..)?;
    let (sender, number) = rest.split_first_chunk::<32>()?;
    let number = u64::from_be_bytes(number.try_into().ok()?);
    Some((PeerId::from_bytes(*sender).ok()?, EnvelopeId(number)))
}

pub(crate) fn newest(recipient: &PeerId, sender: &PeerId) -> Bytes {
    key(b'l', &[recipient.as_bytes(), sender.as_bytes()])
}

pub(crate) fn usage(recipient: &PeerId) -> Bytes {
    key(b'u', &[recipient.as_bytes()])
}

pub(crate) fn expiry(
    expires: WallTime,
    recipient: &PeerId,
    sender: &PeerId,
    number: EnvelopeId,
) -> Bytes {
    let (at, number) = (expires.0.to_be_bytes(), number.0.to_be_bytes());
    key(
        b'x',
        &[&at, recipient.as_bytes(), sender.as_bytes(), &number],
    )
}

/// Everything that expires up to and with this moment.
pub(crate) fn expired(now: WallTime) -> Range<Bytes> {
    key(b'x', &[])..key(b'x', &[&now.0.saturating_add(1).to_be_bytes()])
}

/// The recipient, sender and number that an expiry's key names.
pub(crate) fn expiring(key: &[u8]) -> Option<(PeerId, PeerId, EnvelopeId)> {
    let (recipient, rest) = key.get(9..)?.split_first_chunk::<32>()?;
    let (sender, number) = rest.split_first_chunk::<32>()?;
    let number = u64::from_be_bytes(number.try_into().ok()?);
    let peer = |bytes: &[u8; 32]| PeerId::from_bytes(*bytes).ok();
    Some((peer(recipient)?, peer(sender)?, EnvelopeId(number)))
}

#[cfg(test)]
mod tests {
    use outlive_core::Identity;

    use super::*;

    #[test]
    fn keys_survive_the_way_through_bytes() {
        let peer = |n| Identity::from_seed([n; 32]).peer_id();
        let (to, from, number) = (peer(1), peer(2), EnvelopeId(300));
        assert_eq!(
            sender_of(&envelope(&to, &from, number)),
            Some((from, number))
        );
        let key = expiry(WallTime(5), &to, &from, number);
        assert_eq!(expiring(&key), Some((to, from, number)));
        assert!(expired(WallTime(5)).contains(&key) && !expired(WallTime(4)).contains(&key));
        assert!(
            envelopes_behind(&to, &from, EnvelopeId(299)).contains(&envelope(&to, &from, number))
        );
        assert!(!mailbox_behind(&to, &from).contains(&envelope(&to, &from, number)));
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

//! The keys of a session's records. Big-endian numbers, so that byte order is their order.

use std::ops::Range;

use bytes::{BufMut, Bytes, BytesMut};
use thiserror::Error;

use super::SkipNumber;
use crate::{ChannelId, Epoch, PeerId, Position, Seq, TransferId};

/// The key is none of a session's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a key in the store is none of ours; the store is damaged or belongs to something else")]
pub struct KeyError;

/// A key in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// The session with a peer: a [`Session`](super::Session).
    Session(PeerId),
    /// Present if the session with a peer has something outstanding, or requests that wait for an
    /// answer. No value.
    Work(PeerId),
    /// A segment the peer has not acknowledged: an [`OutboxRecord`](super::OutboxRecord).
    Outbox(PeerId, ChannelId, Position),
    /// A message the app has not committed: an [`InboxRecord`](super::InboxRecord).
    Inbox(PeerId, ChannelId, Position),
    /// A segment that waits for others: a [`SegmentRecord`](super::SegmentRecord).
    Segment(PeerId, Epoch, ChannelId, Seq),
    /// A message the app gave up on: a [`SkippedRecord`](super::SkippedRecord).
    Skipped(PeerId, ChannelId, SkipNumber),
    /// What a `send_once` key stands for: a [`OnceRecord`](super::OnceRecord).
    Once(PeerId, [u8; 32]),
    /// What a person decided about a peer: a [`TrustRecord`](super::TrustRecord).
    Trust(PeerId),
    /// Present if a peer is blocked. No value.
    Blocked(PeerId),
    /// Present if a peer opened its session by itself and nobody here accepted it yet. No value.
    Stranger(PeerId),
    /// How the session sends without being named to the relay: an
    /// [`UnidentifiedRecord`](super::UnidentifiedRecord).
    Unidentified(PeerId),
    /// Present if a session is to have no direct links. No value.
    RelayOnly(PeerId),
    /// Where the peer reads its mail: a [`MailboxesRecord`](super::MailboxesRecord).
    Mailboxes(PeerId),
    /// A file on its way to a peer: a [`SendingFileRecord`](super::SendingFileRecord).
    SendingFile(PeerId, TransferId),
    /// A file on its way from a peer: a [`ReceivingFileRecord`](super::ReceivingFileRecord).
    ReceivingFile(PeerId, TransferId),
}

const SESSION: u8 = b's';
const WORK: u8 = b'w';
const OUTBOX: u8 = b'o';
const INBOX: u8 = b'i';
const SEGMENT: u8 = b'g';
const SKIPPED: u8 = b'f';
const ONCE: u8 = b'k';
const TRUST: u8 = b't';
const BLOCKED: u8 = b'b';
const STRANGER: u8 = b'x';
const UNIDENTIFIED: u8 = b'd';
const RELAY_ONLY: u8 = b'r';
const MAILBOXES: u8 = b'm';
const SENDING_FILE: u8 = b'p';
const RECEIVING_FILE: u8 = b'q';

impl Key {
    /// The bytes of the key.
    #[must_use]
    pub fn to_bytes(self) -> Bytes {
        let mut bytes = BytesMut::with_capacity(64);
        let mut head = |kind, peer: &PeerId| {
            bytes.put_u8(kind);
            bytes.put_slice(peer.as_bytes());
        };
        match self {
            Self::Session(peer) => head(SESSION, &peer),
            Self::Work(peer) => head(WORK, &peer),
            Self::Outbox(peer, channel, position) => {
                head(OUTBOX, &peer);
                bytes.put_u16(channel.0);
                bytes.put_u64(position.0);
            }
            Self::Inbox(peer, channel, position) => {
                head(INBOX, &peer);
                bytes.put_u16(channel.0);
                bytes.put_u64(position.0);
            }
            Self::Segment(peer, epoch, channel, seq) => {
                head(SEGMENT, &peer);
                bytes.put_u64(epoch.0);
                bytes.put_u16(channel.0);
                bytes.put_u64(seq.0);
            }
            Self::Skipped(peer, channel, number) => {
                head(SKIPPED, &peer);
                bytes.put_u16(channel.0);
                bytes.put_u64(number.0);
            }
            Self::Once(peer, hash) => {
                head(ONCE, &peer);
                bytes.put_slice(&hash);
            }
            Self::Trust(peer) => head(TRUST, &peer),
            Self::Blocked(peer) => head(BLOCKED, &peer),
            Self::Stranger(peer) => head(STRANGER, &peer),
            Self::Unidentified(peer) => head(UNIDENTIFIED, &peer),
            Self::RelayOnly(peer) => head(RELAY_ONLY, &peer),
            Self::Mailboxes(peer) => head(MAILBOXES, &peer),
            Self::SendingFile(peer, transfer) => {
                head(SENDING_FILE, &peer);
                bytes.put_slice(&transfer.0);
            }
            Self::ReceivingFile(peer, transfer) => {
                head(RECEIVING_FILE, &peer);
                bytes.put_slice(&transfer.0);
            }
        }
        bytes.freeze()
    }

    /// The key that `bytes` are.
    ///
    /// # Errors
    /// [`KeyError`] if they are none.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, KeyError> {
        let (kind, peer, rest) = split(bytes)?;
        let peer = PeerId::from_bytes(*peer).map_err(|_| KeyError)?;
        Self::read(kind, peer, rest)
    }

    /// The key of this peer's that `bytes` are. Much cheaper than [`from_bytes`](Self::from_bytes),
    /// which has to find out whether the peer can be one.
    ///
    /// # Errors
    /// [`KeyError`] if they are none, or another peer's.
    pub fn of_peer(peer: PeerId, bytes: &[u8]) -> Result<Self, KeyError> {
        let (kind, found, rest) = split(bytes)?;
        if found != peer.as_bytes() {
            return Err(KeyError);
        }
        Self::read(kind, peer, rest)
    }

    fn read(kind: u8, peer: PeerId, rest: &[u8]) -> Result<Self, KeyError> {
        let number = |rest: &[u8]| -> Result<u64, KeyError> {
            Ok(u64::from_be_bytes(rest.try_into().map_err(|_| KeyError)?))
        };
        let channel = |rest: &[u8]| -> Result<ChannelId, KeyError> {
            Ok(ChannelId(u16::from_be_bytes(
                rest.try_into().map_err(|_| KeyError)?,
            )))
        };
        Ok(match (kind, rest.len()) {
            (SESSION, 0) => Self::Session(peer),
            (WORK, 0) => Self::Work(peer),
            (OUTBOX, 10) => Self::Outbox(peer, channel(&rest[..2])?, Position(number(&rest[2..])?)),
            (INBOX, 10) => Self::Inbox(peer, channel(&rest[..2])?, Position(number(&rest[2..])?)),
            (SEGMENT, 18) => Self::Segment(
                peer,
                Epoch(number(&rest[..8])?),
                channel(&rest[8..10])?,
                Seq(number(&rest[10..])?),
            ),
            (SKIPPED, 10) => {
                Self::Skipped(peer, channel(&rest[..2])?, SkipNumber(number(&rest[2..])?))
            }
            (ONCE, 32) => Self::Once(peer, rest.try_into().map_err(|_| KeyError)?),
            (TRUST, 0) => Self::Trust(peer),
            (BLOCKED, 0) => Self::Blocked(peer),
            (STRANGER, 0) => Self::Stranger(peer),
            (UNIDENTIFIED, 0) => Self::Unidentified(peer),
            (RELAY_ONLY, 0) => Self::RelayOnly(peer),
            (MAILBOXES, 0) => Self::Mailboxes(peer),
            (SENDING_FILE, 16) => {
                Self::SendingFile(peer, TransferId(rest.try_into().map_err(|_| KeyError)?))
            }
            (RECEIVING_FILE, 16) => {
                Self::ReceivingFile(peer, TransferId(rest.try_into().map_err(|_| KeyError)?))
            }
            _ => return Err(KeyError),
        })
    }

    /// The keys of all sessions.
    #[must_use]
    pub fn sessions() -> Range<Bytes> {
        prefix_range(&[SESSION])
    }

    /// The keys of all sessions with work.
    #[must_use]
    pub fn work() -> Range<Bytes> {
        prefix_range(&[WORK])
    }

    /// The keys of all blocked peers.
    #[must_use]
    pub fn all_blocked() -> Range<Bytes> {
        prefix_range(&[BLOCKED])
    }

    /// The keys of all strangers.
    #[must_use]
    pub fn strangers() -> Range<Bytes> {
        prefix_range(&[STRANGER])
    }

    /// The keys of all messages that no app has committed.
    #[must_use]
    pub fn inboxes() -> Range<Bytes> {
        prefix_range(&[INBOX])
    }

    /// The keys of what is known of all peers' mailboxes.
    #[must_use]
    pub fn all_mailboxes() -> Range<Bytes> {
        prefix_range(&[MAILBOXES])
    }

    /// The keys of the outbox of one channel from `from` up to but not including `end`.
    #[must_use]
    pub fn outbox(peer: PeerId, channel: ChannelId, from: Position, end: Position) -> Range<Bytes> {
        Self::Outbox(peer, channel, from).to_bytes()..Self::Outbox(peer, channel, end).to_bytes()
    }

    /// The keys of the inbox of one channel from `from` up to but not including `end`.
    #[must_use]
    pub fn inbox(peer: PeerId, channel: ChannelId, from: Position, end: Position) -> Range<Bytes> {
        Self::Inbox(peer, channel, from).to_bytes()..Self::Inbox(peer, channel, end).to_bytes()
    }

    /// The keys of the segments of one channel of a stream from `from` up to but not including
    /// `end`.
    #[must_use]
    pub fn segments(
        peer: PeerId,
        epoch: Epoch,
        channel: ChannelId,
        from: Seq,
        end: Seq,
    ) -> Range<Bytes> {
        Self::Segment(peer, epoch, channel, from).to_bytes()
            ..Self::Segment(peer, epoch, channel, end).to_bytes()
    }

    /// The keys of all messages of a channel that were skipped.
    #[must_use]
    pub fn skipped(peer: PeerId, channel: ChannelId) -> Range<Bytes> {
        Self::Skipped(peer, channel, SkipNumber(0)).to_bytes()
            ..Self::Skipped(peer, channel, SkipNumber(u64::MAX)).to_bytes()
    }

    /// The keys of all files on their way to a peer.
    #[must_use]
    pub fn sending_files(peer: PeerId) -> Range<Bytes> {
        prefix_range(&[&[SENDING_FILE], &peer.as_bytes()[..]].concat())
    }

    /// The keys of all files on their way from a peer.
    #[must_use]
    pub fn receiving_files(peer: PeerId) -> Range<Bytes> {
        prefix_range(&[&[RECEIVING_FILE], &peer.as_bytes()[..]].concat())
    }

    /// The keys of all segments of a session.
    #[must_use]
    pub fn all_segments(peer: PeerId) -> Range<Bytes> {
        let mut prefix = vec![SEGMENT];
        prefix.extend_from_slice(peer.as_bytes());
        prefix_range(&prefix)
    }
}

/// Kind, peer, and what follows.
fn split(bytes: &[u8]) -> Result<(u8, &[u8; 32], &[u8]), KeyError> {
    let (&kind, rest) = bytes.split_first().ok_or(KeyError)?;
    let (peer, rest) = rest.split_first_chunk::<32>().ok_or(KeyError)?;
    Ok((kind, peer, rest))
}

/// All keys that begin with `prefix`, which must not be all `0xff`.
#[must_use]
pub fn prefix_range(prefix: &[u8]) -> Range<Bytes> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if let Some(next) = last.checked_add(1) {
            end.push(next);
            break;
        }
    }
    Bytes::copy_from_slice(prefix)..Bytes::from(end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Identity;

    #[test]
    fn a_key_survives_the_way_through_bytes() {
        let [peer, other] = [1, 2].map(|n| Identity::from_seed([n; 32]).peer_id());
        for key in [
            Key::Session(peer),
            Key::Work(peer),
            Key::Outbox(peer, ChannelId(7), Position(300)),
            Key::Inbox(peer, ChannelId(7), Position(300)),
            Key::Segment(peer, Epoch(9), ChannelId(7), Seq(300)),
            Key::Skipped(peer, ChannelId(7), SkipNumber(300)),
            Key::Once(peer, [8; 32]),
            Key::Trust(peer),
            Key::Blocked(peer),
            Key::Stranger(peer),
            Key::Unidentified(peer),
            Key::RelayOnly(peer),
            Key::Mailboxes(peer),
            Key::SendingFile(peer, TransferId([4; 16])),
            Key::ReceivingFile(peer, TransferId([4; 16])),
        ] {
            let bytes = key.to_bytes();
            assert_eq!(Key::from_bytes(&bytes), Ok(key));
            assert_eq!(Key::of_peer(peer, &bytes), Ok(key));
            assert_eq!(Key::of_peer(other, &bytes), Err(KeyError));
            assert_eq!(Key::from_bytes(&bytes[..bytes.len() - 1]), Err(KeyError));
        }
    }

    #[test]
    fn positions_are_in_order_as_bytes() {
        let peer = Identity::from_seed([1; 32]).peer_id();
        let key = |n| Key::Outbox(peer, ChannelId(1), Position(n)).to_bytes();
        assert!(key(255) < key(256));
        assert!(key(u64::from(u32::MAX)) < key(1 << 40));
    }

    #[test]
    fn a_prefix_range_ends_behind_its_last_key() {
        let range = prefix_range(&[3, 0xff]);
        assert!(range.contains(&Bytes::from_static(&[3, 0xff, 0xff, 0xff])));
        assert!(!range.contains(&Bytes::from_static(&[4])));
    }
}

//! The counters and names a session is made of, each a type of its own.
//!
//! None of them may be mixed up with another: a [`Seq`] is what the wire speaks of, a
//! [`Position`] what the local outbox counts, a [`Generation`] what tells one link from the next.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Random number a peer draws when its state for a session is created.
///
/// A new epoch tells the other side that state was lost or went back in time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Epoch(#[serde(with = "postcard::fixint::le")] pub u64);

impl fmt::Debug for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Epoch({self})")
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// An ordered stream of messages inside a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ChannelId(pub u16);

impl ChannelId {
    /// Signaling of the session itself: offers, answers, candidates, mailbox addresses.
    pub const SIGNALING: Self = Self(0);
    /// Messages, where an app needs no more than one channel.
    pub const MESSAGES: Self = Self(1);
    /// Files (see `outlive::Session::send_file`). An app's own where no files are sent: a peer that takes
    /// files takes whatever else comes here for done, and nobody sees it.
    pub const FILES: Self = Self(2);
    /// Requests and their responses (see `outlive::Session::request`).
    pub const REQUESTS: Self = Self(3);
    /// What the receiver of files says of them: beside their own channel, where it would wait behind
    /// files that go the other way.
    pub const FILE_REPLIES: Self = Self(4);
    /// The first channel an app may give a meaning of its own.
    pub const FIRST_APP: Self = Self(16);

    /// Whether apps may use it. The others are the library's own, or reserved for it.
    #[must_use]
    pub const fn is_for_apps(self) -> bool {
        matches!(self, Self::MESSAGES | Self::FILES) || self.0 >= Self::FIRST_APP.0
    }
}

impl fmt::Display for ChannelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Number of a segment within one epoch and channel: from 1, without gaps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Seq(pub u64);

impl Seq {
    /// The number of the first segment.
    pub const FIRST: Self = Self(1);

    /// The seq after this one. Stays put at the end of the number space, which no session reaches.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// The seq before this one; 0 stands for "none".
    #[must_use]
    pub const fn previous(self) -> Self {
        Self(self.0.saturating_sub(1))
    }
}

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Place of a segment in the local outbox, or of a message in the local inbox.
///
/// Local and never reused: a change of epoch numbers the outbox anew on the wire without touching
/// a stored record.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Position(pub u64);

impl Position {
    /// The position `count` places on.
    #[must_use]
    pub const fn plus(self, count: u64) -> Self {
        Self(self.0.saturating_add(count))
    }

    /// The position `count` places back, not below 0.
    #[must_use]
    pub const fn minus(self, count: u64) -> Self {
        Self(self.0.saturating_sub(count))
    }

    /// The position after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        self.plus(1)
    }

    /// How many places lie from `earlier` up to here; 0 if it is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Number of a link within its session. Grows with each link bound, across restarts too (I8).
///
/// The upper half is the number of the node's start, durable before the node binds anything; the
/// lower half counts links since.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Generation(u64);

impl Generation {
    /// The generation before the first link of the node's `start`-th start.
    #[must_use]
    pub const fn at_start(start: u32) -> Self {
        Self((start as u64) << 32)
    }

    /// The `count`-th generation of the node's `start`-th start.
    #[must_use]
    pub const fn nth(start: u32, count: u32) -> Self {
        Self(((start as u64) << 32) | count as u64)
    }

    /// The number of the start it belongs to.
    #[must_use]
    pub const fn start(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// The next generation.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0 >> 32, self.0 & 0xffff_ffff)
    }
}

/// The text is the name of no message and of no transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the name of a message or a transfer has 32 characters, all of 0-9 and a-f")]
pub struct IdError;

fn name(text: &str) -> Result<[u8; 16], IdError> {
    let bytes = data_encoding::HEXLOWER.decode(text.as_bytes());
    let bytes = bytes.ok().and_then(|bytes| bytes.try_into().ok());
    bytes.ok_or(IdError)
}

/// Name of a message, the same at both peers and for ever: 128 random bits.
///
/// Never made of counters alone: after a store was restored from a backup, two messages would
/// share one name (I2).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct MessageId(pub [u8; 16]);

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&data_encoding::HEXLOWER.encode(&self.0))
    }
}

impl FromStr for MessageId {
    type Err = IdError;

    /// Reads what [`Display`](fmt::Display) writes.
    fn from_str(text: &str) -> Result<Self, IdError> {
        name(text).map(Self)
    }
}

impl fmt::Debug for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MessageId({self})")
    }
}

/// Name of a file's way from one peer to the other: 128 random bits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TransferId(pub [u8; 16]);

impl fmt::Display for TransferId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&data_encoding::HEXLOWER.encode(&self.0))
    }
}

impl FromStr for TransferId {
    type Err = IdError;

    /// Reads what [`Display`](fmt::Display) writes.
    fn from_str(text: &str) -> Result<Self, IdError> {
        name(text).map(Self)
    }
}

impl fmt::Debug for TransferId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TransferId({self})")
    }
}

/// Name of a relay's store. A relay that lost its store draws a new one, and with it ends the
/// custody of everything it had accepted.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct StoreId(pub [u8; 16]);

impl fmt::Display for StoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&data_encoding::HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for StoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StoreId({self})")
    }
}

/// Number of an envelope: which packet of a connection a relay speaks of.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct EnvelopeId(pub u64);

impl fmt::Display for EnvelopeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Name of one Resume, so that an answer can say which one it answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ResumeId(#[serde(with = "postcard::fixint::le")] pub u64);

/// Number of a request. Grows with each request a peer makes, across its restarts too (I8).
///
/// It is the number of the process start, durable before anything is sent; a random number drawn at
/// that start, so that even after a store was restored from a backup an answer never finds another
/// request than its own; and a count of the requests since.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RequestId {
    start: u32,
    #[serde(with = "postcard::fixint::le")]
    run: u64,
    count: u64,
}

impl RequestId {
    /// The `count`-th request of the `start`-th start, which drew the random number `run`.
    #[must_use]
    pub const fn new(start: u32, run: u64, count: u64) -> Self {
        Self { start, run, count }
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.start, self.count)
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RequestId({self})")
    }
}

/// Where a peer is in what it says of direct links: grows with each offer it makes and each time it
/// tells its addresses, across its restarts too (I8).
///
/// What is older than the newest that was heard is stale. Rounds are compared as in [RFC 1982], so
/// that there is none beyond which a peer could not go: whatever a broken or hostile one claims to
/// have heard, there is a round after it.
///
/// [RFC 1982]: https://www.rfc-editor.org/rfc/rfc1982
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Round(pub u64);

impl Round {
    /// The round before the first of the node's `start`-th start.
    #[must_use]
    pub const fn at_start(start: u32) -> Self {
        Self((start as u64) << 32)
    }

    /// The round before the first of a session that is loaded so long after that start. It lies behind those
    /// of the times it was loaded before, if they were no more than one a second.
    #[must_use]
    pub const fn since_start(start: u32, elapsed: Duration) -> Self {
        Self(Self::at_start(start).0.wrapping_add(elapsed.as_secs()))
    }

    /// The round after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.wrapping_add(1))
    }

    /// Whether this round came later than `other`.
    #[must_use]
    pub const fn is_after(self, other: Self) -> bool {
        self.0.wrapping_sub(other.0).cast_signed() > 0
    }

    /// The later of both.
    #[must_use]
    pub const fn later(self, other: Self) -> Self {
        if other.is_after(self) { other } else { self }
    }
}

impl fmt::Display for Round {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0 >> 32, self.0 & 0xffff_ffff)
    }
}

impl fmt::Debug for Round {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Round({self})")
    }
}

/// Name of a negotiation: of an offer, its answer, and the candidates of both.
///
/// The round tells which of two is the newer. The random number, drawn when the peer that
/// offers loads the session, keeps them apart when a peer lost its state and counts from the beginning again.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Negotiation {
    /// The round of the peer that offers.
    pub round: Round,
    /// The random number it drew.
    #[serde(with = "postcard::fixint::le")]
    pub run: u64,
}

impl fmt::Display for Negotiation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{:08x}", self.round, self.run >> 32)
    }
}

impl fmt::Debug for Negotiation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Negotiation({self})")
    }
}

/// Running sum over the segments of a stream: what both sides compare to find out that one of
/// their stores went back in time.
///
/// The sum (wrapping, of a hash of each segment's [`MessageId`] and index) can be taken from any
/// point on by subtraction, so a change of epoch needs no stored record rewritten. It guards
/// against accidents, not against an attacker: a peer that forges it harms its own session only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Digest(#[serde(with = "postcard::fixint::le")] pub u64);

impl Digest {
    /// The sum after one more segment: index `index` of message `id`.
    #[must_use]
    pub fn with(self, id: MessageId, index: u32) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&id.0);
        hasher.update(&index.to_le_bytes());
        let mut first = [0; 8];
        hasher.finalize_xof().fill(&mut first);
        Self(self.0.wrapping_add(u64::from_le_bytes(first)))
    }

    /// The part of this sum that came after `earlier`.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Self {
        Self(self.0.wrapping_sub(earlier.0))
    }

    /// This sum and what `later` adds to it.
    #[must_use]
    pub const fn plus(self, later: Self) -> Self {
        Self(self.0.wrapping_add(later.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_survives_the_way_through_text() {
        let message = MessageId([0xA7; 16]);
        assert_eq!(message.to_string().parse(), Ok(message));
        let transfer = TransferId([0x0C; 16]);
        assert_eq!(transfer.to_string().parse(), Ok(transfer));
        for wrong in ["", "a7", &"A7".repeat(16), &"a7".repeat(17)] {
            assert_eq!(wrong.parse::<MessageId>(), Err(IdError), "{wrong}");
        }
    }

    #[test]
    fn a_digest_can_be_taken_from_any_point_on() {
        let id = |n| MessageId([n; 16]);
        let before = Digest::default().with(id(1), 0).with(id(1), 1);
        let whole = before.with(id(2), 0);
        assert_eq!(whole.since(before), Digest::default().with(id(2), 0));
        assert_eq!(before.plus(whole.since(before)), whole);
        assert_ne!(
            Digest::default().with(id(1), 0),
            Digest::default().with(id(1), 1)
        );
    }

    #[test]
    fn a_later_start_has_only_higher_request_ids() {
        let last_of_first = RequestId::new(1, u64::MAX, u64::MAX);
        assert!(RequestId::new(2, 0, 1) > last_of_first);
        assert!(RequestId::new(2, 0, 2) > RequestId::new(2, 0, 1));
    }

    #[test]
    fn a_session_that_is_loaded_again_goes_on_behind_its_rounds() {
        let seconds = |n| Round::since_start(3, Duration::from_secs(n));
        assert_eq!(seconds(0), Round::at_start(3));
        let used = (0..10).fold(seconds(20), |round, _| round.next());
        assert!(!used.is_after(seconds(30)));
        assert!(Round::at_start(4).is_after(seconds(1 << 20)));
    }

    #[test]
    fn there_is_a_round_after_every_round() {
        for round in [0, 1, 1 << 32, u64::MAX / 2, u64::MAX - 1, u64::MAX].map(Round) {
            assert!(round.next().is_after(round) && !round.is_after(round.next()));
            assert!(!round.is_after(round));
            assert_eq!(round.later(round.next()), round.next());
        }
        assert!(Round::at_start(2).is_after(Round(Round::at_start(1).0 + 1_000)));
    }

    #[test]
    fn a_later_start_has_only_higher_generations() {
        let mut last_of_first = Generation::at_start(1);
        for _ in 0..1_000 {
            last_of_first = last_of_first.next();
        }
        assert!(Generation::at_start(2) > last_of_first);
    }
}

//! The frames two peers exchange.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{ChannelId, Digest, Epoch, MessageId, ResumeId, Seq};

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// Who has what; the first frame on a link with something to say.
    Resume(Resume),
    /// A segment of a message.
    Data(Data),
    /// What the receiver of a stream has durably.
    Ack(Ack),
    /// Segments that will never come.
    Skip(Skip),
    /// A message on a volatile channel.
    Volatile(Volatile),
    /// These volatile channels have a listener now.
    Subscribe(Channels),
    /// These volatile channels have no listener any more.
    Unsubscribe(Channels),
    /// Are you there?
    Ping(Token),
    /// Yes: the Ping's token.
    Pong(Token),
    /// Is this path yours?
    PathChallenge(Token),
    /// Yes: the challenge's token.
    PathResponse(Token),
    /// The peer ends its use of the session, and says why.
    Close(Close),
    /// The first message of a handshake for shared keys.
    Initiation(Handshake),
    /// The second.
    Response(Handshake),
}

/// Who has what: sent at once when a link is bound and something is outstanding, and again when
/// nothing moves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resume {
    /// A random name, so that an Ack can say it answers this one.
    pub id: ResumeId,
    /// The sender's epoch.
    pub epoch: Epoch,
    /// The receiver's epoch as the sender last knew it.
    pub peer_epoch: Option<Epoch>,
    /// What the sender has of the receiver's stream `peer_epoch`.
    pub received: Vec<Received>,
    /// What the sender still offers of its own stream `epoch`.
    pub offered: Vec<Offered>,
    /// Whether an Ack that names this Resume is wanted.
    pub answer: bool,
}

/// What a receiver has, durably, of one channel of a stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Received {
    /// The channel.
    pub channel: ChannelId,
    /// The first seq that is missing.
    pub next: Seq,
    /// The digest over all seqs below `next`.
    pub digest: Digest,
    /// The first seq that the receiving app has not committed.
    pub consumed: Seq,
    /// The first seq the receiver has no room for on a direct link.
    pub limit: Seq,
    /// What it holds beyond `next`, in order, without touching.
    pub ranges: Vec<Run>,
}

/// A run of seqs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// The first of them.
    pub first: Seq,
    /// How many: at least one.
    pub count: u64,
}

/// What a sender still has, durably, of one channel of its stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offered {
    /// The channel.
    pub channel: ChannelId,
    /// The lowest seq that it can still send. What lies below will never come.
    pub lowest: Seq,
    /// The digest over all seqs below `lowest`.
    pub digest: Digest,
    /// The seq after the highest it may have sent, so that a lost tail shows.
    pub end: Seq,
}

/// A segment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Data<P = Bytes> {
    /// The sender's epoch under which `seq` counts.
    pub epoch: Epoch,
    /// The channel.
    pub channel: ChannelId,
    /// The segment's number.
    pub seq: Seq,
    /// The message it belongs to.
    pub id: MessageId,
    /// Which segment of the message, from 0.
    pub index: u32,
    /// How many segments the message has: at least one.
    pub count: u32,
    /// Set when the segment may have been sent before under another epoch: its first epoch and seq
    /// there. The receiver's app sees such a message marked as redelivered.
    pub again: Option<First>,
    /// The payload's part.
    pub payload: P,
}

impl Data<&[u8]> {
    /// The same, with a payload that stays where it is in `packet`.
    pub(super) fn within(self, packet: &Bytes) -> Data {
        Data {
            epoch: self.epoch,
            channel: self.channel,
            seq: self.seq,
            id: self.id,
            index: self.index,
            count: self.count,
            again: self.again,
            payload: packet.slice_ref(self.payload),
        }
    }
}

/// The epoch and seq under which a segment was offered for the first time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct First {
    /// That epoch.
    pub epoch: Epoch,
    /// The seq in it.
    pub seq: Seq,
}

/// What the receiver has of a stream: all its channels, so that the newest Ack alone tells all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ack {
    /// The epoch of the stream: the one of the peer that reads this.
    pub epoch: Epoch,
    /// The Resume this answers, if it answers one. Only then does what is missing here mean that
    /// it has to be sent again.
    pub answers: Option<ResumeId>,
    /// What the receiver has.
    pub received: Vec<Received>,
}

/// Segments that will never come: expired or taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skip {
    /// The sender's epoch.
    pub epoch: Epoch,
    /// The channel.
    pub channel: ChannelId,
    /// The first of them.
    pub first: Seq,
    /// The last of them.
    pub last: Seq,
    /// The sum over these segments alone, which the receiver adds to its own: a difference from
    /// before them stays visible.
    pub digest: Digest,
}

/// A message on a volatile channel: no seq, no store, no second try.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volatile {
    /// The channel.
    pub channel: ChannelId,
    /// The payload.
    pub payload: Bytes,
}

/// Some channels.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Channels {
    /// The channels.
    pub channels: Vec<ChannelId>,
}

/// Eight bytes that come back as they went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token(pub [u8; 8]);

/// A message of the Noise handshake; see [`seal`](crate::seal).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handshake {
    /// The message as Noise makes it.
    pub message: Bytes,
}

/// Why a peer ends its use of the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Close {
    /// The reason.
    pub reason: CloseReason,
}

/// Reasons to close.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum CloseReason {
    /// The peer's app closed its handle; the session stays on disk.
    Closed,
    /// The peer does not accept sessions from this peer.
    NotAccepted,
}

/// The first kind that a receiver may skip when it does not know it.
pub const FIRST_OPTIONAL_KIND: u8 = 64;

/// The kind of a frame that says nothing, and makes a packet longer.
pub const PADDING: u8 = FIRST_OPTIONAL_KIND;

impl Frame {
    /// The number that names the kind of this frame on the wire.
    #[must_use]
    pub const fn kind(&self) -> u8 {
        match self {
            Self::Resume(_) => 1,
            Self::Data(_) => 2,
            Self::Ack(_) => 3,
            Self::Skip(_) => 4,
            Self::Close(_) => 5,
            Self::Volatile(_) => 6,
            Self::Subscribe(_) => 7,
            Self::Unsubscribe(_) => 8,
            Self::Ping(_) => 9,
            Self::Pong(_) => 10,
            Self::PathChallenge(_) => 11,
            Self::PathResponse(_) => 12,
            Self::Initiation(_) => 13,
            Self::Response(_) => 14,
        }
    }

    /// Whether the frame counts in a packet that may have been recorded: what is taken once by its
    /// seq does, however late, and a handshake, whose keys are of use to nobody but the two.
    #[must_use]
    pub const fn counts_late(&self) -> bool {
        matches!(
            self,
            Self::Data(_) | Self::Skip(_) | Self::Initiation(_) | Self::Response(_)
        )
    }
}

//! What comes to a session's task: from handles and from links.

use std::time::Duration;

use bytes::Bytes;
use outlive_core::engine::{SendOptions, Ticket};
use outlive_core::link::LinkClass;
use outlive_core::record::{InboxRecord, SendingFileRecord};
use outlive_core::transport::{DeliveryToken, Lane, Outgoing, Refusal};
use outlive_core::{
    ChannelId, EnvelopeId, Epoch, Generation, Mailbox, PeerId, Position, TransferId,
};
use tokio::sync::{mpsc, oneshot};

use super::in_hand::InHand;
use crate::error::Error;
use crate::files::{FileError, Outcome};
use crate::receipt::Receipt;

/// Inputs that may wait for a session's task. When they do, whoever has one waits.
pub(crate) const INPUTS: usize = 256;

pub(super) type Reply<T> = oneshot::Sender<Result<T, Error>>;

/// Answers with the positions of a file's messages.
pub(super) type FileQueued = oneshot::Sender<Result<(Position, Position), FileError>>;

/// What a handle asks of the task.
pub(crate) enum Command {
    Send {
        channel: ChannelId,
        payload: Bytes,
        options: SendOptions,
        wait: bool,
        reply: Reply<Receipt>,
    },
    /// Sends a request, which is of use until `until` has elapsed, and waits for room no longer.
    Request {
        payload: Bytes,
        until: Duration,
        reply: Reply<Receipt>,
    },
    Cancel {
        ticket: Ticket,
        reply: oneshot::Sender<bool>,
    },
    AwaitConsumed {
        channel: ChannelId,
        position: Position,
    },
    /// The app gets a message of its inbox for the first time.
    Hand {
        channel: ChannelId,
        position: Position,
        record: InboxRecord,
    },
    /// The app gets it another time. Answered when that is durable: whether it is still there.
    HandAgain {
        channel: ChannelId,
        position: Position,
        /// With its payload, if that is in it.
        record: InboxRecord,
        attempts: u32,
        reply: Reply<bool>,
    },
    Commit {
        in_hand: InHand,
        reply: Reply<()>,
    },
    /// The app gives up on a message.
    Skip {
        in_hand: InHand,
        payload: Bytes,
        attempts: u32,
        reason: String,
        reply: Reply<()>,
    },
    /// A message on the requests channel was seen to: it leaves the inbox and its answer, if there
    /// is one, enters the outbox, both or neither.
    Settle {
        in_hand: InHand,
        answer: Option<(Bytes, Duration)>,
        reply: Reply<()>,
    },
    Listen {
        channel: ChannelId,
        on: bool,
    },
    Volatile {
        channel: ChannelId,
        payload: Bytes,
        reply: Reply<bool>,
    },
    Weight {
        channel: ChannelId,
        weight: u8,
    },
    /// With a token, the relay is not told who sends; without one it is again.
    Unidentified {
        token: Option<DeliveryToken>,
        reply: Reply<()>,
    },
    /// Sends a file. Answered when all of its messages are durable.
    SendFile {
        transfer: TransferId,
        record: Box<SendingFileRecord>,
        reply: FileQueued,
    },
    /// The app calls a file off.
    CancelFile {
        transfer: TransferId,
        reply: Reply<()>,
    },
    /// The receiver of a file has said how it ended.
    FileReply {
        transfer: TransferId,
        outcome: Outcome,
        reply: Reply<()>,
    },
    /// The peer has said where it reads, in a message of this epoch of its.
    Reads {
        epoch: Epoch,
        mailboxes: Vec<Mailbox>,
        reply: Reply<()>,
    },
    /// The app says at which relays the peer reads, as long as it does not say so itself.
    ReadsAt {
        relays: Vec<String>,
        reply: Reply<()>,
    },
    /// Whether the peer may learn where this host is.
    Exposed(bool),
    /// Makes sure the session is loaded and bound. Unanswered if it ends first.
    Wake {
        reply: oneshot::Sender<()>,
    },
    Close {
        reply: oneshot::Sender<()>,
    },
    /// What was decided about the peer has changed.
    Trust {
        reply: oneshot::Sender<()>,
    },
}

/// What comes to the task.
pub(crate) enum Input {
    Command(Command),
    Bind(Binding),
    Lost {
        generation: Generation,
    },
    Packet(Arrival),
    /// There was no room here for something out of the mailbox: it is to be asked for again.
    Missed {
        generation: Generation,
    },
    Accepted {
        generation: Generation,
        envelope: EnvelopeId,
    },
    Refused {
        generation: Generation,
        envelope: EnvelopeId,
        reason: Refusal,
    },
    Presence {
        generation: Generation,
        online: bool,
    },
    /// This host may be somewhere else now.
    NetworkChanged,
}

impl Input {
    /// Whether it is of something that lies in a mailbox: it comes again if it is asked for.
    pub(crate) const fn is_mail(&self) -> bool {
        match self {
            Self::Packet(arrival) => arrival.envelope.is_some(),
            Self::Missed { .. } => true,
            Self::Command(_)
            | Self::Bind(_)
            | Self::Lost { .. }
            | Self::Accepted { .. }
            | Self::Refused { .. }
            | Self::Presence { .. }
            | Self::NetworkChanged => false,
        }
    }
}

/// A packet that came over a link.
pub(crate) struct Arrival {
    pub(crate) generation: Generation,
    /// What it came in, if that lies in a mailbox.
    pub(crate) envelope: Option<EnvelopeId>,
    pub(crate) packet: Bytes,
    /// Whether nobody but itself says that it is from the peer.
    pub(crate) claimed: bool,
}

/// A link, passed in by value: its owner is the binding and nobody looks it up (I5).
pub(crate) struct Binding {
    pub(crate) generation: Generation,
    pub(crate) class: LinkClass,
    /// Whether it is over a relay of this node's, where its mailbox is.
    pub(crate) home: bool,
    pub(crate) rank: u8,
    pub(crate) transport: &'static str,
    pub(crate) address: String,
    pub(crate) link: mpsc::Sender<ToLink>,
    /// Who is to hear when the session gives the link up, to bind another one.
    pub(crate) given_up: Option<mpsc::Sender<GivenUp>>,
    /// Whether the session had a link over the same connection before: what that one left
    /// unanswered is on its way for the relay, and has to be asked for again.
    pub(crate) again: bool,
}

/// A link that its session has given up.
pub(crate) struct GivenUp {
    pub(crate) peer: PeerId,
    pub(crate) generation: Generation,
}

/// What a session hands to a link.
pub(crate) struct ToLink {
    pub(crate) generation: Generation,
    /// What a link to the peer itself may hold it up by.
    pub(crate) lane: Lane,
    pub(crate) item: Outgoing,
}

impl ToLink {
    /// What the task of a relay says itself, for no session.
    pub(crate) fn from_relay(item: Outgoing) -> Self {
        Self {
            generation: Generation::at_start(0),
            lane: Lane::Interactive,
            item,
        }
    }
}

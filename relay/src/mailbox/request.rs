//! What connections bring to the writer.

use std::collections::VecDeque;

use bytes::Bytes;
use outlive_core::transport::{Class, Refusal, Sender, TokenHash};
use outlive_core::{EnvelopeId, PeerId};
use tokio::sync::{mpsc, oneshot};

use super::Mailboxes;

/// The writer has ended.
#[derive(Debug)]
pub(crate) struct WriterGone;

/// The requests of one connection, on their way to the writer. What finds no room there waits here,
/// so that the connection hears meanwhile what else there is: no more of them than it reads before it
/// waits for all to be gone.
pub(crate) struct Bringing {
    mailboxes: Mailboxes,
    waiting: VecDeque<Request>,
}

impl Bringing {
    pub(crate) const fn to(mailboxes: Mailboxes) -> Self {
        let waiting = VecDeque::new();
        Self { mailboxes, waiting }
    }

    pub(crate) fn bring(&mut self, request: Request) -> Result<(), WriterGone> {
        if self.waits() {
            self.waiting.push_back(request);
            return Ok(());
        }
        match self.mailboxes.try_send(request) {
            Ok(()) => Ok(()),
            Err(mpsc::error::TrySendError::Full(request)) => {
                self.waiting.push_back(request);
                Ok(())
            }
            Err(mpsc::error::TrySendError::Closed(_)) => Err(WriterGone),
        }
    }

    /// Whether something waits for room.
    pub(crate) fn waits(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Hands over the next, when there is room. Cancellation-safe. Cut off, it keeps no place in the
    /// line: a connection whose client takes nothing could hold room that it does not use.
    pub(crate) async fn go_on(&mut self) -> Result<(), WriterGone> {
        let room = self.mailboxes.reserve().await.map_err(|_| WriterGone)?;
        if let Some(request) = self.waiting.pop_front() {
            room.send(request);
        }
        Ok(())
    }

    /// Forgets what waits: nobody is there for its answers.
    pub(crate) fn give_up(&mut self) {
        self.waiting.clear();
    }

    /// Hands over all that waits. Cancellation-safe.
    pub(crate) async fn hand_over(&mut self) -> Result<(), WriterGone> {
        while self.waits() {
            self.go_on().await?;
        }
        Ok(())
    }
}

/// What becomes of an envelope.
pub(crate) type Answer = Result<(), Refusal>;

/// An envelope to keep.
pub(crate) struct Put {
    pub(crate) to: PeerId,
    pub(crate) class: Class,
    pub(crate) ttl: u32,
    pub(crate) packet: Bytes,
}

pub(crate) enum Request {
    Put(Puts),
    Change(Change),
}

impl Request {
    /// Keep these; each is answered, in order, when all of that is durable.
    pub(crate) fn put(from: Sender, puts: Vec<Put>) -> (Self, oneshot::Receiver<Vec<Answer>>) {
        let (reply, answers) = oneshot::channel();
        let puts = Puts {
            from,
            left: puts.into_iter(),
            answers: Vec::new(),
            reply,
        };
        (Self::Put(puts), answers)
    }
}

/// Envelopes of one sender, on which more than one step may work.
pub(crate) struct Puts {
    pub(super) from: Sender,
    pub(super) left: std::vec::IntoIter<Put>,
    /// What became of those before.
    pub(super) answers: Vec<Answer>,
    pub(super) reply: oneshot::Sender<Vec<Answer>>,
}

/// What a recipient says of its mailbox. It hears no answer, so it does not say it again.
pub(crate) struct Change {
    pub(crate) recipient: PeerId,
    pub(crate) what: What,
}

pub(crate) enum What {
    /// The recipient has these.
    Acknowledge {
        sender: Sender,
        numbers: Vec<EnvelopeId>,
    },
    /// These tokens open the mailbox from now on, and no others.
    Tokens(Vec<TokenHash>),
}

impl Change {
    /// How many records it may concern.
    pub(super) const fn size(&self) -> usize {
        match &self.what {
            What::Acknowledge { numbers, .. } => numbers.len(),
            What::Tokens(_) => 1,
        }
    }

    /// Leaves as many envelopes in it, and returns the change of the others, if there are any.
    pub(super) fn split_off(&mut self, most: usize) -> Option<Self> {
        let recipient = self.recipient;
        match &mut self.what {
            What::Acknowledge { sender, numbers } if numbers.len() > most => {
                let (sender, numbers) = (*sender, numbers.split_off(most));
                let what = What::Acknowledge { sender, numbers };
                Some(Self { recipient, what })
            }
            What::Acknowledge { .. } | What::Tokens(_) => None,
        }
    }
}

//! What connections bring to the writer.

use bytes::Bytes;
use outlive_core::transport::{Class, Refusal, Sender, TokenHash};
use outlive_core::{EnvelopeId, PeerId};
use tokio::sync::oneshot;

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

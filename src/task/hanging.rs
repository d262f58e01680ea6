//! What hangs on a write: who is to hear that it is durable, and what holds from then on.

use std::collections::BTreeMap;
use std::sync::Arc;

use outlive_core::engine::Ticket;
use outlive_core::{ChannelId, Position, TransferId};
use tokio::sync::oneshot;

use super::input::{FileQueued, Reply};
use super::unidentified::Naming;
use crate::error::Error;
use crate::files::Outcome;
use crate::hub::Hub;
use crate::receipt::Receipt;

/// Who waits for it.
pub(super) enum Waiter {
    Send(Reply<Receipt>, Receipt),
    File(FileQueued, (Position, Position)),
    /// Who holds a file hears how it ended.
    Ended(Arc<Hub>, TransferId, Outcome),
    Noted(Reply<()>),
    HandAgain(Reply<bool>),
    Cancel(oneshot::Sender<bool>),
    Commit(Reply<()>, Arc<Hub>, (ChannelId, Position)),
}

impl Waiter {
    pub(super) fn answer(self, result: Result<(), Error>) {
        // Nobody may be waiting any more: the caller went away.
        match self {
            Self::File(reply, positions) => {
                drop(reply.send(result.map(|()| positions).map_err(Into::into)));
            }
            // What is not written has not ended: it does again, or is told when it is loaded.
            Self::Ended(hub, transfer, outcome) => {
                if result.is_ok() {
                    hub.files.ended(transfer, outcome);
                }
            }
            Self::Noted(reply) => drop(reply.send(result)),
            Self::Send(reply, receipt) => drop(reply.send(result.map(|()| receipt))),
            // What is not written may go out yet.
            Self::Cancel(reply) => drop(reply.send(result.is_ok())),
            Self::HandAgain(reply) => drop(reply.send(result.map(|()| true))),
            // What is not written comes again when the session is loaded.
            Self::Commit(reply, hub, of) => {
                if result.is_ok() {
                    hub.inboxes.end_leaving(of);
                }
                drop(reply.send(result));
            }
        }
    }
}

/// What hangs on one write.
#[derive(Default)]
pub(super) struct Hanging {
    /// Who is to hear that it is durable.
    pub(super) waiters: Vec<Waiter>,
    /// Messages in it that were sent under a key: the store does not show them yet.
    pub(super) once: BTreeMap<[u8; 32], Ticket>,
    /// Whether the relay is told who sends from then on, if that changes.
    pub(super) naming: Option<Naming>,
}

impl Hanging {
    /// Answers all. They are bounded by what the session's inputs hold while one write is made, and by
    /// the files on their way.
    pub(super) fn answer(&mut self, result: &Result<(), Error>) {
        self.once.clear();
        self.naming = None;
        for waiter in self.waiters.drain(..) {
            waiter.answer(result.clone());
        }
    }
}

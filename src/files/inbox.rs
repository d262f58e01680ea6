//! The receiving side: files that the peer offers, for one consumer.
//!
//! What comes is taken in steps, one at a time: the step under way is kept in the inbox, so that
//! who ceases to wait for it loses nothing. A step takes a message, or several parts of a file that
//! follow one another, for the disk is waited for once a step. It ends with the commit of what it
//! took, after the disk has what was in it; so a crash at any point has the messages come again, and
//! offsets decide where they go.

use std::collections::VecDeque;
use std::fmt;

use futures_util::future::BoxFuture;
use outlive_core::TransferId;
use outlive_core::wire::file::StopReason;
use tokio::sync::oneshot::{self, error::TryRecvError};

use super::FileProgress;
use super::error::FileError;
use super::offer::FileOffer;
use super::received::ReceivedFile;
use super::receiving::{IncomingFiles, Receiving};
use super::step::Step;
use crate::delivery::Delivery;
use crate::inbox::Inbox;
use crate::route::Route;
use crate::task::pending_or;

/// Messages that are taken out of the inbox at once: so many parts, and MiB, the disk is waited for
/// once.
const AT_ONCE: usize = 4;

/// What happens to the files that a peer sends.
#[derive(Debug)]
pub enum FileEvent {
    /// The peer has a file for us. What it sends behind it waits until this is decided.
    Offered(FileOffer),
    /// More of a file is here.
    Progress(TransferId, FileProgress),
    /// A file is whole, checked, and has its name.
    Received(ReceivedFile),
    /// A file will not come. What there was of it is removed. [`StopReason::Failed`] says that what
    /// was put together of it was gone.
    Failed(TransferId, StopReason),
}

/// The files that the peer of a session sends, for one consumer. What is behind an offer waits until
/// that is decided, as messages wait behind one another; chat does not.
pub struct FileInbox {
    inbox: Inbox,
    /// What has come and is not taken yet.
    here: VecDeque<Delivery>,
    /// What is to be told: of a step first what happened, then what failed.
    events: VecDeque<Result<FileEvent, FileError>>,
    state: State,
}

/// What the inbox is at.
pub(super) enum State {
    /// It waits for a message.
    Idle(IncomingFiles),
    /// What was taken could not be dealt with: it is tried again.
    Again(IncomingFiles, Step),
    /// It takes a message.
    Taking(Option<BoxFuture<'static, Taken>>),
    /// It waits for what the app decides about an offer.
    Undecided(IncomingFiles, Step, oneshot::Receiver<Receiving>),
}

/// What a step ends with: where the inbox is then, what happened, and whether the step failed, which
/// undoes nothing of that.
pub(super) type Taken = (State, Vec<FileEvent>, Result<(), FileError>);

impl fmt::Debug for FileInbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileInbox")
            .field("inbox", &self.inbox)
            .finish_non_exhaustive()
    }
}

impl Drop for FileInbox {
    fn drop(&mut self) {
        self.inbox.route().hub().files.let_go();
    }
}

impl FileInbox {
    /// The files of a session, with those that were accepted before.
    pub(crate) async fn open(route: &Route, inbox: Inbox) -> Result<Self, FileError> {
        let (incoming, events) = IncomingFiles::open(route).await?;
        Ok(Self {
            inbox,
            here: VecDeque::new(),
            events: events.into(),
            state: State::Idle(incoming),
        })
    }

    /// What happens next. Cancellation-safe.
    ///
    /// # Errors
    /// [`FileError::Io`] if the disk is full or can't be written: nothing is lost, and the next call
    /// tries again; of a file that could not be looked at when the files were taken, whoever takes them
    /// next. [`FileError::Session`].
    pub async fn next(&mut self) -> Result<FileEvent, FileError> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return event;
            }
            self.advance(false).await?;
        }
    }

    /// Calls off a file that was accepted; the peer hears it. Returns whether there was one. What
    /// else happened meanwhile comes from [`next`](Self::next).
    ///
    /// Dropped half-way, the peer may hear it although what came of the file is not removed yet: call
    /// it again.
    ///
    /// # Errors
    /// [`FileError::Session`], and [`FileError::Io`] if what is there of it can't be removed.
    pub async fn cancel(&mut self, transfer: TransferId) -> Result<bool, FileError> {
        loop {
            self.advance(true).await?;
            if !matches!(self.state, State::Taking(_)) {
                break;
            }
        }
        let (State::Idle(incoming) | State::Again(incoming, _) | State::Undecided(incoming, ..)) =
            &mut self.state
        else {
            return Ok(false);
        };
        if !incoming.has(transfer) {
            return Ok(false);
        }
        incoming.cancel(transfer).await?;
        Ok(true)
    }

    /// Goes one step on. `settle` is to end with the step under way, and with one that is decided.
    async fn advance(&mut self, settle: bool) -> Result<(), FileError> {
        // Each arm waits for something that stays where it is, and only then takes the state.
        let more = match &mut self.state {
            State::Taking(taking) => {
                let (state, events, taken) = pending_or(taking).await;
                self.state = state;
                self.events.extend(events.into_iter().map(Ok));
                self.events.extend(taken.err().map(Err));
                return Ok(());
            }
            State::Undecided(_, _, decision) if settle => match decision.try_recv() {
                Err(TryRecvError::Empty) => return Ok(()),
                decided => More::Decision(decided.ok()),
            },
            _ if settle => return Ok(()),
            State::Idle(_) => {
                gather(&mut self.inbox, &mut self.here).await?;
                More::Messages
            }
            State::Again(..) => More::Again,
            State::Undecided(_, _, decision) => {
                let decided = tokio::select! {
                    decided = decision => decided.ok(),
                    () = self.inbox.route().ended() => return Err(self.inbox.route().gone().into()),
                };
                More::Decision(decided)
            }
        };
        let taking: BoxFuture<'static, Taken> = match (self.state.leave(), more) {
            (State::Idle(incoming), More::Messages) => match Step::next(&mut self.here) {
                Some(step) => Box::pin(incoming.take(step)),
                None => {
                    self.state = State::Idle(incoming);
                    return Ok(());
                }
            },
            (State::Again(incoming, step), _) => Box::pin(incoming.take(step)),
            (State::Undecided(incoming, step, _), More::Decision(decision)) => {
                Box::pin(incoming.decided(step, decision))
            }
            (state, _) => {
                self.state = state;
                return Ok(());
            }
        };
        self.state = State::Taking(Some(taking));
        Ok(())
    }
}

/// Waits for a message, and takes what is here with it. Cancellation-safe: what was taken is in `here`.
async fn gather(inbox: &mut Inbox, here: &mut VecDeque<Delivery>) -> Result<(), FileError> {
    if here.is_empty() {
        here.push_back(inbox.next().await?);
    }
    while here.len() < AT_ONCE {
        match inbox.try_next().await? {
            Some(delivery) => here.push_back(delivery),
            None => break,
        }
    }
    Ok(())
}

/// What an inbox goes on with.
enum More {
    Messages,
    Again,
    Decision(Option<Receiving>),
}

impl State {
    fn leave(&mut self) -> Self {
        std::mem::replace(self, Self::Taking(None))
    }
}

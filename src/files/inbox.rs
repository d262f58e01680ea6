//! The receiving side: files that the peer offers, for one consumer.
//!
//! What comes is taken in steps, one at a time: the step under way is kept in the inbox, so that
//! who ceases to wait for it loses nothing. A step ends with the commit of the message it took, after
//! the disk has what was in it; so a crash at any point has the message come again, and offsets
//! decide where it goes.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::path::{Path, PathBuf};

use futures_util::future::BoxFuture;
use outlive_core::engine::SendOptions;
use outlive_core::record::{Key, ReceivingFileRecord, Record};
use outlive_core::store::{Batch, ReadLimit};
use outlive_core::wire::file::{FileInfo, FileMessage, StopReason};
use outlive_core::{ChannelId, PeerId, TransferId};
use tokio::sync::oneshot;
use tracing::{debug, warn};

use super::disk::{self, blocking};
use super::error::FileError;
use super::{FileProgress, name};
use crate::error::Error;
use crate::inbox::{Delivery, Inbox};
use crate::session::Route;
use crate::task::{Command, pending_or};

/// Files that are being received from one peer at once. One more is stopped.
const RECEIVING_FILES: usize = 1_024;

/// What a file that is not whole yet ends with.
const PART: &str = ".part";

/// What happens to the files that a peer sends.
#[derive(Debug)]
pub enum FileEvent {
    /// The peer has a file for us. What it sends behind it waits until this is decided.
    Offered(FileOffer),
    /// More of a file is here.
    Progress(TransferId, FileProgress),
    /// A file is whole, checked, and has its name.
    Received(ReceivedFile),
    /// A file will not come. What there was of it is removed.
    Failed(TransferId, StopReason),
}

/// A file that the peer offers. Dropped without having been accepted, it is declined.
pub struct FileOffer {
    route: Route,
    transfer: TransferId,
    info: FileInfo,
    decision: Option<oneshot::Sender<Receiving>>,
}

impl fmt::Debug for FileOffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileOffer")
            .field("transfer", &self.transfer)
            .field("info", &self.info)
            .finish_non_exhaustive()
    }
}

impl FileOffer {
    /// Who offers it.
    #[must_use]
    pub fn from(&self) -> PeerId {
        self.route.hub().peer
    }

    /// The name of the transfer, the same at the peer.
    #[must_use]
    pub const fn transfer(&self) -> TransferId {
        self.transfer
    }

    /// What the peer calls it: any text at all. Not a path, and not safe to make one of; show it
    /// with care.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.info.name
    }

    /// Its bytes.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.info.size
    }

    /// The BLAKE3 hash of its content.
    #[must_use]
    pub const fn hash(&self) -> &[u8; 32] {
        &self.info.hash
    }

    /// Takes the file, into this directory, under a name like its own that is free there and
    /// nowhere else. Its parts lie in `NAME.part` until it is whole.
    ///
    /// Dropped half-way, the offer may be taken to its end or be declined.
    ///
    /// # Errors
    /// [`FileError::Io`] if the directory can't be written: the offer stands, for another one.
    /// [`FileError::Session`].
    pub async fn accept(&mut self, directory: impl Into<PathBuf>) -> Result<(), FileError> {
        let directory = directory.into();
        let name = name::safe(&self.info.name);
        let into = directory.clone();
        let (directory, part) = blocking(move || {
            let found = std::fs::canonicalize(&into);
            let directory = found.map_err(FileError::io("find", into))?;
            let part = disk::create(&directory, &name, PART)?;
            Ok((text(directory)?, text(part)?))
        })
        .await?;
        let record = ReceivingFileRecord {
            info: self.info.clone(),
            directory,
            part,
            whole: None,
        };
        let mut batch = Batch::new();
        let key = Key::ReceivingFile(self.from(), self.transfer);
        batch.put(key.to_bytes(), record.to_bytes());
        let store = &self.route.inner().store;
        store.commit(batch).await.map_err(Error::from)?;
        if let Some(decision) = self.decision.take() {
            // The inbox may be gone: whoever takes it next finds the record.
            let _ = decision.send(Receiving { record, length: 0 });
        }
        Ok(())
    }

    /// Declines the file.
    pub fn decline(self) {}
}

fn text(path: PathBuf) -> Result<String, FileError> {
    let text = path.into_os_string().into_string();
    text.map_err(|path| FileError::Name(path.into()))
}

/// A file that is whole. Comes again when the inbox is taken anew, until it is committed.
pub struct ReceivedFile {
    route: Route,
    transfer: TransferId,
    record: ReceivingFileRecord,
    path: PathBuf,
}

impl fmt::Debug for ReceivedFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReceivedFile")
            .field("transfer", &self.transfer)
            .field("info", &self.record.info)
            .finish_non_exhaustive()
    }
}

impl ReceivedFile {
    /// The name of the transfer, the same at the peer.
    #[must_use]
    pub const fn transfer(&self) -> TransferId {
        self.transfer
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What the peer told of it, which is so but for the name.
    #[must_use]
    pub const fn info(&self) -> &FileInfo {
        &self.record.info
    }

    /// The app knows of the file: nothing of it is kept but the file itself.
    ///
    /// # Errors
    /// [`FileError::Session`].
    pub async fn commit(self) -> Result<(), FileError> {
        let mut batch = Batch::new();
        let key = Key::ReceivingFile(self.route.hub().peer, self.transfer);
        batch.delete(key.to_bytes());
        let store = &self.route.inner().store;
        Ok(store.commit(batch).await.map_err(Error::from)?)
    }
}

/// A file that was accepted.
#[derive(Debug)]
struct Receiving {
    record: ReceivingFileRecord,
    /// Bytes of it that are here.
    length: u64,
}

impl Receiving {
    fn progress(&self) -> FileProgress {
        FileProgress {
            done: self.length,
            size: self.record.info.size,
        }
    }
}

/// The files that the peer of a session sends, for one consumer. What is behind an offer waits until
/// that is decided, as messages wait behind one another; chat does not.
pub struct FileInbox {
    inbox: Inbox,
    events: VecDeque<FileEvent>,
    state: State,
}

/// What the inbox is at.
enum State {
    /// It waits for a message.
    Idle(Desk),
    /// A message could not be taken: it is tried again.
    Again(Desk, Delivery),
    /// It takes a message.
    Taking(Option<BoxFuture<'static, Taken>>),
    /// It waits for what the app decides about an offer.
    Undecided(Desk, Delivery, oneshot::Receiver<Receiving>),
}

type Taken = (State, Result<Vec<FileEvent>, FileError>);

impl fmt::Debug for FileInbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileInbox")
            .field("inbox", &self.inbox)
            .finish_non_exhaustive()
    }
}

impl FileInbox {
    /// The files of a session, with those that were accepted before.
    pub(crate) async fn open(route: &Route, inbox: Inbox) -> Result<Self, FileError> {
        let mut desk = Desk {
            route: route.clone(),
            receiving: BTreeMap::new(),
        };
        let events = desk.load().await?;
        Ok(Self {
            inbox,
            events: events.into(),
            state: State::Idle(desk),
        })
    }

    /// What happens next. Cancellation-safe.
    ///
    /// # Errors
    /// [`FileError::Io`] if the disk is full or can't be written: nothing is lost, and the next call
    /// tries again. [`FileError::Session`].
    pub async fn next(&mut self) -> Result<FileEvent, FileError> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Ok(event);
            }
            self.advance(false).await?;
        }
    }

    /// Calls off a file that was accepted; the peer hears it. Returns whether there was one. What
    /// else happened meanwhile comes from [`next`](Self::next).
    ///
    /// # Errors
    /// [`FileError::Session`], and [`FileError::Io`] if what is there of it can't be removed.
    pub async fn cancel(&mut self, transfer: TransferId) -> Result<bool, FileError> {
        while matches!(self.state, State::Taking(_)) {
            self.advance(true).await?;
        }
        let (State::Idle(desk) | State::Again(desk, _) | State::Undecided(desk, ..)) =
            &mut self.state
        else {
            return Ok(false);
        };
        if !desk.receiving.contains_key(&transfer) {
            return Ok(false);
        }
        desk.reply(FileMessage::Stop(transfer, StopReason::Cancelled))
            .await?;
        desk.remove(transfer).await?;
        Ok(true)
    }

    /// Goes one step on. `settle` is to end with the step under way.
    async fn advance(&mut self, settle: bool) -> Result<(), FileError> {
        // Each arm waits for something that stays where it is, and only then takes the state.
        let more = match &mut self.state {
            State::Taking(taking) => {
                let (state, taken) = pending_or(taking).await;
                self.state = state;
                self.events.extend(taken?);
                return Ok(());
            }
            _ if settle => return Ok(()),
            State::Idle(_) => More::Message(self.inbox.next().await?),
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
            (State::Idle(desk), More::Message(delivery)) | (State::Again(desk, delivery), _) => {
                Box::pin(desk.take(delivery))
            }
            (State::Undecided(desk, delivery, _), More::Decision(decision)) => {
                Box::pin(desk.decided(delivery, decision))
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

/// What an inbox goes on with.
enum More {
    Message(Delivery),
    Again,
    Decision(Option<Receiving>),
}

impl State {
    fn leave(&mut self) -> Self {
        std::mem::replace(self, Self::Taking(None))
    }
}

/// What is known of the files that come, and what is done with them.
struct Desk {
    route: Route,
    receiving: BTreeMap<TransferId, Receiving>,
}

/// How a message was dealt with.
enum Dealt {
    Taken(Vec<FileEvent>),
    /// The app is to decide.
    Offered(FileOffer, oneshot::Receiver<Receiving>),
}

impl Desk {
    async fn load(&mut self) -> Result<Vec<FileEvent>, FileError> {
        let limit = ReadLimit {
            records: RECEIVING_FILES,
            bytes: usize::MAX,
        };
        let range = Key::receiving_files(self.route.hub().peer);
        let store = &self.route.inner().store;
        let rows = store.range(range, limit).await.map_err(Error::from)?;
        let mut events = Vec::new();
        for (key, value) in rows {
            let Ok(Key::ReceivingFile(_, transfer)) = Key::from_bytes(&key) else {
                continue;
            };
            let record = ReceivingFileRecord::from_bytes(&value).map_err(Error::from)?;
            let part = PathBuf::from(&record.part);
            let length = blocking(move || disk::length(&part)).await?;
            match (&record.whole, length) {
                (Some(whole), None) => {
                    let path = PathBuf::from(whole);
                    // Said before, most likely.
                    self.reply(FileMessage::Done(transfer)).await?;
                    events.push(self.received(transfer, record, path));
                }
                (_, length) => {
                    let length = length.unwrap_or(0);
                    self.receiving
                        .insert(transfer, Receiving { record, length });
                }
            }
        }
        Ok(events)
    }

    fn received(
        &self,
        transfer: TransferId,
        record: ReceivingFileRecord,
        path: PathBuf,
    ) -> FileEvent {
        FileEvent::Received(ReceivedFile {
            route: self.route.clone(),
            transfer,
            record,
            path,
        })
    }

    async fn take(mut self, delivery: Delivery) -> Taken {
        match self.deal(&delivery).await {
            Ok(Dealt::Taken(events)) => self.commit(delivery, events).await,
            Ok(Dealt::Offered(offer, decision)) => (
                State::Undecided(self, delivery, decision),
                Ok(vec![FileEvent::Offered(offer)]),
            ),
            Err(error) => (State::Again(self, delivery), Err(error)),
        }
    }

    /// The app has decided about the offer in `delivery`: if it took it, here is where it goes.
    async fn decided(mut self, delivery: Delivery, decision: Option<Receiving>) -> Taken {
        let Ok(Some(message)) = FileMessage::decode(delivery.payload()) else {
            return self.commit(delivery, Vec::new()).await;
        };
        let transfer = message.transfer();
        match decision {
            Some(receiving) => {
                self.receiving.insert(transfer, receiving);
                // It is known now; an empty file is whole already.
                self.take(delivery).await
            }
            None => {
                let declined = FileMessage::Stop(transfer, StopReason::Declined);
                match self.reply(declined).await {
                    Ok(()) => self.commit(delivery, Vec::new()).await,
                    // It is offered again.
                    Err(error) => (State::Again(self, delivery), Err(error)),
                }
            }
        }
    }

    async fn commit(self, delivery: Delivery, events: Vec<FileEvent>) -> Taken {
        match delivery.commit().await {
            Ok(()) => (State::Idle(self), Ok(events)),
            // It comes again when the inbox is taken anew.
            Err(error) => (State::Idle(self), Err(error.into())),
        }
    }

    async fn deal(&mut self, delivery: &Delivery) -> Result<Dealt, FileError> {
        let message = match FileMessage::decode(delivery.payload()) {
            Ok(Some(message)) => message,
            Ok(None) => return Ok(Dealt::Taken(Vec::new())),
            Err(error) => {
                warn!(id = %delivery.id(), %error, "a malformed message about a file");
                return Ok(Dealt::Taken(Vec::new()));
            }
        };
        let events = match message {
            FileMessage::Begin(transfer, info) => {
                if let Some(receiving) = self.receiving.get(&transfer) {
                    self.go_on(transfer, receiving.length).await?
                } else if self.receiving.len() >= RECEIVING_FILES {
                    self.reply(FileMessage::Stop(transfer, StopReason::Failed))
                        .await?;
                    Vec::new()
                } else {
                    let (decision, decided) = oneshot::channel();
                    let offer = FileOffer {
                        route: self.route.clone(),
                        transfer,
                        info,
                        decision: Some(decision),
                    };
                    return Ok(Dealt::Offered(offer, decided));
                }
            }
            FileMessage::Part {
                transfer,
                offset,
                bytes,
            } => {
                let Some(receiving) = self.receiving.get_mut(&transfer) else {
                    return Ok(Dealt::Taken(Vec::new()));
                };
                let end = offset.checked_add(bytes.len() as u64);
                let end = end.filter(|end| *end <= receiving.record.info.size);
                let Some(end) = end.filter(|_| offset <= receiving.length) else {
                    return Ok(Dealt::Taken(self.spoiled(transfer).await?));
                };
                let part = PathBuf::from(&receiving.record.part);
                blocking(move || disk::write(&part, offset, &bytes)).await?;
                self.go_on(transfer, end).await?
            }
            FileMessage::Stop(transfer, reason) => {
                if self.receiving.contains_key(&transfer) {
                    self.remove(transfer).await?;
                    vec![FileEvent::Failed(transfer, reason)]
                } else {
                    Vec::new()
                }
            }
            FileMessage::Done(transfer) => {
                debug!(%transfer, "the word of a receiver on the channel of senders");
                Vec::new()
            }
        };
        Ok(Dealt::Taken(events))
    }

    /// A file is so far: if it is whole, it is checked and gets its name.
    async fn go_on(
        &mut self,
        transfer: TransferId,
        length: u64,
    ) -> Result<Vec<FileEvent>, FileError> {
        let Some(receiving) = self.receiving.get_mut(&transfer) else {
            return Ok(Vec::new());
        };
        receiving.length = receiving.length.max(length);
        let progress = FileEvent::Progress(transfer, receiving.progress());
        if receiving.length < receiving.record.info.size {
            return Ok(vec![progress]);
        }
        let record = receiving.record.clone();
        let (part, info) = (PathBuf::from(&record.part), record.info.clone());
        let checked = part.clone();
        let good = blocking(move || disk::holds(&checked, info.size, info.hash)).await?;
        if !good {
            return self.spoiled(transfer).await;
        }
        let record = self.named(transfer, record).await?;
        let whole = PathBuf::from(record.whole.as_deref().unwrap_or_default());
        let to = whole.clone();
        blocking(move || disk::rename(&part, &to)).await?;
        self.reply(FileMessage::Done(transfer)).await?;
        self.receiving.remove(&transfer);
        Ok(vec![progress, self.received(transfer, record, whole)])
    }

    /// Finds the name of a file that is whole, and writes down which it is.
    async fn named(
        &mut self,
        transfer: TransferId,
        mut record: ReceivingFileRecord,
    ) -> Result<ReceivingFileRecord, FileError> {
        if record.whole.is_some() {
            return Ok(record);
        }
        let directory = PathBuf::from(&record.directory);
        let name = name::safe(&record.info.name);
        let whole = blocking(move || disk::create(&directory, &name, "")).await?;
        record.whole = Some(text(whole)?);
        let mut batch = Batch::new();
        let key = Key::ReceivingFile(self.route.hub().peer, transfer);
        batch.put(key.to_bytes(), record.to_bytes());
        let store = &self.route.inner().store;
        store.commit(batch).await.map_err(Error::from)?;
        if let Some(receiving) = self.receiving.get_mut(&transfer) {
            receiving.record = record.clone();
        }
        Ok(record)
    }

    /// What came is not what was promised.
    async fn spoiled(&mut self, transfer: TransferId) -> Result<Vec<FileEvent>, FileError> {
        let reason = StopReason::Corrupt;
        self.reply(FileMessage::Stop(transfer, reason)).await?;
        self.remove(transfer).await?;
        Ok(vec![FileEvent::Failed(transfer, reason)])
    }

    /// Lets go of what there is of a file.
    async fn remove(&mut self, transfer: TransferId) -> Result<(), FileError> {
        let Some(receiving) = self.receiving.get(&transfer) else {
            return Ok(());
        };
        let record = receiving.record.clone();
        blocking(move || {
            disk::remove(Path::new(&record.part))?;
            // Taken for it, and empty yet.
            record
                .whole
                .map_or(Ok(()), |whole| disk::remove(Path::new(&whole)))
        })
        .await?;
        let mut batch = Batch::new();
        let key = Key::ReceivingFile(self.route.hub().peer, transfer);
        batch.delete(key.to_bytes());
        let store = &self.route.inner().store;
        store.commit(batch).await.map_err(Error::from)?;
        self.receiving.remove(&transfer);
        Ok(())
    }

    /// Tells the sender, durably.
    async fn reply(&self, message: FileMessage) -> Result<(), FileError> {
        let (reply, answer) = oneshot::channel();
        let command = Command::Send {
            channel: ChannelId::FILE_REPLIES,
            payload: message.to_bytes(),
            options: SendOptions::default(),
            wait: true,
            reply,
        };
        self.route.send(command).await?;
        answer.await.map_err(|_| self.route.gone())??;
        Ok(())
    }
}

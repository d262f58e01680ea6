//! A file that the peer offers, until the app has decided.

use std::fmt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use outlive_core::record::{Key, ReceivingFileRecord, ReceivingState, Record};
use outlive_core::store::Batch;
use outlive_core::wire::file::FileInfo;
use outlive_core::{PeerId, TransferId};
use tokio::sync::oneshot;
use tracing::debug;

use super::disk::{self, blocking};
use super::error::FileError;
use super::name;
use super::receiving::Receiving;
use crate::error::Error;
use crate::route::Route;

/// What a file that is not whole yet ends with. The transfer stands before it, for once one of the
/// same name is whole, nothing else may lie where that was put together.
const PART: &str = ".part";

/// A file that the peer offers. Dropped without having been accepted, it is declined.
pub struct FileOffer {
    file: Offered,
    /// None if it was decided about.
    decision: Option<Decision>,
}

/// Says where the file goes. Dropped, it is declined.
type Decision = oneshot::Sender<Receiving>;

/// How taking a file ended. If it failed, the offer stands.
type Accepted = Result<(), (Decision, FileError)>;

#[derive(Clone)]
struct Offered {
    route: Route,
    transfer: TransferId,
    info: FileInfo,
}

impl fmt::Debug for FileOffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileOffer")
            .field("transfer", &self.file.transfer)
            .field("info", &self.file.info)
            .finish_non_exhaustive()
    }
}

impl FileOffer {
    pub(super) fn new(
        route: Route,
        transfer: TransferId,
        info: FileInfo,
    ) -> (Self, oneshot::Receiver<Receiving>) {
        let (decision, decided) = oneshot::channel();
        let offer = Self {
            file: Offered {
                route,
                transfer,
                info,
            },
            decision: Some(decision),
        };
        (offer, decided)
    }

    /// Who offers it.
    #[must_use]
    pub fn from(&self) -> PeerId {
        self.file.route.hub().peer
    }

    /// The name of the transfer, the same at the peer.
    #[must_use]
    pub const fn transfer(&self) -> TransferId {
        self.file.transfer
    }

    /// What the peer calls it: any text at all. Not a path, and not safe to make one of; show it
    /// with care.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.file.info.name
    }

    /// Its bytes.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.file.info.size
    }

    /// The BLAKE3 hash of its content.
    #[must_use]
    pub const fn hash(&self) -> &[u8; 32] {
        &self.file.info.hash
    }

    /// Takes the file, into this directory, under a name like its own that is free there and
    /// nowhere else. Its parts lie in `NAME.TRANSFER.part` until it is whole.
    ///
    /// Dropped half-way, the file is declined, unless it had been taken already.
    ///
    /// # Errors
    /// [`FileError::Io`] if the directory can't be written, [`FileError::Name`] if its path is not UTF-8:
    /// the offer stands, for another one.
    /// [`FileError::InboxDropped`] if the inbox is gone that offered it. [`FileError::Session`], and
    /// [`FileError::Decided`] if the file was accepted before, or that was given up half-way.
    pub async fn accept(&mut self, directory: impl Into<PathBuf>) -> Result<(), FileError> {
        let decision = self.decision.take().ok_or(FileError::Decided)?;
        let (reply, accepted) = oneshot::channel();
        let accept = self.file.clone().accept(directory.into(), decision, reply);
        // A task of its own, so that nothing is left half done.
        self.file.route.inner().tasks.spawn(accept);
        match accepted.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err((decision, error))) => {
                self.decision = Some(decision);
                Err(error)
            }
            Err(_) => Err(self.file.route.gone().into()),
        }
    }

    /// Declines the file.
    pub fn decline(self) {}
}

impl Offered {
    /// Takes the file. If nobody waits for that any more, it is undone.
    async fn accept(
        self,
        directory: PathBuf,
        decision: Decision,
        reply: oneshot::Sender<Accepted>,
    ) {
        // Whoever takes the files next looks for a record of this one when this is over.
        let _turn = self.route.hub().files.accepting.acquire().await;
        if decision.is_closed() {
            return drop(reply.send(Err((decision, FileError::InboxDropped))));
        }
        let record = match self.take(directory).await {
            Ok(record) => record,
            Err(error) => return drop(reply.send(Err((decision, error)))),
        };
        if decision.is_closed() || reply.is_closed() {
            match self.undo(&record).await {
                Ok(()) => return drop(reply.send(Err((decision, FileError::InboxDropped)))),
                Err(error) => {
                    debug!(transfer = %self.transfer, %error, "a file is taken: that can't be undone");
                }
            }
        }
        // The inbox may be gone: whoever takes it next finds the record.
        let _ = decision.send(Receiving {
            record,
            length: Some(0),
        });
        // Said last, for who hears it may call the file off at once. Nobody may wait for it.
        let _ = reply.send(Ok(()));
    }

    async fn take(&self, directory: PathBuf) -> Result<ReceivingFileRecord, FileError> {
        let name = name::safe(&self.info.name);
        let ending = format!(".{}{PART}", self.transfer);
        let (directory, part) = blocking(move || {
            let found = std::fs::canonicalize(&directory);
            let directory = text(found.map_err(FileError::io("find", directory))?)?;
            let part = disk::create_part(Path::new(&directory), &name, &ending)?;
            // Its parts are acknowledged from now on, and it has to be found again.
            disk::sync_name(&part).inspect_err(|_| drop(disk::remove(&part)))?;
            Ok((directory, text(part)?))
        })
        .await?;
        let record = ReceivingFileRecord {
            info: self.info.clone(),
            directory,
            part,
            state: ReceivingState::Coming,
        };
        let mut batch = Batch::new();
        batch.put(self.key(), record.to_bytes());
        let store = &self.route.inner().store;
        if let Err(error) = store.commit(batch).await {
            blocking(move || disk::remove(Path::new(&record.part))).await?;
            return Err(Error::from(error).into());
        }
        Ok(record)
    }

    async fn undo(&self, record: &ReceivingFileRecord) -> Result<(), FileError> {
        let part = PathBuf::from(&record.part);
        blocking(move || disk::remove(&part)).await?;
        let mut batch = Batch::new();
        batch.delete(self.key());
        let store = &self.route.inner().store;
        Ok(store.commit(batch).await.map_err(Error::from)?)
    }

    fn key(&self) -> Bytes {
        Key::ReceivingFile(self.route.hub().peer, self.transfer).to_bytes()
    }
}

pub(super) fn text(path: PathBuf) -> Result<String, FileError> {
    let text = path.into_os_string().into_string();
    text.map_err(|path| FileError::Name(path.into()))
}

//! A file that the peer offers, until the app has decided.

use std::fmt;
use std::path::{Path, PathBuf};

use outlive_core::record::{Key, ReceivingFileRecord, Record};
use outlive_core::store::Batch;
use outlive_core::wire::file::FileInfo;
use outlive_core::{PeerId, TransferId};
use tokio::sync::oneshot;

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
    pub(super) fn new(
        route: Route,
        transfer: TransferId,
        info: FileInfo,
    ) -> (Self, oneshot::Receiver<Receiving>) {
        let (decision, decided) = oneshot::channel();
        let offer = Self {
            route,
            transfer,
            info,
            decision: Some(decision),
        };
        (offer, decided)
    }

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
    /// nowhere else. Its parts lie in `NAME.TRANSFER.part` until it is whole.
    ///
    /// Dropped half-way, the offer may be taken to its end or be declined.
    ///
    /// # Errors
    /// [`FileError::Io`] if the directory can't be written: the offer stands, for another one.
    /// [`FileError::Session`].
    pub async fn accept(&mut self, directory: impl Into<PathBuf>) -> Result<(), FileError> {
        let directory = directory.into();
        let name = name::safe(&self.info.name);
        let ending = format!(".{}{PART}", self.transfer);
        let into = directory.clone();
        let (directory, part) = blocking(move || {
            let found = std::fs::canonicalize(&into);
            let directory = found.map_err(FileError::io("find", into))?;
            let part = disk::create(&directory, &name, &ending)?;
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
        if let Err(error) = store.commit(batch).await {
            blocking(move || disk::remove(Path::new(&record.part))).await?;
            return Err(Error::from(error).into());
        }
        if let Some(decision) = self.decision.take() {
            // The inbox may be gone: whoever takes it next finds the record.
            let _ = decision.send(Receiving { record, length: 0 });
        }
        Ok(())
    }

    /// Declines the file.
    pub fn decline(self) {}
}

pub(super) fn text(path: PathBuf) -> Result<String, FileError> {
    let text = path.into_os_string().into_string();
    text.map_err(|path| FileError::Name(path.into()))
}

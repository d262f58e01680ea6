//! A file that is whole, until the app knows of it.

use std::fmt;
use std::path::{Path, PathBuf};

use outlive_core::TransferId;
use outlive_core::record::{Key, ReceivingFileRecord};
use outlive_core::store::Batch;
use outlive_core::wire::file::FileInfo;

use super::error::FileError;
use crate::error::Error;
use crate::route::Route;

/// A file that is whole, and was received: what its user does with it from then on changes nothing. Comes
/// again when the inbox is taken anew, until it is committed, also if it was edited, moved or removed.
pub struct ReceivedFile {
    pub(super) route: Route,
    pub(super) transfer: TransferId,
    pub(super) record: ReceivingFileRecord,
    pub(super) path: PathBuf,
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

    /// Where it was put. Its user may have changed it since, moved it, or removed it: an app that opens it
    /// is to expect that.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What the peer told of it, which is so but for the name.
    #[must_use]
    pub const fn info(&self) -> &FileInfo {
        &self.record.info
    }

    /// The app knows of the file: nothing of it is kept but the file itself. Dropped half-way, it may
    /// or may not be committed; if not, the file comes again when the inbox is taken anew.
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

//! What can go wrong with a file.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use outlive_core::limits::{FILE_BYTES, FILE_NAME_BYTES};
use outlive_core::wire::file::StopReason;
use thiserror::Error;

use super::sending::SENDING_FILES;
use crate::error::Error;

/// Why a file can't be sent or received.
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum FileError {
    /// The file or the directory can't be used. What came stays: the same is tried again when the
    /// inbox is asked for what is next.
    #[error("can't {what} {}: {error}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        error: Arc<io::Error>,
    },
    /// It is a directory, or something else that has no end.
    #[error("{} is not a file", .0.display())]
    NotAFile(PathBuf),
    /// Its name can't be told to the peer, or the path of the directory can't be written down.
    #[error("the name of {} is not UTF-8, or longer than {FILE_NAME_BYTES} bytes; rename it", .0.display())]
    Name(PathBuf),
    /// It is too large.
    #[error("the file has {0} bytes, {FILE_BYTES} are allowed; send it in parts")]
    TooLarge(u64),
    /// It was being written while it was read.
    #[error("{} changed while it was read; send it when it is complete", .0.display())]
    Changing(PathBuf),
    /// Too many are on their way already.
    #[error("{SENDING_FILES} files are on their way to this peer already; wait for one of them")]
    TooMany,
    /// It was decided about the offer before, or its acceptance was given up half-way.
    #[error("the offer is decided about already")]
    Decided,
    /// The [`FileInbox`](crate::FileInbox) that offered the file was dropped. Nothing was taken: the next
    /// one offers it again.
    #[error(
        "the inbox that offered the file was dropped; take the files again, and it is offered anew"
    )]
    InboxDropped,
    /// The transfer is over.
    #[error("the file did not arrive: {0}")]
    Stopped(#[from] StopReason),
    /// The session can't send or receive.
    #[error(transparent)]
    Session(#[from] Error),
}

impl FileError {
    /// Whether the file is not where it was looked for.
    pub(super) fn is_missing(&self) -> bool {
        matches!(self, Self::Io { error, .. } if error.kind() == io::ErrorKind::NotFound)
    }

    pub(super) fn io(
        what: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |error| Self::Io {
            what,
            path,
            error: Arc::new(error),
        }
    }
}

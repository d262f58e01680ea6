//! The content of files that are being sent, read when its turn comes.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Seek, SeekFrom};

use bytes::Bytes;
use outlive_core::record::{Extent, SendingFileRecord};
use tracing::debug;

use super::disk::{self, Stamp, stamp};

/// What comes of reading a part of a file.
#[derive(Debug)]
pub(crate) enum Content {
    /// What it holds.
    Read(Bytes),
    /// The file is gone, or is not what it was.
    Changed,
    /// It can't be read now.
    Later,
}

/// Reads a part of a file.
pub(crate) async fn read(file: Option<SendingFileRecord>, extent: Extent) -> Content {
    let Some(file) = file else {
        return Content::Changed;
    };
    // The reading ends by itself; a runtime that goes away while it does needs no content.
    let read = tokio::task::spawn_blocking(move || Opened::of(&file)?.read(extent));
    match read
        .await
        .unwrap_or_else(|gone| Err(io::Error::other(gone)))
    {
        Ok(content) => Content::Read(content),
        Err(error) => {
            debug!(%error, "a file that is being sent can't be read on");
            if says_changed(&error) {
                Content::Changed
            } else {
                Content::Later
            }
        }
    }
}

/// Whether a file that can't be read is not what was promised. All else may pass: a disk or a share
/// that does not answer, a lack of permission or of memory.
fn says_changed(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::NotFound
            | ErrorKind::NotADirectory
            | ErrorKind::InvalidData
            | ErrorKind::InvalidInput
            | ErrorKind::UnexpectedEof
    )
}

struct Opened {
    file: File,
    stamp: Stamp,
}

impl Opened {
    fn of(record: &SendingFileRecord) -> io::Result<Self> {
        let opened = Self {
            file: disk::open(record.path.as_ref())?,
            stamp: Stamp {
                size: record.info.size,
                modified: record.modified,
            },
        };
        opened.is_same()?;
        Ok(opened)
    }

    fn is_same(&self) -> io::Result<()> {
        if stamp(&self.file)? == self.stamp {
            Ok(())
        } else {
            Err(ErrorKind::InvalidData.into())
        }
    }

    fn read(&mut self, extent: Extent) -> io::Result<Bytes> {
        let mut content = vec![0; usize::try_from(extent.length).unwrap_or(0)];
        self.file.seek(SeekFrom::Start(extent.offset))?;
        self.file.read_exact(&mut content)?;
        // What was read is what was promised only if the file is still the same.
        self.is_same()?;
        Ok(content.into())
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use outlive_core::record::SendingState;
    use outlive_core::wire::file::FileInfo;
    use outlive_core::{Position, TransferId};

    use super::*;

    #[test]
    fn only_what_shows_that_a_file_is_another_says_so() {
        for kind in [
            ErrorKind::NotFound,
            ErrorKind::InvalidData,
            ErrorKind::InvalidInput,
            ErrorKind::UnexpectedEof,
        ] {
            assert!(says_changed(&kind.into()), "{kind:?}");
        }
        for kind in [
            ErrorKind::PermissionDenied,
            ErrorKind::Interrupted,
            ErrorKind::TimedOut,
            ErrorKind::OutOfMemory,
            ErrorKind::StaleNetworkFileHandle,
            ErrorKind::Other,
        ] {
            assert!(!says_changed(&kind.into()), "{kind:?}");
        }
    }

    #[test]
    fn a_part_that_is_read_after_its_file_has_changed_is_none_of_it() {
        let disk = tempfile::tempdir().unwrap();
        let path = disk.path().join("a");
        std::fs::write(&path, b"content").unwrap();
        let file = File::options().write(true).open(&path).unwrap();
        let Stamp { size, modified } = stamp(&file).unwrap();
        let record = SendingFileRecord {
            info: FileInfo {
                name: "a".to_owned(),
                size,
                hash: [0; 32],
            },
            path: path.to_str().unwrap().to_owned(),
            modified,
            first: Position(0),
            end: Position(0),
            state: SendingState::Going { asked: None },
        };
        let mut opened = Opened::of(&record).unwrap();
        let extent = |offset, length| Extent {
            transfer: TransferId([0; 16]),
            offset,
            length,
        };
        assert_eq!(opened.read(extent(0, 4)).unwrap(), "cont");
        std::fs::write(&path, b"another").unwrap();
        // Two writes may come within one tick of the clock of files.
        let later = UNIX_EPOCH + Duration::from_secs(1);
        file.set_modified(later).unwrap();
        let error = opened.read(extent(4, 3)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidData);
    }
}

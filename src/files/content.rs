//! The content of files that are being sent, read when its turn comes.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

use bytes::Bytes;
use outlive_core::record::{Extent, SendingFileRecord};
use tracing::debug;

use super::disk::{self, Stamp, stamp};

/// Reads a part of a file. None if that is gone, or is not what it was.
pub(crate) async fn read(file: Option<SendingFileRecord>, extent: Extent) -> Option<Bytes> {
    let file = file?;
    // The reading ends by itself; a runtime that goes away while it does needs no content.
    let read = tokio::task::spawn_blocking(move || Opened::of(&file)?.read(extent));
    match read
        .await
        .unwrap_or_else(|gone| Err(io::Error::other(gone)))
    {
        Ok(content) => Some(content),
        Err(error) => {
            debug!(%error, "a file that is being sent can't be read on");
            None
        }
    }
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
            Err(io::ErrorKind::InvalidData.into())
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

    use outlive_core::wire::file::FileInfo;
    use outlive_core::{Position, TransferId};

    use super::*;

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
            stopped: None,
            told: false,
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
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }
}

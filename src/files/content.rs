//! The content of files that are being sent, read when its turn comes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

use bytes::Bytes;
use outlive_core::TransferId;
use outlive_core::record::{OutboxRecord, OutboxState, Record, SendingFileRecord};

use super::disk::{self, Stamp, stamp};
use crate::error::Error;

/// What was read of the outbox.
#[derive(Default)]
pub(crate) struct Content {
    pub(crate) rows: Vec<(Bytes, Bytes)>,
    /// Transfers whose file is gone, or is not what it was.
    pub(crate) failed: BTreeSet<TransferId>,
}

impl From<Vec<(Bytes, Bytes)>> for Content {
    fn from(rows: Vec<(Bytes, Bytes)>) -> Self {
        Self {
            rows,
            ..Self::default()
        }
    }
}

/// Puts the content of files into the records that say where it lies, until they are `bytes` long.
/// What can't be read stays as it is.
pub(crate) async fn fill(
    rows: Vec<(Bytes, Bytes)>,
    files: BTreeMap<TransferId, SendingFileRecord>,
    bytes: usize,
) -> Result<Content, Error> {
    if files.is_empty() {
        return fill_now(rows, &files, bytes);
    }
    // The reading ends by itself; a runtime that goes away while it does needs no content.
    let filled = tokio::task::spawn_blocking(move || fill_now(rows, &files, bytes));
    filled.await.unwrap_or(Err(Error::Shutdown))
}

fn fill_now(
    rows: Vec<(Bytes, Bytes)>,
    files: &BTreeMap<TransferId, SendingFileRecord>,
    bytes: usize,
) -> Result<Content, Error> {
    let mut content = Content::default();
    let mut open = BTreeMap::new();
    let mut read = 0;
    for (key, value) in rows {
        if read >= bytes {
            break;
        }
        let record = OutboxRecord::from_bytes(&value)?;
        let OutboxState::External {
            transfer,
            offset,
            length,
        } = record.state
        else {
            read = read.saturating_add(value.len());
            content.rows.push((key, value));
            continue;
        };
        let part = files
            .get(&transfer)
            .ok_or_else(|| io::ErrorKind::NotFound.into());
        let part =
            part.and_then(
                |of| match open.entry(transfer).or_insert_with(|| Opened::of(of)) {
                    Ok(opened) => opened.read(offset, length),
                    Err(error) => Err(error.kind().into()),
                },
            );
        match part {
            Ok(part) => {
                read = read.saturating_add(part.len());
                content.rows.push((key, record.filled(&part).to_bytes()));
            }
            Err(_) => {
                content.failed.insert(transfer);
                content.rows.push((key, value));
            }
        }
    }
    Ok(content)
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

    fn read(&mut self, offset: u64, length: u32) -> io::Result<Vec<u8>> {
        let mut part = vec![0; usize::try_from(length).unwrap_or(0)];
        self.file.seek(SeekFrom::Start(offset))?;
        self.file.read_exact(&mut part)?;
        // What was read is what was promised only if the file is still the same.
        self.is_same()?;
        Ok(part)
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use outlive_core::Position;
    use outlive_core::wire::file::FileInfo;

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
        assert_eq!(opened.read(0, 4).unwrap(), b"cont");
        std::fs::write(&path, b"another").unwrap();
        // Two writes may come within one tick of the clock of files.
        let later = UNIX_EPOCH + Duration::from_secs(1);
        file.set_modified(later).unwrap();
        let error = opened.read(4, 3).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }
}

//! The content of files that are being sent, read when its turn comes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

use bytes::Bytes;
use outlive_core::TransferId;
use outlive_core::record::{OutboxRecord, OutboxState, Record, SendingFileRecord};

use super::disk::{Stamp, stamp};
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
    // What was read is what was promised only if the file is still the same.
    for (transfer, opened) in open {
        if !opened.is_ok_and(|opened| opened.is_same()) {
            content.failed.insert(transfer);
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
            file: File::open(&record.path)?,
            stamp: Stamp {
                size: record.info.size,
                modified: record.modified,
            },
        };
        if opened.is_same() {
            Ok(opened)
        } else {
            Err(io::ErrorKind::InvalidData.into())
        }
    }

    fn is_same(&self) -> bool {
        stamp(&self.file).is_ok_and(|stamp| stamp == self.stamp)
    }

    fn read(&mut self, offset: u64, length: u32) -> io::Result<Vec<u8>> {
        let mut part = vec![0; usize::try_from(length).unwrap_or(0)];
        self.file.seek(SeekFrom::Start(offset))?;
        self.file.read_exact(&mut part)?;
        Ok(part)
    }
}

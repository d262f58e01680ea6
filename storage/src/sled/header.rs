//! The header: a small file beside sled's own that says whose directory this is, and holds the lock.
//!
//! It is read before sled touches anything, so a newer format is refused without a change on disk.
//! Its mark, the number of the last write known to be durable, is what shows a log that was cut:
//! sled takes a cut log for an unclean stop, and goes on with the prefix. The mark is written after
//! the sync of what it names, and never synced itself: it may lag behind the log, never lead.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;

use outlive_core::store::StoreError;

use super::errors::{damaged, from_io};
use super::records::FORMAT_VERSION;

const FILE_NAME: &str = "outlive-store";
const MAGIC: [u8; 8] = *b"outlive\0";
/// Magic, version, four bytes of zero, mark, complement of the mark.
const LEN: usize = 32;
const MARK_AT: u64 = 16;

/// The header of an open store. The lock goes with it.
#[derive(Debug)]
pub(super) struct Header {
    file: File,
    mark: u64,
}

impl Header {
    /// Locks and reads the header in `dir`; makes one in a directory that holds no log.
    pub(super) fn open(dir: &Path) -> Result<Self, StoreError> {
        let path = dir.join(FILE_NAME);
        let has_log = dir.join("db").exists();
        if has_log && !path.exists() {
            return Err(damaged(format!("there is a log, but no {FILE_NAME}")));
        }
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(from_io)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(StoreError::InUse {
                    path: dir.display().to_string(),
                });
            }
            Err(TryLockError::Error(error)) => return Err(from_io(error)),
        }
        let mut bytes = Vec::new();
        let bound = u64::try_from(LEN).unwrap_or(u64::MAX).saturating_add(1);
        (&mut file)
            .take(bound)
            .read_to_end(&mut bytes)
            .map_err(from_io)?;
        if bytes.is_empty() {
            if dir.join("db").exists() {
                return Err(damaged(format!(
                    "there is a log, but {FILE_NAME} is empty or missing"
                )));
            }
            let mut header = Self { file, mark: 0 };
            header.write_all().map_err(from_io)?;
            return Ok(header);
        }
        let mark = parse(&bytes)?;
        Ok(Self { file, mark })
    }

    /// The last write that is known to have been durable.
    pub(super) const fn mark(&self) -> u64 {
        self.mark
    }

    /// Notes that all writes up to `mark` are durable. Called after the sync, never before. A failure
    /// costs the ability to notice a loss, not data, so it is only logged.
    pub(super) fn set_mark(&mut self, mark: u64) {
        let mut bytes = mark.to_le_bytes().to_vec();
        bytes.extend((!mark).to_le_bytes());
        let written = self
            .file
            .seek(SeekFrom::Start(MARK_AT))
            .and_then(|_| self.file.write_all(&bytes));
        match written {
            Ok(()) => self.mark = mark,
            Err(error) => tracing::warn!(%error, "the mark of the store can't be written"),
        }
    }

    fn write_all(&mut self) -> std::io::Result<()> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend(FORMAT_VERSION.to_le_bytes());
        bytes.extend([0; 4]);
        bytes.extend(self.mark.to_le_bytes());
        bytes.extend((!self.mark).to_le_bytes());
        self.file.seek(SeekFrom::Start(0))?;
        self.file.write_all(&bytes)?;
        self.file.sync_all()
    }
}

fn parse(bytes: &[u8]) -> Result<u64, StoreError> {
    let bad = |what: &str| damaged(format!("{FILE_NAME}: {what}"));
    let (magic, rest) = bytes.split_first_chunk().ok_or_else(|| bad("too short"))?;
    if *magic != MAGIC {
        return Err(bad("another program wrote it"));
    }
    let (version, rest) = rest.split_first_chunk().ok_or_else(|| bad("too short"))?;
    let found = u32::from_le_bytes(*version);
    if found > FORMAT_VERSION {
        return Err(StoreError::FutureVersion {
            found,
            known: FORMAT_VERSION,
        });
    }
    if found == 0 || bytes.len() != LEN {
        return Err(bad("unknown layout"));
    }
    let (_zero, rest) = rest
        .split_first_chunk::<4>()
        .ok_or_else(|| bad("too short"))?;
    let (mark, rest) = rest.split_first_chunk().ok_or_else(|| bad("too short"))?;
    let (check, _) = rest.split_first_chunk().ok_or_else(|| bad("too short"))?;
    let mark = u64::from_le_bytes(*mark);
    if mark != !u64::from_le_bytes(*check) {
        return Err(bad("the mark does not match its check"));
    }
    Ok(mark)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let mut header = Header::open(dir.path()).unwrap();
        header.set_mark(77);
        drop(header);
        assert_eq!(Header::open(dir.path()).unwrap().mark(), 77);
    }

    #[test]
    fn a_second_opener_finds_it_in_use() {
        let dir = tempfile::tempdir().unwrap();
        let _first = Header::open(dir.path()).unwrap();
        assert!(matches!(
            Header::open(dir.path()),
            Err(StoreError::InUse { .. })
        ));
    }

    #[test]
    fn any_changed_byte_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        drop(Header::open(dir.path()).unwrap());
        let good = std::fs::read(dir.path().join(FILE_NAME)).unwrap();
        assert_eq!(good.len(), LEN);
        for at in (0..LEN).filter(|at| !(12..16).contains(at)) {
            let mut bytes = good.clone();
            bytes[at] ^= 0x40;
            assert!(parse(&bytes).is_err(), "byte {at}");
        }
        for len in 0..LEN {
            assert!(parse(&good[..len]).is_err(), "length {len}");
        }
    }
}

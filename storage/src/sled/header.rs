//! The header: a small file beside sled's own that says whose directory this is, and holds the lock.
//!
//! It is read before sled touches anything, so a newer format is refused without a change on disk.
//! Its mark, the number of the last write known to be durable, is what shows a log that was cut:
//! sled takes a cut log for an unclean stop, and goes on with the prefix. The mark is written after
//! the sync of what it names, and synced itself only if it is lowered: it may lag behind the log, never lead.
//!
//! It also says which log is the present one. That is one small write that is synced, and so the
//! moment at which a compacted log takes the place of the old one.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use outlive_core::store::StoreError;

use super::errors::{damaged, from_io};
use super::records::FORMAT_VERSION;

const FILE_NAME: &str = "outlive-store";
const MAGIC: [u8; 8] = *b"outlive\0";
/// Magic, version, number of the log and its complement, mark and its complement.
const LEN: usize = 32;
const NUMBER_AT: u64 = 12;
const MARK_AT: u64 = 16;

/// How the names of logs begin; the number follows.
const LOG: &str = "log-";

/// The header of an open store. The lock goes with it.
#[derive(Debug)]
pub(super) struct Header {
    file: File,
    dir: PathBuf,
    number: u16,
    /// Whether the file may name another log, because a write of the number failed.
    unsure: bool,
    mark: u64,
}

impl Header {
    /// Locks and reads the header in `dir`; makes one in a directory that holds no log.
    pub(super) fn open(dir: &Path) -> Result<Self, StoreError> {
        let path = dir.join(FILE_NAME);
        if has_log(dir)? && !path.exists() {
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
            if has_log(dir)? {
                return Err(damaged(format!(
                    "there is a log, but {FILE_NAME} is empty or missing"
                )));
            }
            let mut header = Self::new(file, dir, 0, 0);
            header.write_all().map_err(from_io)?;
            return Ok(header);
        }
        let (number, mark) = parse(&bytes)?;
        Ok(Self::new(file, dir, number, mark))
    }

    fn new(file: File, dir: &Path, number: u16, mark: u64) -> Self {
        Self {
            file,
            dir: dir.to_path_buf(),
            number,
            unsure: false,
            mark,
        }
    }

    /// The directory of the present log.
    pub(super) fn log(&self) -> PathBuf {
        self.numbered(self.number)
    }

    /// The directory of the log that may take its place.
    pub(super) fn next_log(&self) -> PathBuf {
        self.numbered(self.number.wrapping_add(1))
    }

    fn numbered(&self, number: u16) -> PathBuf {
        self.dir.join(format!("{LOG}{number}"))
    }

    /// Makes the next log the present one, durably. If this fails, the present one stays, and
    /// [`settle`](Self::settle) has to succeed before anything is written to it.
    pub(super) fn switch(&mut self) -> Result<(), StoreError> {
        self.unsure = true;
        self.write_number(self.number.wrapping_add(1))?;
        self.number = self.number.wrapping_add(1);
        self.unsure = false;
        Ok(())
    }

    /// Makes sure that the file names the log that is the present one.
    pub(super) fn settle(&mut self) -> Result<(), StoreError> {
        if self.unsure {
            self.write_number(self.number)?;
            self.unsure = false;
        }
        Ok(())
    }

    fn write_number(&mut self, number: u16) -> Result<(), StoreError> {
        self.file
            .seek(SeekFrom::Start(NUMBER_AT))
            .and_then(|_| self.file.write_all(&with_complement(number)))
            .and_then(|()| self.file.sync_all())
            .map_err(from_io)
    }

    /// Removes logs that are not the present one: what a crash left of a compaction. Called when
    /// the present one was opened.
    pub(super) fn remove_others(&self) {
        let present = self.log();
        let others = logs(&self.dir).unwrap_or_default();
        for other in others.into_iter().filter(|other| *other != present) {
            if let Err(error) = std::fs::remove_dir_all(&other) {
                tracing::warn!(%error, log = %other.display(), "an old log can't be removed");
            }
        }
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
        // Else it would lead where a part of the log was given up, which then is damage the next time.
        let written = match mark < self.mark {
            true => written.and_then(|()| self.file.sync_all()),
            false => written,
        };
        match written {
            Ok(()) => self.mark = mark,
            Err(error) => tracing::warn!(%error, "the mark of the store can't be written"),
        }
    }

    fn write_all(&mut self) -> std::io::Result<()> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend(FORMAT_VERSION.to_le_bytes());
        bytes.extend(with_complement(self.number));
        bytes.extend(self.mark.to_le_bytes());
        bytes.extend((!self.mark).to_le_bytes());
        self.file.seek(SeekFrom::Start(0))?;
        self.file.write_all(&bytes)?;
        self.file.sync_all()
    }
}

fn with_complement(number: u16) -> [u8; 4] {
    let [low, high] = number.to_le_bytes();
    [low, high, !low, !high]
}

/// The logs in a directory.
fn logs(dir: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let mut logs = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(from_io)? {
        let entry = entry.map_err(from_io)?;
        if entry.file_name().to_string_lossy().starts_with(LOG) {
            logs.push(entry.path());
        }
    }
    Ok(logs)
}

/// Whether there is a log of ours, or one of another program that uses sled.
fn has_log(dir: &Path) -> Result<bool, StoreError> {
    Ok(dir.join("db").exists() || !logs(dir)?.is_empty())
}

/// The number of the present log, and the mark.
fn parse(bytes: &[u8]) -> Result<(u16, u64), StoreError> {
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
    let (number, rest) = rest
        .split_first_chunk::<4>()
        .ok_or_else(|| bad("too short"))?;
    let [low, high, ..] = *number;
    if *number != with_complement(u16::from_le_bytes([low, high])) {
        return Err(bad("the number of the log does not match its check"));
    }
    let number = u16::from_le_bytes([low, high]);
    let (mark, rest) = rest.split_first_chunk().ok_or_else(|| bad("too short"))?;
    let (check, _) = rest.split_first_chunk().ok_or_else(|| bad("too short"))?;
    let mark = u64::from_le_bytes(*mark);
    if mark != !u64::from_le_bytes(*check) {
        return Err(bad("the mark does not match its check"));
    }
    Ok((number, mark))
}

#[cfg(test)]
impl Header {
    /// Lets writes fail from now on, as a device does that broke.
    pub(super) fn fail(&mut self) {
        self.file = File::open(self.dir.join(FILE_NAME)).unwrap();
    }

    /// Lets them work again.
    pub(super) fn mend(&mut self) {
        let path = self.dir.join(FILE_NAME);
        self.file = OpenOptions::new().write(true).open(path).unwrap();
    }

    /// A write of the next log's number reaches the device although it fails.
    pub(super) fn name_next(&self) {
        let mut named = Self::new(self.file.try_clone().unwrap(), &self.dir, self.number, 0);
        named.mend();
        named.switch().unwrap();
    }
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
        for at in 0..LEN {
            let mut bytes = good.clone();
            bytes[at] ^= 0x40;
            assert!(parse(&bytes).is_err(), "byte {at}");
        }
        for len in 0..LEN {
            assert!(parse(&good[..len]).is_err(), "length {len}");
        }
    }
}

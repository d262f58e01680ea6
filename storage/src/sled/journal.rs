//! The journal: a small file beside the log that makes short commits cheap. Called by the writer in
//! [`Durability::Buffered`](super::Durability::Buffered), and whenever the files are opened.
//!
//! sled writes through threads of its own and waits for the device, which nobody was promised there.
//! So a write is appended here, which is one `write` to the operating system and survives the
//! process, and is [pending](super::pending) for sled. What is pending goes into sled when there is
//! much of it or it is time to sync, and the journal is emptied after that, never before: what is
//! acknowledged is in one of the two. If it is time to sync, that comes first too.
//!
//! When the files are opened, the writes that follow the log's last one are done again. Only those
//! whose numbers go on without a gap: a crash of the operating system may leave a log that ends
//! before the journal begins, and what is lost must be a suffix of the writes.
//!
//! ```text
//! record   crc32(4) len(4) body(len)             the checksum is of all that follows it
//! body     number(8) op...
//! op       key_len(2) value_len(4) key value     without a value: the key is removed
//! ```

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;

use bytes::{Buf, Bytes};
use outlive_core::store::{Batch, StoreError};

use super::errors::{damaged, from_io};

const FILE_NAME: &str = "journal";

/// Bytes of a record: 64 KiB. A write that takes more goes into sled and is flushed: it would be
/// written twice, and waiting for the device is the smaller part of what it costs.
const MAX_RECORD_BYTES: usize = 64 << 10;

/// Bytes of the journal: 256 KiB. When the next record would go beyond, all that is pending goes into
/// sled. Commits and reads wait for that, some 10 ms if the records are small; more would let them
/// wait longer.
const MAX_BYTES: u64 = 256 << 10;

/// Bytes of checksum and length.
const HEAD: usize = 8;

/// Bytes of the number of a write.
const NUMBER: usize = 8;

/// Bytes of the lengths of a key and its value.
const OP: usize = 6;

/// In the place of the length of a value: there is none.
const NO_VALUE: u32 = u32::MAX;

#[derive(Debug)]
pub(super) struct Journal {
    file: File,
    /// Bytes of the file at most: a record that could not be written whole counts as a whole.
    len: u64,
    /// For the record to be written.
    record: Vec<u8>,
}

/// What a record holds.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Write {
    pub(super) number: u64,
    pub(super) batch: Batch,
}

impl Journal {
    /// Opens the journal in `dir`, and makes one if there is none.
    pub(super) fn open(dir: &Path) -> Result<Self, StoreError> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(dir.join(FILE_NAME))
            .map_err(from_io)?;
        Ok(Self {
            len: file.metadata().map_err(from_io)?.len(),
            file,
            record: Vec::new(),
        })
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The writes in it, in order, up to the first that is not whole. [`clear`](Self::clear) has to
    /// follow before another is appended.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] if it is longer than we make one.
    pub(super) fn read(&mut self) -> Result<Vec<Write>, StoreError> {
        let mut bytes = Vec::new();
        self.file.seek(SeekFrom::Start(0)).map_err(from_io)?;
        (&mut self.file)
            .take(MAX_BYTES.saturating_add(1))
            .read_to_end(&mut bytes)
            .map_err(from_io)?;
        if u64::try_from(bytes.len()).is_ok_and(|len| len > MAX_BYTES) {
            return Err(damaged(format!(
                "{FILE_NAME}: longer than it ever is; without it the newest commits are missing"
            )));
        }
        let mut rest = Bytes::from(bytes);
        let mut writes = Vec::new();
        while let Some(record) = split(&mut rest) {
            let Some(write) = parse(record) else {
                tracing::warn!("the journal is damaged; what was not synced is lost from there on");
                return Ok(writes);
            };
            writes.push(write);
        }
        if !rest.is_empty() {
            // The process ended while it wrote: nobody was told that this was committed.
            tracing::debug!(
                bytes = rest.len(),
                "the journal ends with a part of a write"
            );
        }
        Ok(writes)
    }

    /// Whether there is room for these batches as one write.
    pub(super) fn takes(&self, group: &[Batch]) -> bool {
        let len = record_len(group);
        let room = MAX_BYTES.saturating_sub(self.len);
        len <= MAX_RECORD_BYTES && u64::try_from(len).is_ok_and(|len| len <= room)
    }

    /// Appends batches as one write. Returns whether it did: not if they are too large, there is no
    /// room left, or the disk has none. Then they have to go into sled with all that is pending, and
    /// the journal has to be emptied, before anything else is appended.
    pub(super) fn append(&mut self, number: u64, group: &[Batch]) -> bool {
        if !self.takes(group) || !encode(&mut self.record, number, group) {
            return false;
        }
        // Counted first: if it fails, a part of it may be there.
        let len = u64::try_from(self.record.len()).unwrap_or(u64::MAX);
        self.len = self.len.saturating_add(len);
        match self.file.write_all(&self.record) {
            Ok(()) => true,
            Err(error) => {
                tracing::warn!(%error, "the journal can't be written");
                false
            }
        }
    }

    /// Removes everything from it. Called when sled's log has it all.
    pub(super) fn empty(&mut self) -> Result<(), StoreError> {
        if self.is_empty() {
            return Ok(());
        }
        self.cut().map_err(from_io)?;
        self.len = 0;
        Ok(())
    }

    /// Removes everything from it, durably. Numbers are used again when writes were lost, so what was
    /// dropped then must not come back.
    pub(super) fn clear(&mut self) -> Result<(), StoreError> {
        if self.is_empty() {
            return Ok(());
        }
        let cleared = self.cut().and_then(|()| self.file.sync_all());
        cleared.map_err(from_io)?;
        // Not before: if it failed, all of it is to be done again.
        self.len = 0;
        Ok(())
    }

    fn cut(&mut self) -> io::Result<()> {
        self.file.set_len(0)?;
        self.file.seek(SeekFrom::Start(0)).map(drop)
    }
}

fn record_len(group: &[Batch]) -> usize {
    group.iter().fold(HEAD + NUMBER, |len, batch| {
        let ops = batch.ops().len().saturating_mul(OP);
        len.saturating_add(ops).saturating_add(batch.bytes())
    })
}

/// Puts a record into `record`, in the place of what was there. `false` if it is nothing that a
/// record can hold.
fn encode(record: &mut Vec<u8>, number: u64, group: &[Batch]) -> bool {
    let Ok(body) = u32::try_from(record_len(group).saturating_sub(HEAD)) else {
        return false;
    };
    record.clear();
    record.extend([0; 4]);
    record.extend(body.to_le_bytes());
    record.extend(number.to_le_bytes());
    for (key, value) in group.iter().flat_map(Batch::ops) {
        let value_len = value.as_ref().map(|value| u32::try_from(value.len()));
        let (Ok(key_len), Ok(value_len)) =
            (u16::try_from(key.len()), value_len.unwrap_or(Ok(NO_VALUE)))
        else {
            return false;
        };
        record.extend(key_len.to_le_bytes());
        record.extend(value_len.to_le_bytes());
        record.extend_from_slice(key);
        record.extend_from_slice(value.as_deref().unwrap_or_default());
    }
    if let Some((check, checked)) = record.split_first_chunk_mut() {
        *check = crc32fast::hash(checked).to_le_bytes();
    }
    true
}

/// Takes the next record off `rest`. `None` if not all of it is there.
fn split(rest: &mut Bytes) -> Option<Bytes> {
    let (_, len) = rest.split_first_chunk::<4>()?;
    let (len, _) = len.split_first_chunk()?;
    let len = usize::try_from(u32::from_le_bytes(*len)).ok()?;
    let len = HEAD.checked_add(len).filter(|len| *len <= rest.len())?;
    Some(rest.split_to(len))
}

/// What a record says; `None` if it is not as it was written.
fn parse(mut record: Bytes) -> Option<Write> {
    let check = record.try_get_u32_le().ok()?;
    if check != crc32fast::hash(&record) {
        return None;
    }
    let _len = record.try_get_u32_le().ok()?;
    let number = record.try_get_u64_le().ok()?;
    let mut batch = Batch::new();
    while !record.is_empty() {
        let key_len = record.try_get_u16_le().ok()?;
        let value_len = record.try_get_u32_le().ok()?;
        let key = take(&mut record, usize::from(key_len))?;
        if value_len == NO_VALUE {
            batch.delete(key);
        } else {
            batch.put(key, take(&mut record, usize::try_from(value_len).ok()?)?);
        }
    }
    Some(Write { number, batch })
}

fn take(bytes: &mut Bytes, len: usize) -> Option<Bytes> {
    (len <= bytes.len()).then(|| bytes.split_to(len))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch() -> Batch {
        let mut batch = Batch::new();
        batch.put(Bytes::from_static(b"key"), Bytes::from_static(b"value"));
        batch.put(Bytes::new(), Bytes::new());
        batch.delete(Bytes::from_static(b"gone"));
        batch
    }

    fn record(number: u64) -> Vec<u8> {
        let mut record = Vec::new();
        assert!(encode(&mut record, number, &[batch()]));
        assert_eq!(record.len(), record_len(&[batch()]));
        record
    }

    #[test]
    fn a_record_is_read_back_as_it_was_written() {
        let mut rest = Bytes::from([record(7), record(8)].concat());
        for number in [7, 8] {
            let write = split(&mut rest).and_then(parse).unwrap();
            assert_eq!((write.number, write.batch), (number, batch()));
        }
        assert!(rest.is_empty());
    }

    #[test]
    fn any_changed_or_missing_byte_of_a_record_is_noticed() {
        let good = record(7);
        for at in 0..good.len() {
            let mut bytes = good.clone();
            bytes[at] ^= 0x10;
            assert_eq!(split(&mut bytes.into()).and_then(parse), None, "byte {at}");
            let mut cut = Bytes::copy_from_slice(&good[..at]);
            assert_eq!(split(&mut cut), None, "length {at}");
        }
        // What a file system leaves of a write that it did not finish.
        assert_eq!(split(&mut vec![0; 64].into()).and_then(parse), None);
    }

    #[test]
    fn a_journal_without_room_takes_nothing_until_it_is_emptied() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(dir.path()).unwrap();
        let (mut large, mut larger) = (Batch::new(), Batch::new());
        let room = MAX_RECORD_BYTES - record_len(&[Batch::new()]) - OP;
        large.put(Bytes::new(), vec![7; room].into());
        larger.put(Bytes::new(), vec![7; room + 1].into());
        assert!(!journal.append(0, &[larger]));
        let large = &[large];
        let mut writes = 0;
        while journal.append(writes, large) {
            writes += 1;
        }
        let len = std::fs::metadata(dir.path().join(FILE_NAME)).unwrap().len();
        assert!(len <= MAX_BYTES && len + MAX_RECORD_BYTES as u64 > MAX_BYTES);
        let read = journal.read().unwrap();
        assert!(read.iter().map(|write| write.number).eq(0..writes));
        journal.empty().unwrap();
        assert!(journal.append(writes, large));
        assert_eq!(journal.read().unwrap().len(), 1);
    }
}

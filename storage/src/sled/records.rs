//! What the records in the tree look like. Called by the committer to write and by reads.
//!
//! ```text
//! 00 "outlive"            Meta: format, number of the last write, live bytes
//! 01 key                  00 value                        an ordinary value
//!                         01 id(8) chunks(4) len(8)       a large one
//! 02 id(8) index(4)       up to MAX_INLINE bytes of it
//! ```
//! Large values are cut into chunks because of what sled does with a page above a quarter of a
//! segment: it writes it to a file of its own, which it never syncs, and when the disk is full while
//! it does so, the next flush waits for ever. Chunks keep every page below that size.

use std::collections::HashMap;

use bytes::Bytes;
use outlive_core::store::StoreError;

use super::errors::damaged;

/// The format this version writes, and the newest it reads.
pub const FORMAT_VERSION: u32 = 1;

/// The longest key a [`SledStore`](super::SledStore) takes, in bytes: 1 KiB. A longer one fails its
/// commit with [`StoreError::Io`] of kind `InvalidInput`.
pub const MAX_KEY_BYTES: usize = 1024;

/// Bytes of a value that are kept in one record: a segment of 16 KiB with its head, and some room.
const MAX_INLINE: usize = 20 << 10;

/// Bytes of one of sled's segments. A leaf holds 16 records and may take in 4 more of a neighbour,
/// an inner page holds 256 keys and may take in 64: both stay below a quarter of this.
pub(super) const SEGMENT_BYTES: usize = 2 << 20;
const _: () = assert!(21 * (MAX_INLINE + MAX_KEY_BYTES + 32) < SEGMENT_BYTES / 4 - 64);
const _: () = assert!(322 * (MAX_KEY_BYTES + 32) < SEGMENT_BYTES / 4 - 64);

const META_KEY: &[u8] = b"\0outlive";
const META_MAGIC: [u8; 8] = *b"outlive\0";
const KEY: u8 = 1;
const CHUNK: u8 = 2;
const INLINE: u8 = 0;
const LARGE: u8 = 1;

/// The record about all others. Part of every write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Meta {
    /// Number of the last write.
    pub(super) writes: u64,
    /// Bytes of all keys and values there are.
    pub(super) live: u64,
    /// Id of the next large value.
    next_id: u64,
}

impl Meta {
    /// The meta record of the tree, `None` if it has none.
    pub(super) fn read(tree: &sled::Tree) -> Result<Option<Result<Self, StoreError>>, sled::Error> {
        Ok(tree.get(META_KEY)?.map(|value| Self::parse(&value)))
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = META_MAGIC.to_vec();
        bytes.extend(FORMAT_VERSION.to_le_bytes());
        bytes.extend(self.writes.to_le_bytes());
        bytes.extend(self.live.to_le_bytes());
        bytes.extend(self.next_id.to_le_bytes());
        bytes
    }

    /// Puts this record into a write.
    pub(super) fn put(&self, batch: &mut sled::Batch) {
        batch.insert(META_KEY, self.encode());
    }

    fn parse(bytes: &[u8]) -> Result<Self, StoreError> {
        let bad = || damaged("the record about the store is not one of ours");
        let (magic, rest) = bytes.split_first_chunk().ok_or_else(bad)?;
        let (version, rest) = rest.split_first_chunk().ok_or_else(bad)?;
        if *magic != META_MAGIC {
            return Err(bad());
        }
        let found = u32::from_le_bytes(*version);
        if found > FORMAT_VERSION {
            return Err(StoreError::FutureVersion {
                found,
                known: FORMAT_VERSION,
            });
        }
        let (writes, rest) = rest.split_first_chunk().ok_or_else(bad)?;
        let (live, rest) = rest.split_first_chunk().ok_or_else(bad)?;
        let (next_id, rest) = rest.split_first_chunk().ok_or_else(bad)?;
        if !rest.is_empty() || found == 0 {
            return Err(bad());
        }
        Ok(Self {
            writes: u64::from_le_bytes(*writes),
            live: u64::from_le_bytes(*live),
            next_id: u64::from_le_bytes(*next_id),
        })
    }
}

/// Where a large value is.
#[derive(Clone, Copy, Debug)]
struct Large {
    id: u64,
    chunks: u32,
    len: u64,
}

impl Large {
    fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![LARGE];
        bytes.extend(self.id.to_be_bytes());
        bytes.extend(self.chunks.to_be_bytes());
        bytes.extend(self.len.to_be_bytes());
        bytes
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let (id, rest) = bytes.split_first_chunk()?;
        let (chunks, rest) = rest.split_first_chunk()?;
        let (len, rest) = rest.split_first_chunk()?;
        rest.is_empty().then_some(Self {
            id: u64::from_be_bytes(*id),
            chunks: u32::from_be_bytes(*chunks),
            len: u64::from_be_bytes(*len),
        })
    }

    /// Where the value of a record is, `None` if it is in the record.
    fn of(stored: &[u8]) -> Option<Self> {
        match stored.split_first() {
            Some((&LARGE, rest)) => Self::parse(rest),
            _ => None,
        }
    }

    fn chunk_key(&self, index: u32) -> Vec<u8> {
        let mut key = vec![CHUNK];
        key.extend(self.id.to_be_bytes());
        key.extend(index.to_be_bytes());
        key
    }
}

/// What a record of the user's takes.
#[derive(Clone, Copy, Debug, Default)]
struct Taken {
    bytes: u64,
    large: Option<Large>,
}

impl Taken {
    fn new(key: &[u8], len: u64, large: Option<Large>) -> Self {
        let key = u64::try_from(key.len()).unwrap_or(u64::MAX);
        Self {
            bytes: key.saturating_add(len),
            large,
        }
    }

    /// By a record as it is in the tree.
    fn stored(key: &[u8], stored: &[u8]) -> Self {
        let large = Large::of(stored);
        let inline = u64::try_from(stored.len().saturating_sub(1)).unwrap_or(u64::MAX);
        Self::new(key, large.map_or(inline, |large| large.len), large)
    }
}

/// Several batches on their way to become one write.
#[derive(Debug)]
pub(super) struct Group {
    batch: sled::Batch,
    meta: Meta,
    /// What the tree will say of the keys in this write, after it.
    changed: HashMap<Bytes, Taken>,
}

impl Group {
    /// What follows `before`, up to write number `writes`.
    pub(super) fn new(before: Meta, writes: u64) -> Self {
        let mut meta = before;
        meta.writes = writes;
        Self {
            batch: sled::Batch::default(),
            meta,
            changed: HashMap::new(),
        }
    }

    /// Adds one write behind those that are there; a later one to the same key wins.
    pub(super) fn add(
        &mut self,
        tree: &sled::Tree,
        key: &Bytes,
        value: Option<&Bytes>,
    ) -> Result<(), sled::Error> {
        let stored = prefixed(key);
        let old = match self.changed.get(key) {
            Some(old) => *old,
            None => tree
                .get(&stored)?
                .map(|value| Taken::stored(key, &value))
                .unwrap_or_default(),
        };
        if let Some(large) = old.large {
            for index in 0..large.chunks {
                self.batch.remove(large.chunk_key(index));
            }
        }
        let new = value
            .filter(|value| value.len() > MAX_INLINE)
            .map(|value| self.put_large(value));
        let taken = value.map(|value| {
            let len = u64::try_from(value.len()).unwrap_or(u64::MAX);
            Taken::new(key, len, new)
        });
        let taken = taken.unwrap_or_default();
        self.meta.live = self.meta.live.saturating_sub(old.bytes);
        self.meta.live = self.meta.live.saturating_add(taken.bytes);
        self.changed.insert(key.clone(), taken);
        match (value, new) {
            (_, Some(large)) => self.batch.insert(stored, large.encode()),
            (Some(value), None) => {
                let mut bytes = Vec::with_capacity(value.len().saturating_add(1));
                bytes.push(INLINE);
                bytes.extend_from_slice(value);
                self.batch.insert(stored, bytes);
            }
            (None, None) => self.batch.remove(stored),
        }
        Ok(())
    }

    /// The write, and the meta record as of it.
    pub(super) fn finish(mut self) -> (sled::Batch, Meta) {
        self.meta.put(&mut self.batch);
        (self.batch, self.meta)
    }

    fn put_large(&mut self, value: &Bytes) -> Large {
        let mut large = Large {
            id: self.meta.next_id,
            chunks: 0,
            len: u64::try_from(value.len()).unwrap_or(u64::MAX),
        };
        for chunk in value.chunks(MAX_INLINE) {
            self.batch.insert(large.chunk_key(large.chunks), chunk);
            large.chunks = large.chunks.saturating_add(1);
        }
        self.meta.next_id = self.meta.next_id.saturating_add(1);
        large
    }
}

/// The key in the tree of one of the user's.
pub(super) fn prefixed(key: &[u8]) -> Vec<u8> {
    let mut stored = Vec::with_capacity(key.len().saturating_add(1));
    stored.push(KEY);
    stored.extend_from_slice(key);
    stored
}

/// The user's key of one in the tree.
pub(super) fn unprefixed(stored: &[u8]) -> Bytes {
    Bytes::copy_from_slice(stored.get(1..).unwrap_or_default())
}

/// The value of a record, put together from its chunks if it is large. The inner error is damage.
pub(super) fn value(
    tree: &sled::Tree,
    stored: &[u8],
) -> Result<Result<Bytes, StoreError>, sled::Error> {
    match stored.split_first() {
        Some((&INLINE, value)) => Ok(Ok(Bytes::copy_from_slice(value))),
        Some((&LARGE, rest)) => match Large::parse(rest) {
            Some(large) => read_large(tree, large),
            None => Ok(Err(damaged("a large value has an unknown layout"))),
        },
        _ => Ok(Err(damaged("a record is of an unknown kind"))),
    }
}

fn read_large(tree: &sled::Tree, large: Large) -> Result<Result<Bytes, StoreError>, sled::Error> {
    let mut bytes = Vec::new();
    for index in 0..large.chunks {
        match tree.get(large.chunk_key(index))? {
            Some(chunk) => bytes.extend_from_slice(&chunk),
            None => return Ok(Err(damaged("a chunk of a large value is missing"))),
        }
    }
    if u64::try_from(bytes.len()).ok() != Some(large.len) {
        return Ok(Err(damaged("a large value has the wrong length")));
    }
    Ok(Ok(Bytes::from(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_meta_record_is_read_back_and_a_newer_one_refused() {
        let meta = Meta {
            writes: 3,
            live: 1,
            next_id: 9,
        };
        let mut bytes = meta.encode();
        assert_eq!(Meta::parse(&bytes).unwrap(), meta);
        bytes[8] = 2;
        assert!(matches!(
            Meta::parse(&bytes),
            Err(StoreError::FutureVersion {
                found: 2,
                known: FORMAT_VERSION
            })
        ));
    }

    #[test]
    fn chunks_go_with_the_large_value_they_belong_to() {
        let dir = tempfile::tempdir().unwrap();
        let db = sled::open(dir.path()).unwrap();
        let (key, big) = (
            Bytes::from_static(b"k"),
            Bytes::from(vec![7; 3 * MAX_INLINE + 1]),
        );
        let chunks = || db.range([CHUNK]..[CHUNK + 1]).count();
        let write = |before, values: &[Option<&Bytes>]| {
            let mut group = Group::new(before, 1);
            for value in values {
                group.add(&db, &key, *value).unwrap();
            }
            let (batch, meta) = group.finish();
            db.apply_batch(batch).unwrap();
            meta
        };
        let meta = write(Meta::default(), &[Some(&big), Some(&big)]);
        let len = u64::try_from(big.len()).unwrap();
        assert_eq!((meta.live, chunks()), (1 + len, 4));
        let stored = db.get(prefixed(&key)).unwrap().unwrap();
        assert_eq!(value(&db, &stored).unwrap().unwrap(), big);
        let meta = write(meta, &[Some(&Bytes::from_static(b"small"))]);
        assert_eq!((meta.live, chunks()), (1 + 5, 0));
        let meta = write(meta, &[Some(&big), None]);
        assert_eq!((meta.live, chunks()), (0, 0));
    }
}

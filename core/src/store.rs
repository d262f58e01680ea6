//! The seam to durable storage: atomic batches and range reads, nothing else.
//!
//! A store is an ordered map from bytes to bytes. The engine says what to write and what to read;
//! the storage crate does it; nothing is said to a peer or an app before [`Store::commit`]
//! returned (I4).

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use thiserror::Error;

/// Why the store could not do what it was asked to. Nothing of a failed batch is visible later.
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Another process, or another handle in this one, has the store open.
    #[error(
        "the store at {path} is in use; shut down the node or end the process that has it open, or choose another directory"
    )]
    InUse {
        /// Where the store is.
        path: String,
    },
    /// The bytes on disk are not what was written.
    #[error(
        "the store is damaged ({what}); restore its directory from a backup, peers will notice and send again"
    )]
    Damaged {
        /// What was found.
        what: String,
    },
    /// A newer version of this software wrote the store.
    #[error(
        "the store has format {found}, this version understands up to {known}; use the newer version again"
    )]
    FutureVersion {
        /// The format found on disk.
        found: u32,
        /// The newest format known here.
        known: u32,
    },
    /// The store is encrypted, and it was opened without a passphrase or key.
    #[error("the store is encrypted; give its passphrase or key")]
    Locked,
    /// Another passphrase or key was used when the store was encrypted. Nothing was changed.
    #[error("the passphrase or key is not the one the store is encrypted with; try another")]
    WrongKey,
    /// The store is not encrypted, and a passphrase or key was given.
    #[error(
        "the store is not encrypted; open it without a passphrase or key, or choose a new directory"
    )]
    NotEncrypted,
    /// There is no room left. Nothing was lost; what was not acknowledged may be tried again.
    #[error("the disk is full; free some space and try again")]
    Full,
    /// The operating system failed.
    #[error("the store failed: {0}")]
    Io(#[source] Arc<std::io::Error>),
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
}

/// A set of writes that happens as a whole or not at all.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Batch {
    ops: Vec<(Bytes, Option<Bytes>)>,
    bytes: usize,
}

impl Batch {
    /// A batch without writes.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            ops: Vec::new(),
            bytes: 0,
        }
    }

    /// Writes `value` under `key`, over what was there.
    pub fn put(&mut self, key: Bytes, value: Bytes) {
        self.bytes = self
            .bytes
            .saturating_add(key.len())
            .saturating_add(value.len());
        self.ops.push((key, Some(value)));
    }

    /// Removes `key`; no error if it is not there.
    pub fn delete(&mut self, key: Bytes) {
        self.bytes = self.bytes.saturating_add(key.len());
        self.ops.push((key, None));
    }

    /// Adds the writes of `other` behind these.
    pub fn append(&mut self, other: Self) {
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.ops.extend(other.ops);
    }

    /// The writes in order: `None` removes. A later write to a key wins.
    #[must_use]
    pub fn ops(&self) -> &[(Bytes, Option<Bytes>)] {
        &self.ops
    }

    /// Bytes of all keys and values.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether there is nothing to write.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }
}

/// Shows how much is in it, not what: records hold keys and payloads.
impl std::fmt::Debug for Batch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Batch")
            .field("ops", &self.ops.len())
            .field("bytes", &self.bytes)
            .finish()
    }
}

impl IntoIterator for Batch {
    type Item = (Bytes, Option<Bytes>);
    type IntoIter = std::vec::IntoIter<Self::Item>;

    fn into_iter(self) -> Self::IntoIter {
        self.ops.into_iter()
    }
}

/// How much a range read may return. It ends with the record that reaches a bound, so at least one
/// record comes if there is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadLimit {
    /// Records at most.
    pub records: usize,
    /// Bytes of values after which no further record is added.
    pub bytes: usize,
}

/// The key under which a store that is encrypted at rest keeps its header. No other record has it:
/// it sorts behind all of ours, and the encrypting wrapper shows it to nobody.
pub const ENCRYPTION_HEADER: &[u8] = b"\xffencryption";

/// Fails if the store is encrypted and nobody has given its key: better than to find its records
/// damaged. For whoever is about to read them.
///
/// # Errors
/// [`StoreError::Locked`], or why it could not be read.
pub async fn refuse_locked(store: &dyn Store) -> Result<(), StoreError> {
    match store.get(Bytes::from_static(ENCRYPTION_HEADER)).await? {
        None => Ok(()),
        Some(_) => Err(StoreError::Locked),
    }
}

/// Whether the store holds no record at all.
///
/// # Errors
/// [`StoreError`] if it could not be read.
pub async fn store_is_empty(store: &dyn Store) -> Result<bool, StoreError> {
    let one = ReadLimit {
        records: 1,
        bytes: 0,
    };
    // No record of ours has a key that begins with more than one 0xff.
    let all = Bytes::new()..Bytes::from_static(&[0xff, 0xff]);
    Ok(store.range(all, one).await?.is_empty())
}

/// Durable, ordered storage of bytes under bytes. Object-safe, shared by all sessions of a node.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Writes a batch as a whole. When this returns `Ok` the batch is as durable as the store was
    /// opened for, and every later read sees it; batches become visible in the order in which
    /// their commits were first polled.
    ///
    /// Not cancellation-safe in its result: dropped half-way, the batch may or may not be written,
    /// but never in part.
    ///
    /// # Errors
    /// [`StoreError`]; the batch is then not written.
    async fn commit(&self, batch: Batch) -> Result<(), StoreError>;

    /// The value under `key`.
    ///
    /// # Errors
    /// [`StoreError`] if it can't be read.
    async fn get(&self, key: Bytes) -> Result<Option<Bytes>, StoreError>;

    /// The records with keys in `range`, in order, as many as `limit` allows.
    ///
    /// # Errors
    /// [`StoreError`] if they can't be read.
    async fn range(
        &self,
        range: Range<Bytes>,
        limit: ReadLimit,
    ) -> Result<Vec<(Bytes, Bytes)>, StoreError>;

    /// Makes durable what is not yet, and lets go of the files. Later calls fail with
    /// [`StoreError::Closed`].
    ///
    /// # Errors
    /// [`StoreError`] if the last flush failed.
    async fn close(&self) -> Result<(), StoreError>;
}

#[async_trait]
impl<S: Store + ?Sized> Store for Arc<S> {
    async fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        (**self).commit(batch).await
    }

    async fn get(&self, key: Bytes) -> Result<Option<Bytes>, StoreError> {
        (**self).get(key).await
    }

    async fn range(
        &self,
        range: Range<Bytes>,
        limit: ReadLimit,
    ) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        (**self).range(range, limit).await
    }

    async fn close(&self) -> Result<(), StoreError> {
        (**self).close().await
    }
}

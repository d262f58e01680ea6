//! Encryption at rest: a store around a store, whose values nobody reads without the passphrase or
//! the key.
//!
//! ```text
//!   passphrase ── argon2id ─┐
//!                           ├─▶ wrapping key ── opens ──▶ data key ── seals ──▶ each value
//!   key of the app ─────────┘        (header record)      (random)
//! ```
//!
//! A new passphrase seals the data key anew and touches no value.

mod error;
mod sealed_secret;
mod unlock;
mod value;

use std::fmt;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use outlive_core::store::{Batch, ENCRYPTION_HEADER, ReadLimit, Store, StoreError, store_is_empty};

pub use self::error::UnlockError;
pub use self::sealed_secret::{MAX_SECRET_BYTES, SealedSecret};
pub use self::unlock::{Cost, Unlock};
use self::value::{DataKey, OVERHEAD};

/// What the sealed secret in the header is for.
const PURPOSE: &str = "outlive store";

/// Records for which a read makes allowance at once: their sealed values are longer than what the
/// caller counts. A read of more records may take several steps.
const STEP: usize = 4_096;

/// A store whose values are encrypted with XChaCha20-Poly1305 under random nonces.
///
/// **What it hides.** Every value: sessions, messages, keys. A value is bound to the key of its
/// record: moved to another record, or changed, it does not open and is
/// [`StoreError::Damaged`].
///
/// **What it does not hide.** The keys of the records: which peers there are sessions with, how
/// many messages wait on which channel, how long each value is, and when it was written as far as
/// the files tell. Nor does it notice a record that was removed, or put back to an older value
/// under the same key; of that the peers' digests tell.
///
/// What was deleted may still be on the disk, encrypted.
pub struct EncryptedStore<S> {
    inner: S,
    key: DataKey,
}

impl<S> fmt::Debug for EncryptedStore<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EncryptedStore(..)")
    }
}

impl<S: Store> EncryptedStore<S> {
    /// Opens the encrypted store in `inner`; makes one if `inner` is empty.
    ///
    /// Derives a key from a passphrase, which is slow on purpose: it blocks the calling thread
    /// for a fraction of a second. Dropped half-way, it has made the store or not touched it.
    ///
    /// # Errors
    /// [`StoreError::WrongKey`] if it was encrypted with another passphrase or key,
    /// [`StoreError::NotEncrypted`] if it holds records and is not encrypted,
    /// [`StoreError::Damaged`] if its header is not what was written, and those of `inner`.
    pub async fn open(inner: S, unlock: &Unlock) -> Result<Self, StoreError> {
        Self::open_with(inner, unlock, Cost::DEFAULT).await
    }

    /// As [`open`](Self::open); a new store's passphrase is derived at this cost. One that is there
    /// keeps its own.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub async fn open_with(inner: S, unlock: &Unlock, cost: Cost) -> Result<Self, StoreError> {
        if let Some(header) = inner.get(Bytes::from_static(ENCRYPTION_HEADER)).await? {
            let key = SealedSecret::from_bytes(&header)?.open(PURPOSE, unlock)?;
            let key = DataKey::from_slice(&key)?;
            return Ok(Self { inner, key });
        }
        if !store_is_empty(&inner).await? {
            return Err(StoreError::NotEncrypted);
        }
        let new = Self {
            inner,
            key: DataKey::random()?,
        };
        new.rekey_with(unlock, cost).await?;
        Ok(new)
    }

    /// From now on the store opens with this passphrase or key, and with no other. No value is
    /// written anew. Blocks as [`open`](Self::open) does; once it has returned, the change is
    /// durable. Whoever has a copy of the old header and the old passphrase can still open it.
    /// Dropped half-way, either the old or the new one opens it.
    ///
    /// # Errors
    /// Those of the store inside; the old passphrase or key is then still the one.
    pub async fn rekey(&self, unlock: &Unlock) -> Result<(), StoreError> {
        self.rekey_with(unlock, Cost::DEFAULT).await
    }

    /// As [`rekey`](Self::rekey), at this cost; dropped half-way too.
    ///
    /// # Errors
    /// As [`rekey`](Self::rekey).
    pub async fn rekey_with(&self, unlock: &Unlock, cost: Cost) -> Result<(), StoreError> {
        let header = SealedSecret::seal(PURPOSE, self.key.as_slice(), unlock, cost)?;
        let mut batch = Batch::new();
        batch.put(
            Bytes::from_static(ENCRYPTION_HEADER),
            Bytes::from(header.to_bytes()),
        );
        self.inner.commit(batch).await
    }
}

#[async_trait]
impl<S: Store> Store for EncryptedStore<S> {
    async fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        let mut sealed = Batch::new();
        for (key, value) in batch {
            if key == ENCRYPTION_HEADER {
                return Err(StoreError::Io(Arc::new(io::Error::new(
                    io::ErrorKind::InvalidInput,
                    "the key of the encryption header belongs to no other record",
                ))));
            }
            match value {
                Some(value) => {
                    let value = self.key.seal(&key, &value)?;
                    sealed.put(key, value);
                }
                None => sealed.delete(key),
            }
        }
        self.inner.commit(sealed).await
    }

    async fn get(&self, key: Bytes) -> Result<Option<Bytes>, StoreError> {
        if key == ENCRYPTION_HEADER {
            return Ok(None);
        }
        let sealed = self.inner.get(key.clone()).await?;
        sealed.map(|sealed| self.key.open(&key, sealed)).transpose()
    }

    async fn range(
        &self,
        mut range: Range<Bytes>,
        limit: ReadLimit,
    ) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        let most = limit.records.max(1);
        let mut records = Vec::new();
        let mut bytes = 0_usize;
        loop {
            // One more for the header, which the caller does not see.
            let left = most.saturating_sub(records.len()).saturating_add(1);
            let allowance = OVERHEAD.saturating_mul(left.min(STEP));
            let step = ReadLimit {
                records: left,
                bytes: limit.bytes.saturating_sub(bytes).saturating_add(allowance),
            };
            let sealed = self.inner.range(range.clone(), step).await?;
            let read: usize = sealed.iter().map(|(_, value)| value.len()).sum();
            let ended = sealed.len() < step.records && read < step.bytes;
            if let Some((last, _)) = sealed.last() {
                range.start = [last, &[0][..]].concat().into();
            }
            for (key, value) in sealed {
                if key == ENCRYPTION_HEADER {
                    continue;
                }
                let value = self.key.open(&key, value)?;
                bytes = bytes.saturating_add(value.len());
                records.push((key, value));
                if records.len() >= most || bytes >= limit.bytes {
                    return Ok(records);
                }
            }
            if ended {
                return Ok(records);
            }
        }
    }

    async fn close(&self) -> Result<(), StoreError> {
        self.inner.close().await
    }
}

//! Reads: what sled holds, and over it what is pending. Called for every read, under the lock that
//! writes wait for.

use std::ops::Range;

use bytes::Bytes;
use outlive_core::store::{ReadLimit, StoreError};

use super::files::Files;
use super::records::{prefixed, unprefixed, value};

/// The inner error is damage.
type Read<T> = Result<Result<T, StoreError>, sled::Error>;

impl Files {
    pub(super) fn get(&self, key: &Bytes) -> Read<Option<Bytes>> {
        if let Some(pending) = self.pending.get(key) {
            return Ok(Ok(pending.clone()));
        }
        match self.db.get(prefixed(key))? {
            Some(stored) => Ok(value(&self.db, &stored)?.map(Some)),
            None => Ok(Ok(None)),
        }
    }

    pub(super) fn range(&self, range: Range<Bytes>, limit: ReadLimit) -> Read<Vec<(Bytes, Bytes)>> {
        let mut records = Vec::new();
        if range.start >= range.end {
            return Ok(Ok(records));
        }
        let mut stored = self
            .db
            .range(prefixed(&range.start)..prefixed(&range.end))
            .map(|record| record.map(|(key, stored)| (unprefixed(&key), stored)))
            .peekable();
        let mut pending = self.pending.range(range).peekable();
        let mut bytes = 0_usize;
        loop {
            let over = pending.peek().map(|(key, _)| *key);
            let before_it = stored.next_if(|record| match (record, over) {
                (Ok((key, _)), Some(over)) => key < over,
                (Ok(_), None) | (Err(_), _) => true,
            });
            let (key, value) = if let Some(record) = before_it {
                let (key, stored) = record?;
                match value(&self.db, &stored)? {
                    Ok(value) => (key, value),
                    Err(error) => return Ok(Err(error)),
                }
            } else if let Some((key, value)) = pending.next() {
                stored.next_if(|record| record.as_ref().is_ok_and(|(under, _)| under == key));
                let Some(value) = value else {
                    continue;
                };
                (key.clone(), value.clone())
            } else {
                break;
            };
            bytes = bytes.saturating_add(value.len());
            records.push((key, value));
            if records.len() >= limit.records || bytes >= limit.bytes {
                break;
            }
        }
        Ok(Ok(records))
    }
}

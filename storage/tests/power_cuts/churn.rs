//! What a busy node does to its store: a backlog comes and goes, the records of sessions are written
//! again and again, and some records stay for ever. Every commit follows from its number and the seed.

use std::collections::BTreeMap;

use bytes::Bytes;
use outlive_core::store::{Batch, ReadLimit, Store, StoreError};
use outlive_storage::SledStore;

/// Records that are written once.
const OLD: u64 = 60;
const SESSIONS: u64 = 40;
/// Commits for which the backlog grows, and then for which it shrinks.
const PHASE: u64 = 400;

const COUNT: &[u8] = b"count";

/// Behind all keys.
const END: Bytes = Bytes::from_static(&[0xFF]);

const PART: ReadLimit = ReadLimit {
    records: 1_000,
    bytes: 4 << 20,
};

/// Keys of a hot store.
const HOT: u64 = 5;

/// What is committed.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Load {
    /// As a busy node does.
    Node,
    /// The same few keys, again and again: no segment keeps its content for long.
    Hot,
}

/// The commits one after the other, and what the store holds after them.
pub(crate) struct Churn {
    load: Load,
    rng: fastrand::Rng,
    /// Commits so far.
    pub(crate) count: u64,
    /// The oldest message that was not removed.
    oldest: u64,
    holds: BTreeMap<Bytes, Bytes>,
}

impl Churn {
    pub(crate) fn new(load: Load, seed: u64) -> Self {
        Self {
            load,
            rng: fastrand::Rng::with_seed(seed),
            count: 0,
            oldest: OLD,
            holds: BTreeMap::new(),
        }
    }

    pub(crate) fn next(&mut self) -> Batch {
        let mut batch = Batch::new();
        match self.load {
            Load::Node => self.go_on(&mut batch),
            Load::Hot => {
                let key = named(b'h', self.rng.u64(..HOT));
                let len = self.rng.usize(16 << 10..1 << 20);
                self.put(&mut batch, key, filled(self.count, len));
            }
        }
        self.count += 1;
        let count = Bytes::copy_from_slice(&self.count.to_be_bytes());
        self.put(&mut batch, Bytes::from_static(COUNT), count);
        batch
    }

    fn go_on(&mut self, batch: &mut Batch) {
        let number = self.count;
        let len = match self.rng.u32(..100) {
            0..70 => self.rng.usize(200..3_000),
            70..95 => 16 << 10,
            _ => self.rng.usize(60_000..200_000),
        };
        self.put(batch, named(b'm', number), filled(number, len));
        let session = named(b's', number % SESSIONS);
        self.put(batch, session, filled(number, 2_700));
        if number > OLD && (number / PHASE) % 2 == 1 {
            for _ in 0..3 {
                if self.oldest < number {
                    self.delete(batch, named(b'm', self.oldest));
                    self.oldest += 1;
                }
            }
        }
    }

    fn put(&mut self, batch: &mut Batch, key: Bytes, value: Bytes) {
        self.holds.insert(key.clone(), value.clone());
        batch.put(key, value);
    }

    fn delete(&mut self, batch: &mut Batch, key: Bytes) {
        self.holds.remove(&key);
        batch.delete(key);
    }

    /// The commits as far as a store has them.
    pub(crate) async fn of(load: Load, seed: u64, store: &SledStore) -> Result<Self, StoreError> {
        let count = store.get(Bytes::from_static(COUNT)).await?;
        let count = count.map_or(0, |count| u64::from_be_bytes(count[..].try_into().unwrap()));
        let mut churn = Self::new(load, seed);
        while churn.count < count {
            churn.next();
        }
        Ok(churn)
    }

    /// How many commits a store has. Panics if it does not hold what they left, and nothing else.
    pub(crate) async fn found(load: Load, seed: u64, store: &SledStore) -> Result<u64, StoreError> {
        let mut churn = Self::of(load, seed, store).await?;
        let count = churn.count;
        let mut from = Bytes::new();
        loop {
            let part = store.range(from..END, PART).await?;
            let Some((last, _)) = part.last() else { break };
            from = Bytes::from([last, &[0][..]].concat());
            for (key, value) in part {
                let should = churn.holds.remove(&key);
                assert!(should == Some(value), "{key:?} after {count} commits");
            }
        }
        let missing: Vec<_> = churn.holds.keys().collect();
        assert!(missing.is_empty(), "{missing:?} after {count} commits");
        Ok(count)
    }
}

fn named(kind: u8, number: u64) -> Bytes {
    Bytes::from([&[kind][..], &number.to_be_bytes()].concat())
}

fn filled(number: u64, len: usize) -> Bytes {
    let pattern = number.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_le_bytes();
    pattern.into_iter().cycle().take(len).collect()
}

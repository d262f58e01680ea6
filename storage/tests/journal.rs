//! What a process that died left in the journal.
//!
//! A crash is staged from its two halves: the log as it was before some commits, and the journal as
//! it is after them. That is what is left when sled had flushed nothing yet.
#![cfg(feature = "sled")]

#[path = "support/directory.rs"]
mod directory;
mod support;

use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use outlive_core::store::{Batch, ReadLimit, Store, StoreError};
use outlive_storage::{Durability, SledOptions, SledStore};
use outlive_testing::comes_true;
use tempfile::TempDir;

use directory::copy;
use support::{found, number, numbered};

/// So rarely that no test sees it.
const BUFFERED: Durability = Durability::Buffered {
    flush_every: Duration::from_secs(3600),
};

const JOURNAL: &str = "journal";

fn options(dir: &TempDir) -> SledOptions {
    SledOptions::new(dir.path()).durability(BUFFERED)
}

/// The halves of a crash.
struct Crash {
    log: TempDir,
    journal: Vec<u8>,
}

impl Crash {
    /// Commits batches one after the other, `synced` of which the log holds.
    async fn after(batches: &[Batch], synced: usize) -> Self {
        let (dir, log) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (before, after) = batches.split_at(synced);
        let store = options(&dir).open().unwrap();
        for batch in before {
            store.commit(batch.clone()).await.unwrap();
        }
        store.close().await.unwrap();
        copy(dir.path(), log.path());
        let store = options(&dir).open().unwrap();
        for batch in after {
            store.commit(batch.clone()).await.unwrap();
        }
        let journal = fs::read(dir.path().join(JOURNAL)).unwrap();
        assert_eq!(records(&journal).len(), after.len());
        Self { log, journal }
    }

    /// Commits so many numbered batches, of which the log holds the first two.
    async fn numbered(count: u64) -> Self {
        let batches: Vec<_> = (0..count).map(|at| numbered(at, 10)).collect();
        Self::after(&batches, 2).await
    }

    /// What is on the disk, if that is in the journal.
    fn left(&self, journal: &[u8]) -> TempDir {
        let dir = tempfile::tempdir().unwrap();
        copy(self.log.path(), dir.path());
        fs::write(dir.path().join(JOURNAL), journal).unwrap();
        dir
    }

    fn records(&self) -> Vec<Range<usize>> {
        records(&self.journal)
    }
}

/// Where the records of a journal are.
fn records(journal: &[u8]) -> Vec<Range<usize>> {
    let (mut records, mut at) = (Vec::new(), 0);
    while at < journal.len() {
        let len = u32::from_le_bytes(journal[at + 4..at + 8].try_into().unwrap());
        let end = at + 8 + len as usize;
        records.push(at..end);
        at = end;
    }
    records
}

/// Opens what a crash left. The batches that are there: those before `end`, as often as it is opened,
/// with what is committed since.
async fn holds(dir: &TempDir, end: u64) {
    let store = options(dir).open().unwrap();
    let expected = || 0..end;
    assert!(found(&store).await.into_iter().eq(expected()));
    store.commit(numbered(end, 10)).await.unwrap();
    drop(store);
    let store = options(dir).open().unwrap();
    assert!(found(&store).await.into_iter().eq(0..=end));
    assert_eq!(fs::read(dir.path().join(JOURNAL)).unwrap(), []);
}

#[tokio::test]
async fn what_only_the_journal_holds_is_taken_up() {
    let crash = Crash::numbered(9).await;
    holds(&crash.left(&crash.journal), 9).await;
}

#[tokio::test]
async fn a_store_opened_to_sync_takes_up_what_was_left_buffered() {
    let crash = Crash::numbered(9).await;
    let dir = crash.left(&crash.journal);
    let store = SledStore::open(dir.path()).unwrap();
    assert!(found(&store).await.into_iter().eq(0..9));
    assert_eq!(fs::read(dir.path().join(JOURNAL)).unwrap(), []);
}

#[tokio::test]
async fn a_journal_cut_anywhere_in_its_last_write_holds_all_before_it() {
    let crash = Crash::numbered(6).await;
    let last = crash.records().pop().unwrap();
    for end in last {
        holds(&crash.left(&crash.journal[..end]), 5).await;
    }
}

#[tokio::test]
async fn a_changed_byte_in_the_journal_takes_that_write_and_what_follows() {
    let crash = Crash::numbered(6).await;
    for at in crash.records()[2].clone() {
        let mut journal = crash.journal.clone();
        journal[at] ^= 0x10;
        holds(&crash.left(&journal), 4).await;
    }
}

#[tokio::test]
async fn writes_behind_a_gap_are_dropped() {
    let crash = Crash::numbered(6).await;
    for (index, gap) in crash.records().into_iter().enumerate() {
        let mut journal = crash.journal.clone();
        journal.drain(gap);
        holds(&crash.left(&journal), 2 + index as u64).await;
    }
}

#[tokio::test]
async fn a_journal_beside_a_log_that_is_further_changes_nothing() {
    // The third batch is written, and then gone again.
    let mut gone = Batch::new();
    gone.delete(number(2));
    gone.delete(number(2 | 1 << 63));
    let batches: Vec<_> = (0..3).map(|at| numbered(at, 10)).chain([gone]).collect();
    let crash = Crash::after(&batches, 2).await;
    let written = &crash.journal[crash.records()[0].clone()];
    let dir = crash.left(&crash.journal);
    for compact_above in [u64::MAX, 0] {
        let options = options(&dir).compact_above(compact_above);
        options.clone().open().unwrap().close().await.unwrap();
        fs::write(dir.path().join(JOURNAL), written).unwrap();
        let store = options.open().unwrap();
        assert_eq!(found(&store).await, [0, 1]);
    }
}

#[tokio::test]
async fn large_values_and_what_takes_their_place_go_through_the_journal() {
    let key = |name: &'static str| Bytes::from_static(name.as_bytes());
    let (large, other) = (Bytes::from(vec![1; 50_000]), Bytes::from(vec![2; 30_000]));
    let put = |name, value: &Bytes| {
        let mut batch = Batch::new();
        batch.put(key(name), value.clone());
        batch
    };
    let mut gone = Batch::new();
    gone.delete(key("gone"));
    gone.delete(key("never there"));
    let batches = [
        put("gone", &large),
        put("replaced", &large),
        put("new", &large),
        put("replaced", &other),
        gone,
    ];
    let crash = Crash::after(&batches, 2).await;
    let store = options(&crash.left(&crash.journal)).open().unwrap();
    assert_eq!(store.get(key("new")).await.unwrap(), Some(large));
    assert_eq!(store.get(key("replaced")).await.unwrap(), Some(other));
    assert_eq!(store.get(key("gone")).await.unwrap(), None);
}

#[tokio::test]
async fn a_write_too_large_for_the_journal_leaves_nothing_in_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = options(&dir).open().unwrap();
    for len in [10, 500_000, 10] {
        store.commit(numbered(len as u64, len)).await.unwrap();
    }
    let journal = fs::read(dir.path().join(JOURNAL)).unwrap();
    assert_eq!(records(&journal).len(), 1);
    let image = tempfile::tempdir().unwrap();
    copy(dir.path(), image.path());
    assert_eq!(found(&options(&image).open().unwrap()).await, [10, 500_000]);
}

#[tokio::test]
async fn reads_see_journal_and_log_as_one() {
    let dir = tempfile::tempdir().unwrap();
    let store = options(&dir).open().unwrap();
    let mut model = BTreeMap::new();
    let mut state = 7_u64;
    let mut random = |below: u64| {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        (state >> 33) % below
    };
    for round in 0..3_000_u64 {
        let mut batch = Batch::new();
        for _ in 0..random(4) {
            let key = number(random(40));
            if random(3) == 0 {
                batch.delete(key.clone());
                model.remove(&key);
            } else {
                // Now and then one that takes all that is pending into the log.
                let len = if random(100) == 0 { 70_000 } else { random(50) };
                let value = Bytes::from(vec![round.to_be_bytes()[7]; len as usize]);
                batch.put(key.clone(), value.clone());
                model.insert(key, value);
            }
        }
        store.commit(batch).await.unwrap();
        let key = number(random(40));
        assert_eq!(
            store.get(key.clone()).await.unwrap(),
            model.get(&key).cloned()
        );
        let (start, end) = (random(40), random(41));
        let limit = ReadLimit {
            records: 1 + random(20) as usize,
            bytes: usize::MAX,
        };
        let read = store
            .range(number(start)..number(end), limit)
            .await
            .unwrap();
        let expected = model
            .iter()
            .filter(|(key, _)| (number(start)..number(end)).contains(*key));
        assert!(
            read.iter()
                .map(|(key, value)| (key, value))
                .eq(expected.take(limit.records)),
            "round {round}"
        );
    }
    drop(store);
    let all = ReadLimit {
        records: usize::MAX,
        bytes: usize::MAX,
    };
    let store = options(&dir).open().unwrap();
    let read = store.range(number(0)..number(40), all).await.unwrap();
    assert!(read.into_iter().eq(model));
}

#[tokio::test]
async fn a_short_commit_does_not_overtake_a_long_one_that_waits() {
    let dir = tempfile::tempdir().unwrap();
    let store = options(&dir).open().unwrap();
    let key = Bytes::from_static(b"key");
    let put = |len: usize| {
        let mut batch = Batch::new();
        batch.put(key.clone(), vec![7; len].into());
        batch
    };
    for round in 0..200 {
        // From the second commit after a sync on, short ones are written by whoever makes them.
        store.commit(put(1)).await.unwrap();
        let (long, short) = (store.commit(put(70_000)), store.commit(put(2)));
        let (long, short) = tokio::join!(long, short);
        long.and(short).unwrap();
        let last = store.get(key.clone()).await.unwrap();
        assert_eq!(last.map(|value| value.len()), Some(2), "round {round}");
    }
}

#[tokio::test]
async fn every_commit_is_followed_by_a_sync() {
    let dir = tempfile::tempdir().unwrap();
    let flush_every = Duration::from_millis(20);
    let options = options(&dir).durability(Durability::Buffered { flush_every });
    let store = options.open().unwrap();
    for round in 0..5 {
        for at in 0..3 {
            store.commit(numbered(round * 3 + at, 10)).await.unwrap();
        }
        // A sync tells nobody but the disk.
        comes_true("a sync", async || {
            fs::metadata(dir.path().join(JOURNAL)).unwrap().len() == 0
        })
        .await;
    }
}

#[tokio::test]
async fn a_journal_longer_than_any_is_damage() {
    let crash = Crash::numbered(3).await;
    let dir = crash.left(&vec![0; (256 << 10) + 1]);
    let error = options(&dir).open().unwrap_err();
    assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
}

#[tokio::test]
async fn a_cut_log_is_salvaged_up_to_the_gap_before_the_journal() {
    let batches: Vec<_> = (0..310).map(|at| numbered(at, 1000)).collect();
    let crash = Crash::after(&batches, 300).await;
    let dir = crash.left(&crash.journal);
    let log = fs::OpenOptions::new()
        .write(true)
        .open(dir.path().join("log-0/db"))
        .unwrap();
    log.set_len(log.metadata().unwrap().len() / 2).unwrap();
    let error = options(&dir).open().unwrap_err();
    assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
    let store = options(&dir).salvage(true).open().unwrap();
    let left = found(&store).await;
    assert!(left.len() < 300 && left.iter().copied().eq(0..left.len() as u64));
}

#[cfg(feature = "encryption")]
#[tokio::test]
async fn an_encrypted_store_journals_nothing_readable() {
    use outlive_storage::{EncryptedStore, Unlock};
    const LINE: &[u8] = b"the quick brown fox jumps over the lazy dog";
    let dir = tempfile::tempdir().unwrap();
    let store = options(&dir).open().unwrap();
    let store = EncryptedStore::open(store, &Unlock::key([7; 32]))
        .await
        .unwrap();
    let mut batch = Batch::new();
    batch.put(Bytes::from_static(b"key"), Bytes::from_static(LINE));
    store.commit(batch).await.unwrap();
    let journal = fs::read(dir.path().join(JOURNAL)).unwrap();
    assert!(journal.len() > LINE.len());
    let readable = |part| LINE.windows(8).any(|of| of == part);
    assert!(!journal.windows(8).any(readable));
}

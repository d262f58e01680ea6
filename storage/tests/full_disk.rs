//! A disk that is full, and has room again.
#![cfg(feature = "sled")]

#[path = "support/disk_use.rs"]
mod disk_use;
mod support;

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use outlive_core::store::{Batch, Store, StoreError};
use outlive_storage::{Durability, SledOptions, SledStore};
use outlive_testing::{SmallDisk, soon};

use disk_use::disk_use;
use support::{found, number, numbered};

/// As large as it is.
const MIB: u64 = 24;

/// So rarely that no test sees it.
const BUFFERED: Durability = Durability::Buffered {
    flush_every: Duration::from_secs(3600),
};

/// Writes until nothing more goes in.
fn fill(path: &Path) {
    let mut file = File::create(path).unwrap();
    for chunk in [64 << 10, 4 << 10] {
        while file.write_all(&vec![0; chunk]).is_ok() {}
    }
}

async fn fills_the_disk(durability: Durability, len: usize) {
    let Some(disk) = SmallDisk::mount(MIB) else {
        return;
    };
    let dir = disk.path().join("store");
    let ballast = disk.path().join("ballast");
    let options = SledOptions::new(&dir).durability(durability);
    let store = options.open().unwrap();
    fs::write(&ballast, vec![0; 8 << 20]).unwrap();
    let mut acknowledged = Vec::new();
    let mut at = 0;
    let error = loop {
        match store.commit(numbered(at, len)).await {
            Ok(()) => acknowledged.push(at),
            Err(error) => break error,
        }
        at += 1;
    };
    assert!(matches!(error, StoreError::Full), "{error}");
    println!("full after {} batches of {len} bytes", acknowledged.len());
    for _ in 0..3 {
        let again = store.commit(numbered(at, len)).await;
        match again {
            Ok(()) => acknowledged.push(at),
            Err(error) => assert!(matches!(error, StoreError::Full), "{error}"),
        }
        at += 1;
    }
    fs::remove_file(&ballast).unwrap();
    for _ in 0..3 {
        store.commit(numbered(at, len)).await.unwrap();
        acknowledged.push(at);
        at += 1;
    }
    assert_eq!(
        found(&store).await,
        acknowledged,
        "what failed is not there, what did not is"
    );
    store.close().await.unwrap();
    let store = SledStore::open(&dir).unwrap();
    assert_eq!(found(&store).await, acknowledged);
}

#[tokio::test]
async fn a_full_disk_fails_commits_until_there_is_room_again() {
    fills_the_disk(Durability::Sync, 3000).await;
}

#[tokio::test]
async fn a_full_disk_fails_buffered_commits_until_there_is_room_again() {
    fills_the_disk(BUFFERED, 3000).await;
}

#[tokio::test]
async fn a_full_disk_fails_large_values_too() {
    fills_the_disk(Durability::Sync, 200_000).await;
}

#[tokio::test]
async fn a_full_disk_fails_large_buffered_values_too() {
    fills_the_disk(BUFFERED, 200_000).await;
}

/// A store with commits that only its journal and sled's memory hold, on a disk that is full; and
/// how many there are. `None` where no small disk can be mounted.
async fn only_journaled(flush_every: Duration) -> Option<(SmallDisk, SledStore, u64)> {
    const BATCHES: u64 = 200;
    let disk = SmallDisk::mount(MIB)?;
    let options = SledOptions::new(disk.path().join("store"))
        .durability(Durability::Buffered { flush_every });
    let store = options.open().unwrap();
    for at in 0..BATCHES {
        store.commit(numbered(at, 100)).await.unwrap();
    }
    fill(&disk.path().join("ballast"));
    Some((disk, store, BATCHES))
}

#[tokio::test]
async fn what_was_committed_outlives_a_disk_too_full_to_flush_it() {
    // sled flushes by itself now and then: if it was quicker, the disk is filled for nothing.
    for _ in 0..10 {
        let Some((disk, store, batches)) = only_journaled(Duration::from_secs(3600)).await else {
            return;
        };
        let closed = store.close().await;
        drop(store);
        fs::remove_file(disk.path().join("ballast")).unwrap();
        let store = SledStore::open(disk.path().join("store")).unwrap();
        assert!(found(&store).await.into_iter().eq(0..batches));
        if let Err(error) = closed {
            assert!(matches!(error, StoreError::Full), "{error}");
            return;
        }
    }
    panic!("there always was room");
}

#[tokio::test]
async fn a_disk_too_full_to_sync_leaves_every_commit_answered() {
    let every = Duration::from_millis(500);
    let Some((disk, store, batches)) = only_journaled(every).await else {
        return;
    };
    let started = Instant::now();
    let commit = |at| soon("an answer", store.commit(numbered(at, 100)));
    let mut acknowledged: Vec<_> = (0..batches).collect();
    let mut at = batches;
    // The time to sync comes meanwhile.
    while started.elapsed() < 2 * every {
        match commit(at).await {
            Ok(()) => acknowledged.push(at),
            Err(error) => assert!(matches!(error, StoreError::Full), "{error}"),
        }
        at += 1;
    }
    assert_ne!(acknowledged.last(), Some(&(at - 1)), "the disk is not full");
    fs::remove_file(disk.path().join("ballast")).unwrap();
    commit(at).await.unwrap();
    acknowledged.push(at);
    assert_eq!(found(&store).await, acknowledged);
}

#[tokio::test]
async fn a_log_that_finds_no_room_to_be_compacted_goes_on_as_it_is() {
    let Some(disk) = SmallDisk::mount(MIB) else {
        println!("skipped: a small file system can't be mounted here");
        return;
    };
    const BATCHES: u64 = 600;
    const KEPT: u64 = 100;
    let dir = disk.path().join("store");
    let ballast = disk.path().join("ballast");
    let store = SledStore::open(&dir).unwrap();
    for at in 0..BATCHES {
        store.commit(numbered(at, 4_000)).await.unwrap();
    }
    for at in KEPT..BATCHES {
        let mut batch = Batch::new();
        batch.delete(number(at));
        batch.delete(number(at | 1 << 63));
        store.commit(batch).await.unwrap();
    }
    store.close().await.unwrap();
    let room = (MIB << 20) - disk_use(disk.path()) - (1 << 20);
    fs::write(&ballast, vec![0; usize::try_from(room).unwrap()]).unwrap();
    let options = SledOptions::new(&dir).compact_above(0);
    let store = options.clone().open().unwrap();
    store.commit(numbered(KEPT, 100)).await.unwrap();
    let kept: Vec<_> = (0..=KEPT).collect();
    assert_eq!(found(&store).await, kept);
    store.close().await.unwrap();
    assert!(dir.join("log-0").exists(), "there was room");
    fs::remove_file(&ballast).unwrap();
    let store = options.open().unwrap();
    store.commit(numbered(KEPT + 1, 100)).await.unwrap();
    store.close().await.unwrap();
    assert!(!dir.join("log-0").exists(), "the log was not compacted");
    let store = SledStore::open(&dir).unwrap();
    assert_eq!(found(&store).await.len() as u64, KEPT + 2);
}

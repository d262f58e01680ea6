//! What only a store on disk has: group commit, a lock, a disk that is used.
#![cfg(feature = "sled")]

#[path = "support/disk_use.rs"]
mod disk_use;
mod support;

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use outlive_core::store::{Batch, Store, StoreError};
use outlive_storage::{Durability, MAX_KEY_BYTES, SledOptions, SledStore};

use disk_use::disk_use;
use support::{found, number, numbered};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commits_that_wait_together_share_a_flush() {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(SledStore::open(dir.path()).unwrap());
    let mut tasks = tokio::task::JoinSet::new();
    let started = Instant::now();
    for task in 0..200 {
        let store = store.clone();
        tasks.spawn(async move {
            for step in 0..10 {
                store.commit(numbered(task * 10 + step, 100)).await.unwrap();
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    println!(
        "2000 commits, {} flushes, {:?}",
        store.flushes(),
        started.elapsed()
    );
    assert_eq!(store.commits(), 2000);
    assert!(store.flushes() < 400, "{} flushes", store.flushes());
    assert_eq!(found(&store).await.len(), 2000);
}

#[test]
fn a_store_that_can_t_be_opened_says_where_it_lies() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a file");
    fs::write(&path, "not a directory").unwrap();
    let error = SledStore::open(&path).unwrap_err();
    assert!(matches!(error, StoreError::Io(_)), "{error:?}");
    let told = error.to_string();
    assert!(told.contains(path.to_str().unwrap()), "{told}");
}

#[cfg(unix)]
#[tokio::test]
async fn what_the_store_makes_others_can_not_read() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("made/by/the store");
    let store = SledStore::open(&path).unwrap();
    store.commit(numbered(1, 1)).await.unwrap();
    for made in [&path, path.parent().unwrap()] {
        let mode = fs::metadata(made).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{}", made.display());
    }
}

#[tokio::test]
async fn a_key_too_long_is_refused_and_nothing_written() {
    let dir = tempfile::tempdir().unwrap();
    let store = SledStore::open(dir.path()).unwrap();
    let mut batch = numbered(1, 1);
    batch.put(Bytes::from(vec![0; MAX_KEY_BYTES + 1]), Bytes::new());
    assert!(matches!(store.commit(batch).await, Err(StoreError::Io(_))));
    assert!(found(&store).await.is_empty());
}

#[tokio::test]
async fn a_handle_that_is_dropped_or_closed_lets_the_next_one_in_at_once() {
    let dir = tempfile::tempdir().unwrap();
    for round in 0..20 {
        let store = SledStore::open(dir.path()).unwrap();
        match SledStore::open(dir.path()).unwrap_err() {
            StoreError::InUse { path } => assert_eq!(Path::new(&path), dir.path()),
            other => panic!("{other}"),
        }
        store.commit(numbered(round, 10)).await.unwrap();
        if round % 2 == 0 {
            store.close().await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn disk_use_follows_the_live_data() {
    let dir = tempfile::tempdir().unwrap();
    let durability = Durability::Buffered {
        flush_every: Duration::from_secs(1),
    };
    let store = SledOptions::new(dir.path())
        .durability(durability)
        .open()
        .unwrap();
    let live = 1 << 20;
    let (len, group) = (4000, 32);
    let kept = live / (2 * len as u64 * group);
    let mut peak = 0;
    let started = Instant::now();
    for round in 0..kept * 200 {
        let mut batch = Batch::new();
        for at in 0..group {
            batch.append(numbered(round * group + at, len));
            if let Some(old) = round.checked_sub(kept) {
                batch.delete(number(old * group + at));
                batch.delete(number((old * group + at) | 1 << 63));
            }
        }
        store.commit(batch).await.unwrap();
        if round % 50 == 0 {
            peak = peak.max(disk_use(dir.path()));
        }
    }
    store.close().await.unwrap();
    let end = disk_use(dir.path());
    println!(
        "peak {} KiB, end {} KiB, {:?}",
        peak >> 10,
        end >> 10,
        started.elapsed()
    );
    assert!(peak < 32 * live, "{peak} bytes at the most for {live} live");
}

#[tokio::test]
async fn a_backlog_that_was_drained_gives_its_disk_back() {
    const BATCHES: u64 = 2_000;
    const KEPT: u64 = 10;
    let dir = tempfile::tempdir().unwrap();
    let small = 8 << 20;
    let options = SledOptions::new(dir.path()).compact_above(small);
    let store = options.clone().open().unwrap();
    for at in 0..BATCHES {
        store.commit(numbered(at, 4_000)).await.unwrap();
    }
    let full = disk_use(dir.path());
    assert!(full > 2 * small, "{full} bytes are no backlog");
    for at in KEPT..BATCHES {
        let mut batch = Batch::new();
        batch.delete(number(at));
        batch.delete(number(at | 1 << 63));
        store.commit(batch).await.unwrap();
    }
    let kept: Vec<_> = (0..KEPT).collect();
    assert_eq!(found(&store).await, kept);
    store.close().await.unwrap();
    let drained = disk_use(dir.path());
    println!("{full} bytes full, {drained} drained");
    // The log, and a little beside it.
    assert!(
        drained < small + small / 16,
        "{drained} bytes for 10 batches"
    );
    assert_eq!(found(&options.open().unwrap()).await, kept);
}

#[tokio::test]
async fn what_is_committed_while_the_log_is_compacted_is_in_the_new_one() {
    commits_while_the_log_is_compacted(Durability::Sync).await;
}

#[tokio::test]
async fn what_is_buffered_while_the_log_is_compacted_is_found_with_the_new_one() {
    let flush_every = Duration::from_secs(3600);
    commits_while_the_log_is_compacted(Durability::Buffered { flush_every }).await;
}

async fn commits_while_the_log_is_compacted(durability: Durability) {
    const BATCHES: u64 = 4_000;
    let dir = tempfile::tempdir().unwrap();
    let large = SledStore::open(dir.path()).unwrap();
    for at in 0..BATCHES / 100 {
        let mut batch = Batch::new();
        (0..100).for_each(|of| batch.append(numbered(at * 100 + of, 4_000)));
        large.commit(batch).await.unwrap();
    }
    // What stays is copied in several parts.
    let stays = |at: &u64| at.is_multiple_of(10);
    let mut batch = Batch::new();
    for at in (0..BATCHES).filter(|at| !stays(at)) {
        batch.delete(number(at));
        batch.delete(number(at | 1 << 63));
    }
    large.commit(batch).await.unwrap();
    large.close().await.unwrap();

    let store = SledOptions::new(dir.path())
        .durability(durability)
        .compact_above(0)
        .open()
        .unwrap();
    let mut kept: Vec<_> = (0..BATCHES).filter(stays).collect();
    let (mut commits, mut front, mut back) = (0, BATCHES, 0);
    while dir.path().join("log-0").exists() {
        // Ahead of the copy and behind it: something new, something gone.
        let mut batch = numbered(front, 100);
        for at in [back, BATCHES - 10 - back] {
            batch.delete(number(at));
            batch.delete(number(at | 1 << 63));
            kept.retain(|kept| *kept != at);
        }
        kept.push(front);
        store.commit(batch).await.unwrap();
        (commits, front, back) = (commits + 1, front + 1, back + 10);
        assert!(commits < 200, "the log is not compacted");
    }
    println!("compacted within {commits} commits");
    assert_eq!(found(&store).await, kept);
    store.close().await.unwrap();
    assert_eq!(found(&SledStore::open(dir.path()).unwrap()).await, kept);
}

#[tokio::test]
async fn what_a_crash_left_of_a_compaction_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    let log = |number| dir.path().join(format!("log-{number}"));
    let store = SledStore::open(dir.path()).unwrap();
    store.commit(numbered(1, 100)).await.unwrap();
    store.close().await.unwrap();
    // Before the new log took the place of the old one.
    fs::create_dir(log(1)).unwrap();
    fs::write(log(1).join("db"), vec![7; 1_000]).unwrap();
    let options = SledOptions::new(dir.path()).compact_above(0);
    let store = options.open().unwrap();
    store.commit(numbered(2, 100)).await.unwrap();
    store.close().await.unwrap();
    assert!(!log(0).exists(), "the log was not compacted");
    // After it.
    fs::create_dir(log(0)).unwrap();
    fs::write(log(0).join("db"), vec![7; 1_000]).unwrap();
    let store = SledStore::open(dir.path()).unwrap();
    assert!(!log(0).exists(), "the old log is still there");
    assert_eq!(found(&store).await, [1, 2]);
}

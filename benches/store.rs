//! Durable appends per second of many committers at once: what group commit brings.
//!
//! The baseline is sled itself writing the same bytes one after the other, with a flush and an
//! `fdatasync` for each, which is what `Sync` promises. For `Buffered` it is a flush for each, and a
//! bare `write` to a file for each: no more than that is promised.

mod baseline;

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use baseline::Pair;
use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput};
use outlive_core::store::{Batch, Store};
use outlive_storage::{Durability, SledOptions, SledStore};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

const GROUP: &str = "appends";
const COMMITTERS: [u64; 3] = [1, 16, 256];
const VALUE: usize = 256;

/// As long as in nobody's way: what is measured is the commit.
const BUFFERED: Durability = Durability::Buffered {
    flush_every: Duration::from_millis(500),
};

fn value() -> Bytes {
    Bytes::from(vec![0xa5; VALUE])
}

fn key(committer: u64, number: u64) -> [u8; 16] {
    (u128::from(committer) << 64 | u128::from(number)).to_be_bytes()
}

/// Has each committer commit `rounds` batches, one after the other.
async fn commit(store: Arc<SledStore>, committers: u64, first: u64, rounds: u64) -> Duration {
    let started = Instant::now();
    let mut running = JoinSet::new();
    for committer in 0..committers {
        let store = store.clone();
        running.spawn(async move {
            for number in first..first + rounds {
                let mut batch = Batch::new();
                batch.put(Bytes::copy_from_slice(&key(committer, number)), value());
                store.commit(batch).await.expect("committed");
            }
        });
    }
    running.join_all().await;
    started.elapsed()
}

/// sled as it is, with a second handle on its log to sync it.
struct Raw {
    db: sled::Db,
    log: File,
}

impl Raw {
    fn open(dir: &Path) -> Self {
        let config = sled::Config::new().path(dir).flush_every_ms(None);
        let db = config.cache_capacity(16 << 20).open().expect("opened");
        let log = OpenOptions::new().write(true).open(dir.join("db"));
        Self {
            db,
            log: log.expect("sled's log"),
        }
    }

    fn append(&self, key: [u8; 16], sync: bool) {
        self.db.insert(key, &value()[..]).expect("inserted");
        self.db.flush().expect("flushed");
        if sync {
            self.log.sync_data().expect("synced");
        }
    }
}

fn appends(criterion: &mut Criterion, runtime: &Runtime) {
    let mut group = criterion.benchmark_group(GROUP);
    for committers in COMMITTERS {
        group.throughput(Throughput::Elements(committers));
        for (name, durability) in [("sync", Durability::Sync), ("buffered", BUFFERED)] {
            let dir = tempfile::tempdir().expect("a directory");
            let options = SledOptions::new(dir.path()).durability(durability);
            let store = Arc::new(options.open().expect("opened"));
            let mut next = 0;
            group.bench_function(BenchmarkId::new(name, committers), |bencher| {
                bencher.iter_custom(|rounds| {
                    let first = next;
                    next += rounds;
                    runtime.block_on(commit(store.clone(), committers, first, rounds))
                });
            });
        }
        for (name, sync) in [("sled-fdatasync", true), ("sled-flush", false)] {
            let dir = tempfile::tempdir().expect("a directory");
            let raw = Raw::open(dir.path());
            let mut next = 0;
            group.bench_function(BenchmarkId::new(name, committers), |bencher| {
                bencher.iter(|| {
                    for committer in 0..committers {
                        raw.append(key(committer, next), sync);
                    }
                    next += 1;
                });
            });
        }
        let mut file = tempfile::tempfile().expect("a file");
        let mut next = 0;
        group.bench_function(BenchmarkId::new("write", committers), |bencher| {
            bencher.iter(|| {
                for committer in 0..committers {
                    let record = [&key(committer, next)[..], &value()].concat();
                    file.write_all(&record).expect("written");
                }
                next += 1;
            });
        });
    }
    group.finish();
}

fn main() {
    let runtime = Runtime::new().expect("a runtime");
    let mut criterion = baseline::criterion();
    appends(&mut criterion, &runtime);
    criterion.final_summary();
    for (ours, baseline) in [
        ("sync", "sled-fdatasync"),
        ("buffered", "sled-flush"),
        ("buffered", "write"),
    ] {
        let pair = Pair {
            group: GROUP,
            ours,
            baseline,
        };
        for committers in COMMITTERS {
            pair.print(&committers.to_string());
        }
    }
}

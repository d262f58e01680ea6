//! Power cuts, at any moment, over a device that writes what was not synced in any order. What was
//! promised to be durable has to be there, and whatever else is found ends with a commit.
//!
//! The cuts of a run follow from its seed, and what was recorded from that and from how the threads of
//! the process came along: `POWER_CUTS_SEED` and `POWER_CUTS` say which, and how many.
#![cfg(all(feature = "sled", target_os = "linux", target_env = "gnu"))]
#![cfg(target_pointer_width = "64")]

mod churn;
mod device;
mod record;

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use outlive_core::store::{Store, StoreError};
use outlive_storage::{Durability, SledOptions, SledStore};
use tempfile::TempDir;

use churn::{Churn, Load};
use device::{Device, Kept};
use record::{Call, Change, recorded};

/// sled's file.
const LOG: &str = "db";

const JOURNAL: &str = "journal";

/// Where the process says how many of its commits were acknowledged.
const ACKNOWLEDGED: &str = "acknowledged";

fn set<T: std::str::FromStr>(name: &str) -> Option<T> {
    std::env::var(name).ok()?.parse().ok()
}

/// How a process has a store open, and what it does to it.
struct Run {
    seed: u64,
    /// `None`: [`Durability::Sync`].
    flush_every: Option<Duration>,
    /// Commits that wait at the same time.
    at_once: u64,
    compact_above: u64,
    /// Of each process.
    commits: u64,
    /// Processes, one after the other. None closes the store.
    processes: u64,
    load: Load,
}

impl Run {
    fn new(flush_every: Option<Duration>) -> Self {
        let seed = set("POWER_CUTS_SEED").unwrap_or_else(|| fastrand::u64(..));
        println!("seed {seed}");
        Self {
            seed,
            flush_every,
            at_once: 100,
            compact_above: 1 << 30,
            commits: 3_000,
            processes: 1,
            load: Load::Node,
        }
    }

    /// This test binary, run again as a process that commits.
    fn command(&self) -> Command {
        let mut command = Command::new(std::env::current_exe().unwrap());
        let flush_every = self.flush_every.map_or(0, |every| every.as_millis());
        command
            .args(["--exact", "a_process_that_commits", "--ignored"])
            .env("SEED", self.seed.to_string())
            .env("FLUSH_EVERY", flush_every.to_string())
            .env("AT_ONCE", self.at_once.to_string())
            .env("COMPACT_ABOVE", self.compact_above.to_string())
            .env("COMMITS", self.commits.to_string())
            .env("HOT", u64::from(matches!(self.load, Load::Hot)).to_string());
        command
    }

    /// What such processes did to its files, which are below the path.
    fn recorded(&self, scratch: &TempDir) -> (PathBuf, Vec<Call>) {
        let files = scratch.path().join("files");
        std::fs::create_dir(&files).unwrap();
        let processes = (0..self.processes).map(|_| self.command());
        let calls = recorded(processes.collect(), &files, scratch.path());
        (files, calls)
    }
}

#[test]
#[ignore = "the process whose power is cut"]
fn a_process_that_commits() {
    let Some(dir) = set::<PathBuf>("RECORD_BELOW") else {
        return;
    };
    let number = |name| set::<u64>(name).unwrap();
    let durability = match number("FLUSH_EVERY") {
        0 => Durability::Sync,
        millis => Durability::Buffered {
            flush_every: Duration::from_millis(millis),
        },
    };
    let load = match number("HOT") {
        0 => Load::Node,
        _ => Load::Hot,
    };
    let acknowledged = dir.join(ACKNOWLEDGED);
    let mut acknowledged = File::options()
        .append(true)
        .create(true)
        .open(acknowledged)
        .unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(async {
        let store = SledOptions::new(dir.join("store"))
            .durability(durability)
            .compact_above(number("COMPACT_ABOVE"))
            .open();
        let store = Arc::new(store.unwrap());
        let mut rng = fastrand::Rng::with_seed(number("SEED"));
        let mut churn = Churn::of(load, number("SEED"), &store).await.unwrap();
        let end = churn.count + number("COMMITS");
        while churn.count < end {
            // Committed in the order of their first poll.
            let waiting: Vec<_> = (0..rng.u64(1..=number("AT_ONCE")))
                .map(|_| {
                    let (store, batch) = (store.clone(), churn.next());
                    tokio::spawn(async move { store.commit(batch).await })
                })
                .collect();
            for commit in waiting {
                commit.await.unwrap().unwrap();
            }
            acknowledged.write_all(&churn.count.to_be_bytes()).unwrap();
        }
        // Without closing the store, which would sync.
        std::process::exit(0);
    });
}

fn has_synchronous_files(dir: &Path) -> bool {
    let file = File::create(dir.join("synchronous")).unwrap();
    rustix::fs::ioctl_setflags(file, rustix::fs::IFlags::SYNC).is_ok()
}

/// The calls by which a store is opened again.
fn opening(calls: &[Call]) -> Vec<usize> {
    let (mut opening, mut at) = (Vec::new(), false);
    for (now, call) in calls.iter().enumerate() {
        match call {
            Call::Start => at = now > 0,
            Call::Change { path, .. } if path.ends_with(ACKNOWLEDGED) => at = false,
            _ if at => opening.push(now),
            _ => {}
        }
    }
    opening
}

/// What is found after a power cut: how many commits.
fn found(load: Load, seed: u64, dir: &Path) -> Result<u64, StoreError> {
    let store = SledStore::open(dir)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(Churn::found(load, seed, &store))
}

fn survives(run: &Run) {
    // Where the file system of the build has what is needed, though that of `/tmp` has not.
    let scratch = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    if !has_synchronous_files(scratch.path()) {
        println!("SKIPPED: the file system has no synchronous files");
        return;
    }
    let (files, calls) = run.recorded(&scratch);
    let mut rng = fastrand::Rng::with_seed(run.seed);
    let opening = opening(&calls);
    let mut cuts: Vec<_> = (0..set("POWER_CUTS").unwrap_or(60))
        // Of those there are few.
        .map(|_| match rng.choice(&opening) {
            Some(at) if rng.bool() => *at,
            _ => rng.usize(..calls.len()),
        })
        .collect();
    // The next one is the last.
    cuts.sort_unstable_by_key(|at| std::cmp::Reverse(*at));
    let mut device = Device::default();
    let (mut acknowledged, mut durable) = (0, 0);
    let (mut through, mut configured) = (false, false);
    let mut lost = Vec::new();
    for (now, call) in calls.iter().enumerate() {
        device.take(call);
        match call {
            Call::WrittenThrough { path, .. } if path.ends_with(LOG) => through = true,
            Call::Sync { path, .. } if path.ends_with("conf") => configured = true,
            // All that was acknowledged is in the log.
            Call::Change {
                path,
                change: Change::Truncate { .. },
            } if path.ends_with(JOURNAL) => durable = acknowledged,
            Call::Change {
                path,
                change: Change::Write { data, .. },
            } if path.ends_with(ACKNOWLEDGED) => {
                acknowledged = u64::from_be_bytes(data[..].try_into().unwrap());
                if run.flush_every.is_none() {
                    durable = acknowledged;
                }
            }
            _ => {}
        }
        // Before that it is made, and nobody was promised anything.
        if acknowledged == 0 {
            continue;
        }
        assert!(configured, "without its configuration sled refuses the log");
        while cuts.pop_if(|at| *at <= now).is_some() {
            let kept = match rng.u32(..5) {
                0 => Kept::All,
                1 => Kept::Nothing,
                2 => Kept::Last(rng.usize(1..100)),
                _ => Kept::Some(rng.f64()),
            };
            let dir = scratch.path().join("found");
            device.cut(&files.join("store"), &dir, kept, &mut rng);
            match found(run.load, run.seed, &dir) {
                Ok(found) if found >= durable => {}
                other => lost.push((now, kept, durable, other)),
            }
            std::fs::remove_dir_all(dir).unwrap();
        }
    }
    assert!(acknowledged >= run.commits && durable > 0);
    assert!(lost.is_empty(), "{lost:?}");
    assert!(through, "the log is to be written through");
}

#[test]
fn a_power_cut_takes_no_synced_commit() {
    survives(&Run::new(None));
}

#[test]
fn a_power_cut_takes_no_buffered_commit_that_was_synced_since() {
    survives(&Run::new(Some(Duration::from_millis(20))));
}

#[test]
fn a_power_cut_while_the_log_is_compacted_takes_no_commit() {
    survives(&Run {
        compact_above: 4 << 20,
        ..Run::new(None)
    });
}

#[test]
fn a_power_cut_while_a_buffered_log_is_compacted_takes_no_commit_that_was_synced() {
    survives(&Run {
        compact_above: 4 << 20,
        ..Run::new(Some(Duration::from_millis(20)))
    });
}

#[test]
fn a_power_cut_while_a_store_is_opened_again_takes_no_commit() {
    survives(&Run {
        at_once: 8,
        commits: 20,
        processes: 16,
        load: Load::Hot,
        ..Run::new(None)
    });
}

#[test]
fn where_nothing_is_written_through_the_journal_is_emptied_after_a_sync() {
    let Ok(scratch) = tempfile::tempdir_in("/dev/shm") else {
        println!("SKIPPED: there is no memory to write files to");
        return;
    };
    let run = Run {
        at_once: 1,
        ..Run::new(Some(Duration::from_hours(1)))
    };
    if has_synchronous_files(scratch.path()) {
        println!("SKIPPED: memory has synchronous files here");
        return;
    }
    let (_, calls) = run.recorded(&scratch);
    // The last that was done to the log or to the journal.
    let (mut synced, mut emptied) = (false, 0);
    for call in calls {
        match call {
            Call::Sync {
                path,
                of_data: true,
            } if path.ends_with(LOG) => synced = true,
            Call::Change { path, change } if path.ends_with(JOURNAL) => {
                if let Change::Truncate { .. } = change {
                    assert!(synced, "emptied before the log was synced");
                    emptied += 1;
                }
                synced = false;
            }
            _ => {}
        }
    }
    assert!(emptied > 10);
}

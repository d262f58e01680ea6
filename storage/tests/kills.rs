//! A process that has the store open, and dies of SIGKILL.
#![cfg(feature = "sled")]

mod support;

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use outlive_core::store::{Store, StoreError};
use outlive_storage::{Durability, SledOptions, SledStore};

use support::{found, numbered};

/// This test binary, run again as a process that appends for ever.
struct Appender {
    process: Child,
    acknowledged: BufReader<ChildStdout>,
}

impl Appender {
    fn start(dir: &Path, durability: &str) -> Self {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "appends_until_it_is_killed",
                "--ignored",
                "--nocapture",
            ])
            .env("APPEND_TO", dir)
            .env("DURABILITY", durability)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let acknowledged = BufReader::new(process.stdout.take().unwrap());
        Self {
            process,
            acknowledged,
        }
    }

    /// Waits for so many acknowledged batches.
    fn acknowledged(&mut self, count: usize) -> Vec<u64> {
        let lines = (&mut self.acknowledged).lines().map(Result::unwrap);
        let numbers: Vec<_> = lines
            .filter_map(|line| acknowledged(&line))
            .take(count)
            .collect();
        assert_eq!(numbers.len(), count, "the process ended by itself");
        numbers
    }

    /// Kills it. What it acknowledged before it died.
    fn kill(mut self) -> Vec<u64> {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        let lines = self.acknowledged.lines().map(Result::unwrap);
        lines.filter_map(|line| acknowledged(&line)).collect()
    }
}

fn acknowledged(line: &str) -> Option<u64> {
    line.strip_prefix("ack ")?.strip_suffix('.')?.parse().ok()
}

#[test]
#[ignore = "the process that the tests with SIGKILL kill"]
fn appends_until_it_is_killed() {
    let Some(dir) = std::env::var_os("APPEND_TO") else {
        return;
    };
    let kind = std::env::var("DURABILITY").unwrap_or_default();
    let buffered = |flush_every| Durability::Buffered { flush_every };
    let durability = match kind.as_str() {
        "buffered" | "buffered compacting" => buffered(Duration::from_secs(3600)),
        "often synced" => buffered(Duration::from_millis(1)),
        _ => Durability::Sync,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .build()
        .unwrap();
    runtime.block_on(async {
        let compacting = kind.ends_with("compacting");
        let mut options = SledOptions::new(dir).durability(durability);
        if compacting {
            // What is written here is little: the log is compacted after every write.
            options = options.compact_above(0);
        }
        let store = Arc::new(options.open().unwrap());
        let len = if compacting { 70 } else { 700 };
        let first = found(&store).await.last().map_or(0, |last| last + 1);
        println!();
        let mut at = first;
        loop {
            // Four at once, so that groups are killed too.
            let commits = (0..4).map(|step| {
                let store = store.clone();
                tokio::spawn(async move { store.commit(numbered(at + step, len)).await })
            });
            for (step, commit) in (0..).zip(commits.collect::<Vec<_>>()) {
                commit.await.unwrap().unwrap();
                let mut out = std::io::stdout().lock();
                writeln!(out, "ack {}.", at + step).unwrap();
                out.flush().unwrap();
            }
            at += 4;
        }
    });
}

fn survives_kills(durability: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged = Vec::new();
    for round in 0..20 {
        let mut child = Appender::start(dir.path(), durability);
        acknowledged.extend(child.acknowledged(1 + round * 7));
        acknowledged.extend(child.kill());
    }
    let store = SledStore::open(dir.path()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let found = runtime.block_on(found(&store));
    println!(
        "{durability}: {} acknowledged, {} found",
        acknowledged.len(),
        found.len()
    );
    acknowledged.retain(|number| found.binary_search(number).is_err());
    assert_eq!(acknowledged, [], "acknowledged and missing");
    dir
}

#[test]
fn twenty_kills_lose_no_synced_commit() {
    survives_kills("sync");
}

#[test]
fn twenty_kills_lose_no_buffered_commit() {
    survives_kills("buffered");
}

#[test]
fn twenty_kills_while_the_log_is_compacted_lose_no_commit() {
    let dir = survives_kills("compacting");
    assert!(!dir.path().join("log-0").exists(), "it never was");
}

#[test]
fn twenty_kills_while_a_buffered_log_is_compacted_lose_no_commit() {
    let dir = survives_kills("buffered compacting");
    assert!(!dir.path().join("log-0").exists(), "it never was");
}

#[test]
fn twenty_kills_while_buffered_commits_are_synced_lose_none() {
    survives_kills("often synced");
}

#[test]
fn a_store_that_another_process_has_open_is_in_use() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = Appender::start(dir.path(), "sync");
    child.acknowledged(1);
    assert!(matches!(
        SledStore::open(dir.path()),
        Err(StoreError::InUse { .. })
    ));
    child.kill();
    SledStore::open(dir.path()).unwrap();
}

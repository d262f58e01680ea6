//! Whether disk use follows the live data: what a store takes while much more than it holds goes
//! through it, and what it costs to open one in which a million records wait.
//!
//! ```sh
//! cargo run --release -p outlive-storage --example disk_use
//! ```
//!
//! Takes a few minutes and about 1 GiB of disk, in the system's directory for temporary files.

use std::error::Error;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use bytes::Bytes;
use outlive_core::store::{Batch, ReadLimit, Store};
use outlive_storage::SledStore;

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

const MIB: u64 = 1 << 20;

/// How many times the live data goes through a queue.
const TIMES: u64 = 1_000;

/// Records in the backlog, and bytes of each.
const BACKLOG: u64 = 1_000_000;
const BACKLOG_BYTES: usize = 256;

/// Batches are about this large, as those of a busy session.
const BATCH_BYTES: u64 = 64 * 1024;

/// What the directory takes of the disk.
fn disk(dir: &Path) -> Outcome<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        bytes += match entry.metadata() {
            Ok(meta) if meta.is_dir() => disk(&entry.path())?,
            Ok(meta) => on_disk(&meta),
            // sled removes files of its own accord.
            Err(_) => 0,
        };
    }
    Ok(bytes)
}

#[cfg(unix)]
fn on_disk(meta: &fs::Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::blocks(meta) * 512
}

#[cfg(not(unix))]
fn on_disk(meta: &fs::Metadata) -> u64 {
    meta.len()
}

fn key(number: u64) -> Bytes {
    Bytes::copy_from_slice(&number.to_be_bytes())
}

/// Bytes that no compression would shrink.
fn value(number: u64, len: usize) -> Bytes {
    let mut state = number;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        bytes.extend_from_slice(&(state ^ (state >> 29)).to_le_bytes());
    }
    bytes.truncate(len);
    bytes.into()
}

/// A queue that holds `live` bytes of records of `len` bytes, and through which `TIMES` as much
/// goes.
async fn short_queue(len: usize, live: u64) -> Outcome {
    let dir = tempfile::tempdir()?;
    let store = SledStore::open(dir.path())?;
    let (len64, started) = (len as u64, Instant::now());
    let (waiting, total) = (live / len64, live * TIMES / len64);
    let step = (BATCH_BYTES / len64).clamp(1, waiting);
    let (mut most, mut halfway, mut next) = (0, 0, 0);
    while next < total {
        let mut batch = Batch::new();
        for number in next..next + step {
            batch.put(key(number), value(number, len));
            if let Some(old) = number.checked_sub(waiting) {
                batch.delete(key(old));
            }
        }
        store.commit(batch).await?;
        next += step;
        if next / step % 64 == 0 {
            most = disk(dir.path())?.max(most);
            if next < total / 2 {
                halfway = most;
            }
        }
    }
    let end = disk(dir.path())?;
    store.close().await?;
    println!(
        "short queue, records of {len} B: {} MiB live, {} MiB through it in {:.1} s; \
         on disk {:.1} MiB at most ({:.1} in the first half), {:.1} in the end: {:.1} times the live data",
        live / MIB,
        live * TIMES / MIB,
        started.elapsed().as_secs_f64(),
        most as f64 / MIB as f64,
        halfway as f64 / MIB as f64,
        end as f64 / MIB as f64,
        end as f64 / live as f64,
    );
    Ok(())
}

/// A backlog that is written, found by another process, and drained.
async fn backlog() -> Outcome {
    let dir = tempfile::tempdir()?;
    let live = BACKLOG * (BACKLOG_BYTES as u64 + 8);
    let step = BATCH_BYTES / BACKLOG_BYTES as u64;
    let store = SledStore::open(dir.path())?;
    let started = Instant::now();
    for first in (0..BACKLOG).step_by(usize::try_from(step)?) {
        let mut batch = Batch::new();
        for number in first..(first + step).min(BACKLOG) {
            batch.put(key(number), value(number, BACKLOG_BYTES));
        }
        store.commit(batch).await?;
    }
    let full = disk(dir.path())?;
    println!(
        "backlog, {BACKLOG} records of {BACKLOG_BYTES} B: written in {:.1} s; {:.0} MiB on disk for {:.0} MiB live: {:.1} times",
        started.elapsed().as_secs_f64(),
        full as f64 / MIB as f64,
        live as f64 / MIB as f64,
        full as f64 / live as f64,
    );
    store.close().await?;

    let status = Command::new(std::env::current_exe()?)
        .arg("open")
        .arg(dir.path())
        .status()?;
    if !status.success() {
        return Err("the backlog could not be read".into());
    }

    let store = SledStore::open(dir.path())?;
    let (started, mut longest) = (Instant::now(), Duration::ZERO);
    for first in (0..BACKLOG).step_by(usize::try_from(step)?) {
        let mut batch = Batch::new();
        for number in first..(first + step).min(BACKLOG) {
            batch.delete(key(number));
        }
        let committing = Instant::now();
        store.commit(batch).await?;
        longest = longest.max(committing.elapsed());
    }
    let took = started.elapsed();
    store.close().await?;
    println!(
        "backlog drained in {:.1} s, the longest commit {:.2} s; {:.1} MiB on disk",
        took.as_secs_f64(),
        longest.as_secs_f64(),
        disk(dir.path())? as f64 / MIB as f64,
    );
    Ok(())
}

/// What the system says of this process, in MiB.
fn memory(line: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let found = status.lines().find_map(|found| found.strip_prefix(line));
    let kib = found.and_then(|rest| rest.split_whitespace().nth(1));
    kib.and_then(|kib| kib.parse().ok())
        .map_or(0, |kib: u64| kib / 1024)
}

/// Opens a store in a process that did nothing else, and reads it as a session does.
async fn open(dir: &Path) -> Outcome {
    let before = memory("VmRSS");
    let started = Instant::now();
    let store = SledStore::open(dir)?;
    let (opened, after) = (started.elapsed(), memory("VmRSS"));
    let limit = ReadLimit {
        records: 256,
        bytes: 256 * 1024,
    };
    let (mut next, mut count) = (Bytes::new(), 0);
    let started = Instant::now();
    loop {
        let rows = store.range(next.clone()..key(u64::MAX), limit).await?;
        let Some((last, _)) = rows.last() else { break };
        count += rows.len();
        next = [&last[..], &[0]].concat().into();
    }
    println!(
        "backlog opened in {:.2} s, {count} records read in {:.2} s; \
         memory {before} MiB before, {after} opened, {} read, {} at most",
        opened.as_secs_f64(),
        started.elapsed().as_secs_f64(),
        memory("VmRSS"),
        memory("VmHWM"),
    );
    Ok(())
}

#[tokio::main]
async fn main() -> Outcome {
    let mut args = std::env::args_os().skip(1);
    if let (Some(_), Some(dir)) = (args.next(), args.next()) {
        return open(Path::new(&dir)).await;
    }
    short_queue(256, MIB).await?;
    short_queue(16 * 1024, MIB).await?;
    short_queue(200 * 1024, 4 * MIB).await?;
    backlog().await
}

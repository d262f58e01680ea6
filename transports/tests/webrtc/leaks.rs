//! Connections that come and go leave nothing.

use std::process::Command;
use std::time::{Duration, Instant};

use futures_util::future::join_all;

use crate::pair::{Pair, hear, packet, say};

/// Set where the test runs alone in its process, so that it counts only what is its own.
const ALONE: &str = "OUTLIVE_TEST_ALONE";

#[test]
fn a_thousand_connections_leave_no_task_no_socket_and_no_memory() {
    if std::env::var_os(ALONE).is_none() {
        let this = std::env::current_exe().expect("a test binary");
        let alone = Command::new(this)
            .args(["--exact", "--nocapture", "--test-threads=1"])
            .arg("leaks::a_thousand_connections_leave_no_task_no_socket_and_no_memory")
            .env(ALONE, "yes")
            .output()
            .expect("it runs");
        let said = String::from_utf8_lossy(&alone.stdout);
        let erred = String::from_utf8_lossy(&alone.stderr);
        assert!(alone.status.success(), "{said}{erred}");
        assert!(said.contains("1 passed"), "{said}{erred}");
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(a_thousand_connections());
}

/// Longer than a task takes to end; only one that does not is waited for so long.
const PATIENCE: Duration = Duration::from_secs(60);

/// How many pairs there are at once. A pair comes up in half a second or more, most of which it waits
/// for the next of its checks. With more of them what the allocator keeps varies by a tenth.
const AT_ONCE: usize = 20;

async fn a_thousand_connections() {
    const FIRST: usize = 100;
    const PAIRS: usize = 1_000;
    let descriptors = open_descriptors();
    let mut at_first = None;
    for first in (0..PAIRS).step_by(AT_ONCE) {
        if first == FIRST {
            at_first = resident();
        }
        join_all((first..first + AT_ONCE).map(come_and_go)).await;
        // Dropped tasks are gone when they are looked at next.
        let dropped = Instant::now();
        while tasks() > 0 {
            let left = tasks();
            assert!(
                dropped.elapsed() < PATIENCE,
                "{left} tasks are left after {first} pairs"
            );
            tokio::task::yield_now().await;
        }
        assert_eq!(open_descriptors(), descriptors, "after {first} pairs");
    }
    match (at_first, resident()) {
        (Some(first), Some(last)) => {
            println!("{first} pages, then {last}");
            assert!(last <= first + first / 10, "{first} pages, then {last}");
        }
        _ => println!("memory is not looked at: there is no /proc here"),
    }
}

async fn come_and_go(n: usize) {
    let mut pair = Pair::new();
    if n.is_multiple_of(10) {
        // Closed while it connects.
        pair.a.want();
        pair.settle().await;
    } else {
        pair.come_up().await;
        say(pair.a.link(), packet(1, 1_000)).await;
        say(pair.a.link(), packet(2, 60_000)).await;
        hear(pair.b.link()).await;
        hear(pair.b.link()).await;
    }
    // One end closes with care, or none does.
    if n.is_multiple_of(4) {
        for link in &mut pair.a.links {
            link.sender.close().await;
        }
    }
    // Others are dropped.
    if n % 4 < 3 {
        pair.close().await;
    }
}

fn tasks() -> usize {
    tokio::runtime::Handle::current()
        .metrics()
        .num_alive_tasks()
}

/// Sockets, files and the like that this process has open; `None` where that can't be seen.
fn open_descriptors() -> Option<usize> {
    std::fs::read_dir("/proc/self/fd").ok().map(Iterator::count)
}

/// Pages of memory that are this process's.
fn resident() -> Option<usize> {
    let pages = std::fs::read_to_string("/proc/self/statm").ok()?;
    pages.split(' ').nth(1)?.parse().ok()
}

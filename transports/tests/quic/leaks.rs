//! Links that come and go leave nothing.

use std::process::Command;
use std::time::Duration;

use outlive_core::transport::Lane;

use crate::{Node, hear, linked, node, packet, say};

/// Set where the test runs alone in its process, so that it counts only what is its own.
const ALONE: &str = "OUTLIVE_TEST_ALONE";

#[test]
fn a_thousand_links_leave_no_task_no_socket_and_no_memory() {
    if std::env::var_os(ALONE).is_none() {
        let this = std::env::current_exe().expect("a test binary");
        let alone = Command::new(this)
            .args(["--exact", "--nocapture", "--test-threads=1"])
            .arg("leaks::a_thousand_links_leave_no_task_no_socket_and_no_memory")
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
    runtime.block_on(a_thousand_links());
}

async fn a_thousand_links() {
    const FIRST: usize = 100;
    const ALL: usize = 1_000;
    let descriptors = open_descriptors();
    let (mut a, mut b) = (node(1).await, node(2).await);
    let without_links = tasks();
    let mut at_first = None;
    // A connection that is closed stays for a while, for packets that are late: here the clock runs
    // as fast as it has to.
    tokio::time::pause();
    for n in 0..ALL {
        if n == FIRST {
            at_first = resident();
        }
        // The nodes themselves come and go too.
        if n % 10 == 9 {
            closed(a).await;
            closed(b).await;
            assert_eq!(tasks(), 0, "after {n} links");
            assert_eq!(open_descriptors(), descriptors, "after {n} links");
            (a, b) = (node(1).await, node(2).await);
        }
        let (mut dialed, mut accepted) = linked(&a, &b).await;
        say(&mut dialed, Lane::Interactive, vec![packet(1, 1_000)]).await;
        say(&mut dialed, Lane::Bulk, vec![packet(2, 60_000)]).await;
        hear(&mut accepted).await;
        hear(&mut accepted).await;
        say(&mut accepted, Lane::Bulk, vec![packet(3, 10)]).await;
        hear(&mut dialed).await;
        // One end closes with care, or none does.
        if n % 2 == 0 {
            accepted.sender.close().await;
        }
        drop((dialed, accepted));
        gone(without_links).await;
    }
    closed(a).await;
    closed(b).await;
    assert_eq!(tasks(), 0);
    assert_eq!(open_descriptors(), descriptors);
    match (at_first, resident()) {
        (Some(first), Some(last)) => {
            assert!(last <= first + first / 10, "{first} pages, then {last}");
        }
        _ => println!("memory is not looked at: there is no /proc here"),
    }
}

/// Lets time pass until no more tasks than these are left.
async fn gone(left: usize) {
    for _ in 0..10_000 {
        if tasks() <= left {
            return;
        }
        tokio::time::advance(Duration::from_millis(10)).await;
    }
    panic!("{} tasks are left, of {left}", tasks());
}

async fn closed(node: Node) {
    node.endpoint.close().await;
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

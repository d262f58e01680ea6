//! Connections to a relay that come and go leave nothing, at either end.

use std::process::Command;
use std::time::{Duration, Instant};

use outlive::{Identity, RelayTransport};

use crate::world::{relay, way};

/// Set where the test runs alone in its process, so that it counts only what is its own.
const ALONE: &str = "OUTLIVE_TEST_ALONE";

/// Longer than a task takes to end; only one that does not is waited for so long.
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn a_thousand_connections_to_a_relay_leave_no_task_no_socket_and_no_memory() {
    if std::env::var_os(ALONE).is_none() {
        let this = std::env::current_exe().expect("a test binary");
        let alone = Command::new(this)
            .args(["--exact", "--nocapture", "--test-threads=1"])
            .arg("leaks::a_thousand_connections_to_a_relay_leave_no_task_no_socket_and_no_memory")
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

async fn a_thousand_connections() {
    const FIRST: usize = 100;
    const ALL: usize = 1_000;
    let relay = relay().await;
    let way = way(&relay);
    let me = Identity::from_seed([1; 32]);
    let (idle, descriptors) = (tasks(), open_descriptors());
    let mut at_first = None;
    for n in 0..ALL {
        if n == FIRST {
            at_first = resident();
        }
        let connected = if n % 10 == 9 {
            way.connect_unidentified().await
        } else {
            way.connect(&me).await
        };
        let mut connection = connected.expect("a connection");
        // Our end closes with care, or is dropped.
        if n % 2 == 0 {
            connection.sender.close().await;
        }
        drop(connection);
        // The relay's end is gone soon.
        let dropped = Instant::now();
        while tasks() > idle || open_descriptors() > descriptors {
            let left = (tasks(), open_descriptors());
            assert!(
                dropped.elapsed() < PATIENCE,
                "{left:?} are left after {n} cycles"
            );
            tokio::task::yield_now().await;
        }
    }
    match (at_first, resident()) {
        (Some(first), Some(last)) => {
            println!("{first} pages, then {last}");
            assert!(last <= first + first / 10, "{first} pages, then {last}");
        }
        _ => println!("memory is not looked at: there is no /proc here"),
    }
    relay.shutdown().await.expect("it stops");
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

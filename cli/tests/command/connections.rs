//! What an idle connection costs a relay.

use std::fs;

use outlive::{Identity, RelayTransport};
use outlive_transports::WebSocketRelay;
use rustix::process::{Resource, getrlimit, setrlimit};

use crate::process::relay;

const IDLE: u64 = 2_000;

/// Bytes of memory an idle connection may cost. With the buffers that the WebSocket library chooses
/// by itself it is 128 KiB and more.
const MOST: u64 = 32 * 1024;

/// Lets this process and its children open as many files as they may.
fn raise_the_limit_of_files() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).expect("up to the maximum everybody may");
    let enough = IDLE + 200;
    assert!(
        limit.maximum.is_none_or(|maximum| maximum >= enough),
        "this test opens {enough} files, raise the hard limit (ulimit -Hn)"
    );
}

/// Bytes of memory a process has in use.
fn memory(process: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).expect("Linux");
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().nth(1));
    kilobytes
        .expect("a figure")
        .parse::<u64>()
        .expect("a number")
        * 1024
}

async fn sign_in(way: &WebSocketRelay, numbers: std::ops::Range<u64>) -> Vec<impl Sized + use<>> {
    let mut connections = Vec::new();
    for n in numbers {
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&n.to_le_bytes());
        let identity = Identity::from_seed(seed);
        connections.push(way.connect(&identity).await.expect("signed in"));
    }
    connections
}

#[test]
fn two_thousand_idle_connections_cost_little_memory_each() {
    raise_the_limit_of_files();
    let dir = tempfile::tempdir().unwrap();
    let (relay, address) = relay(dir.path(), "127.0.0.1:0");
    let process = relay.child.id();
    let way = WebSocketRelay::new(&format!("ws://{address}")).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        // What is allocated once is not counted.
        let _warm = sign_in(&way, 0..100).await;
        let before = memory(process);
        let _idle = sign_in(&way, 100..100 + IDLE).await;
        let each = memory(process).saturating_sub(before) / IDLE;
        println!("{each} bytes for each of {IDLE} idle connections");
        assert!(each < MOST, "{each} bytes for each idle connection");
    });
}

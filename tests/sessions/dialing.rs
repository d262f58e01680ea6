//! When a relay is dialed again, on a paused clock.

use std::time::Duration;

use outlive::{Identity, NetworkMonitor, Node};
use outlive_storage::MemoryStore;
use tokio::time::Instant;

use crate::paper::Paper;

/// The most attempts that fall into one window of this length.
fn crowd(attempts: &[Instant], window: Duration) -> usize {
    let within = |from: Instant| move |&&at: &&Instant| at >= from && at < from + window;
    let sizes = attempts.iter().map(|&from| {
        let crowd = attempts.iter().filter(within(from));
        crowd.count()
    });
    sizes.max().unwrap_or_default()
}

#[tokio::test(start_paused = true)]
async fn clients_that_lost_their_relay_together_do_not_come_back_together() {
    const CLIENTS: usize = 50;
    let relay = Paper::new();
    let mut nodes = Vec::new();
    for n in 0..CLIENTS {
        let node = Node::builder()
            .identity(Identity::from_seed([n as u8; 32]))
            .store(MemoryStore::new())
            .transport(relay.clone())
            .start();
        nodes.push(node.await.unwrap());
    }
    relay.connected(CLIENTS).await;
    relay.attempts();

    let down = Instant::now();
    relay.down();
    relay.connected(0).await;
    assert_eq!(Instant::now(), down, "all lost it in one instant");
    tokio::time::sleep(Duration::from_secs(60)).await;
    let attempts = relay.attempts();
    let first: Vec<_> = attempts.iter().take(CLIENTS).copied().collect();
    assert!(crowd(&first, Duration::from_millis(20)) < CLIENTS / 2);
    // Ever fewer of them: the spans from which the waits are drawn have grown to 30 s.
    let late = |at: &&Instant| **at >= down + Duration::from_secs(30);
    let late: Vec<_> = attempts.iter().filter(late).copied().collect();
    assert!(late.len() < 6 * CLIENTS, "{} attempts", late.len());
    assert!(crowd(&late, Duration::from_millis(500)) < CLIENTS / 2);

    relay.up();
    relay.connected(CLIENTS).await;
    let back = relay.attempts();
    assert_eq!(back.len(), CLIENTS);
    assert!(crowd(&back, Duration::from_millis(500)) < CLIENTS / 2);
    for node in nodes {
        node.shutdown().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn over_another_network_the_relay_is_dialed_anew_though_its_connection_looks_alive() {
    let (relay, network) = (Paper::new(), NetworkMonitor::new());
    let node = Node::builder()
        .identity(Identity::from_seed([1; 32]))
        .store(MemoryStore::new())
        .transport(relay.clone())
        .network(network.clone())
        .start();
    let node = node.await.unwrap();
    relay.connected(1).await;
    for _ in 0..3 {
        let changed = Instant::now();
        relay.attempts();
        network.up();
        let mut attempts = Vec::new();
        let dialed = async {
            while attempts.is_empty() {
                tokio::time::sleep(Duration::from_millis(1)).await;
                attempts = relay.attempts();
            }
        };
        let dialed = tokio::time::timeout(Duration::from_secs(60), dialed).await;
        assert!(dialed.is_ok(), "it stays where it was");
        assert_eq!(attempts, [changed], "without a wait");
        relay.connected(1).await;
    }
    node.shutdown().await.unwrap();
}

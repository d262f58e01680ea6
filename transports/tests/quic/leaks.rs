//! Links that come and go leave nothing.

use outlive_core::transport::Lane;
use outlive_testing::{Memory, alone, comes_true, open_descriptors, tasks};

use crate::{Node, hear, linked, node, packet, say};

#[test]
fn a_thousand_links_leave_no_task_no_socket_and_no_memory() {
    alone(
        "leaks::a_thousand_links_leave_no_task_no_socket_and_no_memory",
        a_thousand_links(),
    );
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
            at_first = Some(Memory::now());
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
        comes_true("no more tasks than without links", async || {
            tasks() <= without_links
        })
        .await;
    }
    closed(a).await;
    closed(b).await;
    assert_eq!(tasks(), 0);
    assert_eq!(open_descriptors(), descriptors);
    if let Some(at_first) = at_first {
        at_first.has_hardly_grown();
    }
}

async fn closed(node: Node) {
    node.endpoint.close().await;
}

//! Connections that come and go leave nothing.

use futures_util::future::join_all;
use outlive_testing::{Memory, alone, comes_true, open_descriptors, tasks};

use crate::pair::{Pair, hear, packet, say};

#[test]
fn a_thousand_connections_leave_no_task_no_socket_and_no_memory() {
    alone(
        "leaks::a_thousand_connections_leave_no_task_no_socket_and_no_memory",
        a_thousand_connections(),
    );
}

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
            at_first = Some(Memory::now());
        }
        join_all((first..first + AT_ONCE).map(come_and_go)).await;
        // Dropped tasks are gone when they are looked at next.
        comes_true(&format!("the tasks of pair {first} to end"), async || {
            tasks() == 0
        })
        .await;
        assert_eq!(open_descriptors(), descriptors, "after {first} pairs");
    }
    if let Some(at_first) = at_first {
        at_first.has_hardly_grown();
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

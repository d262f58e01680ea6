//! Connections to a relay that come and go leave nothing, at either end.

use outlive::{Identity, RelayTransport};
use outlive_testing::{Memory, alone, open_descriptors, tasks};

use crate::world::{comes_true, relay, way};

#[test]
fn a_thousand_connections_to_a_relay_leave_no_task_no_socket_and_no_memory() {
    alone(
        "leaks::a_thousand_connections_to_a_relay_leave_no_task_no_socket_and_no_memory",
        a_thousand_connections(),
    );
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
            at_first = Some(Memory::now());
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
        comes_true(&format!("the end of connection {n}"), async || {
            tasks() <= idle && open_descriptors() <= descriptors
        })
        .await;
    }
    if let Some(at_first) = at_first {
        at_first.has_hardly_grown();
    }
    relay.shutdown().await.expect("it stops");
}

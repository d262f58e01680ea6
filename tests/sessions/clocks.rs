//! Machines whose wall clock is wrong, or is put right: what waits grows old by what has passed.

use std::time::Duration;

use outlive::record::{BootId, ClockRecord, Record};
use outlive::{Identity, Node, Sending, Store};
use outlive_core::store::Batch;
use outlive_core::{StoreTime, WallTime};
use outlive_storage::{MemoryStore, StoreClock};

use crate::world::{CHAT, id, node, node_over, relay, soon, take};

const CLOCK: &[u8] = b"n/clock";
const DAY: Duration = Duration::from_secs(86_400);

/// A node that reaches nobody.
async fn lone(n: u8, store: &MemoryStore) -> Node {
    Node::builder()
        .identity(Identity::from_seed([n; 32]))
        .store(store.clone())
        .start()
        .await
        .expect("a node")
}

async fn clock(store: &MemoryStore) -> ClockRecord {
    let value = store.get(CLOCK.into()).await.expect("it works");
    ClockRecord::from_bytes(&value.expect("the clock")).expect("our own")
}

async fn set_clock(store: &MemoryStore, clock: ClockRecord) {
    let mut batch = Batch::new();
    batch.put(CLOCK.into(), clock.to_bytes());
    store.commit(batch).await.expect("it works");
}

/// The first message that comes once there is a relay.
async fn first_to_come(store: &MemoryStore) -> String {
    let relay = relay().await;
    let alice = node_over(1, store.clone(), &relay).await;
    let bob = node(2, &relay).await;
    let session = bob.session(id(1)).await.expect("a session");
    let mut inbox = session.inbox(CHAT).expect("nobody has it");
    let text = take(&mut inbox).await;
    soon("its end", alice.shutdown()).await.expect("it ends");
    text
}

/// Sends messages that may wait for so many days, and ends.
async fn send(store: &MemoryStore, days: &[u32]) {
    let alice = lone(1, store).await;
    let session = alice.session(id(2)).await.expect("a session");
    for days in days {
        let options = Sending {
            ttl: Some(DAY * *days),
            once: None,
        };
        let sent = session.send_with(CHAT, days.to_string(), options).await;
        drop(sent.expect("room"));
    }
    drop(session);
    alice.shutdown().await.expect("it ends");
}

#[tokio::test]
async fn what_waited_while_the_machine_was_off_has_grown_so_much_older() {
    let store = MemoryStore::new();
    send(&store, &[1, 3]).await;
    let store = store.faults().crash();
    let mut then = clock(&store).await;
    then.machine.boot = Some(BootId([1; 16]));
    then.machine.wall = WallTime(then.machine.wall.0 - 2 * DAY.as_millis() as u64);
    set_clock(&store, then).await;
    assert_eq!(first_to_come(&store).await, "3");
}

/// The machine came up in 1970, and was told the time when messages waited already.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_wall_clock_that_is_put_right_makes_nothing_older() {
    let store = MemoryStore::new();
    let mut then = StoreClock::resume(None).record();
    then.machine.wall = WallTime(5_000);
    then.store = StoreTime(5_000);
    set_clock(&store, then).await;
    send(&store, &[1]).await;
    let store = store.faults().crash();
    // Also the next boot does not take it for time that has passed.
    let mut then = clock(&store).await;
    assert!(then.store < StoreTime(5_000).plus(DAY), "{then:?}");
    then.machine.boot = Some(BootId([1; 16]));
    set_clock(&store, then).await;
    assert_eq!(first_to_come(&store).await, "1");
}

//! Processes that end, stores that go back in time, relays that restart.

use async_trait::async_trait;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use outlive::record::{Key, Record, Session as SessionRecord};
use outlive::{Error, Identity, Inbox, NetworkMonitor, Node, PeerId, Sending, Store, StoreError};
use outlive_core::Position;
use outlive_core::store::{Batch, ReadLimit};
use outlive_storage::{Flush, MemoryStore, Snapshot};
use outlive_testing::{Intercepted, Interceptor};
use outlive_transports::MemoryRelay;
use tokio::time::Instant;

use crate::scene::{Noted, at_once, counted, linked, on, on_store, unlinked, with_network};
use crate::world::{CHAT, comes_true, id, soon, take};

const ALL: ReadLimit = ReadLimit {
    records: usize::MAX,
    bytes: usize::MAX,
};

/// Takes and commits a message that may be marked as redelivered.
async fn take_again(inbox: &mut Inbox) -> String {
    let delivery = soon("a message", inbox.next()).await.expect("a message");
    let text = String::from_utf8_lossy(delivery.payload()).into_owned();
    delivery.commit().await.expect("committed");
    text
}

#[tokio::test(start_paused = true)]
async fn after_a_crash_what_waits_comes_without_other_traffic() {
    let relay = MemoryRelay::new("relay");
    let store = MemoryStore::new();
    let alice = on(1, &[&relay]).await;
    let bob = on_store(2, store.clone(), &[&relay]).await;
    let to_bob = alice.session(id(2)).await.unwrap();
    let mut inbox = bob.session(id(1)).await.unwrap().inbox(CHAT).unwrap();
    to_bob.send(CHAT, "in the app's hands").await.unwrap();
    let in_hand = soon("a message", inbox.next()).await.unwrap();
    relay.faults().half_dead(id(2));
    let receipt = to_bob.send(CHAT, "in the mailbox").await.unwrap();
    soon("custody", receipt.custody()).await.unwrap();
    drop((receipt, to_bob));
    alice.shutdown().await.unwrap();
    let store = store.faults().crash();
    drop((in_hand, inbox, bob));

    // No timer has to run out: the first of a session does after two seconds.
    let started = Instant::now();
    let down = relay.faults().down();
    let bob = on_store(2, store, &[&relay]).await;
    let to_alice = bob.session(id(1)).await.unwrap();
    assert_eq!(soon("an arrival", bob.next_arrival()).await.unwrap(), id(1));
    let mut inbox = to_alice.inbox(CHAT).unwrap();
    assert_eq!(take_again(&mut inbox).await, "in the app's hands");
    drop(down);
    assert_eq!(take(&mut inbox).await, "in the mailbox");
    assert!(started.elapsed() < Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn who_waits_from_before_a_start_is_announced_at_the_next() {
    let relay = MemoryRelay::new("relay");
    let mut store = MemoryStore::new();
    let bob = on_store(2, store.clone(), &[&relay]).await;
    let _opened = bob.session(id(1)).await.unwrap();
    let mut senders = Vec::new();
    // One that was opened, one that is a stranger, and one that was blocked after it came.
    for sender in [1, 3, 4] {
        let node = on(sender, &[&relay]).await;
        let to_bob = node.session(id(2)).await.unwrap();
        let receipt = to_bob.send(CHAT, "not taken").await.unwrap();
        soon("delivery", receipt.delivered()).await.unwrap();
        senders.push(node);
    }
    bob.block(id(4)).await.unwrap();
    drop((senders, bob));

    for unreadable in [None, Some(id(1)), Some(id(3))] {
        store = store.faults().crash();
        let reads = Unreadable {
            fails: AtomicBool::new(true),
            of: unreadable,
        };
        let bob = Node::builder()
            .identity(Identity::from_seed([2; 32]))
            .store(Intercepted::new(store.clone(), reads));
        let bob = bob.start().await.unwrap();
        let mut announced = BTreeSet::new();
        for _ in 0..2 {
            announced.insert(soon("an arrival", bob.next_arrival()).await.unwrap());
        }
        assert_eq!(announced, BTreeSet::from([id(1), id(3)]), "{unreadable:?}");
        assert!(at_once(bob.next_arrival()).await.is_none(), "nobody else");
    }
}

/// A store that fails once, and in which the messages of a peer can't be read.
struct Unreadable {
    fails: AtomicBool,
    of: Option<PeerId>,
}

#[async_trait]
impl Interceptor for Unreadable {
    async fn range(
        &self,
        store: &MemoryStore,
        range: Range<Bytes>,
        limit: ReadLimit,
    ) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        let rows = store.range(range.clone(), limit).await?;
        if range.end == Key::inboxes().end {
            if self.fails.swap(false, Ordering::SeqCst) {
                return Err(StoreError::Full);
            }
            let damaged = |(key, _): &(Bytes, Bytes)| match Key::from_bytes(key) {
                Ok(Key::Inbox(peer, ..)) => Some(peer) == self.of,
                _ => false,
            };
            if rows.iter().any(damaged) {
                let what = "a message".to_owned();
                return Err(StoreError::Damaged { what });
            }
        }
        Ok(rows)
    }
}

#[tokio::test]
async fn a_send_is_ok_only_when_it_is_durable_and_then_goes_by_itself() {
    let relay = MemoryRelay::new("relay");
    let store = MemoryStore::with_flush(Flush::OnDemand);
    let flushing = async |mut work: std::pin::Pin<&mut dyn Future<Output = ()>>| {
        while at_once(work.as_mut()).await.is_none() {
            store.faults().flush();
            tokio::task::yield_now().await;
        }
    };
    let offline = NetworkMonitor::new();
    offline.down();
    let mut opened = None;
    let opening = async {
        let node = Node::builder()
            .identity(Identity::from_seed([1; 32]))
            .store(store.clone())
            .transport(relay.clone())
            .network(offline.clone())
            .start();
        let alice = node.await.unwrap();
        let to_bob = alice.session(id(2)).await.unwrap();
        to_bob.send(CHAT, "durable").await.unwrap();
        opened = Some((alice, to_bob));
    };
    flushing(std::pin::pin!(opening)).await;
    let (alice, to_bob) = opened.unwrap();
    // The power goes before the disk has it.
    let mut sending = Box::pin(to_bob.send(CHAT, "not durable"));
    let before = store.faults().counts().waiting;
    comes_true("the write", async || {
        assert!(at_once(sending.as_mut()).await.is_none());
        store.faults().counts().waiting > before
    })
    .await;
    let after = store.faults().crash();
    assert!(matches!(
        soon("an answer", sending).await,
        Err(Error::Store(StoreError::Closed))
    ));
    drop((to_bob, alice));

    let store = MemoryStore::over(&after.faults().snapshot(), Flush::EachCommit);
    let _alice = on_store(1, store, &[&relay]).await;
    let bob = on(2, &[&relay]).await;
    let mut inbox = bob.session(id(1)).await.unwrap().inbox(CHAT).unwrap();
    assert_eq!(take(&mut inbox).await, "durable");
    counted(&relay, "an empty mailbox", |counts| counts.waiting == 0).await;
    assert!(inbox.try_next().await.unwrap().is_none());
}

#[tokio::test]
async fn new_messages_of_a_restored_sender_are_not_taken_for_old_ones() {
    let relay = MemoryRelay::new("relay");
    let store = MemoryStore::new();
    let alice = on_store(1, store.clone(), &[&relay]).await;
    let bob = on(2, &[&relay]).await;
    let to_bob = alice.session(id(2)).await.unwrap();
    let mut inbox = bob.session(id(1)).await.unwrap().inbox(CHAT).unwrap();
    let mut backup = None;
    for n in 0..10 {
        let receipt = to_bob.send(CHAT, format!("old {n}")).await.unwrap();
        assert_eq!(take(&mut inbox).await, format!("old {n}"));
        soon("consumption", receipt.consumed()).await.unwrap();
        if n == 2 {
            backup = Some(store.faults().snapshot());
        }
    }
    drop((to_bob, alice));
    let store = store.faults().restore(&backup.unwrap());
    let alice = on_store(1, store, &[&relay]).await;
    let to_bob = alice.session(id(2)).await.unwrap();
    // More and fewer than were sent since the backup: the seqs cross.
    for n in 0..20 {
        let receipt = to_bob.send(CHAT, format!("new {n}")).await.unwrap();
        assert_eq!(take_again(&mut inbox).await, format!("new {n}"));
        soon("delivery", receipt.delivered()).await.unwrap();
    }
    assert!(inbox.try_next().await.unwrap().is_none());
}

#[tokio::test]
async fn a_restored_receiver_gets_what_is_new_and_hears_of_what_is_gone() {
    let relay = MemoryRelay::new("relay");
    let store = MemoryStore::new();
    let alice = on(1, &[&relay]).await;
    let bob = on_store(2, store.clone(), &[&relay]).await;
    let to_bob = alice.session(id(2)).await.unwrap();
    let mut inbox = bob.session(id(1)).await.unwrap().inbox(CHAT).unwrap();
    let mut backup = None;
    for n in 0..10 {
        let receipt = to_bob.send(CHAT, format!("old {n}")).await.unwrap();
        assert_eq!(take(&mut inbox).await, format!("old {n}"));
        soon("consumption", receipt.consumed()).await.unwrap();
        if n == 2 {
            backup = Some(store.faults().snapshot());
        }
    }
    drop((inbox, bob));
    let store = store.faults().restore(&backup.unwrap());
    let bob = on_store(2, store, &[&relay]).await;
    let to_alice = bob.session(id(1)).await.unwrap();
    let mut events = to_alice.events(256);
    let mut inbox = to_alice.inbox(CHAT).unwrap();
    let mut at_alice = to_bob.inbox(CHAT).unwrap();
    for n in 0..5 {
        to_bob.send(CHAT, format!("new {n}")).await.unwrap();
        assert_eq!(take_again(&mut inbox).await, format!("new {n}"));
        to_alice.send(CHAT, format!("back {n}")).await.unwrap();
        assert_eq!(take_again(&mut at_alice).await, format!("back {n}"));
    }
    let gap = async {
        loop {
            let (event, _) = events.next().await.expect("the session lives");
            if let outlive::SessionEvent::Gap { first, last, .. } = event {
                return (first.0, last.0);
            }
        }
    };
    assert_eq!(soon("the gap", gap).await, (4, 10));
}

#[tokio::test(start_paused = true)]
async fn when_a_relay_restarts_its_clients_lose_nothing_and_come_back_spread_over_time() {
    const CLIENTS: u8 = 100;
    let relay = MemoryRelay::new("relay");
    let hub = on(200, &[&relay]).await;
    let mut clients = Vec::new();
    for n in 0..CLIENTS {
        let way = Noted::new(&relay);
        let node = with_network(n, way.clone(), &NetworkMonitor::new()).await;
        let session = node.session(id(200)).await.unwrap();
        linked(&session).await;
        clients.push((node, way, session));
    }
    let down = relay.faults().down();
    for n in 0..CLIENTS {
        let to = hub.session(id(n)).await.unwrap();
        to.send(CHAT, format!("for {n}")).await.unwrap();
        unlinked(&clients[usize::from(n)].2).await;
    }
    // How long it is down is what is staged: all of them have tried again and again.
    tokio::time::sleep(Duration::from_secs(60)).await;
    drop(down);
    let up = Instant::now();
    for (n, (_, _, session)) in clients.iter().enumerate() {
        assert_eq!(
            take(&mut session.inbox(CHAT).unwrap()).await,
            format!("for {n}")
        );
    }
    let mut by_second = BTreeMap::<u64, usize>::new();
    for (_, way, _) in &clients {
        let back = way.dials().into_iter().find(|(at, ok)| *ok && *at >= up);
        let (at, _) = back.expect("it is back");
        *by_second.entry((at - up).as_secs()).or_default() += 1;
    }
    let busiest = by_second.values().max().copied().unwrap_or_default();
    assert!(busiest <= usize::from(CLIENTS) / 4, "{by_second:?}");
}

/// A store that remembers every state it was ever in.
#[derive(Default)]
struct Remembering {
    states: Mutex<Vec<Snapshot>>,
}

#[async_trait::async_trait]
impl Interceptor for Remembering {
    async fn commit(&self, store: &MemoryStore, batch: Batch) -> Result<(), StoreError> {
        store.commit(batch).await?;
        let state = store.faults().snapshot();
        self.states.lock().expect("whole").push(state);
        Ok(())
    }
}

/// Checks that the session with a peer is of one piece. Returns how much it holds.
async fn of_one_piece(store: &MemoryStore, peer: u8) -> usize {
    let peer = id(peer);
    let positions = async |range| -> Vec<u64> {
        let rows = store.range(range, ALL).await.expect("it works");
        let keys = rows.iter().map(|(key, _)| Key::from_bytes(key));
        keys.map(|key| match key {
            Ok(Key::Outbox(_, _, at) | Key::Inbox(_, _, at)) => at.0,
            other => panic!("{other:?}"),
        })
        .collect()
    };
    let everywhere = (Position(0), Position(u64::MAX));
    let outbox = positions(Key::outbox(peer, CHAT, everywhere.0, everywhere.1)).await;
    let inbox = positions(Key::inbox(peer, CHAT, everywhere.0, everywhere.1)).await;
    let value = store.get(Key::Session(peer).to_bytes()).await;
    let Some(value) = value.expect("it works") else {
        assert!(outbox.is_empty() && inbox.is_empty(), "a queue of nobody");
        return 0;
    };
    let session = SessionRecord::from_bytes(&value).expect("a record");
    let out = session.out.get(&CHAT).cloned().unwrap_or_default();
    let queued: Vec<u64> = (out.stored.0..out.next.0).collect();
    assert_eq!(
        outbox, queued,
        "the outbox and what the session knows of it"
    );
    let state = session.inboxes.get(&CHAT).copied().unwrap_or_default();
    assert_eq!(inbox.len() as u64, state.messages, "the inbox");
    assert!(inbox.last().is_none_or(|last| *last < state.next.0));
    let work = store.get(Key::Work(peer).to_bytes()).await;
    let indexed = work.expect("it works").is_some();
    assert_eq!(indexed, session.outstanding(), "the index of work");
    outbox.len() + inbox.len()
}

#[tokio::test]
async fn in_every_state_of_its_store_a_session_is_of_one_piece() {
    let relay = MemoryRelay::new("relay");
    let stores = [(); 2].map(|()| Intercepted::new(MemoryStore::new(), Remembering::default()));
    let start = async |n: u8, store: &Intercepted<Remembering>| {
        let builder = Node::builder()
            .identity(Identity::from_seed([n; 32]))
            .store(store.clone());
        builder.transport(relay.clone()).start().await.unwrap()
    };
    let (alice, bob) = (start(1, &stores[0]).await, start(2, &stores[1]).await);
    let to_bob = alice.session(id(2)).await.unwrap();
    let to_alice = bob.session(id(1)).await.unwrap();
    let (mut at_alice, mut at_bob) = (to_bob.inbox(CHAT).unwrap(), to_alice.inbox(CHAT).unwrap());
    let short = Sending {
        ttl: Some(Duration::ZERO),
        once: None,
    };
    let mut last = None;
    for n in 0..30 {
        let down = (n % 5 == 0).then(|| relay.faults().down());
        let once = n.to_string();
        to_bob
            .send_once(once.as_bytes(), CHAT, "once")
            .await
            .unwrap();
        to_alice.send(CHAT, vec![0; 40_000]).await.unwrap();
        to_bob.send_with(CHAT, "late", short).await.unwrap();
        last = Some(to_bob.send(CHAT, "last").await.unwrap());
        drop(down);
        for text in ["once", "last"] {
            assert_eq!(take(&mut at_bob).await, text);
        }
        assert_eq!(take(&mut at_alice).await.len(), 40_000);
    }
    soon("consumption", last.unwrap().consumed()).await.unwrap();
    for (store, peer) in stores.iter().zip([2, 1]) {
        let states = store.interceptor().states.lock().expect("whole").clone();
        let mut most = 0;
        for state in &states {
            let store = MemoryStore::over(state, Flush::EachCommit);
            most = most.max(of_one_piece(&store, peer).await);
        }
        assert!(states.len() > 60 && most > 2, "{} {most}", states.len());
    }
}

#[tokio::test]
async fn a_relay_that_loses_its_store_is_sent_again_what_it_held() {
    let relay = MemoryRelay::new("relay");
    let alice = on(1, &[&relay]).await;
    let to_bob = alice.session(id(2)).await.unwrap();
    for n in 0..200 {
        to_bob.send(CHAT, format!("{n}")).await.unwrap();
    }
    let last = to_bob.send(CHAT, "last").await.unwrap();
    soon("custody", last.custody()).await.unwrap();
    relay.faults().lose_store();
    let (_alice, bob) = (alice, on(2, &[&relay]).await);
    let mut inbox = bob.session(id(1)).await.unwrap().inbox(CHAT).unwrap();
    for n in 0..200 {
        assert_eq!(take(&mut inbox).await, format!("{n}"));
    }
    assert_eq!(take(&mut inbox).await, "last");
    // And once more, while nothing waits: nothing comes again.
    soon("delivery", last.delivered()).await.unwrap();
    let taken = relay.counts().borrow().taken;
    relay.faults().lose_store();
    let receipt = to_bob.send(CHAT, "after it").await.unwrap();
    assert_eq!(take(&mut inbox).await, "after it");
    soon("delivery", receipt.delivered()).await.unwrap();
    assert_eq!(relay.counts().borrow().taken, taken + 1);
}

async fn start(n: u8, store: &MemoryStore) -> Result<Node, Error> {
    Node::builder()
        .identity(Identity::from_seed([n; 32]))
        .store(store.clone())
        .start()
        .await
}

#[tokio::test]
async fn a_store_is_its_first_identity_s_alone() {
    let store = MemoryStore::new();
    start(1, &store).await.unwrap().shutdown().await.unwrap();
    let store = store.faults().crash();
    let other = start(2, &store).await;
    assert!(
        matches!(other, Err(Error::OtherIdentity { store, given }) if store == id(1) && given == id(2)),
        "{other:?}"
    );
    start(1, &store).await.unwrap().shutdown().await.unwrap();
}

#[tokio::test]
async fn a_store_that_names_nobody_becomes_that_of_who_starts_on_it_next() {
    let store = MemoryStore::new();
    let mut batch = Batch::new();
    let starts = Bytes::copy_from_slice(&7u32.to_be_bytes());
    batch.put(Bytes::from_static(b"n/starts"), starts);
    store.commit(batch).await.unwrap();
    start(1, &store).await.unwrap().shutdown().await.unwrap();
    let other = start(2, &store.faults().crash()).await;
    assert!(
        matches!(other, Err(Error::OtherIdentity { .. })),
        "{other:?}"
    );
}

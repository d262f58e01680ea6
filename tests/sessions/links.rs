//! Links and relays that die, linger, or end late.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use outlive::{
    ChannelId, Identity, NetworkMonitor, Node, RelayState, RelayTransport, SessionEvent,
    TransportError,
};
use outlive_core::transport::{GoodbyeReason, Incoming, RelayConnection, RelayReceiver};
use outlive_storage::MemoryStore;
use outlive_transports::{MemoryRelay, Way};
use tokio::sync::Notify;

use crate::proxy::Proxy;
use crate::scene::{acquaint, at_once, counted, linked, on, on_store, with_network};
use crate::watched::Watched;
use crate::world::{CHAT, comes_true, id, node, relay, soon, take, until, way};

async fn delivery(connection: &mut RelayConnection) {
    let delivered = async {
        loop {
            match connection.receiver.receive().await {
                Ok(Incoming::Deliver { .. }) => return,
                Ok(_) => {}
                Err(error) => panic!("{error}"),
            }
        }
    };
    soon("a delivery", delivered).await;
}

/// Fills the connection of a node whose relay takes nothing any more: each session has no more than
/// so many packets on their way.
async fn fill(node: &Node) {
    for n in 100..120 {
        let session = node.session(id(n)).await.unwrap();
        session.send(CHAT, vec![0; 4 << 20]).await.unwrap();
    }
}

#[tokio::test]
async fn an_old_connection_that_ends_late_does_not_sign_the_new_one_out() {
    let relay = relay().await;
    let alice = node(1, &relay).await;
    let to_bob = alice.session(id(2)).await.unwrap();
    let (way, bob) = (way(&relay), Identity::from_seed([2; 32]));
    let mut old = way.connect(&bob).await.unwrap();
    let there = |state: &outlive::SessionState| state.peer_online == Some(true);
    until(&to_bob, "bob", there).await;
    let mut new = way.connect(&bob).await.unwrap();
    let ended = soon("the farewell", old.receiver.receive()).await;
    assert!(matches!(
        ended,
        Err(TransportError::Closed(GoodbyeReason::Replaced))
    ));
    drop(old);
    // By the second answer the relay has told all it had to tell of the old one's end.
    for text in ["one", "two"] {
        let receipt = to_bob.send(CHAT, text).await.unwrap();
        soon("custody", receipt.custody()).await.unwrap();
        delivery(&mut new).await;
    }
    assert!(there(&to_bob.state().borrow()));
}

#[tokio::test]
async fn an_old_link_that_ends_late_does_not_touch_its_successor() {
    let (old, new) = (MemoryRelay::new("old"), MemoryRelay::new("new"));
    let alice = on(1, &[&old]).await;
    let bob = on(2, &[&new]).await;
    let to_bob = alice.session(id(2)).await.unwrap();
    let mut inbox = bob.session(id(1)).await.unwrap().inbox(CHAT).unwrap();
    linked(&to_bob).await;
    let hold = old.faults().hold(id(1), Way::ToRelay);
    fill(&alice).await;
    alice.switch_relay(Arc::new(new.clone()));
    until(&to_bob, "the new link alone", |state| {
        state.links.len() == 1 && state.links[0].address == "memory:new"
    })
    .await;
    let generation = to_bob.state().borrow().links[0].generation;
    let mut events = to_bob.events(4_096);
    drop(hold);
    counted(&old, "the old connection to end", |of| of.connected == 0).await;
    let receipt = to_bob.send(CHAT, "over the new").await.unwrap();
    assert_eq!(take(&mut inbox).await, "over the new");
    soon("delivery", receipt.delivered()).await.unwrap();
    let state = to_bob.state().borrow().clone();
    assert_eq!(state.links.len(), 1);
    assert_eq!(state.links[0].generation, generation);
    while let Some(Some((event, _))) = at_once(events.next()).await {
        assert!(!matches!(event, SessionEvent::LinkDown { .. }), "{event:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_link_over_a_relay_that_is_left_ends_in_a_session_that_takes_nothing_meanwhile() {
    const TYPING: ChannelId = ChannelId::FIRST_APP;
    let (old, new) = (MemoryRelay::new("old"), MemoryRelay::new("new"));
    let store = Watched::over(MemoryStore::new());
    let alice = on_store(1, store.clone(), &[&old]).await;
    let bob = on(2, &[&old, &new]).await;
    let to_bob = alice.session(id(2)).await.unwrap();
    let to_alice = bob.session(id(1)).await.unwrap();
    until(&to_alice, "both links", |state| state.links.len() == 2).await;
    linked(&to_bob).await;
    acquaint(&to_bob, &mut to_alice.inbox(CHAT).unwrap()).await;
    to_alice.listen(TYPING).await.unwrap();
    comes_true("the peer to listen", async || {
        to_bob.send_volatile(TYPING, "over the old").await.unwrap()
    })
    .await;

    // The session waits for its store, and has no room for what comes.
    store.hold_gets(true);
    let (before, sending) = (store.reads().gets, to_bob.clone());
    let sending = tokio::spawn(async move { sending.send_once(b"key", CHAT, "once").await });
    comes_true("a read that waits", async || store.reads().gets > before).await;
    comes_true("the session to have no room", async || {
        at_once(to_bob.set_weight(CHAT, 4)).await.is_none()
    })
    .await;
    let (_, mut left) = alice.relays().remove(0);
    alice.switch_relay(Arc::new(new.clone()));
    let closed = left.wait_for(|state| *state == RelayState::Closed);
    drop(soon("the relay to be left", closed).await.unwrap());
    store.hold_gets(false);
    soon("the message", sending).await.unwrap().unwrap();

    until(
        &to_bob,
        "the new link alone",
        |state| matches!(&state.links[..], [link] if link.address == "memory:new"),
    )
    .await;
    let mut heard = to_alice.events(64);
    assert!(to_bob.send_volatile(TYPING, "over the new").await.unwrap());
    let typing = async {
        loop {
            let (event, _) = heard.next().await.expect("the session lives");
            if let SessionEvent::Volatile { payload, .. } = event {
                return payload;
            }
        }
    };
    assert_eq!(soon("typing", typing).await, "over the new");
}

/// A way to a relay that does worse than fail when the test says so.
struct Bad {
    way: MemoryRelay,
    panics: Arc<Notify>,
}

struct BadReceiver {
    panics: Arc<Notify>,
}

#[async_trait::async_trait]
impl RelayTransport for Bad {
    fn address(&self) -> &str {
        "bad"
    }

    async fn connect(&self, identity: &Identity) -> Result<RelayConnection, TransportError> {
        let connection = self.way.connect(identity).await?;
        let panics = self.panics.clone();
        Ok(RelayConnection {
            receiver: Box::new(BadReceiver { panics }),
            ..connection
        })
    }
}

#[async_trait::async_trait]
impl RelayReceiver for BadReceiver {
    async fn receive(&mut self) -> Result<Incoming, TransportError> {
        self.panics.notified().await;
        panic!("as asked")
    }
}

#[tokio::test(start_paused = true)]
async fn a_link_whose_task_came_to_a_bad_end_is_let_go_of() {
    let (first, second) = (MemoryRelay::new("first"), MemoryRelay::new("second"));
    let panics = Arc::new(Notify::new());
    let bad = Bad {
        way: first.clone(),
        panics: panics.clone(),
    };
    let alice = Node::builder()
        .identity(Identity::from_seed([1; 32]))
        .store(MemoryStore::new())
        .transport(bad)
        .transport(second.clone())
        .start()
        .await
        .unwrap();
    let bob = on(2, &[&second]).await;
    let to_bob = alice.session(id(2)).await.unwrap();
    let mut inbox = bob.session(id(1)).await.unwrap().inbox(CHAT).unwrap();
    until(&to_bob, "both links", |state| state.links.len() == 2).await;
    panics.notify_one();
    counted(&first, "the bad end", |counts| counts.connected == 0).await;
    to_bob.send(CHAT, "over the second").await.unwrap();
    assert_eq!(take(&mut inbox).await, "over the second");
    until(
        &to_bob,
        "the second link alone",
        |state| matches!(&state.links[..], [link] if link.address == "memory:second"),
    )
    .await;
}

#[tokio::test]
async fn a_relay_that_takes_nothing_any_more_does_not_hold_up_a_shutdown() {
    let relay = MemoryRelay::new("relay");
    let alice = on(1, &[&relay]).await;
    let to_bob = alice.session(id(2)).await.unwrap();
    linked(&to_bob).await;
    let _hold = relay.faults().hold(id(1), Way::ToRelay);
    fill(&alice).await;
    drop(to_bob);
    soon("the shutdown", alice.shutdown()).await.unwrap();
    assert_eq!(relay.counts().borrow().connected, 0);
}

#[tokio::test]
async fn when_a_relay_dies_the_same_session_goes_on_over_the_next() {
    let (first, second) = (MemoryRelay::new("first"), MemoryRelay::new("second"));
    let alice = on(1, &[&first, &second]).await;
    let bob = on(2, &[&first, &second]).await;
    let to_bob = alice.session(id(2)).await.unwrap();
    let to_alice = bob.session(id(1)).await.unwrap();
    let heard = Arc::new(AtomicUsize::new(0));
    let counting = heard.clone();
    let _subscription = to_alice.on_event(move |event, _| {
        if matches!(event, SessionEvent::Message { .. }) {
            counting.fetch_add(1, Ordering::SeqCst);
        }
    });
    let mut inbox = to_alice.inbox(CHAT).unwrap();
    for session in [&to_bob, &to_alice] {
        until(session, "both links", |state| state.links.len() == 2).await;
    }
    to_bob.send(CHAT, "over the first").await.unwrap();
    assert_eq!(take(&mut inbox).await, "over the first");
    assert_eq!(second.counts().borrow().taken, 0);
    // The next is in the first's custody alone when it dies for good.
    let deaf = first.faults().hold(id(2), Way::FromRelay);
    let receipt = to_bob.send(CHAT, "in its custody").await.unwrap();
    soon("custody", receipt.custody()).await.unwrap();
    let _dead = first.faults().down();
    drop(deaf);
    assert_eq!(take(&mut inbox).await, "in its custody");
    soon("delivery", receipt.delivered()).await.unwrap();
    to_bob.send(CHAT, "over the second").await.unwrap();
    assert_eq!(take(&mut inbox).await, "over the second");
    assert_eq!(heard.load(Ordering::SeqCst), 3);
    assert_eq!(to_alice.subscriptions(), 1);
    let links = to_bob.state().borrow().links.clone();
    assert_eq!(links.len(), 1);
    assert_eq!(links[0].address, "memory:second");
}

#[tokio::test(start_paused = true)]
async fn a_relay_that_fell_silent_holds_up_nothing_while_another_is_there() {
    let (first, second) = (MemoryRelay::new("first"), MemoryRelay::new("second"));
    let alice = on(1, &[&first, &second]).await;
    let bob = on(2, &[&first, &second]).await;
    let to_bob = alice.session(id(2)).await.unwrap();
    let mut inbox = bob.session(id(1)).await.unwrap().inbox(CHAT).unwrap();
    until(&to_bob, "both links", |state| state.links.len() == 2).await;
    counted(&first, "bob", |counts| counts.connected == 2).await;
    counted(&second, "bob", |counts| counts.connected == 2).await;
    assert!(first.faults().half_dead(id(1)) && first.faults().half_dead(id(2)));
    to_bob.send(CHAT, "around it").await.unwrap();
    assert_eq!(take(&mut inbox).await, "around it");
    // It was not given up before: that takes 50 s of silence.
    assert_eq!(first.counts().borrow().sign_ins, 2);
}

#[tokio::test]
async fn a_relay_that_answers_nothing_is_given_up_before_one_that_is_asked_nothing() {
    let silence = Duration::from_secs(10);
    let relay = relay().await;
    let proxy = Proxy::before(&relay).await;
    let none = NetworkMonitor::new();
    let alice = with_network(1, proxy.way().with_silence(silence), &none).await;
    let bob = with_network(2, way(&relay), &none).await;
    let to_bob = alice.session(id(2)).await.unwrap();
    let mut inbox = bob.session(id(1)).await.unwrap().inbox(CHAT).unwrap();
    linked(&to_bob).await;
    proxy.half_dead();
    let dead = Instant::now();
    to_bob.send(CHAT, "into nothing").await.unwrap();
    assert_eq!(take(&mut inbox).await, "into nothing");
    let heard = dead.elapsed();
    assert!(heard < silence * 4 / 5, "{heard:?}");
}

#[tokio::test]
async fn a_relay_that_is_in_use_already_is_not_dialed_beside_itself() {
    let relay = relay().await;
    let alice = Node::builder()
        .identity(Identity::from_seed([1; 32]))
        .store(MemoryStore::new())
        .transport(way(&relay))
        .transport(Arc::new(way(&relay)))
        .start()
        .await
        .unwrap();
    alice.use_relay(Arc::new(way(&relay)));
    let relays = alice.relays();
    let [(address, state)] = &relays[..] else {
        panic!("{relays:?}");
    };
    let mut state = state.clone();
    let connected = state.wait_for(|state| *state == RelayState::Connected);
    drop(soon("a connection", connected).await.unwrap());

    assert!(alice.remove_relay(address));
    assert!(alice.relays().is_empty());
    alice.use_relay(Arc::new(way(&relay)));
    let bob = node(2, &relay).await;
    let mut inbox = bob.session(id(1)).await.unwrap().inbox(CHAT).unwrap();
    let to_bob = alice.session(id(2)).await.unwrap();
    to_bob.send(CHAT, "over the relay again").await.unwrap();
    assert_eq!(take(&mut inbox).await, "over the relay again");
}

/// Has the address of a relay, and says that it can never work.
struct Hopeless(String);

#[async_trait]
impl RelayTransport for Hopeless {
    fn address(&self) -> &str {
        &self.0
    }

    async fn connect(&self, _: &Identity) -> Result<RelayConnection, TransportError> {
        Err(TransportError::Address {
            address: self.0.clone(),
            reason: "it is hopeless".to_owned(),
        })
    }
}

#[tokio::test]
async fn a_relay_that_was_given_up_is_dialed_when_it_is_used_again() {
    let relay = relay().await;
    let way = Arc::new(way(&relay));
    let alice = Node::builder()
        .identity(Identity::from_seed([1; 32]))
        .store(MemoryStore::new())
        .transport(Hopeless(way.address().to_owned()))
        .start()
        .await
        .unwrap();
    let (_, mut state) = alice.relays().pop().expect("one relay");
    let closed = state.wait_for(|state| *state == RelayState::Closed);
    drop(soon("its end", closed).await.unwrap());
    alice.use_relay(way);
    let (_, mut state) = alice.relays().pop().expect("one relay");
    let connected = state.wait_for(|state| *state == RelayState::Connected);
    drop(soon("a connection", connected).await.unwrap());
    assert_eq!(alice.relays().len(), 1);
}

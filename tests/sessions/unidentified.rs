//! Messages over a connection on which the relay is not told who sends them.

use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use outlive::{
    DeliveryToken, Ending, Error, Identity, Node, Receipt, ReceiptState, Refusal, RelayTransport,
    Session, SessionEvent, Stage,
};
use outlive_core::limits;
use outlive_core::store::{Batch, Store, StoreError};
use outlive_core::transport::{Incoming, Outgoing, RelayConnection, RelayReceiver, TransportError};
use outlive_relay::Relay;
use outlive_storage::{MemoryStore, SledStore};
use outlive_testing::{Intercepted, Interceptor};
use outlive_transports::{MemoryRelay, WebSocketRelay};
use tokio::sync::watch;

use crate::played;
use crate::tap::{contents, holds};
use crate::trust::kept;
use crate::world::{CHAT, id, node, relay, relay_over, soon, take, url, way};

const ALICE: u8 = 1;
const BOB: u8 = 2;
const CAROL: u8 = 3;

async fn offline(n: u8, store: MemoryStore) -> Node {
    let node = Node::builder()
        .identity(Identity::from_seed([n; 32]))
        .store(store);
    node.start().await.unwrap()
}

/// A node with a token that the relay has heard of.
async fn reachable(store: MemoryStore, relay: &Relay) -> (Node, DeliveryToken) {
    let bob = offline(BOB, store).await;
    let token = bob.delivery_token().await.unwrap();
    bob.use_relay(Arc::new(way(relay)));
    heard_of(&bob).await;
    (bob, token)
}

/// Waits until the relay has written what this node told it before.
async fn heard_of(node: &Node) {
    let session = node.session(id(CAROL)).await.unwrap();
    let receipt = session.send(CHAT, "to somebody else").await.unwrap();
    soon("custody", receipt.custody()).await.unwrap();
}

/// A session of Alice with Bob in which she was never named to a relay.
async fn unnamed(token: DeliveryToken, way: impl RelayTransport) -> (Node, Session) {
    let alice = offline(ALICE, MemoryStore::new()).await;
    let session = alice.session(id(BOB)).await.unwrap();
    session.send_unidentified(Some(token)).await.unwrap();
    alice.use_relay(Arc::new(way));
    (alice, session)
}

/// Waits until a message waits because the relay does not take the token.
async fn held(receipt: &Receipt) {
    soon("the refusal", async {
        let mut state = receipt.state();
        loop {
            match state {
                ReceiptState::Waiting(why) if why.refusal() == Some(Refusal::Token) => return,
                ReceiptState::Ended(how) => panic!("it ended: {how}"),
                ReceiptState::Reached(Stage::Delivered) => panic!("it is there"),
                _ => state = receipt.changed(state).await.unwrap(),
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_stranger_reaches_a_peer_that_is_away_and_the_relay_holds_no_name_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let relay = relay_over(Arc::new(SledStore::open(dir.path()).unwrap())).await;
    let store = MemoryStore::new();
    let (bob, token) = reachable(store.clone(), &relay).await;
    bob.shutdown().await.unwrap();
    let store = store.faults().crash();

    let (alice, session) = unnamed(token, way(&relay)).await;
    let receipt = session.send(CHAT, "from nobody").await.unwrap();
    soon("custody", receipt.custody()).await.unwrap();
    let waiting = contents(dir.path());
    assert!(holds(&waiting, id(BOB).as_bytes()));
    assert!(!holds(&waiting, id(ALICE).as_bytes()));

    let bob = crate::world::node_over(BOB, store, &relay).await;
    let from = soon("an arrival", bob.next_arrival()).await.unwrap();
    assert_eq!(from, id(ALICE));
    let mut inbox = bob.session(from).await.unwrap().inbox(CHAT).unwrap();
    assert_eq!(take(&mut inbox).await, "from nobody");
    soon("delivery", receipt.delivered()).await.unwrap();
    soon("the commit", receipt.consumed()).await.unwrap();

    // What was taken has left the mailbox: it does not come again to one who lost everything.
    heard_of(&bob).await;
    drop((session, inbox));
    alice.shutdown().await.unwrap();
    bob.shutdown().await.unwrap();
    let anew = node(BOB, &relay).await;
    heard_of(&anew).await;
    let session = anew.session(id(ALICE)).await.unwrap();
    let mut inbox = session.inbox(CHAT).unwrap();
    assert!(inbox.try_next().await.unwrap().is_none());
}

#[tokio::test]
async fn a_stranger_whom_no_relay_names_fills_no_disk_either() {
    const MESSAGES: usize = 100;
    let (store, relay) = (MemoryStore::new(), relay().await);
    let (bob, token) = reachable(store.clone(), &relay).await;
    bob.shutdown().await.unwrap();
    let store = store.faults().crash();
    let (alice, session) = unnamed(token, way(&relay)).await;
    let text = |n: usize| format!("{n} {}", "x".repeat(16_000));
    let mut receipts = Vec::new();
    for n in 0..MESSAGES {
        receipts.push(session.send(CHAT, text(n)).await.unwrap());
    }
    let [first, .., last] = &receipts[..] else {
        panic!("some messages");
    };
    soon("custody", last.custody()).await.unwrap();

    let bob = crate::world::node_over(BOB, store.clone(), &relay).await;
    soon("the first", first.delivered()).await.unwrap();
    // Time for more to come, if more came.
    for _ in 0..5 {
        heard_of(&bob).await;
    }
    assert_eq!(bob.strangers(), [id(ALICE)]);
    let most = limits::STRANGER_BYTES + limits::PACKET_BYTES as u64;
    let kept = kept(&store, b"ig").await;
    assert!(kept <= most, "{kept} bytes of a stranger");

    let mut inbox = bob.session(id(ALICE)).await.unwrap().inbox(CHAT).unwrap();
    for n in 0..MESSAGES {
        assert_eq!(take(&mut inbox).await, text(n));
    }
    alice.shutdown().await.unwrap();
}

#[tokio::test]
async fn what_is_sent_before_the_owner_of_the_token_signs_in_waits_for_that() {
    let relay = relay().await;
    let bob = offline(BOB, MemoryStore::new()).await;
    let token = bob.delivery_token().await.unwrap();
    let (_alice, session) = unnamed(token, way(&relay)).await;
    let receipt = session.send(CHAT, "early").await.unwrap();
    held(&receipt).await;

    let mut inbox = bob.session(id(ALICE)).await.unwrap().inbox(CHAT).unwrap();
    bob.use_relay(Arc::new(way(&relay)));
    assert_eq!(take(&mut inbox).await, "early");
    soon("delivery", receipt.delivered()).await.unwrap();
}

#[tokio::test]
async fn a_relay_that_lost_its_store_gets_again_what_it_held_by_token() {
    let relay = relay_at(&MemoryStore::new(), ([127, 0, 0, 1], 0).into()).await;
    let (address, store) = (relay.local_addr(), MemoryStore::new());
    let (bob, token) = reachable(store.clone(), &relay).await;
    bob.shutdown().await.unwrap();
    let (_alice, session) = unnamed(token, way(&relay)).await;
    let mut receipts = Vec::new();
    for n in 0..3 {
        receipts.push(session.send(CHAT, format!("{n}")).await.unwrap());
    }
    for receipt in &receipts {
        soon("custody", receipt.custody()).await.unwrap();
    }

    let mut events = session.events(1_024);
    relay.shutdown().await.unwrap();
    let relay = relay_at(&MemoryStore::new(), address).await;
    receipts.push(session.send(CHAT, "3").await.unwrap());
    soon("the refusal", async {
        loop {
            match events.next().await.expect("the session lives").0 {
                SessionEvent::Held { reason, .. } => return assert_eq!(reason, Refusal::Token),
                SessionEvent::Ended { how, .. } => panic!("it ended: {how}"),
                _ => {}
            }
        }
    })
    .await;
    let bob = crate::world::node_over(BOB, store.faults().crash(), &relay).await;
    let mut inbox = bob.session(id(ALICE)).await.unwrap().inbox(CHAT).unwrap();
    for n in 0..4 {
        assert_eq!(take(&mut inbox).await, format!("{n}"));
    }
    for receipt in receipts {
        soon("delivery", receipt.delivered()).await.unwrap();
    }
}

#[tokio::test]
async fn what_waits_with_a_wrong_or_revoked_token_goes_with_another_one() {
    let relay = relay().await;
    let (bob, token) = reachable(MemoryStore::new(), &relay).await;
    let wrong = DeliveryToken::from_bytes([7; 32]);
    let (_alice, session) = unnamed(wrong, way(&relay)).await;
    let waits = session.send(CHAT, "with the token").await.unwrap();
    held(&waits).await;

    session
        .send_unidentified(Some(token.clone()))
        .await
        .unwrap();
    let mut inbox = bob.session(id(ALICE)).await.unwrap().inbox(CHAT).unwrap();
    assert_eq!(take(&mut inbox).await, "with the token");

    let renewed = bob.renew_delivery_token().await.unwrap();
    assert_ne!(renewed, token);
    assert_eq!(bob.delivery_token().await.unwrap(), renewed);
    // The relay has heard of it when it has taken what was said after it.
    heard_of(&bob).await;
    let waits = session.send(CHAT, "with the next").await.unwrap();
    held(&waits).await;
    session.send_unidentified(Some(renewed)).await.unwrap();
    assert_eq!(take(&mut inbox).await, "with the next");
    session.send_unidentified(None).await.unwrap();
    session.send(CHAT, "under my name").await.unwrap();
    assert_eq!(take(&mut inbox).await, "under my name");
}

#[tokio::test]
async fn the_token_and_how_a_session_sends_outlive_a_restart() {
    let relay = relay().await;
    let store = MemoryStore::new();
    let (bob, token) = reachable(store.clone(), &relay).await;
    bob.shutdown().await.unwrap();
    let bob = offline(BOB, store.faults().crash()).await;
    assert_eq!(bob.delivery_token().await.unwrap(), token);

    let store = MemoryStore::new();
    let alice = offline(ALICE, store.clone()).await;
    let session = alice.session(id(BOB)).await.unwrap();
    let wrong = DeliveryToken::from_bytes([7; 32]);
    assert_eq!(session.sends_unidentified().await.unwrap(), None);
    session
        .send_unidentified(Some(wrong.clone()))
        .await
        .unwrap();
    assert!(session.allows_direct().await.unwrap());
    session.allow_direct(false).await.unwrap();
    drop(session);
    alice.shutdown().await.unwrap();
    // Under her own name it would be taken.
    let alice = crate::world::node_over(ALICE, store.faults().crash(), &relay).await;
    let session = alice.session(id(BOB)).await.unwrap();
    assert_eq!(session.sends_unidentified().await.unwrap(), Some(wrong));
    assert!(!session.allows_direct().await.unwrap());
    session.allow_direct(true).await.unwrap();
    assert!(session.allows_direct().await.unwrap());
    held(&session.send(CHAT, "refused").await.unwrap()).await;
}

#[tokio::test]
async fn without_such_a_connection_nothing_is_sent_under_our_name_instead() {
    let relay = MemoryRelay::new("relay");
    let token = DeliveryToken::from_bytes([7; 32]);
    let (_alice, session) = unnamed(token, relay).await;
    let receipt = session.send(CHAT, "refused").await.unwrap();
    let ended = soon("the end", receipt.delivered()).await;
    let why = Ending::Refused(Refusal::NotAllowed);
    assert!(matches!(ended, Err(Error::Ended(how)) if how == why));
}

#[tokio::test(start_paused = true)]
async fn a_relay_is_not_asked_for_a_peer_before_it_is_read_how_the_session_sends() {
    let store = MemoryStore::new();
    let alice = offline(ALICE, store.clone()).await;
    let session = alice.session(id(BOB)).await.unwrap();
    let token = DeliveryToken::from_bytes([7; 32]);
    session.send_unidentified(Some(token)).await.unwrap();
    drop(session);
    alice.shutdown().await.unwrap();

    let store = store.faults().crash();
    let (alice, mut lines) = played::node_over(ALICE, store.clone()).await;
    let mut line = played::next(&mut lines).await;
    store.faults().fail_reads(4, &StoreError::Full);
    let (unnamed, named) = (
        alice.session(id(BOB)).await.unwrap(),
        alice.session(id(CAROL)).await.unwrap(),
    );
    let (mut asked, mut watched) = (Vec::new(), Vec::new());
    // Both are loaded when it is asked for what they have missed.
    while asked.len() < 2 || watched.is_empty() {
        match line.said().await {
            Outgoing::Redeliver { from } => asked.push(from),
            Outgoing::Watch { peers } => watched.extend(peers),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(watched, [id(CAROL)]);
    drop((unnamed, named));
}

/// A way to a relay whose connections can be cut, each kind by itself.
struct Cut {
    relay: WebSocketRelay,
    named: watch::Sender<()>,
    unnamed: watch::Sender<()>,
}

struct Receiver {
    inner: Box<dyn RelayReceiver>,
    cut: watch::Receiver<()>,
}

#[async_trait]
impl RelayReceiver for Receiver {
    async fn receive(&mut self) -> Result<Incoming, TransportError> {
        tokio::select! {
            incoming = self.inner.receive() => incoming,
            _ = self.cut.changed() => Err(TransportError::Broken("cut".to_owned())),
        }
    }
}

fn with(connection: RelayConnection, cut: &watch::Sender<()>) -> RelayConnection {
    RelayConnection {
        receiver: Box::new(Receiver {
            inner: connection.receiver,
            cut: cut.subscribe(),
        }),
        ..connection
    }
}

#[async_trait]
impl RelayTransport for Cut {
    fn address(&self) -> &str {
        self.relay.address()
    }

    async fn connect(&self, identity: &Identity) -> Result<RelayConnection, TransportError> {
        Ok(with(self.relay.connect(identity).await?, &self.named))
    }

    async fn connect_unidentified(&self) -> Result<RelayConnection, TransportError> {
        Ok(with(
            self.relay.connect_unidentified().await?,
            &self.unnamed,
        ))
    }
}

async fn relay_at(store: &MemoryStore, address: SocketAddr) -> Relay {
    let relay = Relay::builder().store(Arc::new(store.clone()));
    relay.bind(address).await.expect("the address is free")
}

#[tokio::test]
async fn through_cuts_of_both_connections_and_a_restart_all_arrives_once_and_in_order() {
    let store = MemoryStore::new();
    let relay = relay_at(&store, ([127, 0, 0, 1], 0).into()).await;
    let address = relay.local_addr();
    let (bob, token) = reachable(MemoryStore::new(), &relay).await;
    let (named, unnamed_cut) = (watch::Sender::new(()), watch::Sender::new(()));
    let cut = Cut {
        relay: WebSocketRelay::new(&url(&relay)).unwrap(),
        named: named.clone(),
        unnamed: unnamed_cut.clone(),
    };
    let (_alice, session) = unnamed(token, cut).await;
    let mut inbox = bob.session(id(ALICE)).await.unwrap().inbox(CHAT).unwrap();
    let mut relay = Some(relay);
    let mut receipts = Vec::new();
    for round in 0..6 {
        for n in 0..20 {
            let text = format!("{round}.{n}");
            receipts.push(session.send(CHAT, text).await.unwrap());
            match (round, n) {
                (0 | 3, 10) => drop(named.send(())),
                (1 | 4, 10) => drop(unnamed_cut.send(())),
                (2, 10) => {
                    // Its store is closed with it: what it kept is what it has next.
                    relay.take().unwrap().shutdown().await.unwrap();
                    relay = Some(relay_at(&store.faults().crash(), address).await);
                }
                _ => {}
            }
        }
        for n in 0..20 {
            assert_eq!(take(&mut inbox).await, format!("{round}.{n}"));
        }
    }
    for receipt in receipts {
        soon("the commit", receipt.consumed()).await.unwrap();
    }
    assert!(inbox.try_next().await.unwrap().is_none());
}

/// A store that writes one batch after the other, in the order in which it was asked to, as long as it
/// is open.
struct InTurn {
    turn: tokio::sync::Mutex<()>,
    open: watch::Receiver<bool>,
}

#[async_trait]
impl Interceptor for InTurn {
    async fn commit(&self, store: &MemoryStore, batch: Batch) -> Result<(), StoreError> {
        let _turn = self.turn.lock().await;
        let mut open = self.open.clone();
        let _ = open.wait_for(|open| *open).await;
        store.commit(batch).await
    }
}

/// Until a session has taken what it was asked to do: there is nothing else to be done.
async fn taken() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_token_is_noted_while_the_store_is_busy_with_something_else() {
    let (open, opened) = watch::channel(true);
    let in_turn = InTurn {
        turn: tokio::sync::Mutex::default(),
        open: opened,
    };
    let store = Intercepted::new(MemoryStore::new(), in_turn);
    let alice = Node::builder()
        .identity(Identity::from_seed([ALICE; 32]))
        .store(store);
    let alice = alice.start().await.unwrap();
    let session = alice.session(id(BOB)).await.unwrap();
    drop(session.send(CHAT, "the first").await.unwrap());

    open.send_replace(false);
    let sending = tokio::spawn({
        let session = session.clone();
        async move { session.send(CHAT, "while it is closed").await }
    });
    taken().await;
    let noting = tokio::spawn(async move { session.send_unidentified(None).await });
    taken().await;
    assert!(!sending.is_finished() && !noting.is_finished());
    open.send_replace(true);
    drop(soon("the message", sending).await.unwrap().unwrap());
    soon("the token", noting).await.unwrap().unwrap();
    alice.shutdown().await.unwrap();
}

//! Who is to keep a message, and until when.

use std::time::Duration;

use outlive::limits::RELAY_FLIGHT;
use outlive::record::Key;
use outlive::{
    NetworkMonitor, Node, Receipt, ReceiptState, Refusal, Session, Stage, Store, StoreError,
};
use outlive_core::store::ReadLimit;
use outlive_core::transport::{Class, Incoming, Outgoing};
use outlive_core::{EnvelopeId, Position};
use outlive_storage::MemoryStore;
use outlive_transports::{MemoryRelay, Way};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::played::{self, Line};
use crate::proxy::Proxy;
use crate::scene::{acquaint, counted, linked, on, on_store, pair, unlinked, with_network};
use crate::world::{CHAT, comes, comes_true, id, node, relay, soon, take, until};

/// Messages that a store keeps for peer 2.
async fn in_outbox(store: &MemoryStore) -> usize {
    let all = Key::outbox(id(2), CHAT, Position(0), Position(u64::MAX));
    let limit = ReadLimit {
        records: 100,
        bytes: usize::MAX,
    };
    store.range(all, limit).await.expect("it works").len()
}

#[tokio::test]
async fn nothing_is_acknowledged_before_the_recipient_holds_it_durably() {
    let relay = MemoryRelay::new("relay");
    let store = MemoryStore::new();
    let alice = on(1, &[&relay]).await;
    let bob = on_store(2, store.clone(), &[&relay]).await;
    let to_bob = alice.session(id(2)).await.unwrap();
    let to_alice = bob.session(id(1)).await.unwrap();
    linked(&to_alice).await;
    let hold = store.faults().hold();
    let receipt = to_bob.send(CHAT, "precious").await.unwrap();
    comes_true("bob's commit", async || store.faults().counts().waiting > 0).await;
    soon("custody", receipt.custody()).await.unwrap();
    assert_eq!(receipt.state(), ReceiptState::Reached(Stage::Custody));
    assert_eq!(relay.counts().borrow().waiting, 1);

    let after = store.faults().crash();
    drop((hold, to_alice, bob));
    let bob = on_store(2, after, &[&relay]).await;
    let mut inbox = bob.session(id(1)).await.unwrap().inbox(CHAT).unwrap();
    assert_eq!(take(&mut inbox).await, "precious");
    soon("delivery", receipt.delivered()).await.unwrap();
}

#[tokio::test]
async fn a_message_written_to_a_half_dead_socket_stays_in_its_mailbox() {
    let relay = relay().await;
    let proxy = Proxy::before(&relay).await;
    let network = NetworkMonitor::new();
    let bob = with_network(2, proxy.way(), &network).await;
    let to_alice = bob.session(id(1)).await.unwrap();
    linked(&to_alice).await;
    proxy.half_dead();
    let alice = node(1, &relay).await;
    let payload = "x".repeat(16 * 1024);
    let to_bob = alice.session(id(2)).await.unwrap();
    let receipt = to_bob.send(CHAT, payload.clone()).await.unwrap();
    soon("custody", receipt.custody()).await.unwrap();
    proxy.swallowed(payload.len()).await;
    // The sender leaves: only the relay has the message now.
    drop((receipt, to_bob));
    alice.shutdown().await.unwrap();

    network.down();
    unlinked(&to_alice).await;
    network.up();
    assert!(take(&mut to_alice.inbox(CHAT).unwrap()).await == payload);
}

#[tokio::test(start_paused = true)]
async fn what_was_in_flight_to_a_dead_link_goes_again_at_once_on_rebind() {
    let relay = MemoryRelay::new("relay");
    let (_alice, _bob, to_bob, to_alice) = pair(&relay).await;
    let mut inbox = to_alice.inbox(CHAT).unwrap();
    acquaint(&to_bob, &mut inbox).await;
    acquaint(&to_alice, &mut to_bob.inbox(CHAT).unwrap()).await;
    let before = relay.counts().borrow().delivered;
    assert!(relay.faults().half_dead(id(2)));
    to_bob.send(CHAT, "delivered into nothing").await.unwrap();
    counted(&relay, "the delivery", |of| of.delivered > before).await;
    assert!(relay.faults().half_dead(id(1)));
    to_bob.send(CHAT, "submitted into nothing").await.unwrap();
    relay.faults().cut(id(1));
    relay.faults().cut(id(2));
    unlinked(&to_bob).await;
    unlinked(&to_alice).await;
    linked(&to_bob).await;
    linked(&to_alice).await;
    let bound = Instant::now();
    assert_eq!(take(&mut inbox).await, "delivered into nothing");
    assert_eq!(take(&mut inbox).await, "submitted into nothing");
    // No timer had to run out: the first of a session does after two seconds.
    assert!(bound.elapsed() < Duration::from_secs(1));
}

#[tokio::test]
async fn a_message_stays_in_the_outbox_until_the_peer_has_it() {
    let relay = MemoryRelay::new("relay");
    let store = MemoryStore::new();
    let alice = on_store(1, store.clone(), &[&relay]).await;
    let to_bob = alice.session(id(2)).await.unwrap();
    let receipt = to_bob.send(CHAT, "kept").await.unwrap();
    soon("custody", receipt.custody()).await.unwrap();
    assert_eq!(in_outbox(&store).await, 1);
    relay.faults().lose_store();
    counted(&relay, "it to come again", |counts| counts.waiting == 1).await;
    assert_eq!(in_outbox(&store).await, 1);
    let bob = on(2, &[&relay]).await;
    let mut inbox = bob.session(id(1)).await.unwrap().inbox(CHAT).unwrap();
    assert_eq!(take(&mut inbox).await, "kept");
    soon("delivery", receipt.delivered()).await.unwrap();
    comes_true("an empty outbox", async || in_outbox(&store).await == 0).await;
}

#[tokio::test]
async fn a_duplicate_is_acknowledged_and_comes_no_more() {
    let relay = MemoryRelay::new("relay");
    let alice = on(1, &[&relay]).await;
    let to_bob = alice.session(id(2)).await.unwrap();
    linked(&to_bob).await;
    // Alice does not hear that the relay has it, and sends it again over the next link.
    let deaf = relay.faults().hold(id(1), Way::FromRelay);
    to_bob.send(CHAT, "sent twice").await.unwrap();
    counted(&relay, "the first copy", |counts| counts.waiting == 1).await;
    relay.faults().cut(id(1));
    drop(deaf);
    counted(&relay, "the second copy", |counts| counts.waiting == 2).await;
    let bob = on(2, &[&relay]).await;
    let to_alice = bob.session(id(1)).await.unwrap();
    let mut inbox = to_alice.inbox(CHAT).unwrap();
    assert_eq!(take(&mut inbox).await, "sent twice");
    counted(&relay, "an empty mailbox", |counts| counts.waiting == 0).await;
    // The relay says it twice.
    relay.faults().duplicate(id(2), 1);
    to_bob.send(CHAT, "delivered twice").await.unwrap();
    assert_eq!(take(&mut inbox).await, "delivered twice");
    // The relay does not hear that bob has it.
    let mute = relay.faults().hold(id(2), Way::ToRelay);
    to_bob.send(CHAT, "taken twice").await.unwrap();
    assert_eq!(take(&mut inbox).await, "taken twice");
    relay.faults().cut(id(2));
    drop(mute);
    counted(&relay, "an empty mailbox", |counts| counts.waiting == 0).await;
    assert!(inbox.try_next().await.unwrap().is_none());
}

/// The next packet that a relay is to keep.
async fn submitted(line: &mut Line) -> EnvelopeId {
    loop {
        if let Outgoing::Submit {
            envelope,
            class: Class::Keep,
            ..
        } = line.said().await
        {
            return envelope;
        }
    }
}

/// As many messages as a relay may leave unanswered, each in a packet of its own.
async fn unanswered(session: &Session, line: &mut Line) -> Vec<(Receipt, EnvelopeId)> {
    let mut sent = Vec::new();
    for n in 0..RELAY_FLIGHT {
        let receipt = session.send(CHAT, format!("{n}")).await.unwrap();
        sent.push((receipt, submitted(line).await));
    }
    sent
}

/// Has a store fail, and the session with it. Returns what is sent when it is loaded again, more than
/// was unanswered before.
async fn sent_after_a_failure(store: &MemoryStore, session: &Session) -> Vec<Receipt> {
    store.faults().fail_commits(1, &StoreError::Full);
    session.send(CHAT, "not taken").await.unwrap_err();
    let mut since = Vec::new();
    while since.len() <= RELAY_FLIGHT {
        let taken = async || session.send(CHAT, "since").await.ok();
        since.push(comes("the store to be tried again", taken).await);
    }
    since
}

/// A session whose store failed while a relay had not answered yet.
struct Failed {
    _node: Node,
    _lines: mpsc::UnboundedReceiver<Line>,
    line: Line,
    session: Session,
    /// What is unanswered.
    before: Vec<(Receipt, EnvelopeId)>,
    /// What was sent since.
    since: Vec<Receipt>,
}

impl Failed {
    async fn scene() -> Self {
        let store = MemoryStore::new();
        let (node, mut lines) = played::node_over(1, store.clone()).await;
        let mut line = played::next(&mut lines).await;
        let session = node.session(id(2)).await.unwrap();
        linked(&session).await;
        let before = unanswered(&session, &mut line).await;
        let since = sent_after_a_failure(&store, &session).await;
        Self {
            _node: node,
            _lines: lines,
            line,
            session,
            before,
            since,
        }
    }

    /// Has the relay answer all that is unanswered. Returns what was sent since, when the session has
    /// heard it.
    async fn told(&self, answer: impl Fn(EnvelopeId) -> Incoming) -> &[Receipt] {
        for (_, envelope) in &self.before {
            self.line.tell(answer(*envelope)).await;
        }
        let (peer, online) = (id(2), true);
        self.line.tell(Incoming::Presence { peer, online }).await;
        until(&self.session, "the peer", |state| {
            state.peer_online == Some(true)
        })
        .await;
        &self.since
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_relay_accepted_before_the_store_failed_is_not_what_was_sent_since() {
    let scene = Failed::scene().await;
    let accepted = |envelope| Incoming::Accepted { envelope };
    for receipt in scene.told(accepted).await {
        let state = receipt.state();
        assert_ne!(state, ReceiptState::Reached(Stage::Custody));
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_relay_refused_before_the_store_failed_ends_nothing_that_was_sent_since() {
    let scene = Failed::scene().await;
    let refused = |envelope| Incoming::Refused {
        envelope,
        reason: Refusal::NotAllowed,
    };
    for receipt in scene.told(refused).await {
        assert!(!matches!(receipt.state(), ReceiptState::Ended(_)));
    }
}

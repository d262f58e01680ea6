//! The ends of things: of a node, and of a `send` that nobody waits for any more.

use std::task::Poll;

use outlive::{Identity, Node, SessionEvent, Stage};
use outlive_relay::Relay;
use outlive_storage::{MemoryStore, SledStore};
use outlive_transports::{MemoryRelay, WebSocketRelay};
use tokio::runtime::Handle;

use crate::scene::{at_once, linked, on, on_store};
use crate::world::{CHAT, comes_true, id, node, relay, soon, take, until, url};

/// A relay on a runtime of its own, so that the tasks of this one are those of the nodes alone.
async fn relay_elsewhere() -> (String, tokio::sync::oneshot::Sender<()>) {
    let (tell, told) = tokio::sync::oneshot::channel();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            let relay: Relay = relay().await;
            tell.send(url(&relay)).expect("the test waits");
            // Either way the test is over.
            let _ = stopped.await;
        });
    });
    (soon("a relay", told).await.expect("an address"), stop)
}

async fn node_at(n: u8, address: &str) -> Node {
    Node::builder()
        .identity(Identity::from_seed([n; 32]))
        .store(MemoryStore::new())
        .transport(WebSocketRelay::new(address).unwrap())
        .start()
        .await
        .unwrap()
}

#[tokio::test]
async fn events_end_when_the_node_shuts_down() {
    let relay = relay().await;
    let alice = node(1, &relay).await;
    let session = alice.session(id(2)).await.unwrap();
    let mut events = session.events(16);
    alice.shutdown().await.unwrap();
    let end = async { while events.next().await.is_some() {} };
    soon("the end of the events", end).await;
    let mut none = session.events(1);
    assert!(soon("no event", none.next()).await.is_none());
}

#[tokio::test]
async fn events_of_a_session_that_is_closed_end_at_once() {
    let relay = relay().await;
    let alice = node(1, &relay).await;
    let session = alice.session(id(2)).await.unwrap();
    let other = session.clone();
    session.close().await.unwrap();
    let mut none = other.events(1);
    assert!(soon("no event", none.next()).await.is_none());
}

#[tokio::test]
async fn no_task_of_a_node_is_left_when_it_has_shut_down() {
    let (address, _relay) = relay_elsewhere().await;
    let metrics = Handle::current().metrics();
    assert_eq!(metrics.num_alive_tasks(), 0);
    for _ in 0..5 {
        let (alice, bob) = (node_at(1, &address).await, node_at(2, &address).await);
        let session = alice.session(id(2)).await.unwrap();
        let events = session.events(16);
        let receipt = session.send(CHAT, "hello").await.unwrap();
        let mut inbox = bob.session(id(1)).await.unwrap().inbox(CHAT).unwrap();
        assert_eq!(take(&mut inbox).await, "hello");
        soon("delivery", receipt.delivered()).await.unwrap();
        let unsent = alice.session(id(3)).await.unwrap();
        unsent.send(CHAT, "nobody is there").await.unwrap();
        let (at_work, has_begun) = tokio::sync::oneshot::channel();
        let mut at_work = Some(at_work);
        let handler = bob.on_request(move |_| {
            let at_work = at_work.take();
            async move {
                at_work.map(|at_work| at_work.send(()));
                std::future::pending().await
            }
        });
        let asking = tokio::spawn(async move { session.request("for ever?").await });
        soon("a handler at work", has_begun).await.unwrap();
        assert!(metrics.num_alive_tasks() >= 4);
        // One is shut down with everything in hand, the other without.
        soon("the end of one", alice.clone().shutdown())
            .await
            .unwrap();
        drop((inbox, receipt, events));
        soon("the end of the other", bob.shutdown()).await.unwrap();
        assert!(
            soon("the end of the request", asking)
                .await
                .unwrap()
                .is_err()
        );
        drop(handler);
        assert_eq!(metrics.num_alive_tasks(), 0);

        alice.use_relay(std::sync::Arc::new(WebSocketRelay::new(&address).unwrap()));
        assert!(matches!(
            alice.session(id(4)).await,
            Err(outlive::Error::Shutdown)
        ));
        assert_eq!(metrics.num_alive_tasks(), 0);
    }
}

#[tokio::test]
async fn a_send_dropped_half_way_has_queued_its_message_or_not_touched_anything() {
    /// Of several segments each, to see that none arrives in part.
    const BYTES: usize = 40_000;
    const TRIES: u8 = 60;
    let relay = relay().await;
    let (alice, bob) = (node(1, &relay).await, node(2, &relay).await);
    let session = alice.session(id(2)).await.unwrap();
    until(&session, "a link", |state| !state.links.is_empty()).await;
    let mut finished = Vec::new();
    for n in 0..TRIES {
        let mut send = Box::pin(session.send(CHAT, vec![n; BYTES]));
        for _ in 0..n {
            let polled = futures_util::poll!(send.as_mut());
            if let Poll::Ready(receipt) = polled {
                finished.push((n, receipt.unwrap()));
                break;
            }
            tokio::task::yield_now().await;
        }
    }
    let last = session.send(CHAT, vec![TRIES; BYTES]).await.unwrap();
    assert!(!finished.is_empty(), "no send was polled to its end");

    let mut inbox = bob.session(id(1)).await.unwrap().inbox(CHAT).unwrap();
    let mut arrived = Vec::new();
    while arrived.last() != Some(&TRIES) {
        let delivery = soon("a message", inbox.next()).await.unwrap();
        let payload = delivery.payload();
        assert_eq!(payload.len(), BYTES);
        let n = payload[0];
        assert!(payload.iter().all(|&byte| byte == n));
        assert!(arrived.last().is_none_or(|&before| before < n));
        arrived.push(n);
        delivery.commit().await.unwrap();
    }
    for (n, receipt) in &finished {
        assert!(arrived.contains(n), "message {n} was queued and is lost");
        soon("delivery", receipt.delivered()).await.unwrap();
    }
    soon("consumption", last.consumed()).await.unwrap();
    assert!(matches!(
        last.state(),
        outlive::ReceiptState::Reached(Stage::Consumed)
    ));
}

#[tokio::test]
async fn what_was_committed_just_before_the_end_is_told() {
    let relay = relay().await;
    let alice = node(1, &relay).await;
    let session = alice.session(id(2)).await.unwrap();
    let mut store = MemoryStore::new();
    for n in 0..5 {
        let bob = Node::builder()
            .identity(Identity::from_seed([2; 32]))
            .store(store.clone())
            .transport(WebSocketRelay::new(&url(&relay)).unwrap())
            .start()
            .await
            .unwrap();
        let mut inbox = bob.session(id(1)).await.unwrap().inbox(CHAT).unwrap();
        let receipt = session.send(CHAT, n.to_string()).await.unwrap();
        let delivery = soon("the message", inbox.next()).await.unwrap();
        delivery.commit().await.unwrap();
        drop(inbox);
        bob.shutdown().await.unwrap();
        store = store.faults().crash();
        // Bob is gone: there is nobody to ask any more.
        soon("word of the commit", receipt.consumed())
            .await
            .unwrap();
    }
    drop(session);
    alice.shutdown().await.unwrap();
    relay.shutdown().await.unwrap();
}

#[tokio::test]
async fn what_is_handed_out_while_a_session_closes_comes_again_marked() {
    let relay = MemoryRelay::new("relay");
    let store = MemoryStore::new();
    let alice = on(1, &[&relay]).await;
    let bob = on_store(2, store.clone(), &[&relay]).await;
    let to_bob = alice.session(id(2)).await.unwrap();
    let to_alice = bob.session(id(1)).await.unwrap();
    linked(&to_alice).await;
    let receipt = to_bob.send(CHAT, "one").await.unwrap();
    soon("delivery", receipt.delivered()).await.unwrap();
    let mut inbox = to_alice.inbox(CHAT).unwrap();
    let mut events = to_bob.events(64);

    // The end waits for what is written last, and has been said.
    let hold = store.faults().hold();
    let mut sending = Box::pin(to_alice.send(CHAT, "the last"));
    comes_true("the write", async || {
        assert!(at_once(sending.as_mut()).await.is_none());
        store.faults().counts().waiting > 0
    })
    .await;
    let closing = tokio::spawn(to_alice.clone().close());
    soon("the peer to hear of it", async {
        while !matches!(
            events.next().await,
            Some((SessionEvent::PeerClosed { .. }, _)) | None
        ) {}
    })
    .await;
    let first = soon("the message", inbox.next()).await.unwrap();
    assert!(!first.redelivered());
    drop(hold);
    soon("the end", closing).await.unwrap().unwrap();
    soon("the last", sending).await.unwrap();

    let to_alice = bob.session(id(1)).await.unwrap();
    let mut inbox = to_alice.inbox(CHAT).unwrap();
    let again = soon("the message again", inbox.next()).await.unwrap();
    assert_eq!(again.id(), first.id());
    assert!(again.redelivered());
}

#[tokio::test]
async fn a_session_that_is_opened_while_it_closes_is_there_when_that_is_over() {
    let store = MemoryStore::new();
    let bob = on_store(2, store.clone(), &[]).await;
    let to_alice = bob.session(id(1)).await.unwrap();
    let hold = store.faults().hold();
    let mut sending = Box::pin(to_alice.send(CHAT, "the last"));
    comes_true("the write", async || {
        assert!(at_once(sending.as_mut()).await.is_none());
        store.faults().counts().waiting > 0
    })
    .await;
    let mut closing = Box::pin(to_alice.clone().close());
    assert!(at_once(closing.as_mut()).await.is_none());
    let mut opening = Box::pin(bob.session(id(1)));
    let opened = at_once(opening.as_mut()).await;
    drop(hold);
    soon("the last", sending).await.unwrap();
    soon("the end", closing).await.unwrap();
    let to_alice = match opened {
        Some(opened) => opened.unwrap(),
        None => soon("the session", opening).await.unwrap(),
    };
    soon("the first", to_alice.send(CHAT, "the first"))
        .await
        .unwrap();
}

#[tokio::test]
async fn of_two_that_shut_a_node_down_both_hear_when_its_store_is_closed() {
    let directory = tempfile::tempdir().unwrap();
    let store = SledStore::open(directory.path()).unwrap();
    let alice = on_store(1, store, &[]).await;
    let session = alice.session(id(2)).await.unwrap();
    session.send(CHAT, "kept").await.unwrap();
    let end = async { tokio::join!(alice.clone().shutdown(), alice.clone().shutdown()) };
    let (first, second) = soon("the end", end).await;
    first.unwrap();
    second.unwrap();
    soon("no other end", alice.shutdown()).await.unwrap();
    SledStore::open(directory.path()).expect("nobody has it open");
}

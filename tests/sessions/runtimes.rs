//! A node lives on the runtime that it was started on, whoever calls it from wherever.

use std::sync::Arc;

use outlive::{Error, Node, Session};
use outlive_transports::MemoryRelay;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;

use crate::requests::{ask, echo};
use crate::scene::{linked, on, pair};
use crate::world::{CHAT, id, soon, take, until};

/// Runs `call` on a thread that knows of no runtime.
async fn on_a_thread<T: Send + 'static>(call: impl FnOnce() -> T + Send + 'static) -> T {
    let (tell, told) = oneshot::channel();
    // Should the test have failed, nobody is there to be told.
    std::thread::spawn(move || drop(tell.send(call())));
    soon("the call", told).await.expect("it does not panic")
}

fn runtime() -> Runtime {
    let runtime = Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime")
}

#[tokio::test]
async fn a_handler_of_a_session_can_be_registered_on_any_thread() {
    let relay = MemoryRelay::new("relay");
    let (_alice, _bob, to_bob, to_alice) = pair(&relay).await;
    let _answering = on_a_thread(move || to_alice.on_request(echo))
        .await
        .unwrap();
    assert_eq!(ask(&to_bob, "hello").await.unwrap(), "hello");
}

#[tokio::test]
async fn a_handler_of_a_node_can_be_registered_on_any_thread() {
    let relay = MemoryRelay::new("relay");
    let (_alice, bob, to_bob, _to_alice) = pair(&relay).await;
    let on_thread = bob.clone();
    let registered = on_a_thread(move || on_thread.on_request(echo)).await;
    let _answering = registered.unwrap();
    assert_eq!(ask(&to_bob, "hello").await.unwrap(), "hello");
}

#[tokio::test]
async fn relays_can_be_changed_on_any_thread() {
    let (relay, other) = (MemoryRelay::new("relay"), MemoryRelay::new("other"));
    let alice = on(1, &[]).await;
    let session = alice.session(id(2)).await.unwrap();
    let (on_thread, way) = (alice.clone(), relay.clone());
    on_a_thread(move || on_thread.use_relay(Arc::new(way))).await;
    linked(&session).await;
    let on_thread = alice.clone();
    on_a_thread(move || on_thread.switch_relay(Arc::new(other))).await;
    until(&session, "the other relay", |state| {
        state
            .links
            .iter()
            .any(|link| link.address == "memory:other")
    })
    .await;
}

#[tokio::test]
async fn a_session_needs_no_runtime_that_it_was_opened_on() {
    let relay = MemoryRelay::new("relay");
    let (alice, bob) = (on(1, &[&relay]).await, on(2, &[&relay]).await);
    let opening = alice.clone();
    let opened = tokio::task::spawn_blocking(move || {
        let runtime = runtime();
        let session = runtime.block_on(opening.session(id(2))).unwrap();
        (runtime, session)
    });
    let (runtime, to_bob) = soon("the session", opened).await.unwrap();
    let mut inbox = bob.session(id(1)).await.unwrap().inbox(CHAT).unwrap();
    // Nobody drives that runtime any more.
    let sent = soon("the first", to_bob.send(CHAT, "first")).await;
    let receipt = sent.unwrap();
    assert_eq!(take(&mut inbox).await, "first");
    soon("word of it", receipt.delivered()).await.unwrap();
    runtime.shutdown_background();
    to_bob.send(CHAT, "second").await.unwrap();
    assert_eq!(take(&mut inbox).await, "second");
}

#[test]
fn a_node_ends_with_its_runtime() {
    let of_the_node = runtime();
    let (alice, session): (Node, Session) = of_the_node.block_on(async {
        let alice = on(1, &[]).await;
        let session = alice.session(id(2)).await.unwrap();
        (alice, session)
    });
    drop(of_the_node);
    runtime().block_on(async {
        let sent = soon("an answer", session.send(CHAT, "nobody is there")).await;
        assert!(matches!(sent, Err(Error::Shutdown)), "{sent:?}");
        soon("the end", alice.shutdown()).await.unwrap();
    });
}

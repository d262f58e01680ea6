//! Sessions that are closed while something comes.

use std::time::Duration;

use bytes::Bytes;
use outlive::{Node, StoreError};
use outlive_storage::MemoryStore;
use outlive_transports::MemoryRelay;

use crate::hearing_all::word_of_a_message;
use crate::scene::{acquaint, linked, on, on_store};
use crate::world::{CHAT, id, soon, take};

/// Peers 1 and 2, and the second one's store.
async fn pair() -> (Node, Node, MemoryStore) {
    let (relay, store) = (MemoryRelay::new("relay"), MemoryStore::new());
    let alice = on(1, &[&relay]).await;
    let bob = on_store(2, store.clone(), &[&relay]).await;
    (alice, bob, store)
}

/// Returns when nothing more happens by itself: a clock that is paused goes on only then.
async fn quiet() {
    tokio::time::sleep(Duration::from_millis(1)).await;
}

#[tokio::test(start_paused = true)]
async fn what_comes_while_a_session_is_closed_arrives() {
    for first in [true, false] {
        let (alice, bob, store) = pair().await;
        let to_bob = alice.session(id(2)).await.unwrap();
        let to_alice = bob.session(id(1)).await.unwrap();
        linked(&to_alice).await;
        acquaint(&to_bob, &mut to_alice.inbox(CHAT).unwrap()).await;
        assert_eq!(soon("hello", bob.next_arrival()).await.unwrap(), id(1));

        let mut events = bob.events(64);
        // A session that ends waits for what is on its way to the disk.
        let held = store.faults().hold();
        let come = async || {
            let receipt = to_bob.send(CHAT, "late").await.unwrap();
            soon("custody", receipt.custody()).await.unwrap();
            quiet().await;
        };
        if first {
            come().await;
        }
        let sending = tokio::spawn({
            let to_alice = to_alice.clone();
            async move { to_alice.send(CHAT, "mine").await }
        });
        quiet().await;
        let closing = tokio::spawn(to_alice.close());
        quiet().await;
        if !first {
            come().await;
        }
        // Nobody is there who would ask whether it arrived.
        alice.shutdown().await.unwrap();
        assert!(!closing.is_finished());
        drop(held);
        soon("the end", closing).await.unwrap().unwrap();
        sending.await.unwrap().unwrap();

        let arrival = soon("a message", bob.next_arrival()).await;
        assert_eq!(arrival.unwrap(), id(1), "it came first: {first}");
        word_of_a_message(&mut events, id(1)).await;
        let mut inbox = bob.session(id(1)).await.unwrap().inbox(CHAT).unwrap();
        assert_eq!(take(&mut inbox).await, "late");
    }
}

#[tokio::test(start_paused = true)]
async fn what_came_while_the_store_failed_arrives_though_the_session_is_closed_then() {
    let (alice, bob, store) = pair().await;
    let to_bob = alice.session(id(2)).await.unwrap();
    let to_alice = bob.session(id(1)).await.unwrap();
    linked(&to_alice).await;
    store.faults().fail_commits(1, &StoreError::Full);
    to_alice.send(CHAT, "mine").await.unwrap_err();
    // It is not tried again for a second.
    let receipt = to_bob.send(CHAT, "late").await.unwrap();
    soon("custody", receipt.custody()).await.unwrap();
    quiet().await;
    alice.shutdown().await.unwrap();
    to_alice.close().await.unwrap();
    let arrival = soon("a message", bob.next_arrival()).await;
    assert_eq!(arrival.unwrap(), id(1));
}

#[tokio::test(start_paused = true)]
async fn a_request_that_comes_while_a_session_is_closed_is_answered() {
    let (alice, bob, store) = pair().await;
    let answers = bob.on_request(async |_| Ok(Bytes::from_static(b"yes")));
    let _answers = answers.unwrap();
    let to_bob = alice.session(id(2)).await.unwrap();
    let to_alice = bob.session(id(1)).await.unwrap();
    linked(&to_alice).await;
    acquaint(&to_bob, &mut to_alice.inbox(CHAT).unwrap()).await;

    let held = store.faults().hold();
    let asking = tokio::spawn(async move { to_bob.request("well?").await });
    quiet().await;
    let closing = tokio::spawn(to_alice.close());
    quiet().await;
    assert!(!closing.is_finished());
    drop(held);
    soon("the end", closing).await.unwrap().unwrap();
    let answer = soon("an answer", asking).await.unwrap();
    assert_eq!(answer.unwrap(), "yes");
}

//! Messages in the app's hands, and what becomes of them when a store fails, a session is closed or its task
//! ends.

use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use outlive::limits::CONSUMED_DELAY;
use outlive::store::Batch;
use outlive::{Delivery, Error, Inbox, Store, StoreError};
use outlive_storage::MemoryStore;
use outlive_testing::{Intercepted, Interceptor};
use outlive_transports::MemoryRelay;

use crate::scene::{self, at_once};
use crate::world::{CHAT, comes, id, node, relay, soon, take};

#[tokio::test]
async fn an_inbox_that_is_taken_anew_hands_out_what_was_not_committed_and_counts_it() {
    let relay = relay().await;
    let (alice, bob) = (node(1, &relay).await, node(2, &relay).await);
    let to_bob = alice.session(id(2)).await.unwrap();
    for text in ["one", "two"] {
        to_bob.send(CHAT, text).await.unwrap();
    }
    let session = bob.session(id(1)).await.unwrap();
    let mut held = None;
    for attempt in 1..=3 {
        let mut inbox = session.inbox(CHAT).unwrap();
        let one = soon("the first", inbox.next()).await.unwrap();
        assert_eq!((&one.payload()[..], one.attempt()), (&b"one"[..], attempt));
        held = Some(one);
    }
    let mut inbox = session.inbox(CHAT).unwrap();
    let one = soon("the first", inbox.next()).await.unwrap();
    // Somebody still had it, and is done with it now: it is gone.
    soon("the commit", held.unwrap().commit()).await.unwrap();
    soon("the second", one.commit()).await.unwrap();
    assert_eq!(take(&mut inbox).await, "two");
    drop(inbox);
    let mut inbox = session.inbox(CHAT).unwrap();
    assert!(inbox.try_next().await.unwrap().is_none());
}

#[tokio::test]
async fn what_somebody_else_commits_meanwhile_is_not_handed_out_again() {
    let relay = relay().await;
    let (alice, bob) = (node(1, &relay).await, node(2, &relay).await);
    let to_bob = alice.session(id(2)).await.unwrap();
    for n in 0..3 {
        to_bob.send(CHAT, format!("{n}")).await.unwrap();
    }
    let session = bob.session(id(1)).await.unwrap();
    let mut inbox = session.inbox(CHAT).unwrap();
    let mut held = Vec::new();
    for _ in 0..2 {
        held.push(soon("a message", inbox.next()).await.unwrap());
    }
    drop(inbox);
    let mut inbox = session.inbox(CHAT).unwrap();
    // It has read ahead when the other one commits.
    let first = soon("a message", inbox.next()).await.unwrap();
    assert_eq!(first.attempt(), 2);
    for delivery in held {
        delivery.commit().await.unwrap();
    }
    assert_eq!(take(&mut inbox).await, "2");
    drop(inbox);
    let mut inbox = session.inbox(CHAT).unwrap();
    assert!(inbox.try_next().await.unwrap().is_none());
}

#[tokio::test]
async fn what_was_in_hand_when_its_session_was_closed_comes_again_and_is_marked() {
    let relay = relay().await;
    let (alice, bob) = (node(1, &relay).await, node(2, &relay).await);
    let to_bob = alice.session(id(2)).await.unwrap();
    for text in ["one", "two"] {
        to_bob.send(CHAT, text).await.unwrap();
    }
    let session = bob.session(id(1)).await.unwrap();
    let mut inbox = session.inbox(CHAT).unwrap();
    soon("the first", inbox.next()).await.unwrap();
    drop(inbox);
    session.close().await.unwrap();

    let mut inbox = bob.session(id(1)).await.unwrap().inbox(CHAT).unwrap();
    let one = soon("the first again", inbox.next()).await.unwrap();
    assert_eq!((one.attempt(), one.redelivered()), (2, true));
    one.commit().await.unwrap();
    assert_eq!(take(&mut inbox).await, "two");
}

#[tokio::test(start_paused = true)]
async fn a_message_whose_commit_failed_comes_again_out_of_the_same_inbox() {
    let relay = MemoryRelay::new("relay");
    let store = MemoryStore::new();
    let alice = scene::on(1, &[&relay]).await;
    let bob = scene::on_store(2, store.clone(), &[&relay]).await;
    let to_bob = alice.session(id(2)).await.unwrap();
    let mut inbox = bob.session(id(1)).await.unwrap().inbox(CHAT).unwrap();
    for text in ["committed", "skipped", "given up", "in hand"] {
        to_bob.send(CHAT, text).await.unwrap();
    }
    let mut taken = Vec::new();
    for _ in 0..4 {
        taken.push(soon("a message", inbox.next()).await.unwrap());
    }
    let [first, second, third, fourth] = <[_; 4]>::try_from(taken).unwrap();
    let failing = || store.faults().fail_commits(1, &StoreError::Full);
    failing();
    let failed = soon("the failure", first.commit()).await;
    assert!(matches!(failed, Err(Error::Store(StoreError::Full))));
    let first = again(&mut inbox, "committed").await;
    failing();
    let failed = soon("the failure", second.skip("no use")).await;
    assert!(matches!(failed, Err(Error::Store(StoreError::Full))));
    let second = again(&mut inbox, "skipped").await;
    // Nobody waits for this one's answer.
    failing();
    assert!(at_once(third.commit()).await.is_none());
    let third = again(&mut inbox, "given up").await;

    assert!(inbox.try_next().await.unwrap().is_none(), "one is in hand");
    for delivery in [first, second, third, fourth] {
        soon("the commit", delivery.commit()).await.unwrap();
    }
    assert!(inbox.try_next().await.unwrap().is_none());
    to_bob.send(CHAT, "the next").await.unwrap();
    assert_eq!(take(&mut inbox).await, "the next");
}

#[tokio::test(start_paused = true)]
async fn a_message_whose_commit_failed_is_not_consumed_with_those_behind_it() {
    let relay = MemoryRelay::new("relay");
    let store = MemoryStore::new();
    let alice = scene::on(1, &[&relay]).await;
    let bob = scene::on_store(2, store.clone(), &[&relay]).await;
    let to_bob = alice.session(id(2)).await.unwrap();
    let to_alice = bob.session(id(1)).await.unwrap();
    let mut inbox = to_alice.inbox(CHAT).unwrap();
    let first = to_bob.send(CHAT, "first").await.unwrap();
    to_bob.send(CHAT, "second").await.unwrap();
    to_bob.send(CHAT, "third").await.unwrap();
    let mut taken = Vec::new();
    for _ in 0..2 {
        taken.push(soon("a message", inbox.next()).await.unwrap());
    }
    let [one, two] = <[_; 2]>::try_from(taken).unwrap();
    store.faults().fail_commits(1, &StoreError::Full);
    let failed = soon("the failure", one.commit()).await;
    assert!(matches!(failed, Err(Error::Store(StoreError::Full))));
    comes("the store to be tried again", async || {
        to_alice.send(CHAT, "there").await.ok()
    })
    .await;
    soon("the commit", two.commit()).await.unwrap();
    // All the time in which it would be told passes.
    tokio::time::sleep(200 * CONSUMED_DELAY).await;
    assert!(at_once(first.consumed()).await.is_none(), "it waits");
    let again = again(&mut inbox, "first").await;
    soon("the commit", again.commit()).await.unwrap();
    soon("the word of it", first.consumed()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_is_committed_while_it_is_asked_for_costs_no_other_message_its_turn() {
    let relay = MemoryRelay::new("relay");
    let store = MemoryStore::new();
    let alice = scene::on(1, &[&relay]).await;
    let bob = scene::on_store(2, store.clone(), &[&relay]).await;
    let to_bob = alice.session(id(2)).await.unwrap();
    let session = bob.session(id(1)).await.unwrap();
    // Its segments leave with it.
    to_bob.send(CHAT, vec![0; 100_000]).await.unwrap();
    to_bob.send(CHAT, "behind it").await.unwrap();
    let mut inbox = session.inbox(CHAT).unwrap();
    let first = soon("the first", inbox.next()).await.unwrap();
    soon("the second", inbox.next()).await.unwrap();
    drop(inbox);

    let hold = store.faults().hold();
    let mut committing = Box::pin(first.commit());
    assert!(at_once(&mut committing).await.is_none());
    let mut inbox = session.inbox(CHAT).unwrap();
    assert!(at_once(inbox.next()).await.is_none(), "it is asked for");
    drop(hold);
    soon("the commit", committing).await.unwrap();
    again(&mut inbox, "behind it").await;
}

#[tokio::test(start_paused = true)]
async fn what_was_committed_before_the_store_failed_is_not_handed_out_by_an_inbox_that_had_read_it()
{
    let relay = MemoryRelay::new("relay");
    let store = MemoryStore::new();
    let alice = scene::on(1, &[&relay]).await;
    let bob = scene::on_store(2, store.clone(), &[&relay]).await;
    let to_bob = alice.session(id(2)).await.unwrap();
    let to_alice = bob.session(id(1)).await.unwrap();
    let first = to_bob.send(CHAT, "first").await.unwrap();
    to_bob.send(CHAT, "second").await.unwrap();
    let mut inbox = to_alice.inbox(CHAT).unwrap();
    soon("the first", inbox.next()).await.unwrap();
    let second = soon("the second", inbox.next()).await.unwrap();
    drop(inbox);
    let mut inbox = to_alice.inbox(CHAT).unwrap();
    // With it the second is read.
    let one = again(&mut inbox, "first").await;
    soon("the commit", second.commit()).await.unwrap();

    store.faults().fail_commits(1, &StoreError::Full);
    let failed = to_alice.send(CHAT, "not written").await;
    assert!(matches!(failed, Err(Error::Store(StoreError::Full))));
    comes("the store to be tried again", async || {
        to_alice.send(CHAT, "there").await.ok()
    })
    .await;
    let next = inbox.try_next().await.unwrap();
    assert!(
        next.is_none(),
        "it was committed, and comes again: {next:?}"
    );
    // All the time in which it would be told passes.
    tokio::time::sleep(200 * CONSUMED_DELAY).await;
    assert!(at_once(first.consumed()).await.is_none(), "it is in hand");
    soon("the commit", one.commit()).await.unwrap();
    soon("the word of it", first.consumed()).await.unwrap();
}

/// Panics once, at the next commit, when it is told to.
#[derive(Default)]
struct Panicking {
    armed: AtomicBool,
}

#[async_trait]
impl Interceptor for Panicking {
    async fn commit(&self, store: &MemoryStore, batch: Batch) -> Result<(), StoreError> {
        assert!(!self.armed.swap(false, Ordering::SeqCst), "as asked");
        store.commit(batch).await
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_in_hand_when_a_panic_ended_its_session_s_task_can_be_committed_and_skipped() {
    let relay = MemoryRelay::new("relay");
    let store = Intercepted::new(MemoryStore::new(), Panicking::default());
    let alice = scene::on(1, &[&relay]).await;
    let bob = scene::on_store(2, store.clone(), &[&relay]).await;
    let to_bob = alice.session(id(2)).await.unwrap();
    let to_alice = bob.session(id(1)).await.unwrap();
    let sent = to_bob.send(CHAT, "committed").await.unwrap();
    let last = to_bob.send(CHAT, "skipped").await.unwrap();
    let mut inbox = to_alice.inbox(CHAT).unwrap();
    let first = soon("the first", inbox.next()).await.unwrap();
    let second = soon("the second", inbox.next()).await.unwrap();

    store.interceptor().armed.store(true, Ordering::SeqCst);
    let lost = soon("the panic", to_alice.send(CHAT, "lost")).await;
    assert!(lost.is_err());
    soon("the end of it", second.skip("no use")).await.unwrap();
    // All the time in which it would be told passes.
    tokio::time::sleep(200 * CONSUMED_DELAY).await;
    assert!(at_once(sent.consumed()).await.is_none(), "it is in hand");
    soon("the commit", first.commit()).await.unwrap();
    drop(inbox);
    let mut inbox = to_alice.inbox(CHAT).unwrap();
    let next = inbox.try_next().await.unwrap();
    assert!(
        next.is_none(),
        "it was committed, and comes again: {next:?}"
    );
    assert_eq!(to_alice.skipped(CHAT).await.unwrap().len(), 1);
    soon("the word of it", last.consumed()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_a_panic_did_not_let_be_committed_comes_again_and_is_not_consumed_with_those_behind_it()
 {
    let relay = MemoryRelay::new("relay");
    let store = Intercepted::new(MemoryStore::new(), Panicking::default());
    let alice = scene::on(1, &[&relay]).await;
    let bob = scene::on_store(2, store.clone(), &[&relay]).await;
    let to_bob = alice.session(id(2)).await.unwrap();
    let to_alice = bob.session(id(1)).await.unwrap();
    let sent = to_bob.send(CHAT, "one").await.unwrap();
    to_bob.send(CHAT, "two").await.unwrap();
    let mut inbox = to_alice.inbox(CHAT).unwrap();
    let first = soon("the first", inbox.next()).await.unwrap();
    let second = soon("the second", inbox.next()).await.unwrap();

    store.interceptor().armed.store(true, Ordering::SeqCst);
    assert!(soon("the panic", first.commit()).await.is_err());
    soon("the commit", second.commit()).await.unwrap();
    // All the time in which it would be told passes.
    tokio::time::sleep(200 * CONSUMED_DELAY).await;
    assert!(at_once(sent.consumed()).await.is_none(), "it comes again");
    let first = again(&mut inbox, "one").await;
    soon("the commit", first.commit()).await.unwrap();
    soon("the word of it", sent.consumed()).await.unwrap();
}

/// Takes a message that comes for the second time.
async fn again(inbox: &mut Inbox, text: &str) -> Delivery {
    let delivery = soon("the message again", inbox.next()).await.unwrap();
    assert_eq!(delivery.payload(), text.as_bytes());
    assert!(delivery.redelivered());
    assert_eq!(delivery.attempt(), 2);
    delivery
}

//! What arrives and is not taken at once, and what never arrives: full inboxes, gaps.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use outlive::limits::{CONSUMED_DELAY, InboxLimits};
use outlive::store::Batch;
use outlive::{
    ChannelId, Delivery, Error, Gap, Identity, Inbox, NetworkMonitor, Node, Sending, Seq, Session,
    Store, StoreError,
};
use outlive_relay::Relay;
use outlive_storage::MemoryStore;
use outlive_testing::{Intercepted, Interceptor};
use outlive_transports::MemoryRelay;

use crate::scene::{self, at_once};
use crate::world::{CHAT, comes, comes_true, id, node, node_over, relay, soon, take, until, way};

const OTHER: ChannelId = ChannelId::FIRST_APP;

/// More envelopes than a relay has on the way for one sender at a time.
const MANY: u32 = 300;

async fn small(n: u8, store: MemoryStore, relay: &Relay) -> Node {
    Node::builder()
        .identity(Identity::from_seed([n; 32]))
        .store(store)
        .transport(way(relay))
        .inbox_limits(InboxLimits {
            messages: 8,
            ..InboxLimits::default()
        })
        .start()
        .await
        .expect("a node")
}

/// Sends each message in an envelope of its own.
async fn send_one_by_one(session: &Session, channel: ChannelId, count: u32) {
    for n in 0..count {
        let receipt = session.send(channel, format!("{n}")).await.unwrap();
        soon("custody", receipt.custody()).await.unwrap();
    }
}

#[tokio::test]
async fn a_channel_nobody_commits_holds_up_no_other() {
    let relay = relay().await;
    let (alice, bob) = (
        node(1, &relay).await,
        small(2, MemoryStore::new(), &relay).await,
    );
    let (to_bob, to_alice) = (
        alice.session(id(2)).await.unwrap(),
        bob.session(id(1)).await.unwrap(),
    );
    let mut chat = to_alice.inbox(CHAT).unwrap();
    let mut other = to_alice.inbox(OTHER).unwrap();
    send_one_by_one(&to_bob, CHAT, MANY).await;
    for n in 0..20 {
        to_bob.send(OTHER, format!("{n}")).await.unwrap();
    }
    for n in 0..20 {
        assert_eq!(take(&mut other).await, format!("{n}"));
    }
    // The full one goes on where it was.
    for n in 0..MANY {
        assert_eq!(take(&mut chat).await, format!("{n}"));
    }
    assert!(chat.try_next().await.unwrap().is_none());
}

#[tokio::test]
async fn a_full_channel_holds_up_no_other_after_a_restart_either() {
    let (mut store, relay) = (MemoryStore::new(), relay().await);
    let alice = node(1, &relay).await;
    let to_bob = alice.session(id(2)).await.unwrap();
    send_one_by_one(&to_bob, CHAT, MANY).await;
    for restart in 0..3 {
        let bob = small(2, store.clone(), &relay).await;
        let mut other = bob.session(id(1)).await.unwrap().inbox(OTHER).unwrap();
        to_bob.send(OTHER, format!("{restart}")).await.unwrap();
        assert_eq!(take(&mut other).await, format!("{restart}"));
        drop((other, bob));
        store = store.faults().crash();
    }
}

#[tokio::test]
async fn what_a_closed_session_left_in_the_mailbox_comes_when_it_is_opened_again() {
    let relay = relay().await;
    let alice = node(1, &relay).await;
    let bob = small(2, MemoryStore::new(), &relay).await;
    let session = bob.session(id(1)).await.unwrap();
    send_one_by_one(&alice.session(id(2)).await.unwrap(), CHAT, MANY).await;
    alice.shutdown().await.unwrap();
    let mut chat = session.inbox(CHAT).unwrap();
    assert_eq!(take(&mut chat).await, "0");
    drop(chat);
    session.close().await.unwrap();

    let mut chat = bob.session(id(1)).await.unwrap().inbox(CHAT).unwrap();
    for n in 1..MANY {
        assert_eq!(take(&mut chat).await, format!("{n}"));
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_parked_comes_when_a_session_is_held_again_as_it_falls_asleep() {
    let relay = MemoryRelay::new("relay");
    let store = MemoryStore::new();
    let bob = Node::builder()
        .identity(Identity::from_seed([2; 32]))
        .store(store.clone())
        .transport(relay.clone())
        .inbox_limits(InboxLimits {
            messages: 8,
            ..InboxLimits::default()
        })
        .start()
        .await
        .unwrap();
    drop(bob.session(id(1)).await.unwrap());
    let alice = scene::on(1, &[&relay]).await;
    let to_bob = alice.session(id(2)).await.unwrap();
    send_one_by_one(&to_bob, CHAT, 20).await;
    drop(to_bob);
    alice.shutdown().await.unwrap();

    // Whoever opens the session waits at the door, where a stranger is being let in.
    let hold = store.faults().hold();
    let carol = scene::on(3, &[&relay]).await;
    let to_bob = carol.session(id(2)).await.unwrap();
    to_bob.send(CHAT, "hello").await.unwrap();
    comes_true("the stranger", async || store.faults().counts().waiting > 0).await;
    let mut opening = Box::pin(bob.session(id(1)));
    let opened = at_once(opening.as_mut()).await;
    // How long it stands there is what is staged: longer than a session stays awake that nobody holds.
    tokio::time::sleep(Duration::from_secs(15)).await;
    drop(hold);
    let to_alice = match opened {
        Some(opened) => opened.unwrap(),
        None => soon("the session", opening).await.unwrap(),
    };
    let mut inbox = to_alice.inbox(CHAT).unwrap();
    for n in 0..20 {
        assert_eq!(take(&mut inbox).await, format!("{n}"));
    }
    assert_eq!(
        relay.counts().borrow().sign_ins,
        3,
        "over the same connection"
    );
}

/// A sender that loses a message after the others: its time was over before there was a network.
async fn send_and_let_expire(relay: &Relay, texts: &[&'static str]) -> (Node, Session) {
    let network = NetworkMonitor::new();
    network.down();
    let alice = Node::builder()
        .identity(Identity::from_seed([1; 32]))
        .store(MemoryStore::new())
        .transport(way(relay))
        .network(network.clone())
        .start()
        .await
        .unwrap();
    let session = alice.session(id(2)).await.unwrap();
    for text in texts {
        let short = Sending {
            ttl: text.is_empty().then_some(Duration::from_millis(20)),
            once: None,
        };
        let receipt = session.send_with(CHAT, *text, short).await.unwrap();
        if text.is_empty() {
            soon("the end", receipt.delivered()).await.unwrap_err();
        }
    }
    network.up();
    (alice, session)
}

fn bounds(gap: Option<Gap>) -> Option<(Seq, Seq)> {
    gap.map(|gap| (gap.first, gap.last))
}

#[tokio::test]
async fn a_gap_is_told_in_its_place_to_an_app_that_crashed_before_it_heard() {
    let (store, relay) = (MemoryStore::new(), relay().await);
    let (_alice, _) = send_and_let_expire(&relay, &["one", "", "", "four"]).await;
    let bob = node_over(2, store.clone(), &relay).await;
    let mut inbox = bob.session(id(1)).await.unwrap().inbox(CHAT).unwrap();
    assert_eq!(take(&mut inbox).await, "one");
    soon("the fourth", inbox.next()).await.unwrap();
    drop((inbox, bob));

    let bob = node_over(2, store.faults().crash(), &relay).await;
    let session = bob.session(id(1)).await.unwrap();
    let mut inbox = session.inbox(CHAT).unwrap();
    let fourth = soon("the fourth again", inbox.next()).await.unwrap();
    assert_eq!(fourth.payload(), "four");
    assert_eq!(bounds(fourth.gap_before()), Some((Seq(2), Seq(3))));
    fourth.commit().await.unwrap();
    assert!(session.state().borrow().gaps.is_empty());
}

#[tokio::test]
async fn a_gap_with_nothing_behind_it_is_told_again_after_a_restart() {
    let (store, relay) = (MemoryStore::new(), relay().await);
    let (_alice, to_bob) = send_and_let_expire(&relay, &["one", ""]).await;
    let bob = node_over(2, store.clone(), &relay).await;
    let session = bob.session(id(1)).await.unwrap();
    until(&session, "the gap", |state| !state.gaps.is_empty()).await;
    drop((session, bob));

    let bob = node_over(2, store.faults().crash(), &relay).await;
    let session = bob.session(id(1)).await.unwrap();
    until(&session, "the gap again", |state| {
        state
            .gaps
            .iter()
            .any(|(channel, gap)| *channel == CHAT && bounds(Some(*gap)) == Some((Seq(2), Seq(2))))
    })
    .await;
    // The next message takes it along.
    to_bob.send(CHAT, "three").await.unwrap();
    let mut inbox = session.inbox(CHAT).unwrap();
    let one = soon("the first", inbox.next()).await.unwrap();
    assert_eq!(bounds(one.gap_before()), None);
    let three = soon("the third", inbox.next()).await.unwrap();
    assert_eq!(bounds(three.gap_before()), Some((Seq(2), Seq(2))));
    until(&session, "it to be taken along", |state| {
        state.gaps.is_empty()
    })
    .await;
}

#[tokio::test]
async fn one_bad_message_does_not_block_its_channel() {
    let (mut store, relay) = (MemoryStore::new(), relay().await);
    let alice = node(1, &relay).await;
    let to_bob = alice.session(id(2)).await.unwrap();
    let bad = to_bob.send(CHAT, "bad").await.unwrap();
    to_bob.send(CHAT, "good").await.unwrap();
    // The app falls over the message each time it gets it.
    for attempt in 1..=3 {
        let bob = node_over(2, store.clone(), &relay).await;
        let mut inbox = bob.session(id(1)).await.unwrap().inbox(CHAT).unwrap();
        let delivery = soon("the bad one", inbox.next()).await.unwrap();
        assert_eq!(delivery.payload(), "bad");
        assert_eq!(delivery.attempt(), attempt);
        assert_eq!(delivery.redelivered(), attempt > 1);
        drop((delivery, inbox, bob));
        store = store.faults().crash();
    }
    let bob = node_over(2, store.clone(), &relay).await;
    let mut inbox = bob.session(id(1)).await.unwrap().inbox(CHAT).unwrap();
    let delivery = soon("the bad one", inbox.next()).await.unwrap();
    assert_eq!(delivery.attempt(), 4);
    delivery.skip("the app falls over it").await.unwrap();
    let good = soon("the good one", inbox.next()).await.unwrap();
    assert_eq!(good.payload(), "good");
    good.commit().await.unwrap();
    soon("consumption", bad.consumed()).await.unwrap();
    drop((inbox, bob));

    // It does not come again, and what is known of it outlives the process.
    let bob = node_over(2, store.faults().crash(), &relay).await;
    let session = bob.session(id(1)).await.unwrap();
    let mut inbox = session.inbox(CHAT).unwrap();
    to_bob.send(CHAT, "next").await.unwrap();
    assert_eq!(take(&mut inbox).await, "next");
    let skipped = session.skipped(CHAT).await.unwrap();
    let [record] = &skipped[..] else {
        panic!("not one record: {skipped:?}");
    };
    assert_eq!((record.id, record.attempts), (bad.id(), 4));
    assert_eq!(record.reason, "the app falls over it");
    assert_eq!((&record.head[..], record.bytes), (&b"bad"[..], 3));
    assert!(session.skipped(OTHER).await.unwrap().is_empty());
    assert!(session.forget_skipped(CHAT, bad.id()).await.unwrap());
    assert!(!session.forget_skipped(CHAT, bad.id()).await.unwrap());
    assert!(session.skipped(CHAT).await.unwrap().is_empty());
}

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

//! What arrives and is not taken at once, and what never arrives: full inboxes, gaps.

use std::time::Duration;

use outlive::limits::InboxLimits;
use outlive::{ChannelId, Gap, Identity, NetworkMonitor, Node, Sending, Seq, Session};
use outlive_relay::Relay;
use outlive_storage::MemoryStore;
use outlive_transports::MemoryRelay;

use crate::scene::{self, at_once};
use crate::world::{CHAT, comes_true, id, node, node_over, relay, soon, take, until, way};

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

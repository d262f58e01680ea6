//! Messages that wait: in order, for what they say they wait for, and not for ever.

use std::sync::Arc;
use std::time::Duration;

use outlive::{
    ChannelId, Ending, Error, NetworkMonitor, ReceiptState, Refusal, SessionEvent, Stage,
};
use outlive_core::engine::SendError;
use outlive_relay::{Relay, RelayConfig};
use outlive_storage::MemoryStore;
use outlive_transports::{MemoryRelay, Way};
use tokio::time::Instant;

use crate::answers::outbox_with_room;
use crate::scene::{Noted, at_once, counted, linked, on, on_store, pair, unlinked, with_network};
use crate::world::{CHAT, id, node, soon, take};

#[tokio::test]
async fn a_message_over_the_quota_says_so_in_its_receipt_and_goes_when_there_is_room() {
    let mut config = RelayConfig::default();
    config.mailbox_envelopes = 2;
    let relay = Relay::builder()
        .store(Arc::new(MemoryStore::new()))
        .config(config)
        .bind(([127, 0, 0, 1], 0).into())
        .await
        .unwrap();
    let alice = node(1, &relay).await;
    let to_bob = alice.session(id(2)).await.unwrap();
    let mut events = to_bob.events(64);
    for n in 0..2 {
        let receipt = to_bob.send(CHAT, format!("{n}")).await.unwrap();
        soon("custody", receipt.custody()).await.unwrap();
    }
    let over = to_bob.send(CHAT, "2").await.unwrap();
    let queued = ReceiptState::Reached(Stage::Queued);
    let state = soon("the refusal", over.changed(queued)).await.unwrap();
    assert!(format!("{state:?}").contains("MailboxFull"), "{state:?}");
    let told = async {
        loop {
            let (event, _) = events.next().await.expect("the session lives");
            if let SessionEvent::Held { reason, .. } = event {
                return reason;
            }
        }
    };
    assert_eq!(soon("the event", told).await, Refusal::MailboxFull);
    let bob = node(2, &relay).await;
    let mut inbox = bob.session(id(1)).await.unwrap().inbox(CHAT).unwrap();
    for n in 0..3 {
        assert_eq!(take(&mut inbox).await, format!("{n}"));
    }
    soon("delivery", over.delivered()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn while_the_head_of_a_queue_is_refused_nothing_behind_it_overtakes_it() {
    let relay = MemoryRelay::new("relay");
    let (_alice, _bob, to_bob, to_alice) = pair(&relay).await;
    let mut inbox = to_alice.inbox(CHAT).unwrap();
    let hold = relay.faults().hold(id(1), Way::ToRelay);
    let head = to_bob.send(CHAT, "head").await.unwrap();
    for n in 0..20 {
        to_bob.send(CHAT, format!("tail {n}")).await.unwrap();
    }
    // The head alone is refused, and the tail, which is on its way already, is taken.
    relay.faults().refuse(id(2), Refusal::MailboxFull, 1);
    drop(hold);
    assert_eq!(take(&mut inbox).await, "head");
    for n in 0..20 {
        assert_eq!(take(&mut inbox).await, format!("tail {n}"));
    }
    assert_eq!(relay.counts().borrow().refused, 1);
    soon("delivery", head.delivered()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_message_that_waits_behind_a_refused_one_can_be_taken_back() {
    let relay = MemoryRelay::new("relay");
    let (_alice, _bob, to_bob, to_alice) = pair(&relay).await;
    let mut inbox = to_alice.inbox(CHAT).unwrap();
    relay
        .faults()
        .refuse(id(2), Refusal::MailboxFull, usize::MAX);
    let head = to_bob.send(CHAT, "head").await.unwrap();
    counted(&relay, "the refusal", |counts| counts.refused > 0).await;
    let behind = to_bob.send(CHAT, "behind").await.unwrap();
    to_bob.send(CHAT, "last").await.unwrap();
    behind.cancel().await.unwrap();
    relay.faults().accept(id(2));
    assert_eq!(take(&mut inbox).await, "head");
    assert_eq!(take(&mut inbox).await, "last");
    soon("delivery", head.delivered()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_message_is_taken_back_when_the_store_holds_that() {
    let store = MemoryStore::new();
    let alice = on_store(1, store.clone(), &[]).await;
    let session = alice.session(id(2)).await.unwrap();
    let receipt = session.send(CHAT, "hello").await.unwrap();
    let hold = store.faults().hold();
    let mut cancelling = Box::pin(receipt.cancel());
    let early = tokio::time::timeout(Duration::from_secs(1), &mut cancelling).await;
    assert!(early.is_err(), "{early:?}");
    assert_eq!(store.faults().counts().waiting, 1);
    drop(hold);
    soon("the word", cancelling).await.unwrap();
}

#[tokio::test]
async fn a_message_refused_for_good_ends_says_so_and_holds_up_nobody() {
    let relay = MemoryRelay::new("relay");
    let (_alice, _bob, to_bob, to_alice) = pair(&relay).await;
    let mut events = to_alice.events(64);
    let mut inbox = to_alice.inbox(CHAT).unwrap();
    relay.faults().refuse(id(2), Refusal::NotAllowed, 1);
    let refused = to_bob.send(CHAT, "refused").await.unwrap();
    let ended = soon("the end", refused.delivered()).await;
    let why = Ending::Refused(Refusal::NotAllowed);
    assert!(matches!(ended, Err(Error::Ended(how)) if how == why));
    to_bob.send(CHAT, "next").await.unwrap();
    assert_eq!(take(&mut inbox).await, "next");
    let gap = async {
        loop {
            let (event, _) = events.next().await.expect("the session lives");
            if let SessionEvent::Gap { first, last, .. } = event {
                return (first.0, last.0);
            }
        }
    };
    assert_eq!(soon("the gap", gap).await, (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_network_that_is_away_for_days_ends_no_message_and_its_return_dials_at_once() {
    let relay = MemoryRelay::new("relay");
    let (way, network) = (Noted::new(&relay), NetworkMonitor::new());
    let alice = with_network(1, way.clone(), &network).await;
    let to_bob = alice.session(id(2)).await.unwrap();
    linked(&to_bob).await;
    let unreachable = relay.faults().unreachable();
    relay.faults().cut(id(1));
    unlinked(&to_bob).await;
    let receipt = to_bob.send(CHAT, "patient").await.unwrap();
    // How long it is away is what is staged, and below how long it is said to be down.
    tokio::time::sleep(Duration::from_secs(3 * 24 * 3_600)).await;
    let state = receipt.state();
    let left = matches!(state, ReceiptState::Reached(stage) if stage > Stage::Queued);
    assert!(
        !left && !matches!(state, ReceiptState::Ended(_)),
        "{state:?}"
    );
    let tries = way.dials().len();
    assert!(tries > 8_000, "it dialed {tries} times in three days");
    // Now the next try is up to 30 s away.
    drop(unreachable);
    let up = Instant::now();
    network.up();
    soon("custody", receipt.custody()).await.unwrap();
    assert_eq!(up.elapsed(), Duration::ZERO, "it waited for its back-off");
    // The same after the network was said to be down.
    network.down();
    unlinked(&to_bob).await;
    let tries = way.dials().len();
    tokio::time::sleep(Duration::from_secs(3_600)).await;
    assert_eq!(way.dials().len(), tries, "it dialed without a network");
    let up = Instant::now();
    network.up();
    linked(&to_bob).await;
    assert_eq!(up.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn nothing_overtakes_a_message_of_its_channel_that_waits_for_room() {
    const OTHER: ChannelId = ChannelId(17);
    let relay = MemoryRelay::new("relay");
    let alice = on_store(1, outbox_with_room(100).await, &[]).await;
    let session = alice.session(id(2)).await.unwrap();
    let mut large = Box::pin(session.send(CHAT, vec![b'l'; 200]));
    assert!(at_once(large.as_mut()).await.is_none());
    // Channels don't hold each other up.
    session.try_send(OTHER, "small").await.unwrap();
    let small = session.try_send(CHAT, "small").await;
    assert!(
        matches!(small, Err(Error::Send(SendError::Full))),
        "{small:?}"
    );
    assert!(at_once(large.as_mut()).await.is_none(), "it waits");

    let bob = on(2, &[&relay]).await;
    let mut inbox = bob.session(id(1)).await.unwrap().inbox(CHAT).unwrap();
    alice.use_relay(Arc::new(relay.clone()));
    soon("room", large).await.unwrap();
    session.try_send(CHAT, "small").await.unwrap();
    assert_eq!(take(&mut inbox).await.len(), 200);
    assert_eq!(take(&mut inbox).await, "small");
}

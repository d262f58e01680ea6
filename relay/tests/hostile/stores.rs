//! Stores that fail, hang and crash under a relay.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use outlive_core::store::StoreError;
use outlive_core::transport::{GoodbyeReason, Refusal, TokenHash};
use outlive_core::wire::relay::{Class, FromRelay, ToRelay};
use outlive_core::{EnvelopeId, PeerId};
use outlive_relay::RelayConfig;
use outlive_storage::{Flush, MemoryStore};

use crate::client::{Client, accepted, acknowledge, comes_true, id, relay_over, submit};

const ALICE: u16 = 1;
const BOB: u16 = 2;

fn keep(envelope: u64) -> ToRelay {
    submit(envelope, id(BOB), Class::Keep, envelope.to_string())
}

const fn unavailable(envelope: u64) -> FromRelay {
    FromRelay::Refused {
        envelope: EnvelopeId(envelope),
        reason: Refusal::Unavailable,
    }
}

#[tokio::test]
async fn a_store_that_fails_refuses_for_the_moment_and_loses_nothing() {
    for what in ["commit", "read"] {
        let store = MemoryStore::new();
        let relay = relay_over(store.clone(), RelayConfig::default()).await;
        let mut alice = Client::sign_in(&relay, ALICE).await;
        let mut taken = Vec::new();
        for n in 1..=20 {
            if n % 3 == 1 {
                match what {
                    "commit" => store.faults().fail_commits(1, &StoreError::Full),
                    _ => store.faults().fail_reads(1, &StoreError::Full),
                }
            }
            // Newest-only envelopes are read before they are written, others their quota alone.
            let answer = if n % 2 == 0 {
                alice.submit(keep(n)).await
            } else {
                let newest = submit(n, id(BOB), Class::NewestOnly, n.to_string());
                alice.submit(newest).await
            };
            if answer == accepted(n) {
                taken.push(n);
            } else {
                assert_eq!(answer, unavailable(n));
            }
        }
        assert!((7..20).contains(&taken.len()), "{what}: {taken:?}");
        // The relay is killed and comes back over what was durable.
        let relay = relay_over(store.faults().crash(), RelayConfig::default()).await;
        let mut alice = Client::sign_in(&relay, ALICE).await;
        // Numbers go on behind those that are taken, or what waits would be overwritten.
        for n in 100..120 {
            assert_eq!(alice.submit(keep(n)).await, accepted(n));
        }
        let newest = taken.iter().filter(|n| *n % 2 == 1).max().copied();
        let mut expected: BTreeSet<u64> = taken.iter().filter(|n| *n % 2 == 0).copied().collect();
        expected.extend(newest);
        expected.extend(100..120);
        let mut bob = Client::sign_in(&relay, BOB).await;
        let mut numbers = BTreeSet::new();
        let mut got = BTreeSet::new();
        while got.len() < expected.len() {
            let (number, packet) = bob.delivery().await;
            assert!(numbers.insert(number), "{number:?} was given out twice");
            got.insert(text(&packet));
        }
        assert_eq!(got, expected, "{what}");
    }
}

fn text(packet: &Bytes) -> u64 {
    String::from_utf8_lossy(packet).parse().expect("a number")
}

#[tokio::test]
async fn a_store_that_fails_while_a_connection_reads_its_mail_costs_that_connection_alone() {
    let store = MemoryStore::new();
    let relay = relay_over(store.clone(), RelayConfig::default()).await;
    let mut alice = Client::sign_in(&relay, ALICE).await;
    assert_eq!(alice.submit(keep(1)).await, accepted(1));
    // The search for mail that has expired reads too as the relay begins, and may take the failure.
    let mut heard = Vec::new();
    for _ in 0..2 {
        store.faults().fail_reads(1, &StoreError::Full);
        heard.push(Client::sign_in(&relay, BOB).await.hear().await);
    }
    let reason = GoodbyeReason::Busy;
    let busy = Some(FromRelay::Goodbye { reason });
    assert!(heard.contains(&busy), "the connection goes on: {heard:?}");
    let mut bob = Client::sign_in(&relay, BOB).await;
    assert_eq!(bob.delivery().await.1, "1");
    assert_eq!(alice.submit(keep(2)).await, accepted(2));
}

#[tokio::test]
async fn whoever_is_let_go_as_the_store_takes_nothing_hears_that_it_is_no_time_to_come_back() {
    let store = MemoryStore::new();
    let relay = relay_over(store.clone(), RelayConfig::default()).await;
    let mut bob = Client::sign_in(&relay, BOB).await;
    store.faults().fail_commits(1_000, &StoreError::Full);
    for n in 0..300 {
        let tokens = vec![TokenHash([n as u8; 32])];
        bob.say([ToRelay::AcceptUnidentified { tokens }]).await;
    }
    assert_eq!(bob.hear_goodbye().await, GoodbyeReason::Busy);
}

/// A peer that brings the mailboxes more than finds room there while the store stands still.
async fn overfull(relay: &outlive_relay::Relay, n: u16) -> Client {
    let mut client = Client::sign_in(relay, n).await;
    let tokens = vec![TokenHash([0; 32])];
    let changes = std::iter::repeat_n(ToRelay::AcceptUnidentified { tokens }, 1_000);
    client.say(changes).await;
    client
}

#[tokio::test]
async fn whoever_waits_for_room_in_the_mailboxes_hears_that_another_took_its_place() {
    let mut config = RelayConfig::default();
    config.drain_timeout = Duration::from_millis(100);
    let store = MemoryStore::new();
    let relay = relay_over(store.clone(), config).await;
    let _hold = store.faults().hold();
    let mut alice = overfull(&relay, ALICE).await;
    let _again = Client::sign_in(&relay, ALICE).await;
    assert_eq!(alice.hear_goodbye().await, GoodbyeReason::Replaced);
}

#[tokio::test]
async fn whoever_goes_while_it_waits_for_room_in_the_mailboxes_leaves_its_place() {
    let mut config = RelayConfig::default();
    config.drain_timeout = Duration::from_millis(100);
    config.ping_every = Duration::from_millis(100);
    config.connections = 1;
    let store = MemoryStore::new();
    let relay = relay_over(store.clone(), config).await;
    let _hold = store.faults().hold();
    drop(overfull(&relay, ALICE).await);
    let url = format!("ws://{}", relay.local_addr());
    let connect = || Box::pin(tokio_tungstenite::connect_async(&url));
    comes_true("a free place", async || connect().await.is_ok()).await;
}

#[tokio::test]
async fn whoever_waits_for_room_in_the_mailboxes_is_not_taken_for_silent() {
    let mut config = RelayConfig::default();
    config.ping_every = Duration::from_millis(50);
    config.silence = Duration::from_millis(200);
    let store = MemoryStore::new();
    let relay = relay_over(store.clone(), config).await;
    let hold = store.faults().hold();
    let mut alice = overfull(&relay, ALICE).await;
    // Several silences.
    alice.pinged(20).await;
    drop(hold);
    assert_eq!(alice.submit(keep(1)).await, accepted(1));
}

#[tokio::test]
async fn an_acknowledgement_that_the_store_does_not_take_frees_its_place_when_it_works_again() {
    let mut config = RelayConfig::default();
    config.mailbox_envelopes = 1;
    let store = MemoryStore::new();
    let relay = relay_over(store.clone(), config).await;
    let mut alice = Client::sign_in(&relay, ALICE).await;
    let mut bob = Client::sign_in(&relay, BOB).await;
    assert_eq!(alice.submit(keep(1)).await, accepted(1));
    let (number, _) = bob.delivery().await;
    store.faults().fail_commits(1, &StoreError::Full);
    bob.say([acknowledge(id(ALICE), [number])]).await;
    // The relay has it when it has what was said behind it.
    bob.settle().await;
    // The failure may meet this one too, but not a second.
    let mut answer = alice.submit(keep(2)).await;
    if answer == unavailable(2) {
        answer = alice.submit(keep(2)).await;
    }
    assert_eq!(answer, accepted(2));
}

/// Delivers everything that waits, in the order of its numbers.
async fn drawn(bob: &mut Client, count: usize) -> BTreeMap<EnvelopeId, Bytes> {
    let mut all = BTreeMap::new();
    for _ in 0..count {
        let (number, packet) = bob.delivery().await;
        assert!(
            all.insert(number, packet).is_none(),
            "{number:?} came twice"
        );
    }
    all
}

#[tokio::test]
async fn killed_at_any_commit_the_relay_has_everything_it_accepted() {
    for crash_after in 0..12 {
        let store = MemoryStore::with_flush(Flush::OnDemand);
        // The relay's name is durable before it listens.
        let flushing = store.faults();
        let opening = relay_over(store.clone(), RelayConfig::default());
        let flusher = comes_true("its name", async || flushing.flush() > 0);
        let (relay, ()) = tokio::join!(opening, flusher);
        let mut alice = Client::sign_in(&relay, ALICE).await;
        let mut took = BTreeSet::new();
        for n in 1..=crash_after {
            alice.say([keep(n)]).await;
            comes_true("a write", async || store.faults().flush() > 0).await;
            assert_eq!(alice.hear().await, Some(accepted(n)));
            took.insert(n);
        }
        // One more is on its way to the disk.
        alice.say([keep(crash_after + 1)]).await;
        comes_true("a write on its way", async || {
            store.faults().counts().waiting > 0
        })
        .await;
        let after = MemoryStore::over(&store.faults().snapshot(), Flush::EachCommit);
        drop(store.faults().crash());
        // What the crash cut off was never accepted.
        assert_eq!(
            alice.hear().await,
            Some(unavailable(crash_after + 1)),
            "it was accepted before it was durable"
        );
        drop(relay);
        let relay = relay_over(after, RelayConfig::default()).await;
        let mut alice = Client::sign_in(&relay, ALICE).await;
        assert_eq!(alice.submit(keep(100)).await, accepted(100));
        took.insert(100);
        let mut bob = Client::sign_in(&relay, BOB).await;
        let got = drawn(&mut bob, took.len()).await;
        assert_eq!(got.values().map(text).collect::<BTreeSet<_>>(), took);
    }
}

#[tokio::test]
async fn a_newer_connection_takes_over_without_a_message_lost() {
    let store = MemoryStore::new();
    let relay = relay_over(store.clone(), RelayConfig::default()).await;
    let mut old = Client::sign_in(&relay, BOB).await;
    let mut alice = Client::sign_in(&relay, ALICE).await;
    let to_alice = |n: u64| submit(n, id(ALICE), Class::Keep, n.to_string());
    let hold = store.faults().hold();
    // Both directions are in the middle of something when the newer connection comes.
    old.say([to_alice(1)]).await;
    alice.say([keep(2)]).await;
    comes_true("a write on its way", async || {
        store.faults().counts().waiting > 0
    })
    .await;
    let mut new = Client::sign_in(&relay, BOB).await;
    new.say([to_alice(3)]).await;
    drop(hold);
    // The old one hears the answer to what it brought before it hears goodbye.
    assert_eq!(old.hear().await, Some(accepted(1)));
    assert_eq!(old.hear_goodbye().await, GoodbyeReason::Replaced);
    let mut new_heard = BTreeSet::new();
    for _ in 0..2 {
        match new.hear().await {
            Some(FromRelay::Accepted { envelope }) => assert!(new_heard.insert(envelope.0)),
            Some(FromRelay::Deliver { packet, .. }) => assert!(new_heard.insert(text(&packet))),
            other => panic!("neither answer nor delivery but {other:?}"),
        }
    }
    assert_eq!(new_heard, BTreeSet::from([2, 3]));
    let mut alice_heard = BTreeSet::new();
    for _ in 0..3 {
        match alice.hear().await {
            Some(FromRelay::Accepted { envelope }) => assert!(alice_heard.insert(envelope.0)),
            Some(FromRelay::Deliver { packet, .. }) => assert!(alice_heard.insert(text(&packet))),
            other => panic!("neither answer nor delivery but {other:?}"),
        }
    }
    assert_eq!(alice_heard, BTreeSet::from([1, 2, 3]));
}

#[tokio::test]
async fn taken_over_again_and_again_everything_comes_to_the_last_connection() {
    let relay = relay_over(MemoryStore::new(), RelayConfig::default()).await;
    let mut alice = Client::sign_in(&relay, ALICE).await;
    let mut bobs = vec![Client::sign_in(&relay, BOB).await];
    for n in 1..=50 {
        alice.say([keep(n)]).await;
        bobs.push(Client::sign_in(&relay, BOB).await);
        assert_eq!(alice.hear().await, Some(accepted(n)));
    }
    let mut last = bobs.pop().expect("a connection");
    let got = drawn(&mut last, 50).await;
    let came: Vec<u64> = got.values().map(text).collect();
    assert_eq!(came, (1..=50).collect::<Vec<_>>());
    // All of it is acknowledged over the last connection and is gone for good.
    let numbers: Vec<_> = got.into_keys().collect();
    last.say([acknowledge(id(ALICE), numbers)]).await;
    last.settle().await;
    alice.say([keep(51)]).await;
    let mut again = Client::sign_in(&relay, BOB).await;
    assert_eq!(again.delivery().await.1, "51");
}

#[tokio::test]
async fn a_drain_answers_everything_that_was_submitted() {
    let store = MemoryStore::new();
    let relay = relay_over(store.clone(), RelayConfig::default()).await;
    let mut clients = Vec::new();
    for n in 10..20 {
        clients.push(Client::sign_in(&relay, n).await);
    }
    let hold = store.faults().hold();
    for client in &mut clients {
        client.say([keep(1), keep(2)]).await;
        client.say([keep(3)]).await;
        // It has taken them when it has taken what came behind them; its answers come in order.
        client.say([watch(id(BOB))]).await;
        assert!(matches!(
            client.hear().await,
            Some(FromRelay::Presence { online: false, .. })
        ));
    }
    let draining = tokio::spawn(relay.shutdown());
    drop(hold);
    for client in &mut clients {
        for n in 1..=3 {
            assert_eq!(client.hear().await, Some(accepted(n)));
        }
        assert_eq!(client.hear_goodbye().await, GoodbyeReason::Draining);
    }
    draining.await.expect("no panic").expect("it ends well");
}

fn watch(peer: PeerId) -> ToRelay {
    ToRelay::Watch { peers: vec![peer] }
}

//! What clients do to mailboxes, their own and those of others.

use std::time::Duration;

use bytes::Bytes;
use outlive_core::store::{ReadLimit, Store};
use outlive_core::transport::Refusal;
use outlive_core::wire::relay::{Class, FromRelay, ToRelay};
use outlive_core::{EnvelopeId, PeerId};
use outlive_relay::RelayConfig;
use outlive_storage::MemoryStore;

use crate::client::{Client, accepted, acknowledge, comes, comes_true, id, relay_over, submit};

const ALICE: u16 = 1;
const BOB: u16 = 2;
const EVE: u16 = 3;

fn refused(envelope: u64) -> FromRelay {
    FromRelay::Refused {
        envelope: EnvelopeId(envelope),
        reason: Refusal::MailboxFull,
    }
}

fn keep(envelope: u64, packet: &'static [u8]) -> ToRelay {
    submit(envelope, id(BOB), Class::Keep, packet)
}

#[tokio::test]
async fn a_mailbox_takes_exactly_as_many_envelopes_as_its_quota() {
    let mut config = RelayConfig::default();
    config.mailbox_envelopes = 3;
    let relay = relay_over(MemoryStore::new(), config).await;
    let mut alice = Client::sign_in(&relay, ALICE).await;
    // In one message, and so in one batch.
    alice.say((1..=4).map(|n| keep(n, b"x"))).await;
    for n in 1..=3 {
        assert_eq!(alice.hear().await, Some(accepted(n)));
    }
    assert_eq!(alice.hear().await, Some(refused(4)));
    let mut bob = Client::sign_in(&relay, BOB).await;
    let (first, _) = bob.delivery().await;
    bob.say([acknowledge(id(ALICE), [first])]).await;
    bob.settle_after_deliveries(2).await;
    assert_eq!(alice.submit(keep(5, b"x")).await, accepted(5));
    assert_eq!(alice.submit(keep(6, b"x")).await, refused(6));
}

#[tokio::test]
async fn a_mailbox_takes_exactly_as_many_bytes_as_its_quota() {
    let mut config = RelayConfig::default();
    config.mailbox_bytes = 100;
    let relay = relay_over(MemoryStore::new(), config).await;
    let mut alice = Client::sign_in(&relay, ALICE).await;
    assert_eq!(alice.submit(keep(1, &[0; 60])).await, accepted(1));
    assert_eq!(alice.submit(keep(2, &[0; 41])).await, refused(2));
    assert_eq!(alice.submit(keep(3, &[0; 40])).await, accepted(3));
    assert_eq!(alice.submit(keep(4, &[0; 1])).await, refused(4));
    // Another mailbox has a quota of its own.
    let other = submit(5, id(EVE), Class::Keep, vec![0; 100]);
    assert_eq!(alice.submit(other).await, accepted(5));
}

#[tokio::test]
async fn the_same_acknowledgement_again_frees_no_second_place() {
    let mut config = RelayConfig::default();
    config.mailbox_envelopes = 3;
    let relay = relay_over(MemoryStore::new(), config).await;
    let mut alice = Client::sign_in(&relay, ALICE).await;
    for n in 1..=3 {
        assert_eq!(alice.submit(keep(n, b"x")).await, accepted(n));
    }
    let mut bob = Client::sign_in(&relay, BOB).await;
    let (first, _) = bob.delivery().await;
    // Twice in one list, in two messages at once, and once more when it is long gone.
    let twice = acknowledge(id(ALICE), [first, first]);
    bob.say([twice.clone(), twice.clone()]).await;
    bob.settle_after_deliveries(2).await;
    bob.say([twice]).await;
    bob.settle().await;
    assert_eq!(alice.submit(keep(4, b"x")).await, accepted(4));
    assert_eq!(alice.submit(keep(5, b"x")).await, refused(5));
}

#[tokio::test]
async fn acknowledging_what_is_in_the_mailbox_of_another_does_nothing() {
    let relay = relay_over(MemoryStore::new(), RelayConfig::default()).await;
    let mut alice = Client::sign_in(&relay, ALICE).await;
    assert_eq!(alice.submit(keep(1, b"for bob")).await, accepted(1));
    let mut eve = Client::sign_in(&relay, EVE).await;
    let all: Vec<_> = (0..1_000).map(EnvelopeId).collect();
    for from in [ALICE, BOB, EVE] {
        eve.say([acknowledge(id(from), all.clone())]).await;
    }
    eve.settle().await;
    let mut bob = Client::sign_in(&relay, BOB).await;
    assert_eq!(bob.delivery().await.1, &b"for bob"[..]);
}

#[tokio::test]
async fn what_was_replaced_by_something_newer_leaves_nothing_behind() {
    let store = MemoryStore::new();
    let relay = relay_over(store.clone(), RelayConfig::default()).await;
    let mut alice = Client::sign_in(&relay, ALICE).await;
    let newest = |n| submit(n, id(BOB), Class::NewestOnly, vec![0; 100]);
    assert_eq!(alice.submit(newest(1)).await, accepted(1));
    let one = count(&store).await;
    for n in 2..50 {
        assert_eq!(alice.submit(newest(n)).await, accepted(n));
    }
    alice.say((50..100).map(newest)).await;
    for n in 50..100 {
        assert_eq!(alice.hear().await, Some(accepted(n)));
    }
    assert_eq!(count(&store).await, one, "older ones left records behind");
    let mut bob = Client::sign_in(&relay, BOB).await;
    let (number, _) = bob.delivery().await;
    bob.say([acknowledge(id(ALICE), [number])]).await;
    only_settings_are_left(&store).await;
}

/// An envelope for Bob that may wait for so many seconds.
fn waits(envelope: u64, class: Class, ttl: u32) -> ToRelay {
    ToRelay::Submit {
        envelope: EnvelopeId(envelope),
        to: id(BOB),
        class,
        ttl,
        packet: "late".into(),
    }
}

#[tokio::test]
async fn what_has_expired_is_not_delivered_and_frees_its_place() {
    let mut config = RelayConfig::default();
    config.mailbox_envelopes = 1;
    config.sweep_every = Duration::from_millis(5);
    let store = MemoryStore::new();
    let relay = relay_over(store.clone(), config).await;
    let mut alice = Client::sign_in(&relay, ALICE).await;
    let late = waits(1, Class::Keep, 5);
    assert_eq!(alice.submit(late).await, accepted(1));
    let late = waits(2, Class::NewestOnly, 5);
    assert_eq!(alice.submit(late).await, accepted(2));
    let early = alice.submit(keep(3, b"in time")).await;
    assert_eq!(early, refused(3), "it has not expired yet");
    let answer = comes("another answer", async || {
        let answer = alice.submit(keep(3, b"in time")).await;
        (answer != early).then_some(answer)
    });
    assert_eq!(answer.await, accepted(3));
    let mut bob = Client::sign_in(&relay, BOB).await;
    let (number, packet) = bob.delivery().await;
    assert_eq!(packet, "in time");
    bob.say([acknowledge(id(ALICE), [number])]).await;
    only_settings_are_left(&store).await;
}

#[tokio::test]
async fn mail_to_bytes_that_are_no_key_goes_when_its_time_is_over() {
    let bytes = (0..=u8::MAX)
        .map(|n| [n; 32])
        .find(|bytes| PeerId::from_bytes(*bytes).is_err());
    let nobody = bytes.and_then(|bytes| postcard::from_bytes::<PeerId>(&bytes).ok());
    let nobody = nobody.expect("a field of a message");
    let mut config = RelayConfig::default();
    config.sweep_every = Duration::from_millis(5);
    let store = MemoryStore::new();
    let relay = relay_over(store.clone(), config).await;
    let mut alice = Client::sign_in(&relay, ALICE).await;
    for (n, class) in [(1, Class::Keep), (2, Class::NewestOnly)] {
        let late = ToRelay::Submit {
            envelope: EnvelopeId(n),
            to: nobody,
            class,
            ttl: 1,
            packet: "late".into(),
        };
        assert_eq!(alice.submit(late).await, accepted(n));
    }
    only_settings_are_left(&store).await;
}

#[tokio::test]
async fn what_may_not_wait_at_all_is_accepted_and_takes_no_place() {
    let mut config = RelayConfig::default();
    config.mailbox_envelopes = 1;
    let store = MemoryStore::new();
    let relay = relay_over(store.clone(), config).await;
    let mut alice = Client::sign_in(&relay, ALICE).await;
    let before = count(&store).await;
    let classes = [Class::Keep, Class::NewestOnly, Class::Keep, Class::Keep];
    alice
        .say((1..).zip(classes).map(|(n, class)| waits(n, class, 0)))
        .await;
    for n in 1..=4 {
        assert_eq!(alice.hear().await, Some(accepted(n)));
    }
    assert_eq!(count(&store).await, before, "something was written");
    assert_eq!(alice.submit(keep(5, b"in time")).await, accepted(5));
    // Where there is no room, it needs none.
    assert_eq!(alice.submit(keep(6, b"one more")).await, refused(6));
    let late = waits(7, Class::Keep, 0);
    assert_eq!(alice.submit(late).await, accepted(7));
    let mut bob = Client::sign_in(&relay, BOB).await;
    assert_eq!(bob.delivery().await.1, "in time");
    bob.settle().await;
}

#[tokio::test]
async fn something_newer_that_may_not_wait_leaves_neither_itself_nor_what_it_replaced() {
    let store = MemoryStore::new();
    let relay = relay_over(store.clone(), RelayConfig::default()).await;
    let mut alice = Client::sign_in(&relay, ALICE).await;
    let newest = |n, ttl| waits(n, Class::NewestOnly, ttl);
    assert_eq!(alice.submit(newest(1, 60)).await, accepted(1));
    assert_eq!(alice.submit(newest(2, 0)).await, accepted(2));
    assert_eq!(count(&store).await, SETTINGS, "more than settings is left");
    // In one batch, of which no read shows anything yet.
    alice.say([newest(3, 60), newest(4, 0)]).await;
    for n in 3..=4 {
        assert_eq!(alice.hear().await, Some(accepted(n)));
    }
    assert_eq!(count(&store).await, SETTINGS, "more than settings is left");
    let mut bob = Client::sign_in(&relay, BOB).await;
    bob.settle().await;
    assert_eq!(alice.submit(newest(5, 60)).await, accepted(5));
    assert_eq!(bob.delivery().await.1, "late");
}

#[tokio::test]
async fn a_relay_that_keeps_nothing_says_so() {
    let mut config = RelayConfig::default();
    config.max_ttl = Duration::ZERO;
    let store = MemoryStore::new();
    let relay = relay_over(store.clone(), config).await;
    let mut alice = Client::sign_in(&relay, ALICE).await;
    let _bob = Client::sign_in(&relay, BOB).await;
    assert_eq!(alice.submit(waits(1, Class::Keep, 60)).await, refused(1));
    // What is to wait for no time, and what is worth nothing for long, is lost by itself.
    assert_eq!(alice.submit(waits(2, Class::Keep, 0)).await, accepted(2));
    let newest = waits(3, Class::NewestOnly, 60);
    assert_eq!(alice.submit(newest).await, accepted(3));
}

async fn count(store: &MemoryStore) -> usize {
    let everything = Bytes::new()..Bytes::from_static(&[255]);
    let limit = ReadLimit {
        records: usize::MAX,
        bytes: usize::MAX,
    };
    store.range(everything, limit).await.expect("rows").len()
}

/// The relay's name for its store, its clock and its numbers.
const SETTINGS: usize = 3;

async fn only_settings_are_left(store: &MemoryStore) {
    comes_true("the records to be gone", async || {
        count(store).await == SETTINGS
    })
    .await;
}

impl Client {
    /// Waits for the answer to a mark, and lets as many deliveries pass on the way.
    async fn settle_after_deliveries(&mut self, count: usize) {
        for _ in 0..count {
            self.delivery().await;
        }
        self.settle().await;
    }
}

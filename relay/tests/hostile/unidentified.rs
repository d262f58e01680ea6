//! Clients that do not say who they are, and what they can not do.

use bytes::Bytes;
use outlive_core::EnvelopeId;
use outlive_core::store::StoreError;
use outlive_core::transport::{Class, DeliveryToken, GoodbyeReason, Refusal, Sender, Slot};
use outlive_core::wire::relay::{FromRelay, TOKENS, ToRelay, TokenHash, VERSION};
use outlive_relay::{Rate, Relay, RelayConfig};
use outlive_storage::MemoryStore;

use crate::client::{Client, TTL, accepted, acknowledge, id, relay_over, submit};

const ALICE: u16 = 1;
const BOB: u16 = 2;
const EVE: u16 = 3;

fn token() -> DeliveryToken {
    DeliveryToken::from_bytes([9; 32])
}

fn slot(n: u8) -> Slot {
    Slot([n; 32])
}

fn unnamed(envelope: u64, slot: Slot, class: Class, packet: &'static str) -> ToRelay {
    ToRelay::SubmitUnidentified {
        envelope: EnvelopeId(envelope),
        to: id(BOB),
        token: token(),
        slot,
        class,
        ttl: TTL,
        packet: Bytes::from_static(packet.as_bytes()),
    }
}

async fn relay() -> Relay {
    relay_over(MemoryStore::new(), RelayConfig::default()).await
}

/// Bob signs in, and takes what comes with these tokens.
async fn bob_accepting(relay: &Relay, tokens: Vec<TokenHash>) -> Client {
    let mut bob = Client::sign_in(relay, BOB).await;
    bob.say([ToRelay::AcceptUnidentified { tokens }]).await;
    // Kept behind it, by the same writer: when this is answered, that is durable.
    let mark = submit(1, id(EVE), Class::Keep, "mark");
    assert_eq!(bob.submit(mark).await, accepted(1));
    bob
}

async fn delivered(client: &mut Client) -> (Sender, Option<EnvelopeId>, Bytes) {
    match client.hear().await {
        Some(FromRelay::Deliver {
            from,
            envelope,
            packet,
        }) => (from, envelope, packet),
        other => panic!("no delivery but {other:?}"),
    }
}

const fn refused(envelope: u64) -> FromRelay {
    FromRelay::Refused {
        envelope: EnvelopeId(envelope),
        reason: Refusal::Token,
    }
}

#[tokio::test]
async fn with_a_token_an_envelope_of_each_class_arrives_under_its_slot() {
    let relay = relay().await;
    let mut bob = bob_accepting(&relay, vec![token().hash()]).await;
    let mut client = Client::unidentified(&relay).await;
    for (n, class) in [Class::Keep, Class::NewestOnly, Class::NowOrNever]
        .into_iter()
        .enumerate()
    {
        let number = n as u64;
        let envelope = unnamed(number, slot(7), class, "packet");
        assert_eq!(client.submit(envelope).await, accepted(number));
        let (from, envelope, packet) = delivered(&mut bob).await;
        assert_eq!((from, &packet[..]), (Sender::Slot(slot(7)), &b"packet"[..]));
        assert_eq!(envelope.is_some(), class != Class::NowOrNever);
    }
}

#[tokio::test]
async fn a_token_that_was_not_given_out_or_is_revoked_opens_nothing() {
    let relay = relay().await;
    let mut client = Client::unidentified(&relay).await;
    for class in [Class::Keep, Class::NewestOnly, Class::NowOrNever] {
        let envelope = unnamed(1, slot(7), class, "nobody was here");
        assert_eq!(client.submit(envelope).await, refused(1));
    }
    let mut bob = bob_accepting(&relay, vec![TokenHash([1; 32]), token().hash()]).await;
    let envelope = unnamed(2, slot(7), Class::Keep, "taken");
    assert_eq!(client.submit(envelope).await, accepted(2));
    assert_eq!(delivered(&mut bob).await.2, "taken");
    let tokens = vec![TokenHash([1; 32])];
    bob.say([ToRelay::AcceptUnidentified { tokens }]).await;
    let mark = submit(2, id(EVE), Class::Keep, "mark");
    assert_eq!(bob.submit(mark).await, accepted(2));
    let envelope = unnamed(3, slot(7), Class::Keep, "revoked");
    assert_eq!(client.submit(envelope).await, refused(3));
    bob.settle().await;
    assert_eq!(bob.heard_by_now().await, None);
}

#[tokio::test]
async fn a_token_that_is_revoked_while_the_store_fails_opens_nothing_when_it_works_again() {
    let store = MemoryStore::new();
    let relay = relay_over(store.clone(), RelayConfig::default()).await;
    let mut bob = bob_accepting(&relay, vec![token().hash()]).await;
    store.faults().fail_commits(1, &StoreError::Full);
    let tokens = Vec::new();
    bob.say([ToRelay::AcceptUnidentified { tokens }]).await;
    // The failure may meet this one too, but not a second.
    let mark = |number| submit(number, id(EVE), Class::Keep, "mark");
    let mut number = 2;
    while bob.submit(mark(number)).await != accepted(number) {
        number += 1;
    }
    let mut client = Client::unidentified(&relay).await;
    let envelope = unnamed(1, slot(7), Class::Keep, "revoked");
    assert_eq!(client.submit(envelope).await, refused(1));
}

#[tokio::test]
async fn anything_but_an_envelope_ends_such_a_connection() {
    let relay = relay().await;
    let envelopes = vec![EnvelopeId(1)];
    let from = Sender::from(id(ALICE));
    for message in [
        ToRelay::Hello {
            version: VERSION,
            peer: id(EVE),
        },
        ToRelay::HelloUnidentified { version: VERSION },
        ToRelay::Proof {
            signature: Bytes::from(vec![0; 64]),
        },
        submit(1, id(BOB), Class::Keep, "packet"),
        ToRelay::Acknowledge {
            from,
            envelopes: envelopes.clone(),
        },
        ToRelay::Park { from, envelopes },
        ToRelay::Redeliver { from },
        ToRelay::Watch {
            peers: vec![id(BOB)],
        },
        ToRelay::AcceptUnidentified {
            tokens: vec![token().hash()],
        },
    ] {
        let mut client = Client::unidentified(&relay).await;
        client.say([message]).await;
        assert_eq!(client.hear_goodbye().await, GoodbyeReason::Protocol);
    }
}

#[tokio::test]
async fn one_who_signed_in_stays_signed_in() {
    let relay = relay().await;
    for message in [
        unnamed(1, slot(7), Class::Keep, "packet"),
        ToRelay::HelloUnidentified { version: VERSION },
        ToRelay::AcceptUnidentified {
            tokens: vec![token().hash(); TOKENS + 1],
        },
    ] {
        let mut eve = Client::sign_in(&relay, EVE).await;
        eve.say([message]).await;
        assert_eq!(eve.hear_goodbye().await, GoodbyeReason::Protocol);
    }
    let mut client = Client::connect(&relay).await;
    let version = VERSION + 1;
    client.say([ToRelay::HelloUnidentified { version }]).await;
    assert_eq!(client.hear_goodbye().await, GoodbyeReason::Version);
}

#[tokio::test]
async fn a_slot_with_the_bytes_of_a_peers_id_touches_nothing_of_that_peer() {
    let relay = relay().await;
    drop(bob_accepting(&relay, vec![token().hash()]).await);
    let mut alice = Client::sign_in(&relay, ALICE).await;
    let keep = submit(1, id(BOB), Class::Keep, "alice, kept");
    assert_eq!(alice.submit(keep).await, accepted(1));
    let newest = submit(2, id(BOB), Class::NewestOnly, "alice, newest");
    assert_eq!(alice.submit(newest).await, accepted(2));

    let as_alice = Slot(*id(ALICE).as_bytes());
    let mut client = Client::unidentified(&relay).await;
    let newest = unnamed(1, as_alice, Class::NewestOnly, "eve, newest");
    assert_eq!(client.submit(newest).await, accepted(1));

    let mut bob = Client::sign_in(&relay, BOB).await;
    let mut all = Vec::new();
    for _ in 0..3 {
        all.push(delivered(&mut bob).await);
    }
    all.sort();
    let said: Vec<_> = all
        .iter()
        .map(|(from, _, packet)| (*from, &packet[..]))
        .collect();
    assert_eq!(
        said,
        [
            (id(ALICE).into(), &b"alice, kept"[..]),
            (id(ALICE).into(), b"alice, newest"),
            (Sender::Slot(as_alice), b"eve, newest"),
        ]
    );
    // Acknowledged under the slot, Alice's stays; and the other way round.
    let numbers: Vec<_> = all.iter().filter_map(|(_, number, _)| *number).collect();
    let of_slot = Sender::Slot(as_alice);
    bob.say([
        ToRelay::Acknowledge {
            from: of_slot,
            envelopes: numbers[..2].to_vec(),
        },
        acknowledge(id(ALICE), [numbers[2]]),
    ])
    .await;
    let mark = submit(9, id(EVE), Class::Keep, "mark");
    assert_eq!(bob.submit(mark).await, accepted(9));
    let mut bob = Client::sign_in(&relay, BOB).await;
    for _ in 0..3 {
        delivered(&mut bob).await;
    }
    bob.say([
        ToRelay::Acknowledge {
            from: of_slot,
            envelopes: vec![numbers[2]],
        },
        acknowledge(id(ALICE), &numbers[..2]),
    ])
    .await;
    let mark = submit(10, id(EVE), Class::Keep, "mark");
    assert_eq!(bob.submit(mark).await, accepted(10));
    let mut bob = Client::sign_in(&relay, BOB).await;
    bob.settle().await;
    assert_eq!(bob.heard_by_now().await, None);
}

#[tokio::test]
async fn who_does_not_say_who_it_is_is_held_back_by_where_it_comes_from() {
    let mut config = RelayConfig::default();
    config.limit_loopback = true;
    config.address_sign_ins = Rate::new(1_000);
    config.peer_envelopes = Rate::new(1).map(|rate| rate.with_burst(8));
    let relay = relay_over(MemoryStore::new(), config).await;
    drop(bob_accepting(&relay, vec![token().hash()]).await);
    let mut first = Client::unidentified(&relay).await;
    first
        .say((0..1_000).map(|at| unnamed(at, slot(1), Class::Keep, "packet")))
        .await;
    assert_eq!(first.hear().await, Some(accepted(0)));
    // Another connection and another slot, but the same source: it is not read for a while.
    let mut second = Client::unidentified(&relay).await;
    second
        .say([unnamed(1, slot(2), Class::Keep, "packet")])
        .await;
    let mut eve = Client::sign_in(&relay, EVE).await;
    while eve.heard_by_now().await.is_some() {}
    for _ in 0..4 {
        drop(Client::unidentified(&relay).await);
    }
    assert_eq!(second.heard_by_now().await, None);
}

#[tokio::test]
async fn tokens_and_what_lies_in_slots_outlive_the_relay() {
    let store = MemoryStore::new();
    let relay = relay_over(store.clone(), RelayConfig::default()).await;
    drop(bob_accepting(&relay, vec![token().hash()]).await);
    let mut client = Client::unidentified(&relay).await;
    let envelope = unnamed(1, slot(7), Class::Keep, "before");
    assert_eq!(client.submit(envelope).await, accepted(1));
    drop(relay);
    let relay = relay_over(store, RelayConfig::default()).await;
    let mut client = Client::unidentified(&relay).await;
    let envelope = unnamed(1, slot(7), Class::Keep, "after");
    assert_eq!(client.submit(envelope).await, accepted(1));
    let mut bob = Client::sign_in(&relay, BOB).await;
    assert_eq!(delivered(&mut bob).await.2, "before");
    assert_eq!(delivered(&mut bob).await.2, "after");
}

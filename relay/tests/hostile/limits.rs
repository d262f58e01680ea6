//! Clients that want more than their share: they wait, nothing of theirs is refused, and others
//! do not notice.

use std::sync::Arc;
use std::time::Duration;

use outlive_core::EnvelopeId;
use outlive_core::wire::relay::{Class, FromRelay, ToRelay};
use outlive_relay::{Rate, Relay, RelayConfig, RelayError};
use outlive_storage::MemoryStore;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use crate::client::{Client, accepted, acknowledge, comes_true, id, relay_over, soon, submit};

const ALICE: u16 = 1;
const BOB: u16 = 2;
const EVE: u16 = 3;
const NOBODY: u16 = 4;

/// So much at once, and then one in a time that no test waits for.
fn once(burst: u64) -> Option<Rate> {
    Rate::new(1).map(|rate| rate.with_burst(burst))
}

async fn relay(set: impl FnOnce(&mut RelayConfig)) -> Relay {
    let mut config = RelayConfig::default();
    set(&mut config);
    relay_over(MemoryStore::new(), config).await
}

fn keep(envelope: u64, to: u16, packet: impl Into<bytes::Bytes>) -> ToRelay {
    submit(envelope, id(to), Class::Keep, packet)
}

/// Others are served for a while, and `eve` is not heard meanwhile.
async fn only_others_are_heard(relay: &Relay, eve: &mut Client) {
    only_these_are_heard(relay, eve, [ALICE, BOB]).await;
}

async fn only_these_are_heard(relay: &Relay, eve: &mut Client, [alice, bob]: [u16; 2]) {
    eve.say([submit(999, id(EVE), Class::NowOrNever, "unheard")])
        .await;
    let from = Client::sign_in(relay, alice).await;
    let to = Client::sign_in(relay, bob).await;
    are_served((alice, from), (bob, to)).await;
    assert_eq!(eve.heard_by_now().await, None, "it was read all the same");
}

/// One sends to the other for a while.
async fn are_served((alice, mut from): (u16, Client), (bob, mut to): (u16, Client)) {
    for n in 1..=50 {
        assert_eq!(from.submit(keep(n, bob, "x")).await, accepted(n));
        let (number, _) = to.delivery().await;
        to.say([acknowledge(id(alice), [number])]).await;
    }
}

#[tokio::test]
async fn a_flood_of_envelopes_waits_and_the_next_connection_does_not_start_anew() {
    let relay = relay(|config| config.peer_envelopes = once(100)).await;
    let mut eve = Client::sign_in(&relay, EVE).await;
    // What was read is taken, to the last envelope over the limit.
    eve.say((0..1_000).map(|n| keep(n, NOBODY, "flood"))).await;
    for n in 0..1_000 {
        assert_eq!(eve.hear().await, Some(accepted(n)));
    }
    only_others_are_heard(&relay, &mut eve).await;
    for n in 0..3 {
        let mut again = Client::sign_in(&relay, EVE).await;
        only_these_are_heard(&relay, &mut again, [20 + n, 30 + n]).await;
    }
    // It is still told what others send it.
    let mut eve = Client::sign_in(&relay, EVE).await;
    let mut alice = Client::sign_in(&relay, ALICE).await;
    assert_eq!(alice.submit(keep(100, EVE, "hello")).await, accepted(100));
    assert_eq!(eve.delivery().await.1, "hello");
}

// Elsewhere a machine has one address on which it is alone, and not two.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn one_identity_after_the_other_gets_no_more_than_its_address() {
    let relay = relay(|config| {
        config.peer_envelopes = once(100);
        config.address_peers = 2;
        config.limit_loopback = true;
    })
    .await;
    let mut waiting = Vec::new();
    for n in 0..10 {
        let mut eve = Client::sign_in(&relay, 10 + n).await;
        eve.say((0..100).map(|n| keep(n, NOBODY, "flood"))).await;
        // The third goes over it: what was read is taken.
        if n < 3 {
            for n in 0..100 {
                assert_eq!(eve.hear().await, Some(accepted(n)));
            }
        } else {
            waiting.push(eve);
        }
    }
    // Others are at another address, and served for a while.
    let elsewhere = std::net::Ipv4Addr::new(127, 0, 0, 2);
    let alice = Client::sign_in_from(elsewhere, &relay, ALICE).await;
    let bob = Client::sign_in_from(elsewhere, &relay, BOB).await;
    are_served((ALICE, alice), (BOB, bob)).await;
    for eve in &mut waiting {
        assert_eq!(eve.heard_by_now().await, None, "it was read all the same");
    }
}

#[tokio::test]
async fn peers_behind_a_proxy_on_the_same_machine_have_their_own_limits_alone() {
    let relay = relay(|config| {
        config.peer_envelopes = once(100);
        config.address_peers = 2;
    })
    .await;
    for n in 0..10 {
        let mut peer = Client::sign_in(&relay, 10 + n).await;
        peer.say((0..100).map(|n| keep(n, NOBODY, "x"))).await;
        for n in 0..100 {
            assert_eq!(peer.hear().await, Some(accepted(n)));
        }
    }
}

#[tokio::test]
async fn a_flood_of_bytes_waits() {
    // The others of this test stay below it.
    let relay = relay(|config| config.peer_bytes = once(50_000)).await;
    let mut eve = Client::sign_in(&relay, EVE).await;
    for n in 1..=2 {
        let large = keep(n, NOBODY, vec![0; 40_000]);
        assert_eq!(eve.submit(large).await, accepted(n));
    }
    only_others_are_heard(&relay, &mut eve).await;
}

#[tokio::test]
async fn a_flood_of_watches_waits() {
    let relay = relay(|config| config.peer_watches = once(10)).await;
    let mut eve = Client::sign_in(&relay, EVE).await;
    let watch = |peers: std::ops::Range<u16>| ToRelay::Watch {
        peers: peers.map(id).collect(),
    };
    for peers in [100..110, 110..130] {
        let count = peers.len();
        eve.say([watch(peers)]).await;
        for _ in 0..count {
            let told = eve.hear().await;
            assert!(matches!(told, Some(FromRelay::Presence { .. })));
        }
    }
    only_others_are_heard(&relay, &mut eve).await;
}

#[tokio::test]
async fn a_flood_of_acknowledgements_of_nothing_waits() {
    let relay = relay(|config| config.peer_envelopes = once(100)).await;
    let mut eve = Client::sign_in(&relay, EVE).await;
    let nothing: Vec<_> = (1_000..2_000).map(EnvelopeId).collect();
    eve.say([acknowledge(id(ALICE), nothing)]).await;
    only_others_are_heard(&relay, &mut eve).await;
}

#[tokio::test]
async fn asking_for_mail_again_buys_no_free_acknowledgements() {
    const MAIL: u64 = 60;
    const SENDER: u16 = 5;
    let relay = relay(|config| config.peer_envelopes = once(100)).await;
    let mut sender = Client::sign_in(&relay, SENDER).await;
    for n in 0..MAIL {
        assert_eq!(sender.submit(keep(n, EVE, "x")).await, accepted(n));
    }
    let mut eve = Client::sign_in(&relay, EVE).await;
    let from = id(SENDER).into();
    for _ in 0..2 {
        for _ in 0..MAIL {
            eve.delivery().await;
        }
        let nothing: Vec<_> = (1_000..1_000 + MAIL).map(EnvelopeId).collect();
        eve.say([
            acknowledge(id(SENDER), nothing),
            ToRelay::Redeliver { from },
        ])
        .await;
    }
    for _ in 0..MAIL {
        eve.delivery().await;
    }
    only_others_are_heard(&relay, &mut eve).await;
}

#[tokio::test]
async fn acknowledging_what_was_delivered_is_free() {
    let relay = relay(|config| config.peer_envelopes = once(100)).await;
    let mut bob = Client::sign_in(&relay, BOB).await;
    for sender in 10..15 {
        let mut alice = Client::sign_in(&relay, sender).await;
        let mut numbers = Vec::new();
        for n in 0..50 {
            assert_eq!(alice.submit(keep(n, BOB, "x")).await, accepted(n));
            numbers.push(bob.delivery().await.0);
        }
        bob.say([acknowledge(id(sender), numbers)]).await;
    }
    bob.settle().await;
}

#[tokio::test]
async fn whoever_had_to_wait_is_not_taken_for_silent_and_goes_on() {
    let relay = relay(|config| {
        config.peer_envelopes = Rate::new(100).map(|rate| rate.with_burst(1));
        config.silence = Duration::from_secs(1);
        config.ping_every = Duration::from_millis(200);
    })
    .await;
    let mut eve = Client::sign_in(&relay, EVE).await;
    eve.say((0..300).map(|n| keep(n, ALICE, "x"))).await;
    for n in 0..300 {
        assert_eq!(eve.hear().await, Some(accepted(n)));
    }
    // This waits for three seconds, three times as long as silence is borne.
    assert_eq!(eve.submit(keep(300, ALICE, "x")).await, accepted(300));
}

#[tokio::test]
async fn a_time_that_has_to_pass_again_and_again_can_not_be_zero() {
    let mut sweeping = RelayConfig::default();
    sweeping.sweep_every = Duration::ZERO;
    let mut pinging = RelayConfig::default();
    pinging.ping_every = Duration::ZERO;
    for (config, name) in [(sweeping, "sweep_every"), (pinging, "ping_every")] {
        let relay = Relay::builder()
            .store(Arc::new(MemoryStore::new()))
            .config(config);
        let bound = relay.bind(([127, 0, 0, 1], 0).into()).await;
        assert!(
            matches!(bound, Err(RelayError::ZeroTime { setting }) if setting == name),
            "{name}: {bound:?}"
        );
    }
}

#[tokio::test]
async fn an_address_that_opens_too_many_connections_is_turned_away() {
    let relay = relay(|config| {
        config.address_sign_ins = once(3);
        config.limit_loopback = true;
    })
    .await;
    let mut early = Vec::new();
    for n in 0..3 {
        early.push(Client::sign_in(&relay, n).await);
    }
    for _ in 0..20 {
        let mut socket = TcpStream::connect(relay.local_addr()).await.unwrap();
        let mut answer = Vec::new();
        let end = soon("the end", socket.read_to_end(&mut answer)).await;
        assert!(end.is_err() || answer.is_empty());
    }
    // Those that are in notice nothing.
    for client in &mut early {
        client.settle().await;
    }
}

/// Whether a socket is closed at once.
async fn is_turned_away(relay: &Relay) -> bool {
    let mut socket = TcpStream::connect(relay.local_addr()).await.unwrap();
    let mut answer = Vec::new();
    let end = tokio::time::timeout(Duration::from_millis(300), socket.read_to_end(&mut answer));
    match end.await {
        Ok(end) => end.is_err() || answer.is_empty(),
        Err(_) => false,
    }
}

#[tokio::test]
async fn an_address_has_so_many_connections_at_once_and_another_when_one_has_gone() {
    let relay = relay(|config| {
        config.address_connections = 3;
        config.limit_loopback = true;
    })
    .await;
    let mut early = Vec::new();
    for n in 0..3 {
        early.push(Client::sign_in(&relay, n).await);
    }
    assert!(is_turned_away(&relay).await);
    early.pop();
    comes_true("a free place", async || !is_turned_away(&relay).await).await;
    for client in &mut early {
        client.settle().await;
    }
}

#[tokio::test]
async fn a_proxy_on_the_same_machine_is_not_limited() {
    let relay = relay(|config| config.address_sign_ins = once(1)).await;
    for n in 0..20 {
        Client::sign_in(&relay, n).await;
    }
}

#[tokio::test]
async fn one_connection_too_many_is_told_so_and_gets_in_when_another_leaves() {
    let relay = relay(|config| config.connections = 2).await;
    let first = Client::sign_in(&relay, ALICE).await;
    let _second = Client::sign_in(&relay, BOB).await;
    let url = format!("ws://{}", relay.local_addr());
    let connect = || Box::pin(tokio_tungstenite::connect_async(&url));
    match connect().await {
        Err(tokio_tungstenite::tungstenite::Error::Http(response)) => {
            assert_eq!(response.status(), 503);
        }
        other => panic!("not told: {other:?}"),
    }
    drop(first);
    comes_true("a free place", async || connect().await.is_ok()).await;
}

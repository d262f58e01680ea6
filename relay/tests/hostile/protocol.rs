//! Bytes that are no messages, messages that come at the wrong time, and clients that say nothing.

use std::time::Duration;

use bytes::Bytes;
use outlive_core::limits::PACKET_BYTES;
use outlive_core::wire::relay::{
    self, Class, FromRelay, GoodbyeReason, LIST_ITEMS, MESSAGE_BYTES, ToRelay,
};
use outlive_relay::{Relay, RelayConfig};
use outlive_storage::MemoryStore;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;

use crate::client::{Client, accepted, encoded, hello, id, identity, relay_over, soon, submit};

const ALICE: u16 = 1;
const BOB: u16 = 2;
const EVE: u16 = 3;

async fn relay() -> Relay {
    relay_over(MemoryStore::new(), RelayConfig::default()).await
}

/// What is to be true after every attack: two others are served.
async fn serves_others(relay: &Relay) {
    let mut alice = Client::sign_in(relay, ALICE).await;
    let mut bob = Client::sign_in(relay, BOB).await;
    let hello = submit(1, id(BOB), Class::Keep, "hello");
    assert_eq!(alice.submit(hello).await, accepted(1));
    assert_eq!(bob.delivery().await.1, "hello");
}

/// Numbers that look random and are the same every time.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    (0..length).map(|_| next()).collect()
}

#[tokio::test]
async fn garbage_instead_of_http_costs_only_that_socket() {
    let relay = relay().await;
    for seed in 0..20 {
        let mut socket = TcpStream::connect(relay.local_addr()).await.unwrap();
        // The relay may close before it has read everything.
        let _ = socket.write_all(&noise(seed, 4_096)).await;
        let _ = socket.shutdown().await;
        let mut answer = Vec::new();
        // Whether it is told so by HTTP or not, it ends.
        let _ = soon("the end", socket.read_to_end(&mut answer)).await;
    }
    serves_others(&relay).await;
}

#[tokio::test]
async fn garbage_instead_of_a_hello_is_answered_with_goodbye() {
    let relay = relay().await;
    for seed in 0..20 {
        let mut eve = Client::connect(&relay).await;
        let mut bytes = noise(seed, 1 + seed as usize * 7);
        // Never by chance a good Hello.
        bytes[0] |= 0x80;
        eve.say_raw(Message::binary(bytes)).await;
        assert_eq!(eve.hear_goodbye().await, GoodbyeReason::Protocol);
    }
    serves_others(&relay).await;
}

#[tokio::test]
async fn a_message_cut_off_anywhere_is_answered_with_goodbye() {
    let relay = relay().await;
    let whole = encoded([submit(1, id(BOB), Class::Keep, "packet")]);
    for length in 1..whole.len() {
        let mut eve = Client::sign_in(&relay, EVE).await;
        eve.say_raw(Message::binary(whole[..length].to_vec())).await;
        assert_eq!(eve.hear_goodbye().await, GoodbyeReason::Protocol);
    }
    serves_others(&relay).await;
}

#[tokio::test]
async fn of_a_message_with_a_broken_end_nothing_counts() {
    let relay = relay().await;
    let mut eve = Client::sign_in(&relay, EVE).await;
    let mut bytes = encoded([submit(1, id(BOB), Class::Keep, "first")]);
    bytes.push(250);
    eve.say_raw(Message::binary(bytes)).await;
    assert_eq!(eve.hear_goodbye().await, GoodbyeReason::Protocol);
    serves_others(&relay).await;
}

#[tokio::test]
async fn a_packet_over_the_limit_is_answered_with_goodbye() {
    let relay = relay().await;
    let mut eve = Client::sign_in(&relay, EVE).await;
    let most = submit(1, id(EVE), Class::NowOrNever, vec![0; PACKET_BYTES]);
    assert_eq!(eve.submit(most).await, accepted(1));
    assert!(matches!(eve.hear().await, Some(FromRelay::Deliver { .. })));
    let more = submit(2, id(EVE), Class::NowOrNever, vec![0; PACKET_BYTES + 1]);
    eve.say([more]).await;
    assert_eq!(eve.hear_goodbye().await, GoodbyeReason::Protocol);
    serves_others(&relay).await;
}

#[tokio::test]
async fn a_list_over_the_limit_is_answered_with_goodbye() {
    let relay = relay().await;
    let peers = vec![id(BOB); LIST_ITEMS + 1];
    let envelopes = vec![outlive_core::EnvelopeId(1); LIST_ITEMS + 1];
    let from = id(BOB).into();
    for message in [
        ToRelay::Watch { peers },
        ToRelay::Acknowledge { from, envelopes },
    ] {
        let mut eve = Client::sign_in(&relay, EVE).await;
        eve.say([message]).await;
        assert_eq!(eve.hear_goodbye().await, GoodbyeReason::Protocol);
    }
    serves_others(&relay).await;
}

#[tokio::test]
async fn a_websocket_message_over_the_limit_ends_the_connection() {
    let relay = relay().await;
    let mut eve = Client::sign_in(&relay, EVE).await;
    eve.say_raw(Message::binary(vec![0; MESSAGE_BYTES + 1]))
        .await;
    assert_eq!(eve.hear().await, None);
    serves_others(&relay).await;
}

#[tokio::test]
async fn a_swarm_of_tiny_messages_in_one_is_answered_with_goodbye() {
    let relay = relay().await;
    let mut eve = Client::sign_in(&relay, EVE).await;
    // Two bytes each on the wire, and fifty times as much in memory.
    let swarm = encoded([ToRelay::Watch { peers: Vec::new() }]).repeat(MESSAGE_BYTES / 2);
    eve.say_raw(Message::binary(swarm)).await;
    assert_eq!(eve.hear_goodbye().await, GoodbyeReason::Protocol);
    serves_others(&relay).await;
}

#[tokio::test]
async fn text_is_answered_with_goodbye() {
    let relay = relay().await;
    let mut eve = Client::connect(&relay).await;
    eve.say_raw(Message::text("hello")).await;
    assert_eq!(
        eve.hear().await,
        Some(FromRelay::Goodbye {
            reason: GoodbyeReason::Protocol
        })
    );
    let mut eve = Client::sign_in(&relay, EVE).await;
    eve.say_raw(Message::text("hello")).await;
    assert_eq!(eve.hear_goodbye().await, GoodbyeReason::Protocol);
    serves_others(&relay).await;
}

#[tokio::test]
async fn hello_twice_is_answered_with_goodbye() {
    let relay = relay().await;
    // Instead of the proof, behind the first one in the same message, and when signed in.
    let mut eve = Client::connect(&relay).await;
    eve.challenged(EVE).await;
    eve.say([hello(EVE)]).await;
    assert_eq!(eve.hear_goodbye().await, GoodbyeReason::Protocol);
    let mut eve = Client::connect(&relay).await;
    eve.say([hello(EVE), hello(ALICE)]).await;
    assert_eq!(eve.hear_goodbye().await, GoodbyeReason::Protocol);
    let mut eve = Client::sign_in(&relay, EVE).await;
    eve.say([hello(ALICE)]).await;
    assert_eq!(eve.hear_goodbye().await, GoodbyeReason::Protocol);
    serves_others(&relay).await;
}

#[tokio::test]
async fn a_version_from_the_future_is_told_so() {
    let relay = relay().await;
    let mut eve = Client::connect(&relay).await;
    let (version, peer) = (relay::VERSION + 1, id(EVE));
    eve.say([ToRelay::Hello { version, peer }]).await;
    assert_eq!(eve.hear_goodbye().await, GoodbyeReason::Version);
}

#[tokio::test]
async fn submitting_before_signing_in_is_answered_with_goodbye() {
    let relay = relay().await;
    let mut eve = Client::connect(&relay).await;
    eve.say([submit(1, id(BOB), Class::Keep, "unsigned")]).await;
    assert_eq!(eve.hear_goodbye().await, GoodbyeReason::Protocol);
    serves_others(&relay).await;
}

#[tokio::test]
async fn a_wrong_signature_signs_nobody_in() {
    let relay = relay().await;
    let wrong: [Box<dyn Fn(Bytes) -> Bytes>; 4] = [
        Box::new(|_| Bytes::from_static(&[0; 64])),
        Box::new(|_| Bytes::new()),
        Box::new(|signature| signature.slice(..63)),
        Box::new(|signature| {
            let mut bytes = signature.to_vec();
            bytes[40] ^= 1;
            bytes.into()
        }),
    ];
    for wrong in wrong {
        let mut eve = Client::connect(&relay).await;
        let ToRelay::Proof { signature } = eve.challenged(ALICE).await else {
            panic!("no proof");
        };
        let signature = wrong(signature);
        eve.say([ToRelay::Proof { signature }]).await;
        assert_eq!(eve.hear_goodbye().await, GoodbyeReason::Signature);
    }
    serves_others(&relay).await;
}

#[tokio::test]
async fn the_signature_of_another_peer_signs_nobody_in() {
    let relay = relay().await;
    let mut eve = Client::connect(&relay).await;
    eve.say([hello(ALICE)]).await;
    let Some(FromRelay::Challenge { nonce, store, .. }) = eve.hear().await else {
        panic!("no challenge");
    };
    eve.say([relay::prove(&identity(EVE), &nonce, store, None)])
        .await;
    assert_eq!(eve.hear_goodbye().await, GoodbyeReason::Signature);
}

#[tokio::test]
async fn a_proof_that_was_good_once_is_good_for_no_other_challenge() {
    let relay = relay().await;
    let mut alice = Client::connect(&relay).await;
    let proof = alice.challenged(ALICE).await;
    alice.say([proof.clone()]).await;
    assert!(matches!(
        alice.hear().await,
        Some(FromRelay::Welcome { .. })
    ));
    let mut eve = Client::connect(&relay).await;
    eve.challenged(ALICE).await;
    eve.say([proof]).await;
    assert_eq!(eve.hear_goodbye().await, GoodbyeReason::Signature);
    // Nor is it worth anything to the relay of another store.
    alice.settle().await;
}

#[tokio::test]
async fn whoever_dawdles_before_it_is_signed_in_is_let_go() {
    let mut config = RelayConfig::default();
    config.sign_in_timeout = Duration::from_secs(3);
    let relay = relay_over(MemoryStore::new(), config).await;
    // Not a byte; half a request line; a header without an end; a request and then nothing more.
    let said = [
        "",
        "GET / HT",
        "GET / HTTP/1.1\r\nHost: relay\r\nX: ",
        "GET /health HTTP/1.1\r\nHost: relay\r\n\r\n",
    ];
    let mut sockets = Vec::new();
    for said in said {
        let mut socket = TcpStream::connect(relay.local_addr()).await.unwrap();
        socket.write_all(said.as_bytes()).await.unwrap();
        sockets.push(socket);
    }
    let mut upgraded = Client::connect(&relay).await;
    let mut said_hello = Client::connect(&relay).await;
    said_hello.challenged(EVE).await;
    // Others come and go meanwhile.
    serves_others(&relay).await;
    for mut socket in sockets {
        let mut answer = Vec::new();
        // Closed or reset, it ends.
        let _ = soon("the end", socket.read_to_end(&mut answer)).await;
    }
    assert_eq!(upgraded.hear_goodbye().await, GoodbyeReason::Protocol);
    assert_eq!(said_hello.hear_goodbye().await, GoodbyeReason::Protocol);
}

#[tokio::test]
async fn a_client_that_never_reads_is_let_go_and_others_are_served() {
    let mut config = RelayConfig::default();
    config.silence = Duration::from_secs(2);
    config.ping_every = Duration::from_millis(400);
    let relay = relay_over(MemoryStore::new(), config).await;
    let mut alice = Client::sign_in(&relay, ALICE).await;
    // More than the buffers of two sockets take.
    let packet = Bytes::from(vec![0; PACKET_BYTES]);
    for n in 1..=400 {
        let keep = submit(n, id(EVE), Class::Keep, packet.clone());
        assert_eq!(alice.submit(keep).await, accepted(n));
    }
    alice
        .say([ToRelay::Watch {
            peers: vec![id(EVE)],
        }])
        .await;
    let presence = |online| FromRelay::Presence {
        peer: id(EVE),
        online,
    };
    assert_eq!(alice.hear().await, Some(presence(false)));
    // It sends now and then, so that it is not silent, but takes nothing.
    let mut eve = Client::sign_in(&relay, EVE).await;
    assert_eq!(alice.hear().await, Some(presence(true)));
    let mut gone = std::pin::pin!(alice.hear());
    let heard = loop {
        tokio::select! {
            heard = &mut gone => break heard,
            () = eve.say([ToRelay::Redeliver { from: id(ALICE).into() }]) => {
                tokio::task::yield_now().await;
            }
        }
    };
    assert_eq!(heard, Some(presence(false)));
    serves_others(&relay).await;
}

#[tokio::test]
async fn a_client_that_never_reads_does_not_hold_up_a_drain() {
    let mut config = RelayConfig::default();
    config.drain_timeout = Duration::from_millis(200);
    let relay = relay_over(MemoryStore::new(), config).await;
    let mut alice = Client::sign_in(&relay, ALICE).await;
    let packet = Bytes::from(vec![0; PACKET_BYTES]);
    for n in 1..=400 {
        let keep = submit(n, id(EVE), Class::Keep, packet.clone());
        assert_eq!(alice.submit(keep).await, accepted(n));
    }
    let _eve = Client::sign_in(&relay, EVE).await;
    let _nothing_said = TcpStream::connect(relay.local_addr()).await.unwrap();
    let _not_signed_in = Client::connect(&relay).await;
    soon("the drain", relay.shutdown())
        .await
        .expect("it ends well");
}

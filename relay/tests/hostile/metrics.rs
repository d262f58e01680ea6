//! What the relay tells whoever asks it for numbers.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use outlive_core::EnvelopeId;
use outlive_core::store::StoreError;
use outlive_core::transport::{DeliveryToken, GoodbyeReason, Slot};
use outlive_core::wire::relay::{Class, FromRelay, Refusal, ToRelay};
use outlive_relay::{Relay, RelayConfig, RelayError};
use outlive_storage::MemoryStore;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

use crate::client::{Client, TTL, accepted, comes_true, id, soon, submit};

const ALICE: u16 = 1;
const BOB: u16 = 2;
const CAROL: u16 = 3;
const EVE: u16 = 4;

async fn relay_over(store: MemoryStore, config: RelayConfig) -> Relay {
    let here: SocketAddr = ([127, 0, 0, 1], 0).into();
    let builder = Relay::builder().store(Arc::new(store)).config(config);
    let relay = builder.stun(here).metrics(here).bind(here).await;
    relay.expect("free ports")
}

/// What is answered to a request.
async fn get(from: SocketAddr, path: &str) -> String {
    let mut socket = TcpStream::connect(from).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: relay\r\nConnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    soon("an answer", socket.read_to_string(&mut answer))
        .await
        .unwrap();
    answer
}

async fn page(relay: &Relay) -> String {
    let answer = get(relay.metrics_addr().unwrap(), "/metrics").await;
    let (head, body) = answer.split_once("\r\n\r\n").expect("a body");
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    assert!(head.contains("text/plain; version=0.0.4"), "{head}");
    body.to_owned()
}

/// The numbers, without what they all begin with.
async fn numbers(relay: &Relay) -> BTreeMap<String, u64> {
    let page = page(relay).await;
    let lines = page.lines().filter(|line| !line.starts_with('#'));
    let numbers = lines.map(|line| {
        let (name, number) = line.rsplit_once(' ').expect("a number");
        let name = name.strip_prefix("outlive_relay_").expect("our prefix");
        (name.to_owned(), number.parse().expect("a number"))
    });
    numbers.collect()
}

/// Waits for these numbers: what is counted when it was said may be heard before.
async fn shows(relay: &Relay, expected: &[(&str, u64)]) {
    for (name, number) in expected {
        let what = format!("{name} {number}");
        comes_true(&what, async || {
            numbers(relay).await.get(*name) == Some(number)
        })
        .await;
    }
}

fn unnamed(envelope: u64) -> ToRelay {
    ToRelay::SubmitUnidentified {
        envelope: EnvelopeId(envelope),
        to: id(BOB),
        token: DeliveryToken::from_bytes([9; 32]),
        slot: Slot([1; 32]),
        class: Class::Keep,
        ttl: TTL,
        packet: Bytes::from_static(b"unnamed"),
    }
}

async fn refused(client: &mut Client, submit: ToRelay) -> Refusal {
    match client.submit(submit).await {
        FromRelay::Refused { reason, .. } => reason,
        other => panic!("not refused: {other:?}"),
    }
}

#[tokio::test]
async fn what_the_relay_does_shows_in_its_numbers() {
    let mut config = RelayConfig::default();
    config.mailbox_envelopes = 1;
    let store = MemoryStore::new();
    let relay = relay_over(store.clone(), config).await;
    let zero = numbers(&relay).await;
    for (name, number) in &zero {
        assert_eq!(*number, u64::from(name == "store_writable"), "{name}");
    }

    let mut alice = Client::sign_in(&relay, ALICE).await;
    let mut nobody = Client::unidentified(&relay).await;
    let mut eve = Client::connect(&relay).await;
    let _ = eve.challenged(EVE).await;
    eve.say([unnamed(1)]).await;
    assert_eq!(eve.hear_goodbye().await, GoodbyeReason::Protocol);
    shows(
        &relay,
        &[
            ("connections{kind=\"signed_in\"}", 1),
            ("connections{kind=\"unidentified\"}", 1),
            ("connections_opened_total{kind=\"unidentified\"}", 1),
            ("sign_ins_failed_total", 1),
        ],
    )
    .await;

    for (number, class) in (1..).zip([Class::Keep, Class::NewestOnly, Class::NowOrNever]) {
        let envelope = submit(number, id(BOB), class, "four");
        assert_eq!(alice.submit(envelope).await, accepted(number));
    }
    let more = submit(4, id(BOB), Class::Keep, "no room");
    assert_eq!(refused(&mut alice, more).await, Refusal::MailboxFull);
    assert_eq!(refused(&mut nobody, unnamed(1)).await, Refusal::Token);
    store.faults().fail_commits(1, &StoreError::Full);
    let lost = submit(5, id(CAROL), Class::Keep, "no disk");
    assert_eq!(refused(&mut alice, lost).await, Refusal::Unavailable);
    shows(
        &relay,
        &[
            ("envelopes_accepted_total{class=\"keep\"}", 1),
            ("envelopes_accepted_total{class=\"newest_only\"}", 1),
            ("envelopes_accepted_total{class=\"now_or_never\"}", 1),
            ("accepted_bytes_total", 12),
            ("envelopes_refused_total{reason=\"mailbox_full\"}", 1),
            ("envelopes_refused_total{reason=\"token\"}", 1),
            ("envelopes_refused_total{reason=\"unavailable\"}", 1),
            ("envelopes_delivered_total", 0),
            ("store_writes_failed_total", 1),
            ("store_writable", 0),
        ],
    )
    .await;

    let mut bob = Client::sign_in(&relay, BOB).await;
    bob.delivery().await;
    bob.delivery().await;
    let now = submit(6, id(BOB), Class::NowOrNever, "now");
    assert_eq!(alice.submit(now).await, accepted(6));
    let works = submit(7, id(CAROL), Class::Keep, "works");
    assert_eq!(alice.submit(works).await, accepted(7));
    let udp = UdpSocket::bind(("127.0.0.1", 0)).await.unwrap();
    let mut request = vec![0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42];
    request.extend([7; 12]);
    udp.send_to(&request, relay.stun_addr().unwrap())
        .await
        .unwrap();
    shows(
        &relay,
        &[
            ("envelopes_delivered_total", 3),
            ("store_writable", 1),
            ("stun_answers_total", 1),
            ("connections{kind=\"signed_in\"}", 2),
        ],
    )
    .await;
    drop((alice, bob, nobody));
    shows(
        &relay,
        &[
            ("connections{kind=\"signed_in\"}", 0),
            ("connections{kind=\"unidentified\"}", 0),
            ("connections_opened_total{kind=\"signed_in\"}", 2),
        ],
    )
    .await;

    // As many lines as at the start, whoever was there.
    let names = numbers(&relay).await.into_keys();
    assert!(names.eq(zero.into_keys()));
    let page = page(&relay).await;
    for n in [ALICE, BOB, CAROL, EVE] {
        assert!(!page.contains(&id(n).to_string()), "{page}");
    }
    assert!(!page.contains("127.0.0.1"), "{page}");
    relay.shutdown().await.unwrap();
}

#[tokio::test]
async fn numbers_are_told_at_their_own_address_alone() {
    let relay = relay_over(MemoryStore::new(), RelayConfig::default()).await;
    let (public, private) = (relay.local_addr(), relay.metrics_addr().unwrap());
    for (address, path) in [(public, "/metrics"), (private, "/"), (private, "/v1")] {
        let answer = get(address, path).await;
        assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
    }
    let taken = Relay::builder()
        .store(Arc::new(MemoryStore::new()))
        .metrics(private)
        .bind(([127, 0, 0, 1], 0).into())
        .await;
    match taken {
        Err(RelayError::Listen { address, .. }) => assert_eq!(address, private),
        other => panic!("two listen there: {other:?}"),
    }
    // Who says nothing there keeps nobody from the end.
    let _silent = TcpStream::connect(private).await.unwrap();
    soon("the end", relay.shutdown()).await.unwrap();
}

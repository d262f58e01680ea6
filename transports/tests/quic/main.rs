//! QUIC to a peer itself, over real sockets on loopback.
#![cfg(feature = "quic")]

mod document;
mod flow;
mod hostile;
mod leaks;
mod raw;
mod stun;
mod wire;

use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use outlive_core::limits::PACKET_BYTES;
use outlive_core::transport::{DirectEndpoint, DirectLink, DirectTransport, Lane, TransportError};
use outlive_core::{Identity, PeerId};
use outlive_transports::Quic;

fn identity(n: u8) -> Identity {
    Identity::from_seed([n; 32])
}

fn id(n: u8) -> PeerId {
    identity(n).peer_id()
}

fn loopback() -> Quic {
    Quic::new().bind_to(([127, 0, 0, 1], 0).into())
}

struct Node {
    id: PeerId,
    endpoint: Arc<dyn DirectEndpoint>,
    addresses: Vec<SocketAddr>,
}

async fn node(n: u8) -> Node {
    node_of(n, loopback()).await
}

async fn node_of(n: u8, quic: Quic) -> Node {
    let endpoint = quic.bind(&identity(n)).await.expect("a socket");
    let addresses = endpoint.addresses().await;
    Node {
        id: id(n),
        endpoint,
        addresses,
    }
}

impl Node {
    async fn dial(&self, other: &Self) -> Result<DirectLink, TransportError> {
        self.endpoint.dial(other.id, &other.addresses).await
    }
}

/// Both ends of a link that `a` dials.
async fn linked(a: &Node, b: &Node) -> (DirectLink, DirectLink) {
    let (dialed, accepted) = tokio::join!(a.dial(b), b.endpoint.accept());
    (dialed.expect("it answers"), accepted.expect("it dials"))
}

/// What a future returns if it is done when it is polled once.
async fn at_once<T>(future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    poll_fn(|context| {
        Poll::Ready(match future.as_mut().poll(context) {
            Poll::Ready(value) => Some(value),
            Poll::Pending => None,
        })
    })
    .await
}

fn packet(n: u64, bytes: usize) -> Bytes {
    let mut packet = n.to_le_bytes().to_vec();
    packet.resize(bytes.max(8), n as u8);
    packet.into()
}

fn number(packet: &Bytes) -> u64 {
    u64::from_le_bytes(packet[..8].try_into().expect("eight bytes"))
}

async fn say(link: &mut DirectLink, lane: Lane, packets: Vec<Bytes>) {
    link.sender.send(lane, packets).await.expect("it is up");
}

async fn hear(link: &mut DirectLink) -> Bytes {
    link.receiver.receive().await.expect("a packet")
}

#[tokio::test]
async fn packets_of_every_size_arrive_in_both_directions_and_on_both_lanes() {
    let (a, b) = (node(1).await, node(2).await);
    let (mut dialed, mut accepted) = linked(&a, &b).await;
    assert_eq!((dialed.peer, accepted.peer), (b.id, a.id));
    assert_eq!(vec![dialed.address], b.addresses);
    assert_eq!(vec![accepted.address], a.addresses);
    for lane in [Lane::Bulk, Lane::Interactive] {
        for forward in [true, false] {
            let (from, to) = if forward {
                (&mut dialed, &mut accepted)
            } else {
                (&mut accepted, &mut dialed)
            };
            let sent: Vec<Bytes> = [1, 2, 1_199, 1_200, 16 * 1024, PACKET_BYTES]
                .map(|bytes| Bytes::from(vec![bytes as u8; bytes]))
                .to_vec();
            say(from, lane, sent.clone()).await;
            for packet in sent {
                assert_eq!(hear(to).await, packet);
            }
        }
    }
}

#[tokio::test]
async fn somebody_else_at_the_peers_address_is_not_trusted() {
    let (a, b) = (node(1).await, node(2).await);
    let error = a.endpoint.dial(id(3), &b.addresses).await.expect_err("b");
    assert!(
        matches!(error, TransportError::Untrusted { .. }),
        "{error:?}"
    );
    // Nothing is left of it at the other end: the next link is the next one dialed.
    let c = node(3).await;
    let (_dialed, accepted) = linked(&c, &b).await;
    assert_eq!(accepted.peer, c.id);
}

#[tokio::test]
async fn one_of_several_addresses_answers_and_one_link_comes_of_it() {
    let (a, b, c) = (node(1).await, node(2).await, node(3).await);
    let deaf = std::net::UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let mut addresses = vec![deaf.local_addr().expect("bound"), c.addresses[0]];
    addresses.extend(&b.addresses);
    // The same again is dialed once.
    addresses.extend(&b.addresses);
    let (dialed, accepted) = tokio::join!(a.endpoint.dial(b.id, &addresses), b.endpoint.accept());
    let (mut dialed, mut accepted) = (dialed.expect("b answers"), accepted.expect("a dials"));
    assert_eq!(dialed.peer, b.id);
    say(&mut dialed, Lane::Interactive, vec![packet(1, 100)]).await;
    assert_eq!(number(&hear(&mut accepted).await), 1);
}

#[tokio::test]
async fn a_peer_that_answers_at_several_addresses_gets_one_link() {
    let (a, b) = (node_of(1, Quic::new()).await, node_of(2, Quic::new()).await);
    let witness = node(4).await;
    let (_dialed, accepted) = linked(&b, &witness).await;
    let port = accepted.address.port();
    // All of these are this host, and nobody else listens there.
    let addresses: Vec<SocketAddr> = (1..=8).map(|n| ([127, 0, 0, n], port).into()).collect();
    let (dialed, first) = tokio::join!(a.endpoint.dial(b.id, &addresses), b.endpoint.accept());
    let (mut dialed, mut first) = (dialed.expect("b answers"), first.expect("a dials"));
    say(&mut dialed, Lane::Bulk, vec![packet(1, 8)]).await;
    assert_eq!(number(&hear(&mut first).await), 1);
    // The next one that b has is the next one that is dialed.
    let c = node(3).await;
    let (_third, next) = tokio::join!(c.endpoint.dial(b.id, &addresses[..1]), b.endpoint.accept());
    assert_eq!(next.expect("c dials").peer, c.id);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_does_not_answer_is_unreachable_in_bounded_time() {
    let a = node(1).await;
    let deaf = std::net::UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let addresses = [deaf.local_addr().expect("bound")];
    let begun = tokio::time::Instant::now();
    let error = a.endpoint.dial(id(2), &addresses).await.expect_err("deaf");
    // By the clock of the runtime, which does not run by itself here.
    assert!(begun.elapsed().as_secs() <= 10);
    assert!(
        matches!(error, TransportError::Unreachable { .. }),
        "{error:?}"
    );
    let error = a.endpoint.dial(id(2), &[]).await.expect_err("nowhere");
    assert!(
        matches!(error, TransportError::Unreachable { .. }),
        "{error:?}"
    );
}

#[tokio::test]
async fn two_that_dial_each_other_at_once_have_two_links() {
    let (a, b) = (node(1).await, node(2).await);
    let (ab, ba, at_a, at_b) = tokio::join!(
        a.dial(&b),
        b.dial(&a),
        a.endpoint.accept(),
        b.endpoint.accept()
    );
    let (mut ab, mut ba) = (ab.expect("b answers"), ba.expect("a answers"));
    let (mut at_a, mut at_b) = (at_a.expect("b dials"), at_b.expect("a dials"));
    for (n, from, to) in [(1, &mut ab, &mut at_b), (2, &mut ba, &mut at_a)] {
        say(from, Lane::Bulk, vec![packet(n, 10)]).await;
        assert_eq!(number(&hear(to).await), n);
        say(to, Lane::Interactive, vec![packet(n, 10)]).await;
        assert_eq!(number(&hear(from).await), n);
    }
}

#[tokio::test]
async fn what_was_sent_before_close_still_arrives() {
    let (a, b) = (node(1).await, node(2).await);
    let (mut dialed, mut accepted) = linked(&a, &b).await;
    let sent: Vec<Bytes> = (0..64).map(|n| packet(n, 16 * 1024)).collect();
    say(&mut dialed, Lane::Bulk, sent).await;
    say(&mut dialed, Lane::Interactive, vec![packet(64, 8)]).await;
    dialed.sender.close().await;
    drop(dialed);
    let mut heard = Vec::new();
    let error = loop {
        match accepted.receiver.receive().await {
            Ok(packet) => heard.push(number(&packet)),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, TransportError::Finished), "{error:?}");
    heard.sort_unstable();
    assert_eq!(heard, (0..=64).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_link_closes_when_both_of_its_halves_are_dropped() {
    let (a, b) = (node(1).await, node(2).await);
    let (dialed, mut accepted) = linked(&a, &b).await;
    drop(dialed);
    let error = accepted.receiver.receive().await.expect_err("closed");
    assert!(matches!(error, TransportError::Finished), "{error:?}");
    let (dialed, mut accepted) = linked(&a, &b).await;
    drop(dialed.receiver);
    let sender = dialed.sender;
    sender
        .send(Lane::Interactive, vec![packet(1, 8)])
        .await
        .expect("one half is enough to send");
    assert_eq!(number(&hear(&mut accepted).await), 1);
    drop(sender);
    let error = accepted.receiver.receive().await.expect_err("closed");
    assert!(matches!(error, TransportError::Finished), "{error:?}");
}

#[tokio::test]
async fn closing_an_endpoint_ends_accept_and_all_its_links() {
    let (a, b) = (node(1).await, node(2).await);
    let (mut dialed, mut accepted) = linked(&a, &b).await;
    let waiting = b.endpoint.clone();
    let (accept, ()) = tokio::join!(waiting.accept(), b.endpoint.close());
    assert!(matches!(accept, Err(TransportError::Broken(_))));
    assert!(accepted.receiver.receive().await.is_err());
    assert!(dialed.receiver.receive().await.is_err());
    assert!(b.dial(&a).await.is_err());
    assert!(b.endpoint.network_changed().await.is_err());
    assert!(b.endpoint.addresses().await.is_empty());
    drop((accepted, dialed));
    // Its address is free again.
    std::net::UdpSocket::bind(b.addresses[0]).expect("nobody is bound there");
    // And closed twice is closed.
    b.endpoint.close().await;
}

#[tokio::test]
async fn dropping_an_endpoint_closes_its_links() {
    let (a, b) = (node(1).await, node(2).await);
    let (mut dialed, accepted) = linked(&a, &b).await;
    drop(b);
    assert!(dialed.receiver.receive().await.is_err());
    drop(accepted);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_of_the_network_in_the_middle_of_a_transfer_loses_nothing() {
    const PACKETS: u64 = 400;
    let (a, b) = (node(1).await, node(2).await);
    // Either end moves, the one that dialed and the one that accepted.
    for moves in [&a.endpoint, &b.endpoint] {
        let (dialed, mut accepted) = linked(&a, &b).await;
        let DirectLink { sender, .. } = dialed;
        let sending = tokio::spawn(async move {
            for n in 0..PACKETS {
                let sent = sender.send(Lane::Bulk, vec![packet(n, 16 * 1024)]).await;
                sent.expect("it lives on");
            }
            sender
        });
        for n in 0..PACKETS {
            if n % 100 == 50 {
                moves.network_changed().await.expect("another socket");
            }
            assert_eq!(number(&hear(&mut accepted).await), n);
        }
        let sender = sending.await.expect("it sends");
        // The other direction goes on too, and so does dialing.
        say(&mut accepted, Lane::Interactive, vec![packet(1, 8)]).await;
        sender
            .send(Lane::Interactive, vec![packet(2, 8)])
            .await
            .expect("it lives on");
        assert_eq!(number(&hear(&mut accepted).await), 2);
        linked(&a, &b).await;
    }
    // Peers find them where they were.
    assert_eq!(a.endpoint.addresses().await, a.addresses);
    assert_eq!(b.endpoint.addresses().await, b.addresses);
}

#[tokio::test]
async fn a_node_at_all_addresses_is_reached_over_ipv4_and_ipv6() {
    let everywhere = node_of(1, Quic::new()).await;
    for address in &everywhere.addresses {
        assert!(!address.ip().is_loopback() && !address.ip().is_unspecified());
    }
    for loopback in ["127.0.0.1:0", "[::1]:0"] {
        let address: SocketAddr = loopback.parse().expect("an address");
        if std::net::UdpSocket::bind(address).is_err() {
            println!("not tried: nothing can be bound to {address} here");
            continue;
        }
        let b = node_of(2, Quic::new().bind_to(address)).await;
        let (dialed, accepted) = linked(&everywhere, &b).await;
        assert_eq!(vec![dialed.address], b.addresses);
        // And back, at the port that it dialed from.
        let back = [accepted.address];
        let (dialed, accepted) = tokio::join!(
            b.endpoint.dial(everywhere.id, &back),
            everywhere.endpoint.accept()
        );
        assert_eq!(dialed.expect("it answers").peer, everywhere.id);
        assert_eq!(accepted.expect("it dials").address, b.addresses[0]);
    }
}

#[tokio::test]
async fn an_address_that_is_taken_is_told_at_once() {
    let a = node(1).await;
    let again = Quic::new().bind_to(a.addresses[0]);
    let error = again.bind(&identity(2)).await.err().expect("it is taken");
    assert!(matches!(error, TransportError::Address { .. }), "{error:?}");
    // After the socket was moved, too, and even by one who would share it.
    a.endpoint.network_changed().await.expect("another socket");
    assert!(again.bind(&identity(2)).await.is_err());
    // With the first packet over the new socket the old one is gone.
    let b = node(2).await;
    let _links = linked(&b, &a).await;
    let thief = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None);
    let thief = thief.expect("a socket");
    thief.set_reuse_address(true).expect("an option");
    assert!(thief.bind(&a.addresses[0].into()).is_err());
}

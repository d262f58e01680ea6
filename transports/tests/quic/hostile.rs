//! Peers with other keys, other protocols and other bytes than they should have.

use std::net::{SocketAddr, UdpSocket};

use outlive_core::limits::PACKET_BYTES;
use outlive_core::transport::{DirectLink, TransportError};
use outlive_transports::Quic;
use quinn::{Connection, ConnectionError, Endpoint};

use crate::raw::{self, ALPN, Shown};
use crate::wire::Wire;
use crate::{Node, at_once, hear, id, identity, linked, node, node_of};

/// What a peer that knows nothing of lanes has against us.
const VIOLATION: u64 = 1;

/// The first four bits of a packet that asks to prove an address (RFC 9000, section 17.2.5).
const RETRY: u8 = 0b1111;

/// Proves to be peer 7, by hand.
async fn proved(endpoint: &Endpoint, to: SocketAddr) -> Connection {
    let shown = Shown::honest(&identity(7));
    let connecting = raw::dial(endpoint, to, Some(&shown), ALPN).expect("it dials");
    connecting.await.expect("a good key")
}

/// The link that `node` has of a peer whose first stream said `first`.
async fn first_words(node: &Node, first: &[u8]) -> (Endpoint, Connection, DirectLink) {
    let endpoint = raw::endpoint();
    let connection = proved(&endpoint, node.addresses[0]).await;
    let mut stream = connection.open_uni().await.expect("room for a stream");
    stream.write_all(first).await.expect("it is up");
    let _ = stream.finish();
    let link = node.endpoint.accept().await.expect("a link");
    assert_eq!(link.peer, id(7));
    (endpoint, connection, link)
}

#[tokio::test]
async fn a_peer_with_a_wrong_key_or_none_does_not_get_in() {
    let node = node(1).await;
    let good = Shown::honest(&identity(7));
    let somebody_elses = Shown {
        signs: identity(8),
        ..good.clone()
    };
    let cut = Shown {
        spki: good.spki[..43].to_vec(),
        ..good.clone()
    };
    let of_small_order = Shown {
        spki: [&good.spki[..12], &[0; 32]].concat(),
        ..good.clone()
    };
    let endpoint = raw::endpoint();
    for (what, shown, alpn) in [
        ("a key of somebody else", Some(&somebody_elses), ALPN),
        ("half a key", Some(&cut), ALPN),
        (
            "a key that anybody can sign for",
            Some(&of_small_order),
            ALPN,
        ),
        ("no key", None, ALPN),
        ("another protocol", Some(&good), "outlive/0"),
    ] {
        let connecting = raw::dial(&endpoint, node.addresses[0], shown, alpn).expect("it dials");
        // Whoever dials may learn only after it is through that its key was not taken.
        let error = match connecting.await {
            Ok(connection) => {
                let _ = connection.open_uni().await;
                connection.closed().await
            }
            Err(error) => error,
        };
        match error {
            ConnectionError::ConnectionClosed(close) => {
                assert!(u64::from(close.error_code) >= 0x100, "{what}: {close}");
            }
            error => panic!("{what}: {error}"),
        }
    }
    // Nothing of them is left: the next link is an honest one's.
    let honest = crate::node(2).await;
    let (_dialed, accepted) = linked(&honest, &node).await;
    assert_eq!(accepted.peer, honest.id);
}

#[tokio::test]
async fn whoever_cannot_show_the_peers_key_is_not_trusted() {
    let a = node(1).await;
    let good = Shown::honest(&identity(7));
    let signs_with_another = Shown {
        signs: identity(8),
        ..good.clone()
    };
    let cut = Shown {
        spki: good.spki[..43].to_vec(),
        ..good.clone()
    };
    for shown in [&signs_with_another, &cut] {
        let server = raw::server(shown, ALPN, 2);
        let address = [server.local_addr().expect("bound")];
        let answer = async { server.accept().await.expect("a").await };
        let (link, _) = tokio::join!(a.endpoint.dial(id(7), &address), answer);
        let error = link.expect_err("not 7");
        assert!(
            matches!(error, TransportError::Untrusted { .. }),
            "{error:?}"
        );
    }
    let server = raw::server(&good, "http/3", 2);
    let address = [server.local_addr().expect("bound")];
    let answer = async { server.accept().await.expect("a").await };
    let (link, _) = tokio::join!(a.endpoint.dial(id(7), &address), answer);
    let error = link.expect_err("another protocol");
    assert!(
        error.to_string().ends_with("speaks another protocol"),
        "{error}"
    );
}

#[tokio::test]
async fn bytes_that_are_no_packets_cost_the_link() {
    let node = node(1).await;
    let longest = u32::try_from(PACKET_BYTES).expect("it fits");
    let too_long = [&[0][..], &(longest + 1).to_le_bytes()].concat();
    let huge = [&[1][..], &u32::MAX.to_le_bytes()].concat();
    let half = [&[0][..], &10_u32.to_le_bytes(), b"half"].concat();
    for (first, says) in [
        (&too_long[..], "it sent a packet that is too long"),
        (&huge, "it sent a packet that is too long"),
        (&[0, 0, 0, 0, 0], "it sent an empty packet"),
        (&half, "it sent half a packet"),
        (&[0, 5, 0], "it sent half a packet"),
    ] {
        let (_endpoint, connection, mut link) = first_words(&node, first).await;
        let error = link.receiver.receive().await.expect_err("no packet");
        assert!(matches!(error, TransportError::Protocol(_)), "{error:?}");
        assert!(error.to_string().contains(says), "{error}: {first:?}");
        match connection.closed().await {
            ConnectionError::ApplicationClosed(close) => {
                assert_eq!(u64::from(close.error_code), VIOLATION);
            }
            error => panic!("{error}"),
        }
    }
}

#[tokio::test]
async fn a_lane_is_opened_once_and_there_are_no_others() {
    let node = node(1).await;
    for second in [0, 2, 255] {
        let (_endpoint, connection, mut link) = first_words(&node, &[0, 1, 0, 0, 0, b'x']).await;
        let mut more = connection.open_uni().await.expect("room for two");
        more.write_all(&[second]).await.expect("it is up");
        assert_eq!(link.receiver.receive().await.expect("a packet"), &b"x"[..]);
        let error = link.receiver.receive().await.expect_err("no such lane");
        assert!(matches!(error, TransportError::Protocol(_)), "{error:?}");
    }
    let (_endpoint, connection, _link) = first_words(&node, &[0]).await;
    let _second = connection.open_uni().await.expect("room for two");
    assert!(at_once(connection.open_uni()).await.is_none());
    assert!(at_once(connection.open_bi()).await.is_none());
    assert_eq!(connection.max_datagram_size(), None);
}

#[tokio::test]
async fn a_stream_of_no_lane_is_no_link() {
    let node = node(1).await;
    let endpoint = raw::endpoint();
    let connection = proved(&endpoint, node.addresses[0]).await;
    let mut stream = connection.open_uni().await.expect("room for a stream");
    stream.write_all(&[9]).await.expect("it is up");
    connection.closed().await;
    assert!(at_once(node.endpoint.accept()).await.is_none());
}

#[tokio::test]
async fn a_connection_that_nobody_settles_on_is_let_go() {
    let node = node(1).await;
    let endpoint = raw::endpoint();
    let connection = proved(&endpoint, node.addresses[0]).await;
    assert!(at_once(node.endpoint.accept()).await.is_none());
    tokio::time::pause();
    let begun = tokio::time::Instant::now();
    connection.closed().await;
    // By the clock of the runtime, which does not run by itself here.
    assert!(begun.elapsed().as_secs() <= 10);
    assert!(at_once(node.endpoint.accept()).await.is_none());
}

#[tokio::test]
async fn handshakes_that_nobody_finishes_are_bounded() {
    const HANDSHAKES: usize = 128;
    let node = node(1).await;
    let endpoint = raw::endpoint();
    let mut unfinished = Vec::new();
    let mut asked = Vec::new();
    for n in 0..HANDSHAKES {
        // No source has as many that it is bounded for itself.
        let source = [127, 0, 0, 2 + (n % 64) as u8].into();
        let wire = Wire::from(source, node.addresses[0]).await;
        unfinished.push((proved(&endpoint, wire.address).await, wire));
        let (_, wire) = unfinished.last_mut().expect("one");
        let first = wire.back.recv().await.expect("an answer");
        asked.push(first >> 4 == RETRY);
    }
    // Few are taken at their word, many are asked to show that they are where they say.
    assert!(!asked[0] && asked[HANDSHAKES - 1]);
    let honest = crate::node(2).await;
    let error = honest.dial(&node).await.expect_err("there is no room");
    assert!(
        matches!(error, TransportError::Unreachable { .. }),
        "{error:?}"
    );
    // Those that end make room.
    let (first, _wire) = unfinished.remove(0);
    first.close(0_u32.into(), b"");
    drop(first);
    loop {
        let (dialed, accepted) = tokio::join!(honest.dial(&node), async {
            at_once(node.endpoint.accept()).await
        });
        if let Ok(_link) = dialed {
            let accepted = match accepted {
                Some(accepted) => accepted,
                None => node.endpoint.accept().await,
            };
            assert_eq!(accepted.expect("a link").peer, honest.id);
            break;
        }
    }
}

#[tokio::test]
async fn a_source_that_finishes_no_handshakes_keeps_out_nobody_else() {
    const OF_SOURCE: usize = 16;
    const UNPROVEN: usize = 4;
    let node = node(1).await;
    let endpoint = raw::endpoint();
    let (mut unfinished, mut wires, mut asked) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..OF_SOURCE {
        let mut wire = Wire::to(node.addresses[0]).await;
        unfinished.push(proved(&endpoint, wire.address).await);
        let first = wire.back.recv().await.expect("an answer");
        asked.push(first >> 4 == RETRY);
        wires.push(wire);
    }
    let shown = Shown::honest(&identity(7));
    for _ in OF_SOURCE..128 {
        let connecting = raw::dial(&endpoint, node.addresses[0], Some(&shown), ALPN);
        match connecting.expect("it dials").await {
            Ok(connection) => unfinished.push(connection),
            Err(error) => assert!(
                matches!(error, ConnectionError::ConnectionClosed(_)),
                "{error}"
            ),
        }
    }
    let honest = node_of(2, Quic::new().bind_to(([127, 0, 0, 2], 0).into())).await;
    let _dialed = honest.dial(&node).await.expect("there is room");
    let accepted = node.endpoint.accept().await.expect("a link");
    assert_eq!(accepted.peer, honest.id);
    assert_eq!(unfinished.len(), OF_SOURCE);
    // Anybody can send first packets in the name of another, who is not kept out by them.
    for (n, asked) in asked.into_iter().enumerate() {
        assert_eq!(asked, n >= UNPROVEN, "handshake {n}");
    }
}

#[tokio::test]
async fn a_peer_that_is_not_let_in_yet_has_little_held_for_it() {
    const BEFORE: usize = 512 * 1024;
    const PACKETS: usize = 32;
    let node = node(1).await;
    let endpoint = raw::endpoint();
    let connection = proved(&endpoint, node.addresses[0]).await;
    let mut stream = connection.open_uni().await.expect("room for a stream");
    let length = u32::try_from(PACKET_BYTES).expect("it fits").to_le_bytes();
    let packet = [&length[..], &[7; PACKET_BYTES]].concat();
    let said = [&[0][..], &packet.repeat(PACKETS)].concat();
    let taken = stream.write(&said).await.expect("it is up");
    assert!(taken <= BEFORE, "{taken} bytes");
    // And as much as any other when it is.
    let mut link = node.endpoint.accept().await.expect("a link");
    stream
        .write_all(&said[taken..])
        .await
        .expect("there is room");
    for _ in 0..PACKETS {
        assert_eq!(hear(&mut link).await.len(), PACKET_BYTES);
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_aims_us_at_few_ports_of_a_host_whatever_it_names() {
    const PORTS: usize = 4;
    let a = node(1).await;
    let victim: Vec<UdpSocket> = (0..16)
        .map(|_| {
            let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
            socket.set_nonblocking(true).expect("an option");
            socket
        })
        .collect();
    let named: Vec<SocketAddr> = victim
        .iter()
        .zip(["127.0.0.1", "::ffff:127.0.0.1"].into_iter().cycle())
        .map(|(socket, ip)| {
            let port = socket.local_addr().expect("bound").port();
            SocketAddr::new(ip.parse().expect("an address"), port)
        })
        .collect();
    a.endpoint.dial(id(7), &named).await.expect_err("nobody");
    let hit = |socket: &&UdpSocket| socket.recv(&mut [0; 2_000]).is_ok();
    assert_eq!(victim.iter().filter(hit).count(), PORTS);
}

#[tokio::test]
async fn a_peer_that_takes_no_streams_holds_up_nobody_for_ever() {
    let a = node(1).await;
    let server = raw::server(&Shown::honest(&identity(7)), ALPN, 0);
    let address = [server.local_addr().expect("bound")];
    let answer = async {
        let connection = server.accept().await.expect("a dials").await;
        let connection = connection.expect("it has a key");
        tokio::time::pause();
        connection.closed().await
    };
    let (link, _) = tokio::join!(a.endpoint.dial(id(7), &address), answer);
    let error = link.expect_err("no streams");
    assert!(
        matches!(error, TransportError::Unreachable { .. }),
        "{error:?}"
    );
}

#[tokio::test]
async fn somebody_else_at_one_address_takes_nothing_from_the_peer_at_another() {
    let (a, b) = (node(1).await, node(2).await);
    let wire = Wire::to(b.addresses[0]).await;
    wire.hold(true);
    let stranger = raw::server(&Shown::honest(&identity(7)), ALPN, 2);
    let addresses = [stranger.local_addr().expect("bound"), wire.address];
    let turned_away = async {
        let connection = stranger.accept().await.expect("a dials").await;
        assert!(connection.is_err());
        wire.hold(false);
        b.endpoint.accept().await
    };
    let (dialed, accepted) = tokio::join!(a.endpoint.dial(b.id, &addresses), turned_away);
    assert_eq!(dialed.expect("b answers").peer, b.id);
    assert_eq!(accepted.expect("a dials").peer, a.id);
}

#[tokio::test]
async fn somebody_else_is_told_of_rather_than_nobody() {
    let a = node(1).await;
    let stranger = raw::server(&Shown::honest(&identity(7)), ALPN, 2);
    let deaf = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let addresses = [stranger.local_addr(), deaf.local_addr()].map(|a| a.expect("bound"));
    let turned_away = async {
        let connection = stranger.accept().await.expect("a dials").await;
        assert!(connection.is_err());
        tokio::time::pause();
    };
    let (dialed, ()) = tokio::join!(a.endpoint.dial(id(2), &addresses), turned_away);
    let error = dialed.expect_err("neither is 2");
    assert!(
        matches!(error, TransportError::Untrusted { .. }),
        "{error:?}"
    );
}

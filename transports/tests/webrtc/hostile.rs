//! What a peer may say that makes no sense.

use std::io::ErrorKind;
use std::net::{TcpListener, UdpSocket};
use std::time::Duration;

use bytes::BytesMut;
use outlive_core::limits::CANDIDATES;
use outlive_core::transport::{
    NegotiatedConnection, NegotiatedEvent, NegotiatedTransport, TransportError,
};
use outlive_core::wire::signal::Signal;
use outlive_core::{Entropy, Negotiation};

use crate::pair::{Pair, hear, loopback, packet, say};
use crate::raw;

/// How long a test waits for what has to come. It is reached only if that never does.
const PATIENCE: Duration = Duration::from_secs(20);

async fn an_offer() -> (Negotiation, String) {
    let mut pair = Pair::new();
    pair.a.want();
    let mut said = pair.a.settle().await;
    pair.close().await;
    match said.pop() {
        Some(Signal::Offer(offer)) => (offer.negotiation, offer.sdp),
        other => panic!("an offer, not {other:?}"),
    }
}

#[tokio::test]
async fn garbage_for_a_description_is_an_error_and_the_next_attempt_works() {
    let (negotiation, good) = an_offer().await;
    let too_long = good.clone() + &"a=x\r\n".repeat(10_000);
    let no_fingerprint: String = good
        .lines()
        .filter(|line| !line.starts_with("a=fingerprint"))
        .flat_map(|line| [line, "\r\n"])
        .collect();
    for bad in [
        "",
        "v=0",
        "\0\0\0",
        "v=0\r\no=- 1 1 IN IP4\r\n",
        &too_long,
        &no_fingerprint,
    ] {
        let mut connection = loopback().connection().await.expect("a connection");
        let answer = connection.apply_offer(negotiation, bad.to_owned()).await;
        assert!(
            matches!(answer, Err(TransportError::Description(_))),
            "{answer:?}"
        );
        connection.close().await;
    }

    let mut pair = Pair::new();
    let mut first = true;
    pair.way = Box::new(move |signal| match signal {
        Signal::Offer(mut offer) if std::mem::take(&mut first) => {
            offer.sdp = "garbage".to_owned();
            vec![Signal::Offer(offer)]
        }
        other => vec![other],
    });
    pair.come_up().await;
    assert!(matches!(
        pair.b.refused[..],
        [TransportError::Description(_)]
    ));
    say(pair.b.link(), packet(1, 1)).await;
    assert_eq!(hear(pair.a.link()).await, packet(1, 1));
    pair.close().await;
}

#[tokio::test]
async fn candidates_of_a_description_and_those_that_come_by_themselves_are_bounded_together() {
    let (negotiation, good) = an_offer().await;
    let candidate = |n: usize| {
        format!(
            "candidate:1 1 udp 9 127.0.{}.{} 9 typ host",
            n / 100,
            n % 100
        )
    };
    for (told, more) in [(0, CANDIDATES), (30, CANDIDATES - 30), (300, 0)] {
        let told: String = (0..told)
            .map(|n| format!("a={}\r\n", candidate(n)))
            .collect();
        let mut connection = loopback().connection().await.expect("a connection");
        let answer = connection
            .apply_offer(negotiation, good.clone() + &told)
            .await;
        answer.expect("it can be used");
        for n in 0..more {
            let added = connection.add_candidate(candidate(400 + n)).await;
            added.expect("there is room");
        }
        let added = connection.add_candidate(candidate(500)).await;
        assert!(
            matches!(added, Err(TransportError::Candidate(_))),
            "{added:?}"
        );
        let end = connection.add_candidate(String::new()).await;
        end.expect("that there are no more can be said");
        connection.close().await;
    }
}

/// Addresses of one host, and how many of them anything has come to.
struct Victim(Vec<UdpSocket>);

impl Victim {
    fn with_ports(ports: usize) -> Self {
        let socket = |_| {
            let socket = UdpSocket::bind(("127.0.0.1", 0)).expect("a port");
            socket.set_nonblocking(true).expect("an option");
            socket
        };
        Self((0..ports).map(socket).collect())
    }

    /// What a peer says of it, as if it were there itself.
    fn candidates(&self) -> Vec<String> {
        let candidate = |(n, socket): (usize, &UdpSocket)| {
            let port = socket.local_addr().expect("bound").port();
            // The same host, in two ways.
            let ip = ["127.0.0.1", "::ffff:127.0.0.1"][n % 2];
            format!("candidate:{n} 1 udp {} {ip} {port} typ host", 1_000 + n)
        };
        self.0.iter().enumerate().map(candidate).collect()
    }

    fn hit(&self) -> usize {
        let hit = |socket: &&UdpSocket| socket.recv(&mut [0; 2_000]).is_ok();
        self.0.iter().filter(hit).count()
    }
}

#[tokio::test]
async fn a_peer_aims_us_at_few_ports_of_a_host_whatever_it_names() {
    const PORTS: usize = 4;
    let (negotiation, good) = an_offer().await;
    let quick = loopback().with_silence(Duration::from_secs(3));
    for described in [CANDIDATES, CANDIDATES / 2, 0] {
        let victim = Victim::with_ports(CANDIDATES);
        let candidates = victim.candidates();
        let (told, trickled) = candidates.split_at(described);
        let told: String = told.iter().map(|one| format!("a={one}\r\n")).collect();
        let mut connection = quick.connection().await.expect("a connection");
        let answer = connection
            .apply_offer(negotiation, good.clone() + &told)
            .await;
        answer.expect("it can be used");
        for (n, candidate) in trickled.iter().enumerate() {
            let added = connection.add_candidate(candidate.clone()).await;
            let refused = matches!(added, Err(TransportError::Candidate(_)));
            assert_eq!(refused, described + n >= PORTS, "{n}: {added:?}");
        }
        // It has tried all that there was to try.
        while !matches!(connection.event().await, NegotiatedEvent::Down { .. }) {}
        let hit = victim.hit();
        assert!((1..=PORTS).contains(&hit), "{hit} ports were sent to");
        connection.close().await;
    }
}

#[tokio::test]
async fn a_name_or_a_password_of_ice_that_is_too_short_or_too_long_is_refused() {
    let (negotiation, good) = an_offer().await;
    let with = |key: &str, bytes: usize| -> String {
        let other = |line: &str| match line.strip_prefix(&format!("a={key}:")) {
            Some(_) => format!("a={key}:{}\r\n", "x".repeat(bytes)),
            None => format!("{line}\r\n"),
        };
        good.lines().map(other).collect()
    };
    for (key, bytes, good) in [
        ("ice-ufrag", 3, false),
        ("ice-ufrag", 4, true),
        ("ice-ufrag", 32, true),
        ("ice-ufrag", 33, false),
        ("ice-ufrag", 513, false),
        ("ice-pwd", 21, false),
        ("ice-pwd", 22, true),
        ("ice-pwd", 256, true),
        ("ice-pwd", 257, false),
    ] {
        let mut connection = loopback().connection().await.expect("a connection");
        let answer = connection.apply_offer(negotiation, with(key, bytes)).await;
        if good {
            answer.expect("it can be used");
        } else {
            assert!(
                matches!(answer, Err(TransportError::Description(_))),
                "{key} of {bytes} bytes: {answer:?}"
            );
        }
        connection.close().await;
    }
}

#[tokio::test]
async fn a_description_with_bytes_changed_is_taken_or_refused_and_no_more() {
    let (negotiation, good) = an_offer().await;
    let mut entropy = Entropy::from_seed([3; 32]);
    for _ in 0..150 {
        let mut bytes = good.clone().into_bytes();
        let random: [u8; 16] = std::array::from_fn(|_| entropy.token()[0]);
        for pair in random.chunks(4).take(1 + usize::from(random[0] % 4)) {
            let at = usize::from(u16::from_le_bytes([pair[0], pair[1]])) % bytes.len();
            match pair[2] % 3 {
                0 => bytes[at] = pair[3] & 0x7f,
                1 => bytes.insert(at, pair[3] & 0x7f),
                _ => bytes.truncate(at.max(1)),
            }
        }
        let sdp = String::from_utf8(bytes).expect("ascii");
        let mut connection = loopback().connection().await.expect("a connection");
        if let Err(error) = connection.apply_offer(negotiation, sdp).await {
            assert!(matches!(error, TransportError::Description(_)), "{error}");
        }
        connection.close().await;
    }
}

#[tokio::test]
async fn garbage_for_a_candidate_is_an_error_and_the_link_comes_up_without_it() {
    let (negotiation, good) = an_offer().await;
    let mut connection = loopback().connection().await.expect("a connection");
    connection
        .apply_offer(negotiation, good)
        .await
        .expect("an answer");
    let long = "candidate:".to_owned() + &"1".repeat(2_000);
    for bad in [
        "garbage",
        "candidate:1 1 udp",
        "candidate:1 1 udp 1 not-an-address 99999 typ host",
        "candidate:1 1 tcp 2105524479 127.0.0.1 22 typ host tcptype passive",
        &long,
    ] {
        let added = connection.add_candidate(bad.to_owned()).await;
        assert!(
            matches!(added, Err(TransportError::Candidate(_))),
            "{bad}: {added:?}"
        );
    }
    connection
        .add_candidate(String::new())
        .await
        .expect("no more");
    connection.close().await;

    let mut pair = Pair::new();
    pair.way = Box::new(|signal| match signal {
        Signal::Candidate(candidate) => {
            let mut bad = candidate.clone();
            bad.candidate = "candidate:nonsense".to_owned();
            vec![Signal::Candidate(bad), Signal::Candidate(candidate)]
        }
        other => vec![other],
    });
    pair.come_up().await;
    pair.close().await;
}

#[tokio::test]
async fn a_peer_does_not_choose_what_is_connected_to_over_tcp() {
    let target = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    target.set_nonblocking(true).expect("an option");
    let port = target.local_addr().expect("an address").port();
    // Spaces of every kind that a candidate may be split at.
    let candidates = ["\u{b}", "\u{a0}", "\u{2003}", "\t", " "].map(|space| {
        let words = format!("1 1 tcp 2105524479 127.0.0.1 {port} typ host tcptype passive");
        format!("candidate:{}", words.replace(' ', space))
    });

    let mut pair = Pair::new();
    let (told, count) = (candidates.clone(), candidates.len());
    let mut first = true;
    pair.way = Box::new(move |signal| match signal {
        Signal::Offer(mut offer) => {
            // In the description too, behind the line of the one medium.
            for candidate in &told {
                offer.sdp += &format!("a={candidate}\r\n");
            }
            vec![Signal::Offer(offer)]
        }
        Signal::Candidate(candidate) if std::mem::take(&mut first) => {
            let mut all: Vec<_> = told
                .iter()
                .map(|bad| {
                    let mut of_tcp = candidate.clone();
                    of_tcp.candidate.clone_from(bad);
                    Signal::Candidate(of_tcp)
                })
                .collect();
            all.push(Signal::Candidate(candidate));
            all
        }
        other => vec![other],
    });
    pair.come_up().await;
    pair.close().await;
    let dialled = target.accept().map(|(_, from)| from);
    assert!(
        matches!(&dialled, Err(error) if error.kind() == ErrorKind::WouldBlock),
        "{dialled:?}"
    );
    let refused: Vec<_> = pair.a.refused.iter().chain(&pair.b.refused).collect();
    assert_eq!(refused.len(), count, "{refused:?}");
    for error in refused {
        assert!(matches!(error, TransportError::Candidate(_)), "{error}");
    }
}

#[tokio::test]
async fn a_peer_with_another_certificate_gets_nowhere() {
    let quick = || loopback().with_silence(Duration::from_secs(3));
    let mut pair = Pair::of(quick(), quick());
    // Whoever carries the signals puts its own fingerprint into them.
    pair.way = Box::new(|signal| match signal {
        Signal::Offer(mut offer) => {
            offer.sdp = with_another_fingerprint(&offer.sdp);
            vec![Signal::Offer(offer)]
        }
        other => vec![other],
    });
    pair.a.want();
    pair.until(|pair| pair.b.story.iter().any(|what| what == "down"))
        .await;
    assert!(pair.a.links.is_empty() && pair.b.links.is_empty());
    pair.close().await;
}

fn with_another_fingerprint(sdp: &str) -> String {
    let other = |line: &str| match line.strip_prefix("a=fingerprint:sha-256 ") {
        Some(fingerprint) => {
            let first = if fingerprint.starts_with('0') {
                "1"
            } else {
                "0"
            };
            format!("a=fingerprint:sha-256 {first}{}\r\n", &fingerprint[1..])
        }
        None => format!("{line}\r\n"),
    };
    sdp.lines().map(other).collect()
}

/// Why a connection fails.
async fn failure(connection: &mut dyn NegotiatedConnection) -> TransportError {
    loop {
        if let NegotiatedEvent::Failed { error, .. } = connection.event().await {
            return error;
        }
    }
}

#[tokio::test]
async fn a_peer_that_makes_one_data_channel_after_another_loses_the_link() {
    for (more, at_once) in [(40, true), (2, true), (2, false)] {
        let (mut ours, _link, mut raw) = raw::called().await;
        let theirs = raw.channels.recv().await.expect("the link's");
        let making = async {
            for _ in 0..more {
                let made = raw.peer.create_data_channel("more", None).await;
                let made = made.expect("a channel");
                if !at_once {
                    // What is closed counts too.
                    raw::open(&*made).await;
                    made.close().await.expect("closed");
                }
            }
        };
        let ends = async { tokio::join!(making, failure(&mut *ours)).1 };
        let error = tokio::time::timeout(PATIENCE, ends).await;
        let error = error.unwrap_or_else(|_| panic!("{more} channels, at once: {at_once}"));
        assert!(matches!(error, TransportError::Protocol(_)), "{error:?}");
        ours.close().await;
        drop(theirs);
        raw.peer.close().await.expect("closed");
    }
}

#[tokio::test]
async fn one_data_channel_beside_the_links_is_passed_over_and_so_is_what_is_said_on_it() {
    // More than `webrtc` holds for whoever reads a channel.
    const MESSAGES: usize = 2_000;
    let (mut ours, mut link, mut raw) = raw::called().await;
    let theirs = raw.channels.recv().await.expect("the link's");
    let beside = raw.peer.create_data_channel("more", None).await;
    let beside = beside.expect("a channel");
    let talking = async {
        raw::open(&*beside).await;
        for _ in 0..MESSAGES {
            beside.send(BytesMut::from("beside")).await.expect("sent");
        }
        theirs.send(BytesMut::from("link")).await.expect("sent");
        assert_eq!(hear(&mut link).await, "link");
    };
    let talking = tokio::time::timeout(PATIENCE, talking);
    tokio::select! {
        said = talking => said.expect("it is heard"),
        error = failure(&mut *ours) => panic!("{error}"),
    }
    ours.close().await;
    raw.peer.close().await.expect("closed");
}

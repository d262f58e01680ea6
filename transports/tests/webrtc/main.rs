//! WebRTC to a peer itself, over real sockets on loopback.
#![cfg(feature = "webrtc")]

mod hostile;
mod leaks;
mod pair;
mod raw;

use std::time::Duration;

use outlive_core::transport::{Lane, NegotiatedTransport, TransportError};
use outlive_core::wire::signal::Signal;
use outlive_transports::WebRtc;

use self::pair::{Pair, hear, loopback, packet, say};

#[tokio::test]
async fn a_link_comes_up_and_tells_where_the_peer_is() {
    let mut pair = Pair::up().await;
    let address = pair.a.link().address.expect("an address");
    assert!(address.ip().is_loopback());
    assert_eq!(pair.a.story, ["up"]);
    assert_eq!(pair.b.story, ["up"]);
    pair.close().await;
}

#[tokio::test]
async fn what_the_first_to_be_up_says_at_once_arrives() {
    for _ in 0..10 {
        let mut pair = Pair::new();
        pair.a.want();
        pair.until(|pair| pair.a.is_up() || pair.b.is_up()).await;
        let a_is_first = pair.a.is_up();
        let first = if a_is_first { &mut pair.a } else { &mut pair.b };
        say(first.link(), packet(1, 10)).await;
        pair.until(|pair| pair.a.is_up() && pair.b.is_up()).await;
        let second = if a_is_first { &mut pair.b } else { &mut pair.a };
        assert_eq!(hear(second.link()).await, packet(1, 10));
        pair.close().await;
    }
}

#[tokio::test]
async fn packets_of_one_byte_to_sixty_thousand_arrive_in_order_both_ways() {
    let mut pair = Pair::up().await;
    let sizes = [1, 2, 100, 1_199, 1_200, 1_201, 16_384, 60_000, 65_536, 1];
    for round in 0..20_u8 {
        for bytes in sizes {
            say(pair.a.link(), packet(round, bytes)).await;
            say(pair.b.link(), packet(round + 100, bytes)).await;
        }
        for bytes in sizes {
            assert_eq!(hear(pair.b.link()).await, packet(round, bytes));
            assert_eq!(hear(pair.a.link()).await, packet(round + 100, bytes));
        }
    }
    pair.close().await;
}

#[tokio::test]
async fn two_offers_that_cross_come_to_one_link() {
    let mut pair = Pair::new();
    pair.a.want();
    pair.b.want();
    // Both have said their offers before either hears the other's.
    let (from_a, from_b) = (pair.a.settle().await, pair.b.settle().await);
    assert!(matches!(from_a[..], [Signal::Offer(_)]));
    assert!(matches!(from_b[..], [Signal::Offer(_)]));
    pair.to_b.extend(from_a);
    pair.to_a.extend(from_b);
    pair.until(|pair| pair.a.is_up() && pair.b.is_up()).await;
    assert_eq!((pair.a.links.len(), pair.b.links.len()), (1, 1));
    assert!(pair.a.refused.is_empty() && pair.b.refused.is_empty());
    say(pair.a.link(), packet(1, 10)).await;
    assert_eq!(hear(pair.b.link()).await, packet(1, 10));
    pair.close().await;
}

#[tokio::test]
async fn a_restart_of_ice_keeps_the_link_and_what_is_on_it() {
    let mut pair = Pair::up().await;
    for n in 0..3 {
        let restarts = if n == 1 { &mut pair.b } else { &mut pair.a };
        restarts.restart();
        say(pair.a.link(), packet(n, 50_000)).await;
        pair.settle().await;
        assert!(!pair.a.is_up() && !pair.b.is_up());
        pair.until(|pair| pair.a.is_up() && pair.b.is_up()).await;
        say(pair.b.link(), packet(n, 50_000)).await;
        assert_eq!(hear(pair.b.link()).await, packet(n, 50_000));
        assert_eq!(hear(pair.a.link()).await, packet(n, 50_000));
    }
    assert_eq!((pair.a.links.len(), pair.b.links.len()), (1, 1));
    pair.close().await;
}

#[tokio::test]
async fn a_restart_of_ice_leaves_who_began_the_handshake() {
    let mut pair = Pair::new();
    let (told, answers) = std::sync::mpsc::channel();
    pair.way = Box::new(move |signal| {
        if let Signal::Answer(answer) = &signal {
            let setup = answer.sdp.lines().find(|line| line.starts_with("a=setup"));
            told.send(setup.map(str::to_owned)).expect("it is heard");
        }
        vec![signal]
    });
    pair.come_up().await;
    // The first answer is of b, and so are those to a.
    for b_answers in [true, false, true] {
        let setup = answers.try_recv().expect("an answer").expect("a part");
        assert_eq!(setup == "a=setup:active", b_answers, "{setup}");
        assert_eq!(setup == "a=setup:passive", !b_answers, "{setup}");
        let restarts = if b_answers { &mut pair.b } else { &mut pair.a };
        restarts.restart();
        pair.settle().await;
        pair.until(|pair| pair.a.is_up() && pair.b.is_up()).await;
    }
    pair.close().await;
}

#[tokio::test]
async fn two_restarts_that_cross_keep_the_link() {
    let mut pair = Pair::up().await;
    pair.a.restart();
    pair.b.restart();
    let (from_a, from_b) = (pair.a.settle().await, pair.b.settle().await);
    assert!(matches!(from_a[..], [Signal::Offer(_), ..]));
    assert!(matches!(from_b[..], [Signal::Offer(_), ..]));
    pair.to_b.extend(from_a);
    pair.to_a.extend(from_b);
    pair.until(|pair| pair.a.is_up() && pair.b.is_up()).await;
    assert_eq!((pair.a.links.len(), pair.b.links.len()), (1, 1));
    say(pair.a.link(), packet(1, 10)).await;
    assert_eq!(hear(pair.b.link()).await, packet(1, 10));
    pair.close().await;
}

#[tokio::test]
async fn candidates_that_come_late_and_twice_do() {
    let mut pair = Pair::new();
    let mut late = Vec::new();
    let mut answered = false;
    // Each candidate goes after the answer, and then two times.
    pair.way = Box::new(move |signal| {
        answered |= matches!(signal, Signal::Answer(_));
        match signal {
            Signal::Candidate(_) if answered => vec![signal.clone(), signal],
            Signal::Candidate(_) => {
                late.extend([signal.clone(), signal]);
                Vec::new()
            }
            other => std::iter::once(other).chain(late.drain(..)).collect(),
        }
    });
    pair.come_up().await;
    say(pair.a.link(), packet(1, 10)).await;
    assert_eq!(hear(pair.b.link()).await, packet(1, 10));
    pair.close().await;
}

#[tokio::test]
async fn a_sender_waits_when_the_peer_does_not_read() {
    const PACKETS: usize = 2_000;
    let mut pair = Pair::up().await;
    let link = pair.a.links.pop().expect("a link");
    let (sent, mut count) = tokio::sync::watch::channel(0_usize);
    let sending = tokio::spawn(async move {
        for n in 0..PACKETS {
            let packets = vec![packet(n as u8, 60_000)];
            link.sender.send(Lane::Bulk, packets).await.expect("sent");
            sent.send_replace(n + 1);
        }
        link
    });
    // It stands still at some place, far from the end.
    let standstill = async {
        loop {
            let still = tokio::time::timeout(Duration::from_millis(500), count.changed()).await;
            if still.is_err() {
                return;
            }
        }
    };
    standstill.await;
    let held = *count.borrow();
    assert!(held < 600, "{held} packets were taken without being read");
    for n in 0..PACKETS {
        assert_eq!(hear(pair.b.link()).await, packet(n as u8, 60_000));
    }
    drop(sending.await.expect("all sent"));
    pair.close().await;
}

#[tokio::test]
async fn a_peer_that_closes_is_noticed_and_what_it_said_before_arrives() {
    let mut pair = Pair::up().await;
    // Not more than the sockets hold: what is lost on the way is not waited for.
    for n in 0..20 {
        say(pair.a.link(), packet(n, 5_000)).await;
    }
    pair.a.link().sender.close().await;
    pair.a.close().await;
    for n in 0..20 {
        assert_eq!(hear(pair.b.link()).await, packet(n, 5_000));
    }
    let ended = pair.b.link().receiver.receive().await;
    assert!(matches!(ended, Err(TransportError::Finished)), "{ended:?}");
    pair.close().await;
}

#[tokio::test]
async fn a_peer_that_vanishes_is_given_up_in_its_time() {
    let quick = || loopback().with_silence(Duration::from_secs(3));
    let mut pair = Pair::of(quick(), quick());
    pair.come_up().await;
    // Gone without a goodbye.
    pair.a.connection = None;
    pair.until(|pair| pair.b.story.iter().any(|what| what == "down"))
        .await;
    assert_eq!(pair.b.story[..3], ["up", "silent", "down"]);
    pair.close().await;
}

#[tokio::test]
async fn a_link_that_is_let_go_of_ends_its_connection() {
    let mut pair = Pair::up().await;
    pair.a.links.clear();
    pair.until(|pair| pair.a.story.len() > 1).await;
    assert!(pair.a.story[1].contains("let go"), "{:?}", pair.a.story);
    pair.close().await;
}

#[tokio::test]
async fn closing_returns_whatever_is_going_on() {
    // Not described yet; described; connecting; and with a full buffer to a peer that is gone.
    let mut connection = loopback().connection().await.expect("a connection");
    connection.close().await;
    let mut pair = Pair::new();
    pair.a.want();
    let offer = pair.a.settle().await;
    pair.a.close().await;
    pair.b.want();
    pair.to_b.extend(offer);
    let now = pair.b.now();
    let signal = pair.to_b.pop_front().expect("an offer");
    pair.b.negotiator.receive(signal, now);
    pair.b.settle().await;
    pair.b.close().await;

    let mut pair = Pair::up().await;
    pair.a.connection = None;
    let link = pair.b.links.pop().expect("a link");
    let (full, mut filled) = tokio::sync::watch::channel(0);
    let sending = tokio::spawn(async move {
        for n in 0.. {
            let packets = vec![packet(1, 60_000)];
            if let Err(error) = link.sender.send(Lane::Bulk, packets).await {
                return (link, error);
            }
            full.send_replace(n);
        }
        unreachable!()
    });
    while tokio::time::timeout(Duration::from_millis(300), filled.changed())
        .await
        .is_ok()
    {}
    pair.b.close().await;
    let (mut link, error) = sending.await.expect("it ends");
    assert!(matches!(error, TransportError::Broken(_)), "{error}");
    let received = link.receiver.receive().await;
    assert!(matches!(received, Err(TransportError::Broken(_))));
    link.sender.close().await;
}

#[tokio::test]
async fn servers_and_addresses_that_make_no_sense_are_told() {
    let nonsense = loopback().with_stun("nonsense").connection().await;
    assert!(matches!(nonsense, Err(TransportError::Address { .. })));
    let no_password = loopback().with_turn("turn:127.0.0.1:1", "", "");
    let no_password = no_password.connection().await;
    assert!(matches!(no_password, Err(TransportError::Address { .. })));
    let elsewhere = WebRtc::new().bind_to(([192, 0, 2, 1], 0).into());
    let elsewhere = elsewhere.connection().await;
    assert!(matches!(elsewhere, Err(TransportError::Address { .. })));
}

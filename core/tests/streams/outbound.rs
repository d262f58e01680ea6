//! What waits to be sent, and how it ends.

use std::time::Duration;

use outlive_core::engine::{SendOptions, Ticket};
use outlive_core::link::LinkClass;
use outlive_core::wire::frame::{Ack, Channels, Frame, Received};
use outlive_core::{ChannelId, Digest, Generation, Seq};

use crate::peer::Peer;
use crate::{CHAT, RELAYED, feed, now, peer, plain, said, settle};

fn send(peer: &mut Peer, ms: u64, ttl: u64) -> Ticket {
    let options = SendOptions {
        ttl: Some(Duration::from_secs(ttl)),
        ..SendOptions::default()
    };
    let engine = peer.engine.as_mut().unwrap();
    let ticket = engine
        .send(CHAT, &"hello".into(), &options, now(ms))
        .unwrap();
    peer.pump();
    ticket
}

fn acknowledge(peer: &mut Peer, link: Generation, ms: u64, next: u64, digest: Digest) {
    let ack = Ack {
        epoch: peer.engine.as_ref().unwrap().session().epoch,
        answers: None,
        received: vec![Received {
            channel: CHAT,
            next: Seq(next),
            digest,
            consumed: Seq(1),
            limit: Seq(1_000),
            ranges: Vec::new(),
        }],
    };
    feed(peer, link, ms, &[Frame::Ack(ack)]);
}

fn is_data_of(frame: &Frame, ticket: &Ticket) -> bool {
    matches!(frame, Frame::Data(data) if data.id == ticket.id)
}

#[test]
fn what_is_written_while_others_are_searched_for_what_has_expired_expires_too() {
    let mut alice = peer(1, 2);
    let link = alice.bind(RELAYED, now(0));
    let first = send(&mut alice, 0, 1);
    settle(&mut alice, 0);
    let whole = Digest::default().with(first.id, 0);
    acknowledge(&mut alice, link, 1, 2, whole);
    assert!(!alice.outstanding());
    // The time of the first is over: there is a search as soon as something waits again.
    let second = send(&mut alice, 2_000, 5);
    alice.reads_first = true;
    alice.tick(now(2_000));
    settle(&mut alice, 2_000);
    assert!(
        said(&mut alice)
            .iter()
            .any(|frame| is_data_of(frame, &second))
    );
    let at = alice.deadline().expect("it expires");
    assert!(at <= now(7_000).elapsed, "{at:?}");
    for ms in (3_000..10_000).step_by(500) {
        alice.tick(now(ms));
        settle(&mut alice, ms);
    }
    assert_eq!(alice.ended_ids, [second.id]);
}

#[test]
fn a_search_for_what_has_expired_goes_on_after_a_start() {
    let mut alice = peer(1, 2);
    alice.bind(RELAYED, now(0));
    let first = send(&mut alice, 0, 5);
    settle(&mut alice, 0);
    // The process ends while it searches, and something else was written meanwhile.
    alice.tick(now(6_000));
    let second = send(&mut alice, 6_000, 600);
    alice.flush(now(6_000));
    alice.stop();
    alice.start([9; 32], now(7_000));
    alice.tick(now(7_000));
    settle(&mut alice, 7_000);
    assert!(alice.ended_ids.contains(&first.id));
    assert!(!alice.ended_ids.contains(&second.id));
}

#[test]
fn what_left_under_an_earlier_epoch_is_not_taken_back() {
    let mut alice = peer(1, 2);
    let link = alice.bind(RELAYED, now(0));
    let ticket = send(&mut alice, 0, 600);
    settle(&mut alice, 0);
    assert!(
        said(&mut alice)
            .iter()
            .any(|frame| is_data_of(frame, &ticket))
    );
    let engine = alice.engine.as_mut().unwrap();
    engine.writable(link, false, now(1));
    acknowledge(&mut alice, link, 1, 2, Digest::default());
    assert_eq!(alice.renewed, 1);
    let engine = alice.engine.as_mut().unwrap();
    assert!(!engine.cancel(ticket, now(2)));
}

#[test]
fn what_ended_while_it_was_read_stays_ended() {
    let mut alice = peer(1, 2);
    send(&mut alice, 0, 600);
    settle(&mut alice, 0);
    alice.stop();
    // The first lies on disk only; the second is in memory too.
    alice.start([9; 32], now(1));
    alice.engine.as_mut().unwrap().seal_nothing();
    let second = send(&mut alice, 1, 600);
    settle(&mut alice, 1);
    alice.bind(RELAYED, now(2));
    let engine = alice.engine.as_mut().unwrap();
    assert!(engine.cancel(second, now(2)));
    alice.pump();
    alice.reads_first = true;
    settle(&mut alice, 2);
    assert_eq!(alice.ended_ids, [second.id]);
    let frames = said(&mut alice);
    assert!(frames.iter().any(|frame| matches!(frame, Frame::Data(_))));
    assert!(!frames.iter().any(|frame| is_data_of(frame, &second)));
    assert!(frames.iter().any(|frame| matches!(frame, Frame::Skip(_))));
}

#[test]
fn the_peer_hears_of_a_listener_however_much_waits() {
    let (volatile, other) = (ChannelId(100), ChannelId(200));
    let mut alice = peer(1, 2);
    let link = alice.bind(LinkClass::Direct, now(0));
    let channels = vec![volatile];
    let listens = plain(&[Frame::Subscribe(Channels { channels })]);
    let engine = alice.engine.as_mut().unwrap();
    engine.receive(link, None, listens, now(1));
    alice.pump();
    settle(&mut alice, 1);
    said(&mut alice);
    let engine = alice.engine.as_mut().unwrap();
    engine.writable(link, false, now(2));
    let mut send = || engine.send_volatile(volatile, "now".into(), now(2));
    let sent = (0..100).filter(|_| send().unwrap()).count();
    assert!(sent < 100, "what has no room was not sent");
    engine.listen(other, now(2));
    engine.writable(link, true, now(3));
    alice.pump();
    settle(&mut alice, 3);
    let frames = said(&mut alice);
    let arrived = frames
        .iter()
        .filter(|frame| matches!(frame, Frame::Volatile(_)));
    assert_eq!(arrived.count(), sent);
    let channels = vec![other];
    assert!(frames.contains(&Frame::Subscribe(Channels { channels })));
}

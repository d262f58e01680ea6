//! Resumes that come after others that the peer said later.

use bytes::Bytes;
use outlive_core::engine::{Event, Output, SendOptions, Taken};
use outlive_core::limits::InboxLimits;
use outlive_core::transport::Class;
use outlive_core::wire::frame::{Frame, Received, Resume};
use outlive_core::wire::packet;
use outlive_core::{Digest, Epoch, Seq};

use crate::peer::Peer;
use crate::{CHAT, RELAYED, feed, feed_late, now, of, plain, receiver, resume, said, settle};

fn peer_epoch(peer: &Peer) -> Option<Epoch> {
    peer.engine.as_ref().unwrap().session().peer_epoch
}

#[test]
fn an_epoch_that_the_peer_has_left_is_not_brought_back_by_a_late_resume() {
    let (mut peer, generation) = receiver(RELAYED);
    feed(&mut peer, generation, 1, &[resume(1)]);
    feed(&mut peer, generation, 1, &[resume(2)]);
    feed_late(&mut peer, generation, &[resume(1)]);
    assert_eq!(peer_epoch(&peer), Some(Epoch(2)));
    // A store that went back in time brings it back.
    feed(&mut peer, generation, 1, &[resume(1)]);
    assert_eq!(peer_epoch(&peer), Some(Epoch(1)));
    feed_late(&mut peer, generation, &[resume(2)]);
    assert_eq!(peer_epoch(&peer), Some(Epoch(1)));
}

#[test]
fn an_epoch_may_be_the_present_one_before_a_resume_says_so_and_not_once_it_is_over() {
    let (mut peer, generation) = receiver(RELAYED);
    let present = |peer: &Peer| {
        let engine = peer.engine.as_ref().unwrap();
        [1, 2, 3].map(|epoch| engine.may_be_present(Epoch(epoch)))
    };
    feed(&mut peer, generation, 1, &[resume(1)]);
    assert_eq!(present(&peer), [true, false, false]);
    // The first that comes of a peer that has lost its store may be a message.
    feed(&mut peer, generation, 1, &[of(2, 1, None)]);
    assert_eq!(peer_epoch(&peer), Some(Epoch(1)));
    assert_eq!(present(&peer), [true, true, false]);
    feed(&mut peer, generation, 1, &[resume(2)]);
    assert_eq!(present(&peer), [false, true, false]);
}

#[test]
fn a_peer_that_waits_for_room_hears_of_it_though_a_resume_of_its_last_epoch_came_late() {
    let (mut peer, generation) = receiver(RELAYED);
    let engine = peer.engine.as_mut().unwrap();
    engine.set_inbox_limits(InboxLimits {
        messages: 2,
        ..InboxLimits::default()
    });
    feed(
        &mut peer,
        generation,
        1,
        &[resume(1), of(1, 1, None), of(1, 2, None)],
    );
    feed(&mut peer, generation, 1, &[resume(2), of(2, 1, None)]);
    feed_late(&mut peer, generation, &[resume(1)]);
    assert!(peer.take(None).is_some());
    peer.commit(None, now(2));
    settle(&mut peer, 2);
    said(&mut peer);
    peer.tick(now(1_000));
    settle(&mut peer, 1_000);
    let room = said(&mut peer).into_iter().find_map(|frame| match frame {
        Frame::Ack(ack) if ack.epoch == Epoch(2) => Some(ack.received[0].limit),
        _ => None,
    });
    assert_eq!(room, Some(Seq(2)));
}

#[test]
fn a_late_resume_of_an_epoch_never_heard_of_is_no_reset_but_tells_where_that_began() {
    let (mut peer, generation) = receiver(RELAYED);
    feed(&mut peer, generation, 1, &[resume(2)]);
    let Frame::Resume(of_it) = resume(1) else {
        unreachable!("it is a Resume")
    };
    let mut offered = of_it.offered.clone();
    offered[0].lowest = Seq(5);
    let late = Frame::Resume(Resume { offered, ..of_it });
    let engine = peer.engine.as_mut().unwrap();
    engine.take_as_late(true);
    let packet = plain(&[late, of(1, 5, None)]);
    assert_eq!(engine.receive(generation, None, packet, now(1)), Taken::Yes);
    engine.take_as_late(false);
    let mut events = Vec::new();
    while let Some(output) = engine.poll() {
        match output {
            Output::Write(_) => engine.written(now(1)),
            Output::Event(event) => events.push(event),
            _ => {}
        }
    }
    let is_reset = |event: &Event| matches!(event, Event::PeerReset { .. });
    assert!(!events.iter().any(is_reset), "{events:?}");
    let session = engine.session();
    assert_eq!(session.peer_epoch, Some(Epoch(2)));
    assert_eq!(session.heard_last(), Some(Epoch(2)));
    assert_eq!(session.inboxes[&CHAT].messages, 1);
}

/// The packets of which a mailbox keeps the newest alone.
fn of_state(peer: &mut Peer) -> Vec<Vec<Frame>> {
    let sent = peer.sent.drain(..);
    sent.filter(|(transmit, _)| transmit.class == Class::NewestOnly)
        .map(|(_, frames)| packet::decode(&frames.into()).unwrap())
        .collect()
}

#[test]
fn an_ack_that_takes_the_place_of_a_resume_in_a_mailbox_says_that_too() {
    let (mut sender, generation) = receiver(RELAYED);
    let engine = sender.engine.as_mut().unwrap();
    engine
        .send(
            CHAT,
            &Bytes::from_static(b"hello"),
            &SendOptions::default(),
            now(1),
        )
        .unwrap();
    sender.pump();
    settle(&mut sender, 1);
    of_state(&mut sender);
    // It knows nothing of us, and waits for an answer.
    let Frame::Resume(of_it) = resume(9) else {
        unreachable!("it is a Resume")
    };
    let asks = Frame::Resume(Resume {
        answer: true,
        ..of_it
    });
    feed(&mut sender, generation, 2, &[asks, of(9, 1, None)]);
    let packets = of_state(&mut sender);
    let is = |frames: &[Frame], what: fn(&Frame) -> bool| frames.iter().any(what);
    let resumes = |frame: &Frame| matches!(frame, Frame::Resume(_));
    let acks = |frame: &Frame| matches!(frame, Frame::Ack(_));
    let newest = packets.last().expect("an answer");
    assert!(is(newest, resumes), "{packets:?}");
    assert!(is(newest, acks), "{packets:?}");
}

#[test]
fn what_a_peer_had_when_it_said_a_late_resume_makes_nothing_be_sent_again() {
    let (mut sender, generation) = receiver(RELAYED);
    let engine = sender.engine.as_mut().unwrap();
    let payload = Bytes::from(vec![0; 40_000]);
    let options = SendOptions::default();
    engine.send(CHAT, &payload, &options, now(1)).unwrap();
    sender.pump();
    settle(&mut sender, 1);
    let own = sender.engine.as_ref().unwrap().session().epoch;
    let (mut digest, mut digests) = (Digest::default(), vec![Digest::default()]);
    for frame in said(&mut sender) {
        if let Frame::Data(data) = frame {
            digest = digest.with(data.id, data.index);
            digests.push(digest);
        }
    }
    assert_eq!(digests.len(), 4, "three segments went out");
    let having = |next: u64| {
        let Frame::Resume(of_it) = resume(9) else {
            unreachable!("it is a Resume")
        };
        Frame::Resume(Resume {
            peer_epoch: Some(own),
            received: vec![Received {
                channel: CHAT,
                next: Seq(next),
                digest: digests[next as usize - 1],
                consumed: Seq(1),
                limit: Seq(next + 100),
                ranges: Vec::new(),
            }],
            ..of_it
        })
    };
    feed(&mut sender, generation, 2, &[having(3)]);
    said(&mut sender);
    let speaks = |frame: &Frame| matches!(frame, Frame::Data(_) | Frame::Resume(_));
    feed_late(&mut sender, generation, &[having(1)]);
    assert!(!said(&mut sender).iter().any(speaks));
    // So says a store that went back in time.
    feed(&mut sender, generation, 3, &[having(1)]);
    assert!(said(&mut sender).iter().any(speaks));
}

//! What comes in: what is counted as committed, and what is refused.

use bytes::Bytes;
use outlive_core::engine::{Event, Output, Taken};
use outlive_core::wire::frame::{Data, First, Frame};
use outlive_core::{Epoch, Seq};

use crate::peer::{Handed, Peer};
use crate::{
    EPOCH, RELAYED, data, feed, id, last_ack, now, of, plain, receiver, said, settle, skip,
};

#[test]
fn what_was_stepped_over_counts_as_committed_with_what_lies_before_it() {
    for skipped_first in [false, true] {
        let (mut peer, generation) = receiver(RELAYED);
        feed(&mut peer, generation, 1, &[data(1, 1, 0, 1)]);
        if skipped_first {
            feed(&mut peer, generation, 1, &[skip(2, 2, 0)]);
            assert_eq!(last_ack(&mut peer).consumed, Seq(1));
        }
        assert!(peer.take(None).is_some());
        peer.commit(None, now(2));
        settle(&mut peer, 2);
        if !skipped_first {
            feed(&mut peer, generation, 3, &[skip(2, 2, 0)]);
        }
        peer.tick(now(10_000));
        settle(&mut peer, 10_000);
        assert_eq!(last_ack(&mut peer).consumed, Seq(3));
    }
}

/// Takes all messages that wait, and has them in hand.
fn take_all(peer: &mut Peer) -> Vec<Handed> {
    std::iter::from_fn(|| peer.take(None)).collect()
}

fn commit(peer: &mut Peer, handed: &Handed, ms: u64) {
    let (channel, at, bytes) = (handed.channel, handed.position, handed.payload.len());
    let engine = peer.engine.as_mut().unwrap();
    engine.commit(channel, at, &handed.record, bytes as u64, now(ms));
    peer.pump();
    settle(peer, ms);
}

#[test]
fn messages_are_told_as_committed_in_whatever_order_they_are() {
    let (mut peer, generation) = receiver(RELAYED);
    let frames = [1, 2, 3].map(|n| data(n.into(), n, 0, 1));
    feed(&mut peer, generation, 1, &frames);
    let [first, second, third] = &take_all(&mut peer)[..] else {
        panic!("three messages")
    };
    for (handed, consumed) in [(second, 1), (first, 3), (third, 4)] {
        commit(&mut peer, handed, 2);
        feed(&mut peer, generation, 3, &frames[..1]);
        assert_eq!(last_ack(&mut peer).consumed, Seq(consumed));
    }
}

#[test]
fn epochs_whose_messages_were_committed_in_another_order_are_forgotten() {
    let (mut peer, mut generation) = receiver(RELAYED);
    let of = |epoch, seq| {
        let Frame::Data(data) = data(seq, 1, 0, 1) else {
            unreachable!("it is a segment")
        };
        Frame::Data(Data {
            epoch: Epoch(epoch),
            ..data
        })
    };
    for epoch in 1..30 {
        let frames = [1, 2, 3].map(|seq| of(epoch, seq));
        feed(&mut peer, generation, 1, &frames);
        let taken = take_all(&mut peer);
        assert_eq!(taken.len(), 3, "epoch {epoch} is heard");
        // The last before a restart, the others after it.
        commit(&mut peer, &taken[2], 2);
        peer.stop();
        peer.start([7; 32], now(3));
        peer.engine.as_mut().unwrap().seal_nothing();
        generation = peer.bind(RELAYED, now(3));
        for handed in &taken[..2] {
            let engine = peer.engine.as_mut().unwrap();
            assert!(engine.hand(handed.channel, handed.position, &handed.record));
        }
        for handed in taken[..2].iter().rev() {
            commit(&mut peer, handed, 4);
        }
        feed(&mut peer, generation, 5, &[of(epoch, 1)]);
        assert_eq!(last_ack(&mut peer).consumed, Seq(4));
    }
}

#[test]
fn a_message_that_an_app_holds_for_long_keeps_no_later_epoch_from_being_forgotten() {
    for restarts in [false, true] {
        let (mut peer, mut generation) = receiver(RELAYED);
        let frame = |epoch| {
            let Frame::Data(data) = data(1, epoch, 0, 1) else {
                unreachable!("it is a segment")
            };
            let epoch = Epoch(epoch.into());
            Frame::Data(Data { epoch, ..data })
        };
        feed(&mut peer, generation, 1, &[frame(1)]);
        let [held] = &take_all(&mut peer)[..] else {
            panic!("one message")
        };
        for epoch in 2..30 {
            feed(&mut peer, generation, 2, &[frame(epoch)]);
            let taken = take_all(&mut peer);
            let last = taken.last().expect("the epoch is heard");
            assert_eq!(last.record.epoch, Epoch(epoch.into()), "it is heard");
            commit(&mut peer, last, 3);
            // What is committed of it, the sender takes for committed of the first as well.
            feed(&mut peer, generation, 4, &[frame(epoch)]);
            assert_eq!(last_ack(&mut peer).consumed, Seq(0), "epoch {epoch}");
            if restarts {
                peer.stop();
                peer.start([7; 32], now(5));
                peer.engine.as_mut().unwrap().seal_nothing();
                generation = peer.bind(RELAYED, now(5));
                // It is handed out once more, which is written down first.
                assert!(peer.take(None).is_none());
                settle(&mut peer, 5);
                let again = peer.take(None).map(|handed| handed.position);
                assert_eq!(again, Some(held.position));
            }
        }
        commit(&mut peer, held, 6);
        feed(&mut peer, generation, 7, &[frame(29)]);
        assert_eq!(last_ack(&mut peer).consumed, Seq(2));
    }
}

#[test]
fn a_message_has_no_segments_that_hold_nothing() {
    let (mut peer, generation) = receiver(RELAYED);
    let segment = |index: u32, count, bytes: usize| {
        plain(&[Frame::Data(Data {
            epoch: EPOCH,
            channel: crate::CHAT,
            seq: Seq(u64::from(index) + 1),
            id: id(1),
            index,
            count,
            again: None,
            payload: Bytes::from(vec![0; bytes]),
        })])
    };
    let mut take = |packet| {
        let engine = peer.engine.as_mut().unwrap();
        engine.receive(generation, None, packet, now(1))
    };
    assert_eq!(take(segment(0, 1_024, 0)), Taken::No);
    assert_eq!(take(segment(0, 2, 16_383)), Taken::No);
    assert_eq!(take(segment(0, 2, 16_384)), Taken::Yes);
    assert_eq!(take(segment(1, 2, 0)), Taken::No);
    assert_eq!(take(segment(1, 2, 1)), Taken::Yes);
}

#[test]
fn a_word_of_an_epoch_that_the_peer_has_left_is_no_reset() {
    let (mut peer, generation) = receiver(RELAYED);
    let Frame::Data(data) = data(1, 1, 0, 1) else {
        unreachable!("it is a segment")
    };
    let first = First {
        epoch: Epoch(4),
        seq: Seq(1),
    };
    let frame = Frame::Data(Data {
        again: Some(first),
        ..data
    });
    let engine = peer.engine.as_mut().unwrap();
    engine.receive(generation, None, plain(&[frame]), now(1));
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
    assert!(
        events
            .iter()
            .any(|event| matches!(event, Event::Inbox { .. }))
    );
    said(&mut peer);
}

#[test]
fn the_stream_that_a_segment_is_of_makes_no_room_for_another() {
    let (mut peer, generation) = receiver(RELAYED);
    for epoch in 1..=8 {
        feed(&mut peer, generation, 1, &[of(epoch, 1, None)]);
    }
    // Of the second, nothing waits any more.
    let taken = take_all(&mut peer);
    commit(&mut peer, &taken[1], 2);
    let unheard_of = First {
        epoch: Epoch(99),
        seq: Seq(1),
    };
    feed(&mut peer, generation, 3, &[of(2, 2, Some(unheard_of))]);
    let next = |peer: &Peer, epoch| {
        let session = peer.engine.as_ref().unwrap().session();
        session.stream(Epoch(epoch)).unwrap().channels[&crate::CHAT].next
    };
    assert_eq!(
        [1, 2, 3].map(|epoch| next(&peer, epoch)),
        [2, 3, 2].map(Seq)
    );
    assert_eq!(take_all(&mut peer).len(), 1);
}

#[test]
fn no_epoch_that_is_made_up_takes_the_place_of_messages_that_wait() {
    let (mut peer, generation) = receiver(RELAYED);
    let of = |epoch, index: u32, count, content: Bytes| {
        Frame::Data(Data {
            epoch: Epoch(epoch),
            channel: crate::CHAT,
            seq: Seq(u64::from(index) + 1),
            id: id(epoch as u8),
            index,
            count,
            again: None,
            payload: content,
        })
    };
    let (full, rest) = (Bytes::from(vec![7; 16_384]), Bytes::from_static(b"rest"));
    // The first epoch is the peer's own, and never forgotten.
    feed(&mut peer, generation, 1, &[of(1, 0, 1, rest.clone())]);
    assert!(peer.take(None).is_some());
    for (index, content) in [(0, full.clone()), (1, rest.clone())] {
        feed(&mut peer, generation, 1, &[of(100, index, 2, content)]);
    }
    for epoch in 2..20 {
        let made_up = of(epoch, 0, 1, Bytes::from_static(b"x"));
        feed(&mut peer, generation, 1, &[made_up]);
    }
    // Were it forgotten, this would be written where the first lies.
    for index in 0..2 {
        let other = of(100, index, 3, Bytes::from(vec![8; 16_384]));
        feed(&mut peer, generation, 1, &[other]);
    }
    let first = peer.take(None).unwrap();
    assert!(
        first.payload == [&full[..], &rest].concat(),
        "its own content"
    );
    // As they are committed, others are heard.
    while peer.take(None).is_some() {}
    for _ in 0..20 {
        peer.commit(None, now(2));
    }
    settle(&mut peer, 2);
    feed(&mut peer, generation, 3, &[of(50, 0, 1, rest)]);
    assert_eq!(peer.take(None).unwrap().record.epoch, Epoch(50));
}

//! What comes late, under epochs of which a receiver remembers nothing any more.

use outlive_core::limits::PEER_EPOCHS;
use outlive_core::wire::frame::{Data, First, Frame, Resume};
use outlive_core::{Epoch, Generation, Seq};

use crate::peer::Peer;
use crate::{RELAYED, feed, feed_late, now, of, receiver, resume, settle};

/// Whether each message that waits is marked. The app is done with them then.
fn marks(peer: &mut Peer) -> Vec<bool> {
    let mut marks = Vec::new();
    while let Some(handed) = peer.take(None) {
        marks.push(handed.redelivered());
        peer.commit(None, now(2));
        settle(peer, 2);
    }
    marks
}

/// One that had a message of more epochs than are kept apart.
fn forgetful() -> (Peer, Generation) {
    let (mut peer, generation) = receiver(RELAYED);
    for epoch in 1..=PEER_EPOCHS as u64 {
        feed(&mut peer, generation, 1, &[of(epoch, 1, None)]);
        assert_eq!(marks(&mut peer), [false], "epoch {epoch}");
    }
    feed(&mut peer, generation, 1, &[of(20, 1, None)]);
    marks(&mut peer);
    // The first is the peer's own until a Resume names another.
    let session = peer.engine.as_ref().unwrap().session();
    assert!(session.stream(Epoch(2)).is_none(), "it is remembered");
    (peer, generation)
}

#[test]
fn a_late_copy_under_an_epoch_that_was_forgotten_is_marked() {
    let (mut peer, generation) = forgetful();
    feed(&mut peer, generation, 3, &[of(2, 1, None)]);
    assert_eq!(marks(&mut peer), [true]);
    // So it is after a start, and on another channel.
    peer.stop();
    peer.start([7; 32], now(4));
    peer.engine.as_mut().unwrap().seal_nothing();
    let generation = peer.bind(RELAYED, now(4));
    let Frame::Data(other) = of(2, 1, None) else {
        unreachable!("it is a segment")
    };
    let other = Frame::Data(Data {
        channel: outlive_core::ChannelId(16),
        ..other
    });
    feed(&mut peer, generation, 5, &[of(2, 2, None), other]);
    assert_eq!(marks(&mut peer), [true, true]);
}

#[test]
fn what_comes_under_a_new_epoch_is_not_marked_once_the_peer_has_named_it() {
    let (mut peer, generation) = forgetful();
    feed(&mut peer, generation, 3, &[resume(30), of(30, 1, None)]);
    assert_eq!(marks(&mut peer), [false]);
    // What overtakes the Resume may be anything.
    feed(&mut peer, generation, 3, &[of(40, 1, None)]);
    assert_eq!(marks(&mut peer), [true]);
    feed(&mut peer, generation, 3, &[resume(40), of(40, 2, None)]);
    assert_eq!(marks(&mut peer), [false]);
}

#[test]
fn a_resume_that_comes_late_makes_no_copy_of_its_epoch_come_unmarked() {
    let Frame::Resume(before_all) = resume(2) else {
        unreachable!("it is a Resume")
    };
    let before_all = Frame::Resume(Resume {
        offered: Vec::new(),
        ..before_all
    });
    for late in [resume(2), before_all] {
        let (mut peer, generation) = forgetful();
        feed_late(&mut peer, generation, &[late]);
        feed(&mut peer, generation, 3, &[of(2, 1, None)]);
        assert_eq!(marks(&mut peer), [true]);
    }
}

#[test]
fn a_resume_that_comes_late_takes_back_no_note_of_a_copy() {
    let (mut peer, generation) = forgetful();
    let first = First {
        epoch: Epoch(49),
        seq: Seq(1),
    };
    feed(&mut peer, generation, 3, &[of(50, 1, Some(first))]);
    marks(&mut peer);
    feed_late(&mut peer, generation, &[resume(49)]);
    feed(&mut peer, generation, 3, &[of(49, 1, None)]);
    assert_eq!(marks(&mut peer), [true]);
    // What it names as its own is, once no newer word than that came.
    feed(&mut peer, generation, 3, &[resume(49), of(49, 2, None)]);
    assert_eq!(marks(&mut peer), [false]);
}

#[test]
fn of_copies_that_came_here_and_there_none_comes_late_unmarked() {
    const COPIES: u64 = 1_030;
    let (mut peer, generation) = receiver(RELAYED);
    for n in 1..=COPIES {
        let first = First {
            epoch: Epoch(4),
            seq: Seq(2 * n),
        };
        feed(&mut peer, generation, 1, &[of(5, n, Some(first))]);
    }
    assert_eq!(marks(&mut peer).len(), COPIES as usize);
    for seq in 1..=2 * COPIES {
        feed(&mut peer, generation, 3, &[of(4, seq, None)]);
    }
    let marks = marks(&mut peer);
    assert_eq!(marks.len(), 2 * COPIES as usize);
    let unmarked = marks.iter().skip(1).step_by(2).position(|marked| !marked);
    assert_eq!(unmarked, None);
    assert!(!marks[0] && !marks[2], "what came once is marked");
}

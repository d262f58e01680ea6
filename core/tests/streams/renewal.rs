//! What is told, and what is marked, once a sender has drawn a new epoch.

use std::collections::BTreeSet;

use bytes::Bytes;
use outlive_core::engine::SendOptions;
use outlive_core::limits::OWN_EPOCHS;
use outlive_core::record::{Key, Record, Session, Waiting};
use outlive_core::wire::frame::{Ack, Frame, Received, Resume};
use outlive_core::wire::packet;
use outlive_core::{Digest, Generation, Position, ResumeId, Seq};

use crate::peer::{Handed, Peer};
use crate::{CHAT, RELAYED, feed, now, peer, said, settle};

/// Two that talk through a relay that loses nothing unless told to.
struct Pair {
    alice: Peer,
    bob: Peer,
    to_bob: Generation,
    to_alice: Generation,
    ms: u64,
}

impl Pair {
    fn new() -> Self {
        let (mut alice, mut bob) = (peer(1, 2), peer(2, 1));
        let (to_bob, to_alice) = (alice.bind(RELAYED, now(0)), bob.bind(RELAYED, now(0)));
        Self {
            alice,
            bob,
            to_bob,
            to_alice,
            ms: 0,
        }
    }

    fn send(&mut self, payload: &'static [u8]) {
        let engine = self.alice.engine.as_mut().unwrap();
        engine
            .send(
                CHAT,
                &Bytes::from_static(payload),
                &SendOptions::default(),
                now(self.ms),
            )
            .unwrap();
        self.alice.pump();
        settle(&mut self.alice, self.ms);
    }

    /// Both say what they have to, and hear it; some time passes.
    fn talk(&mut self) {
        for _ in 0..8 {
            self.ms += 200;
            for peer in [&mut self.alice, &mut self.bob] {
                peer.tick(now(self.ms));
                settle(peer, self.ms);
            }
            let (there, back) = (said(&mut self.alice), said(&mut self.bob));
            feed(&mut self.bob, self.to_alice, self.ms, &there);
            feed(&mut self.alice, self.to_bob, self.ms, &back);
        }
    }

    fn renew(&mut self) {
        renew(&mut self.alice, self.to_bob, self.ms);
    }

    /// Alice waits to hear that Bob's app has committed all before `position`, and asks for a while.
    fn wait_for(&mut self, position: Position) {
        let engine = self.alice.engine.as_mut().unwrap();
        engine.await_consumed(CHAT, position, now(self.ms));
        for _ in 0..10 {
            self.talk();
        }
    }

    /// Bob begins anew with an empty store.
    fn lose_bob(&mut self) {
        self.bob = peer(2, 1);
        self.to_alice = self.bob.bind(RELAYED, now(self.ms));
    }

    /// What Bob's app has not taken yet.
    fn take(&mut self) -> Vec<Handed> {
        std::iter::from_fn(|| self.bob.take(None)).collect()
    }

    fn commit(&mut self, handed: &Handed) {
        let (at, bytes) = (handed.position, handed.payload.len() as u64);
        let engine = self.bob.engine.as_mut().unwrap();
        engine.commit(CHAT, at, &handed.record, bytes, now(self.ms));
        self.bob.pump();
        settle(&mut self.bob, self.ms);
    }

    /// The first position of which Alice has not told that Bob's app has committed it.
    fn consumed(&self) -> Position {
        self.alice.engine.as_ref().unwrap().session().out[&CHAT].consumed
    }

    fn delivered(&self) -> Position {
        self.alice.engine.as_ref().unwrap().session().out[&CHAT].offer
    }
}

/// One hears that the other has what its own store does not know of, as if it had gone back in time.
fn renew(peer: &mut Peer, generation: Generation, ms: u64) {
    let before = peer.renewed;
    let ack = Ack {
        epoch: peer.engine.as_ref().unwrap().session().epoch,
        answers: None,
        received: vec![Received {
            channel: CHAT,
            next: Seq(1_000),
            digest: Digest::default(),
            consumed: Seq(1_000),
            limit: Seq(2_000),
            ranges: Vec::new(),
        }],
    };
    feed(peer, generation, ms, &[Frame::Ack(ack)]);
    assert_eq!(peer.renewed, before + 1);
}

#[test]
fn what_was_delivered_before_a_renewal_is_told_as_consumed_when_the_peer_says_so() {
    let mut pair = Pair::new();
    pair.send(b"one");
    pair.send(b"two");
    pair.talk();
    pair.renew();
    pair.talk();
    assert_eq!(
        (pair.delivered(), pair.consumed()),
        (Position(3), Position(1))
    );
    pair.send(b"three");
    pair.talk();
    assert_eq!(
        (pair.delivered(), pair.consumed()),
        (Position(4), Position(1))
    );
    let handed = pair.take();
    assert_eq!(handed.len(), 3);
    for (handed, consumed) in handed.iter().zip(2..) {
        pair.commit(handed);
        pair.talk();
        assert_eq!(pair.consumed(), Position(consumed));
    }
}

#[test]
fn a_commit_under_a_new_epoch_says_nothing_of_what_the_app_has_in_hand_of_an_earlier_one() {
    let mut pair = Pair::new();
    pair.send(b"one");
    pair.talk();
    pair.renew();
    pair.send(b"two");
    pair.talk();
    let [one, two] = &pair.take()[..] else {
        panic!("two messages")
    };
    pair.commit(two);
    pair.talk();
    assert_eq!(pair.consumed(), Position(1));
    pair.send(b"three");
    pair.talk();
    pair.commit(one);
    pair.talk();
    assert_eq!(pair.consumed(), Position(3));
}

#[test]
fn a_lost_word_of_a_commit_under_an_earlier_epoch_is_said_again_to_who_asks() {
    let mut pair = Pair::new();
    pair.send(b"one");
    pair.send(b"two");
    pair.talk();
    pair.renew();
    pair.talk();
    let [one, _two] = &pair.take()[..] else {
        panic!("two messages")
    };
    assert_eq!(pair.consumed(), Position(1));
    // While the other waits, no word about the present epoch says it.
    pair.commit(one);
    pair.ms += 200;
    pair.bob.tick(now(pair.ms));
    settle(&mut pair.bob, pair.ms);
    let lost = said(&mut pair.bob);
    assert!(lost.iter().any(|frame| matches!(frame, Frame::Ack(_))));
    pair.wait_for(Position(2));
    assert_eq!(pair.consumed(), Position(2));
}

#[test]
fn what_was_committed_under_earlier_epochs_is_told_on_the_link_of_who_asks() {
    let mut pair = Pair::new();
    pair.send(b"one");
    pair.send(b"two");
    pair.talk();
    let handed = pair.take();
    pair.renew();
    pair.commit(&handed[0]);
    pair.talk();
    let [other, present] = {
        let streams = &pair.bob.engine.as_ref().unwrap().session().streams;
        [streams[0].epoch, streams[1].epoch]
    };
    let (asks, carries) = (pair.to_alice, pair.bob.bind(RELAYED, now(pair.ms)));
    settle(&mut pair.bob, pair.ms);
    said(&mut pair.bob);
    assert_eq!(pair.bob.engine.as_ref().unwrap().carrier(), Some(carries));
    let question = Frame::Resume(Resume {
        id: ResumeId(7),
        epoch: present,
        peer_epoch: None,
        received: Vec::new(),
        offered: Vec::new(),
        answer: true,
    });
    feed(&mut pair.bob, asks, pair.ms, &[question]);
    let told = pair.bob.sent.drain(..).flat_map(|(transmit, frames)| {
        let frames = packet::decode(&frames.into()).unwrap();
        let acks = frames.into_iter().filter_map(|frame| match frame {
            Frame::Ack(ack) => Some(ack.epoch),
            _ => None,
        });
        acks.map(|epoch| (transmit.generation, epoch))
            .collect::<Vec<_>>()
    });
    let told: BTreeSet<_> = told.collect();
    assert_eq!(told, BTreeSet::from([(asks, other), (asks, present)]));
}

#[test]
fn what_a_peer_lost_that_was_delivered_before_a_renewal_is_not_waited_for() {
    let mut pair = Pair::new();
    pair.send(b"one");
    pair.send(b"two");
    pair.talk();
    let handed = pair.take();
    pair.commit(&handed[0]);
    pair.renew();
    pair.wait_for(Position(3));
    assert_eq!(pair.consumed(), Position(2));
    pair.lose_bob();
    pair.wait_for(Position(3));
    assert_eq!(pair.consumed(), Position(3));
}

#[test]
fn a_new_epoch_of_a_peer_that_still_holds_what_came_says_nothing_of_it() {
    let mut pair = Pair::new();
    pair.send(b"one");
    pair.talk();
    pair.renew();
    // The new epoch is said in a Resume only if there is something to ask about.
    let engine = pair.bob.engine.as_mut().unwrap();
    let mine = Bytes::from_static(b"mine");
    let options = SendOptions::default();
    engine.send(CHAT, &mine, &options, now(pair.ms)).unwrap();
    pair.bob.pump();
    settle(&mut pair.bob, pair.ms);
    renew(&mut pair.bob, pair.to_alice, pair.ms);
    pair.wait_for(Position(2));
    let told = pair.alice.engine.as_ref().unwrap().session().peer_epoch;
    let own = pair.bob.engine.as_ref().unwrap().session().epoch;
    assert_eq!((told, pair.consumed()), (Some(own), Position(1)));
    let handed = pair.take();
    pair.commit(&handed[0]);
    pair.talk();
    assert_eq!(pair.consumed(), Position(2));
}

#[test]
fn what_was_delivered_under_an_epoch_that_its_sender_forgot_is_told_as_consumed_in_the_end() {
    let mut pair = Pair::new();
    pair.send(b"one");
    pair.talk();
    let handed = pair.take();
    // Bob, who has it in hand, hears of the last of the new epochs alone.
    for _ in 0..=OWN_EPOCHS {
        pair.renew();
    }
    pair.wait_for(Position(2));
    assert_eq!(pair.consumed(), Position(1));
    pair.commit(&handed[0]);
    pair.wait_for(Position(2));
    assert_eq!(pair.consumed(), Position(2));
}

/// Bob's process ends, and begins again.
fn restart_bob(pair: &mut Pair) {
    pair.bob.stop();
    pair.bob.start([9; 32], now(pair.ms));
    pair.bob.engine.as_mut().unwrap().seal_nothing();
    pair.to_alice = pair.bob.bind(RELAYED, now(pair.ms));
}

/// What waits for Bob's app since he began again. It is written down that it had all of it before.
fn take_again(pair: &mut Pair) -> Vec<Handed> {
    let mut taken = Vec::new();
    for _ in 0..20 {
        taken.extend(pair.bob.take(None));
        settle(&mut pair.bob, pair.ms);
    }
    taken
}

/// Three messages of one epoch, of which Bob's app has committed the last, and one of the next.
fn committed_out_of_order() -> Pair {
    let mut pair = Pair::new();
    for payload in [b"one" as &[u8], b"two", b"three"] {
        pair.send(payload);
    }
    pair.talk();
    pair.renew();
    pair.send(b"four");
    pair.talk();
    let handed = pair.take();
    assert_eq!(handed.len(), 4);
    pair.commit(&handed[2]);
    pair
}

#[test]
fn what_was_committed_out_of_order_before_a_start_counts_once_all_of_its_epoch_is() {
    let mut pair = committed_out_of_order();
    restart_bob(&mut pair);
    let [one, two, four] = &take_again(&mut pair)[..] else {
        panic!("three messages")
    };
    for (handed, consumed) in [(one, 2), (two, 4), (four, 5)] {
        pair.commit(handed);
        pair.talk();
        assert_eq!(pair.consumed(), Position(consumed));
    }
}

#[test]
fn what_came_while_nobody_counted_it_by_epochs_counts_once_nothing_waits() {
    let mut pair = committed_out_of_order();
    // What an earlier version would have written: without what is at the end of the record.
    let key = Key::Session(pair.bob.other).to_bytes();
    let mut session = Session::from_bytes(&pair.bob.disk[&key]).unwrap();
    session.waiting = Waiting::default();
    let bytes = session.to_bytes();
    assert_eq!((bytes[0], bytes.last()), (2, Some(&0)));
    let earlier = [&[1], &bytes[1..bytes.len() - 1]].concat();
    pair.bob.disk.insert(key, earlier.into());
    restart_bob(&mut pair);
    let [one, two, four] = &take_again(&mut pair)[..] else {
        panic!("three messages")
    };
    for (handed, consumed) in [(one, 2), (two, 3), (four, 5)] {
        pair.commit(handed);
        pair.talk();
        assert_eq!(pair.consumed(), Position(consumed));
    }
}

#[test]
fn what_was_committed_out_of_order_before_a_start_counts_though_more_of_its_epoch_waits() {
    let mut pair = Pair::new();
    for payload in [b"one" as &[u8], b"two", b"three"] {
        pair.send(payload);
    }
    pair.talk();
    let handed = pair.take();
    pair.commit(&handed[1]);
    restart_bob(&mut pair);
    let [one, _three] = &take_again(&mut pair)[..] else {
        panic!("two messages")
    };
    pair.commit(one);
    pair.talk();
    assert_eq!(pair.consumed(), Position(3));
}

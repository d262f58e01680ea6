//! Epochs that a peer makes up, and those of one that had many: what is parked of them comes when there is
//! room, and is not asked for for ever.

use std::collections::BTreeMap;

use bytes::Bytes;
use outlive_core::engine::{Event, Taken};
use outlive_core::limits::{HELD_SEGMENTS, PEER_EPOCHS};
use outlive_core::wire::frame::{Data, Frame, Offered, Resume};
use outlive_core::{ChannelId, Digest, Epoch, ResumeId, Seq};

use crate::side::{ONE, PEER_EPOCH, RELAYED, Side, message, pack};
use crate::{room_for, roomy};

/// A message in one segment, under another epoch than the peer's own.
fn of(epoch: u64, seq: u64) -> Frame {
    let Frame::Data(data) = message(ONE, seq) else {
        unreachable!("it is a segment")
    };
    Frame::Data(Data {
        epoch: Epoch(epoch),
        ..data
    })
}

/// What waits in the mailbox of a side that takes it, and is committed at once.
struct Mailbox {
    side: Side,
    waits: BTreeMap<u64, Bytes>,
    /// The ends of the messages that the app had.
    had: Vec<(Epoch, Seq)>,
}

impl Mailbox {
    fn new(side: Side, packets: impl IntoIterator<Item = Bytes>) -> Self {
        Self {
            side,
            waits: (1_000..).zip(packets).collect(),
            had: Vec::new(),
        }
    }

    /// Has all of it delivered, after the first time as what came before.
    fn deliver(&mut self, again: bool) {
        self.side.engine.take_as_late(again);
        let side = &mut self.side;
        self.waits
            .retain(|&envelope, packet| side.receive(Some(envelope), packet.clone()) != Taken::Yes);
        self.side.engine.take_as_late(false);
    }

    fn commit_all(&mut self) {
        while let Some((_, record)) = self.side.inbox(ONE).first() {
            self.had.push((record.epoch, record.last));
            self.side.commit(ONE, 8);
        }
    }

    /// Delivers it as often as it is asked for, but not more often than this. Returns how often.
    fn redeliver(&mut self, most: usize) -> usize {
        self.deliver(false);
        for round in 0..most {
            let asked = self.side.redelivers;
            self.commit_all();
            if self.side.redelivers == asked && round > 0 {
                return round;
            }
            self.deliver(true);
        }
        most
    }
}

fn resets(side: &Side) -> usize {
    let is_reset = |event: &&Event| matches!(event, Event::PeerReset { .. });
    side.events.iter().filter(is_reset).count()
}

/// One that knows the peer's own epoch, with an empty inbox for so many messages.
fn knowing(messages: u64) -> Side {
    let mut side = Side::new(1, room_for(messages));
    side.bind(RELAYED);
    side.receive(Some(1), pack(&[message(ONE, 1)]));
    side.commit(ONE, 8);
    side
}

#[test]
fn what_is_turned_away_of_an_epoch_that_was_never_heard_of_begins_nothing() {
    let far = |n: u64| pack(&[of(100 + n, 2_000)]);
    let mut mailbox = Mailbox::new(knowing(100), (0..PEER_EPOCHS as u64).map(far));
    mailbox.deliver(false);
    for _ in 0..10 {
        mailbox.deliver(true);
    }
    assert_eq!((mailbox.side.redelivers, resets(&mailbox.side)), (0, 0));
    assert_eq!(mailbox.side.engine.session().streams.len(), 1);
    assert_eq!(mailbox.waits.len(), PEER_EPOCHS, "all of it waits");
}

#[test]
fn what_never_finds_room_is_not_asked_for_for_ever() {
    // Each begins a stream each time that it comes, since others were forgotten for it, but its end
    // can't be taken.
    let packet = |n: u64| {
        let mut frames: Vec<_> = (1..=8).map(|seq| of(100 + n, seq)).collect();
        frames.push(of(100 + n, 2_000));
        pack(&frames)
    };
    let mut mailbox = Mailbox::new(knowing(8), (0..30).map(packet));
    mailbox.redeliver(200);
    let (asked, reset) = (mailbox.side.redelivers, resets(&mailbox.side));
    assert!(asked < 30, "asked for {asked} times");
    assert!(reset < 31, "{reset} resets");
}

#[test]
fn more_that_is_too_far_ahead_than_is_remembered_is_not_asked_for_for_ever() {
    // Out of reach, and out of what an inbox of a hundred messages takes.
    for seq in [2_000, 500] {
        let far = |n: u64| pack(&[of(100 + n, seq)]);
        let mut mailbox = Mailbox::new(knowing(100), (0..2_000).map(far));
        mailbox.redeliver(100);
        let asked = mailbox.side.redelivers;
        assert!(asked < 30, "asked for {asked} times, seq {seq}");
        assert_eq!(mailbox.side.engine.overgrown(), None);
        assert_eq!(resets(&mailbox.side), 0);
    }
}

#[test]
fn the_mail_of_a_peer_that_renewed_often_comes_when_there_is_room() {
    const RENEWED: u64 = 40;
    let mut side = knowing(4);
    let own: Vec<_> = (2..=5).map(|seq| message(ONE, seq)).collect();
    side.receive(Some(2), pack(&own));
    // As many of each as find room at once, in packets that do not fit whole.
    let packet = |n: u64| pack(&[1, 2, 3, 4, 5, 6].map(|seq| of(100 + n, seq)));
    let mut mailbox = Mailbox::new(side, (0..RENEWED).map(packet));
    mailbox.redeliver(1_000);
    assert!(mailbox.waits.len() < 20, "{} wait", mailbox.waits.len());
    // What waits of so many goes on with what the peer says.
    for seq in 6..26 {
        mailbox.side.receive(Some(3), pack(&[message(ONE, seq)]));
        mailbox.commit_all();
        mailbox.deliver(true);
        mailbox.commit_all();
        mailbox.deliver(true);
    }
    assert!(mailbox.waits.is_empty(), "{} wait", mailbox.waits.len());
    for n in 0..RENEWED {
        for seq in 1..=6 {
            let copies = mailbox.had.iter();
            let copies = copies.filter(|had| **had == (Epoch(100 + n), Seq(seq)));
            assert_eq!(copies.count(), 1, "seq {seq} of epoch {n}");
        }
    }
}

#[test]
fn what_came_before_the_resume_that_says_where_it_begins_is_asked_for_once() {
    let mut side = Side::new(1, roomy());
    side.bind(RELAYED);
    let far = HELD_SEGMENTS + 1_000;
    let early = pack(&[message(ONE, far)]);
    assert_eq!(side.receive(Some(1), early.clone()), Taken::NoRoom);
    side.receive(Some(2), pack(&[message(ChannelId(16), 1)]));
    assert_eq!(side.redelivers, 0);
    let resume = Frame::Resume(Resume {
        id: ResumeId(1),
        epoch: PEER_EPOCH,
        peer_epoch: None,
        received: Vec::new(),
        offered: vec![Offered {
            channel: ONE,
            lowest: Seq(far),
            digest: Digest::default(),
            end: Seq(far + 1),
        }],
        answer: false,
    });
    side.receive(Some(3), pack(&[resume]));
    assert_eq!(side.redelivers, 1);
    assert_eq!(side.receive(Some(1), early), Taken::Yes);
    assert_eq!(side.inbox(ONE).len(), 1);
}

//! An engine whose inboxes are full: what it has no room for waits, and holds up nothing else.

mod copies;
mod given_up;
mod made_up;
mod side;

use std::time::Duration;

use outlive_core::engine::{Output, Taken};
use outlive_core::limits::{CONSUMED_DELAY, HELD_SEGMENTS, InboxLimits, SKIPPED_RECORDS};
use outlive_core::link::LinkClass;
use outlive_core::wire::frame::{Ack, Data, Frame, Received, Skip};
use outlive_core::{ChannelId, Digest, EnvelopeId, Epoch, Seq};
use side::{LINK, ONE, OTHER, PEER_EPOCH, RELAYED, Side, message, pack, talk};

/// Long enough for commits to be told, too short for a question because nothing moves.
const MOMENT: Duration = Duration::from_millis(100);

const fn room_for(messages: u64) -> InboxLimits {
    InboxLimits {
        messages,
        ..roomy()
    }
}

const fn roomy() -> InboxLimits {
    InboxLimits {
        messages: outlive_core::limits::INBOX_MESSAGES,
        bytes: outlive_core::limits::INBOX_BYTES,
    }
}

/// A receiver with a relay, whose first channel is full.
fn full(messages: u64) -> Side {
    let mut side = Side::new(1, room_for(messages));
    side.bind(RELAYED);
    for seq in 1..=messages {
        assert_eq!(
            side.receive(Some(seq), pack(&[message(ONE, seq)])),
            Taken::Yes
        );
    }
    side.released.clear();
    side
}

fn data_seqs(frames: &[Frame], of: ChannelId) -> Vec<u64> {
    let seq = |frame: &Frame| match frame {
        Frame::Data(data) if data.channel == of => Some(data.seq.0),
        _ => None,
    };
    frames.iter().filter_map(seq).collect()
}

#[test]
fn a_packet_for_a_full_and_an_empty_channel_is_parked_and_what_fits_is_taken() {
    let mut side = full(2);
    let mixed = pack(&[message(ONE, 3), message(OTHER, 1), message(ONE, 4)]);
    assert_eq!(side.receive(Some(9), mixed.clone()), Taken::NoRoom);
    assert_eq!(
        (&side.parked[..], &side.released[..]),
        (&[EnvelopeId(9)][..], &[][..])
    );
    assert_eq!(side.inbox(OTHER).len(), 1);

    side.commit(ONE, 8);
    side.commit(ONE, 8);
    assert_eq!(side.redelivers, 1);
    assert_eq!(side.receive(Some(9), mixed), Taken::Yes);
    assert_eq!(side.released, [EnvelopeId(9)]);
    assert_eq!((side.inbox(ONE).len(), side.inbox(OTHER).len()), (2, 1));
}

#[test]
fn what_was_parked_is_asked_for_once_half_of_the_inbox_is_free() {
    let mut side = full(8);
    for seq in 9..20 {
        side.receive(Some(seq), pack(&[message(ONE, seq)]));
    }
    for committed in 1..=8 {
        side.commit(ONE, 8);
        let asked = usize::from(committed >= 4);
        assert_eq!(side.redelivers, asked, "after {committed} commits");
    }
}

#[test]
fn of_epochs_that_a_peer_makes_up_a_full_inbox_remembers_no_more_than_a_few() {
    let mut side = full(8);
    for n in 0..2_000 {
        let of_another_epoch = |frame| match frame {
            Frame::Data(data) => Frame::Data(Data {
                epoch: Epoch(100 + n),
                ..data
            }),
            other => other,
        };
        let packet = pack(&[of_another_epoch(message(ONE, 1))]);
        assert_eq!(side.receive(Some(100 + n), packet), Taken::NoRoom);
        assert_eq!(side.engine.overgrown(), None, "after {n}");
    }
    for _ in 1..=8 {
        side.commit(ONE, 8);
    }
    assert_eq!(
        side.redelivers, 1,
        "what is left of them is asked for all the same"
    );
}

#[test]
fn what_was_parked_is_not_asked_for_while_it_would_not_fit() {
    let mut side = Side::new(1, roomy());
    side.bind(RELAYED);
    // The first was lost on the way; the rest is too far ahead to be held.
    let far = HELD_SEGMENTS + 1;
    assert_eq!(
        side.receive(Some(1), pack(&[message(ONE, far)])),
        Taken::NoRoom
    );
    assert_eq!(
        side.receive(Some(2), pack(&[message(OTHER, 1)])),
        Taken::Yes
    );
    side.commit(OTHER, 8);
    assert_eq!((side.redelivers, side.released.len()), (0, 1));
    side.receive(Some(3), pack(&[message(ONE, 1)]));
    assert_eq!(side.redelivers, 1);
}

#[test]
fn the_word_that_something_far_ahead_expired_is_parked_too() {
    let mut side = Side::new(1, roomy());
    side.bind(RELAYED);
    let far = Seq(HELD_SEGMENTS + 1);
    let skip = Frame::Skip(Skip {
        epoch: PEER_EPOCH,
        channel: ONE,
        first: far,
        last: far,
        digest: Digest(1),
    });
    assert_eq!(side.receive(Some(1), pack(&[skip])), Taken::NoRoom);
    assert_eq!(
        (&side.parked[..], side.released.len()),
        (&[EnvelopeId(1)][..], 0)
    );
}

#[test]
fn a_word_that_much_will_not_come_is_asked_for_again_only_when_it_is_its_turn() {
    let mut side = Side::new(1, roomy());
    side.bind(RELAYED);
    let skip = Frame::Skip(Skip {
        epoch: PEER_EPOCH,
        channel: ONE,
        first: Seq(2),
        last: Seq(HELD_SEGMENTS + 10),
        digest: Digest(1),
    });
    let skip = pack(&[skip]);
    for envelope in 1..4 {
        assert_eq!(side.receive(Some(envelope), skip.clone()), Taken::NoRoom);
        assert_eq!(side.redelivers, 0);
    }
    side.receive(Some(4), pack(&[message(ONE, 1)]));
    assert_eq!(side.redelivers, 1);
    assert_eq!(side.receive(Some(1), skip), Taken::Yes);
}

#[test]
fn a_commit_is_told_when_it_is_durable_however_long_that_takes() {
    let mut side = Side::new(1, roomy());
    side.bind(RELAYED);
    side.receive(Some(1), pack(&[message(ONE, 1)]));
    side.said();
    let (position, record) = side.inbox(ONE).remove(0);
    side.engine.hand(ONE, position, &record);
    side.engine.commit(ONE, position, &record, 8, side.now);
    let mut told = Vec::new();
    for written in [false, false, true] {
        if written {
            side.engine.written(side.now);
        }
        while let Some(output) = side.engine.poll() {
            if let Output::Transmit(transmit) = output {
                told.extend(side::frames(&transmit.packet));
            }
        }
        side.now.elapsed += CONSUMED_DELAY * 2;
        side.engine.tick(side.now);
    }
    let consumed = |frame: &Frame| match frame {
        Frame::Ack(ack) => ack.received.first().map(|received| received.consumed),
        _ => None,
    };
    let told: Vec<_> = told.iter().filter_map(consumed).collect();
    assert_eq!(told, [Seq(2)]);
}

#[test]
fn a_peer_whose_inbox_is_full_is_not_sent_everything_again() {
    let mut sender = Side::new(1, roomy());
    sender.bind(RELAYED);
    for n in 0..10 {
        sender.send(ONE, vec![n; 8]);
    }
    for transmit in std::mem::take(&mut sender.sent) {
        sender.engine.accepted(LINK, transmit.envelope, sender.now);
    }
    let answer = |sender: &mut Side, room: u64| {
        sender.pass(Duration::from_secs(60));
        let resume = sender.said().into_iter().find_map(|frame| match frame {
            Frame::Resume(resume) => Some(resume),
            _ => None,
        });
        let resume = resume.expect("a question because nothing moves");
        let received = Received {
            channel: ONE,
            next: Seq(1),
            digest: Digest::default(),
            consumed: Seq(1),
            limit: Seq(1 + room),
            ranges: Vec::new(),
        };
        let ack = Ack {
            epoch: resume.epoch,
            answers: Some(resume.id),
            received: vec![received],
        };
        sender.receive(Some(1), pack(&[Frame::Ack(ack)]));
        data_seqs(&sender.said(), ONE)
    };
    assert_eq!(answer(&mut sender, 0), []);
    // With room it is missing: whoever had it lost it.
    assert_eq!(answer(&mut sender, 1), (1..=10).collect::<Vec<_>>());
}

#[test]
fn what_was_sent_before_the_room_was_known_goes_again_once_there_is_room() {
    let (mut sender, mut receiver) = (Side::new(2, roomy()), Side::new(1, room_for(4)));
    for n in 0..20 {
        sender.send(ONE, vec![n; 8]);
    }
    sender.bind(LinkClass::Direct);
    receiver.bind(LinkClass::Direct);
    talk(&mut sender, &mut receiver);
    assert_eq!(receiver.inbox(ONE).len(), 4);
    for seq in 1..=20 {
        assert_eq!(receiver.commit(ONE, 8), Seq(seq));
        receiver.pass(MOMENT);
        sender.pass(MOMENT);
        talk(&mut sender, &mut receiver);
    }
    assert!(!sender.engine.outstanding());
}

#[test]
fn a_full_channel_of_a_direct_link_holds_up_no_other() {
    let (mut sender, mut receiver) = (Side::new(2, roomy()), Side::new(1, room_for(4)));
    sender.bind(LinkClass::Direct);
    receiver.bind(LinkClass::Direct);
    talk(&mut sender, &mut receiver);
    for n in 0..100 {
        sender.send(ONE, vec![n; 8]);
        sender.send(OTHER, vec![n; 8]);
        talk(&mut sender, &mut receiver);
        receiver.commit(OTHER, 8);
        receiver.pass(MOMENT);
        talk(&mut sender, &mut receiver);
    }
    assert_eq!(receiver.inbox(ONE).len(), 4);
}

#[test]
fn a_message_larger_than_the_inbox_arrives() {
    let small = InboxLimits {
        messages: 1,
        bytes: 10_000,
    };
    let (mut sender, mut receiver) = (Side::new(2, roomy()), Side::new(1, small));
    sender.bind(LinkClass::Direct);
    receiver.bind(LinkClass::Direct);
    for n in 1..=2 {
        sender.send(ONE, vec![n; 100_000]);
    }
    talk(&mut sender, &mut receiver);
    assert_eq!(receiver.commit(ONE, 100_000), Seq(7));
    receiver.pass(MOMENT);
    talk(&mut sender, &mut receiver);
    assert_eq!(receiver.commit(ONE, 100_000), Seq(14));
}

#[test]
fn what_was_lost_on_one_channel_is_missed_while_another_flows() {
    let mut sender = Side::new(1, roomy());
    sender.bind(RELAYED);
    let accepted = |sender: &mut Side| {
        for transmit in &sender.sent {
            sender.engine.accepted(LINK, transmit.envelope, sender.now);
        }
        sender.said()
    };
    sender.send(ONE, vec![1; 8]);
    accepted(&mut sender);
    // The relay loses it and tells nobody; the other channel is delivered all the time.
    let (mut digest, mut next) = (Digest::default(), Seq(1));
    let asked = (0..120).any(|n| {
        sender.send(OTHER, vec![n; 8]);
        for frame in accepted(&mut sender) {
            if let Frame::Data(data) = frame {
                digest = digest.with(data.id, data.index);
                next = data.seq.next();
            }
        }
        let received = Received {
            channel: OTHER,
            next,
            digest,
            consumed: Seq(1),
            limit: Seq(next.0 + 10),
            ranges: Vec::new(),
        };
        let ack = Ack {
            epoch: sender.engine.session().epoch,
            answers: None,
            received: vec![received],
        };
        sender.receive(Some(u64::from(n)), pack(&[Frame::Ack(ack)]));
        sender.pass(Duration::from_secs(1));
        let asks = |frame: &Frame| matches!(frame, Frame::Resume(resume) if resume.answer);
        sender.said().iter().any(asks)
    });
    assert!(asked, "nobody asks after what was lost");
}

#[test]
fn of_more_skipped_messages_than_are_kept_the_oldest_is_forgotten() {
    let mut side = Side::new(1, roomy());
    side.bind(RELAYED);
    for seq in 1..=SKIPPED_RECORDS + 3 {
        side.receive(Some(seq), pack(&[message(ONE, seq)]));
        assert_eq!(side.skip(ONE), Seq(seq));
    }
    let kept: Vec<_> = side.skipped(ONE).iter().map(|one| one.last.0).collect();
    assert_eq!(kept, (4..=SKIPPED_RECORDS + 3).collect::<Vec<_>>());
    assert_eq!(side.inbox(ONE).len(), 0);
    assert_eq!(side.engine.session().kept_bytes(), 0);
}

#[test]
fn what_was_committed_by_who_had_it_first_is_not_handed_out_again() {
    let mut side = Side::new(1, roomy());
    side.bind(RELAYED);
    side.receive(Some(1), pack(&[message(ONE, 1)]));
    let (position, record) = side.inbox(ONE).remove(0);
    assert!(side.engine.hand(ONE, position, &record));
    assert!(side.engine.hand_again(ONE, position, &record, 2));
    side.drive();
    assert_eq!(side.inbox(ONE)[0].1.attempts, 2);
    side.engine.commit(ONE, position, &record, 8, side.now);
    // Neither one that had been read before brings it back, nor a second commit counts.
    assert!(!side.engine.hand_again(ONE, position, &record, 3));
    assert!(!side.engine.hand(ONE, position, &record));
    side.engine.commit(ONE, position, &record, 8, side.now);
    side.receive(Some(2), pack(&[message(ONE, 2)]));
    assert_eq!(side.inbox(ONE).len(), 1);
    let waiting = side.engine.session().inboxes[&ONE];
    assert_eq!((waiting.messages, waiting.bytes), (1, 8));
}

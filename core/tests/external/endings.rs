//! How messages end before they are delivered, and what is left of them.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use outlive_core::engine::{Ending, External, SendOptions};
use outlive_core::limits::{FILE_PART_BYTES, SEGMENT_BYTES};
use outlive_core::record::Extent;
use outlive_core::transport::Refusal;
use outlive_core::wire::frame::Frame;
use outlive_core::{ChannelId, Generation, TransferId};

use crate::sender::{HEAD, Sender, TRANSFER, file};

#[test]
fn a_message_given_up_in_its_middle_can_still_be_offered_from_its_beginning() {
    let mut sender = Sender::new(BTreeMap::new(), Some(file(FILE_PART_BYTES as usize)), 1);
    sender.offer();
    sender.bind();
    sender.acknowledge(40);
    sender
        .engine
        .give_up(ChannelId::FILES, TRANSFER, sender.now);
    sender.drive();
    assert_eq!(sender.endings, [Ending::Cancelled]);
    assert_eq!(sender.records(), 65, "a tombstone for each segment");
}

#[test]
fn a_message_refused_in_its_middle_can_still_be_offered_from_its_beginning() {
    let mut sender = Sender::new(BTreeMap::new(), Some(file(FILE_PART_BYTES as usize)), 1);
    sender.unanswered = Some(Vec::new());
    sender.offer();
    sender.bind();
    sender.acknowledge(1);
    let refused = sender.unanswered.take().expect("they are kept");
    let link = Generation::nth(1, 1);
    for envelope in refused {
        sender
            .engine
            .refused(link, envelope, Refusal::TooLarge, sender.now);
    }
    sender.drive();
    assert_eq!(sender.endings, [Ending::Refused(Refusal::TooLarge)]);
    assert_eq!(sender.records(), 65, "a tombstone for each segment");
}

#[test]
fn all_that_a_relay_refuses_ends_whether_it_is_still_in_memory_or_not() {
    const MESSAGES: usize = 150;
    let mut sender = Sender::new(BTreeMap::new(), None, 1);
    sender.unanswered = Some(Vec::new());
    sender.bind();
    let payload = Bytes::from(vec![7; SEGMENT_BYTES]);
    for _ in 0..MESSAGES {
        let (options, now) = (SendOptions::default(), sender.now);
        let sent = sender
            .engine
            .send(ChannelId::MESSAGES, &payload, &options, now);
        sent.expect("room for it");
        sender.drive();
    }
    for _ in 0..MESSAGES {
        let refused = sender.unanswered.replace(Vec::new()).unwrap_or_default();
        for envelope in refused {
            let link = Generation::nth(1, 1);
            sender
                .engine
                .refused(link, envelope, Refusal::NotAllowed, sender.now);
        }
        sender.drive();
    }
    assert_eq!(sender.endings.len(), MESSAGES);
}

#[test]
fn that_something_expired_is_said_though_the_relay_takes_it_late() {
    let mut sender = Sender::new(BTreeMap::new(), None, 1);
    sender.unanswered = Some(Vec::new());
    sender.bind();
    let options = SendOptions {
        ttl: Some(Duration::from_secs(60)),
        ..SendOptions::default()
    };
    let payload = Bytes::from_static(b"soon");
    let now = sender.now;
    let sent = sender
        .engine
        .send(ChannelId::MESSAGES, &payload, &options, now);
    sent.expect("room for it");
    sender.drive();
    let late = sender.unanswered.take().expect("it is on its way");
    sender.now = sender.now.after(Duration::from_secs(61));
    sender.engine.tick(sender.now);
    // It is found to have expired, and that is not written yet.
    assert!(sender.step());
    for envelope in late {
        let link = Generation::nth(1, 1);
        sender.engine.accepted(link, envelope, sender.now);
    }
    sender.drive();
    assert_eq!(sender.endings, [Ending::Expired]);
    let skip = |frame: &Frame| matches!(frame, Frame::Skip(_));
    assert!(sender.frames.iter().any(skip), "{:?}", sender.frames);
}

#[test]
fn a_message_given_up_as_the_peer_gets_all_of_it_leaves_no_record() {
    let mut sender = Sender::new(BTreeMap::new(), Some(file(FILE_PART_BYTES as usize)), 1);
    sender.offer();
    sender.bind();
    sender
        .engine
        .give_up(ChannelId::FILES, TRANSFER, sender.now);
    // Its record is found; its tombstones are not written yet.
    assert!(sender.step());
    sender.acknowledge(65);
    assert_eq!(sender.records(), 0);
}

#[test]
fn a_file_that_is_gone_ends_its_messages_and_holds_up_none_behind_it() {
    let mut sender = Sender::new(BTreeMap::new(), Some(file(2_000_000)), 1);
    sender.offer();
    let behind = Bytes::from_static(b"behind it");
    let options = SendOptions::default();
    sender
        .engine
        .send(ChannelId::FILES, &behind, &options, sender.now)
        .expect("room for it");
    sender.drive();
    sender.file = None;
    sender.bind();
    assert_eq!(sender.endings, [Ending::Unreadable; 2]);
    assert_eq!(sender.messages(), [b"behind it".to_vec()]);
    let skipped = |frame: &&Frame| matches!(frame, Frame::Skip(_));
    let skips = sender.frames.iter().filter(skipped).count();
    assert_eq!(skips, 65 + 59, "one for each segment of both messages");
}

#[test]
fn content_that_is_shorter_than_it_was_ends_its_message() {
    let mut sender = Sender::new(BTreeMap::new(), Some(file(100_000)), 1);
    sender.offer();
    sender.file = Some(file(99_999));
    sender.bind();
    assert_eq!(sender.endings, [Ending::Unreadable]);
    assert_eq!(sender.messages(), [] as [Vec<u8>; 0]);
}

#[test]
fn a_transfer_that_is_given_up_ends_all_that_waits_of_it_and_nothing_else() {
    let mut sender = Sender::new(BTreeMap::new(), Some(file(3_000_000)), 1);
    sender.offer();
    let other = External {
        extent: Extent {
            transfer: TransferId([4; 16]),
            offset: 0,
            length: 10,
        },
        beginning: Bytes::from_static(HEAD),
    };
    let options = SendOptions::default();
    sender
        .engine
        .send_external(ChannelId::FILES, &other, &options, sender.now)
        .expect("room for it");
    sender.drive();
    sender
        .engine
        .give_up(ChannelId::FILES, TRANSFER, sender.now);
    sender.drive();
    assert_eq!(sender.endings, [Ending::Cancelled; 3]);
    sender.bind();
    assert_eq!(sender.messages().len(), 1);
}

#[test]
fn a_search_for_what_has_expired_elsewhere_does_not_end_that_for_what_was_given_up() {
    let mut sender = Sender::new(BTreeMap::new(), Some(file(2_000_000)), 1);
    sender.offer();
    let short = SendOptions {
        ttl: Some(Duration::from_secs(1)),
        once: None,
    };
    let line = Bytes::from_static(b"a line");
    let taken = sender
        .engine
        .send(ChannelId::MESSAGES, &line, &short, sender.now);
    taken.expect("room for it");
    sender.drive();
    sender.now = sender.now.after(Duration::from_secs(2));
    sender.engine.tick(sender.now);
    sender
        .engine
        .give_up(ChannelId::FILES, TRANSFER, sender.now);
    sender.drive();
    let count = |how| {
        sender
            .endings
            .iter()
            .filter(|ending| **ending == how)
            .count()
    };
    assert_eq!(count(Ending::Expired), 1);
    assert_eq!(count(Ending::Cancelled), 2);
}

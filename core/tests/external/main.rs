//! Messages whose payload lies in a file: what the engine keeps of them, and what leaves.

mod endings;
mod later;
mod sender;

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use outlive_core::engine::SendOptions;
use outlive_core::limits::{FILE_PART_BYTES, RELAY_FLIGHT, SEGMENT_BYTES};
use outlive_core::link::LinkClass;
use outlive_core::transport::Lane;
use outlive_core::wire::frame::Frame;
use outlive_core::{ChannelId, Generation};

use crate::sender::{HEAD, Sender, file};

#[test]
fn a_file_leaves_from_where_it_lies_and_is_in_no_record() {
    let content = file(FILE_PART_BYTES as usize + 100_000);
    let mut sender = Sender::new(BTreeMap::new(), Some(content.clone()), 1);
    sender.offer();
    assert_eq!(sender.read, 0, "nothing is read before its turn");
    let stored: usize = sender.disk.values().map(Bytes::len).sum();
    assert!(stored < 1024, "{stored} bytes in the store");
    assert_eq!(sender.records(), 2, "one for each message");

    sender.bind();
    let messages = sender.messages();
    assert_eq!(messages.len(), 2);
    let sent: Vec<u8> = messages
        .iter()
        .flat_map(|message| message.strip_prefix(HEAD).expect("the head").to_vec())
        .collect();
    assert!(sent == content, "what left is the file");
    assert_eq!(sender.read, content.len(), "each byte was read once");
}

#[test]
fn a_segment_with_a_head_is_as_long_as_any_other() {
    let mut sender = Sender::new(BTreeMap::new(), Some(file(3 * SEGMENT_BYTES)), 1);
    sender.offer();
    sender.bind();
    let lengths: Vec<_> = sender
        .frames
        .iter()
        .filter_map(|frame| match frame {
            Frame::Data(data) => Some(data.payload.len()),
            _ => None,
        })
        .collect();
    assert_eq!(
        lengths,
        [SEGMENT_BYTES, SEGMENT_BYTES, SEGMENT_BYTES, HEAD.len()]
    );
}

#[test]
fn what_is_read_of_a_file_holds_up_no_other_channel() {
    let content = file(3 * FILE_PART_BYTES as usize);
    let mut sender = Sender::new(BTreeMap::new(), Some(content.clone()), 1);
    sender.offer();
    let (other, options) = (ChannelId(16), SendOptions::default());
    let said = sender
        .engine
        .send(other, &"a word".into(), &options, sender.now);
    said.expect("room");
    sender.drive();
    // Both have to be read: the relay takes whatever it gets at once.
    let mut sender = Sender::new(sender.disk, Some(content), 2);
    sender.bind();
    let mut frames = sender.frames.iter();
    let word = |frame: &Frame| matches!(frame, Frame::Data(data) if data.channel == other);
    let at = frames.position(word).expect("it leaves");
    assert!(at < 16, "behind {at}: more than one read");
}

#[test]
fn what_was_offered_before_a_restart_leaves_after_it() {
    let content = file(5 * SEGMENT_BYTES);
    let mut sender = Sender::new(BTreeMap::new(), Some(content.clone()), 1);
    sender.offer();
    let mut sender = Sender::new(sender.disk, Some(content.clone()), 2);
    sender.bind();
    let [message] = &sender.messages()[..] else {
        panic!("one message")
    };
    assert!(message.strip_prefix(HEAD) == Some(&content[..]));
}

#[test]
fn the_record_of_a_message_goes_when_the_peer_has_all_of_it() {
    let content = file(2 * FILE_PART_BYTES as usize);
    for restarted in [false, true] {
        let mut sender = Sender::new(BTreeMap::new(), Some(content.clone()), 1);
        sender.offer();
        if restarted {
            sender = Sender::new(sender.disk, Some(content.clone()), 2);
        }
        sender.bind();
        sender.acknowledge(40);
        assert_eq!(sender.records(), 2, "the first may be offered again");
        sender.acknowledge(66);
        assert_eq!(sender.records(), 1);
        sender.acknowledge(130);
        assert_eq!(sender.records(), 0);
        assert!(!sender.engine.outstanding());
    }
}

#[test]
fn on_a_direct_link_a_file_and_all_else_have_lanes_and_packets_of_their_own() {
    let mut sender = Sender::new(BTreeMap::new(), Some(file(2 * SEGMENT_BYTES)), 1);
    sender.offer();
    let generation = Generation::nth(1, 1);
    sender
        .engine
        .bind(generation, LinkClass::Direct, 0, sender.now);
    // The file is read while these are written: all may go at once.
    for channel in [ChannelId::SIGNALING, ChannelId::MESSAGES, ChannelId(16)] {
        let payload = Bytes::from(vec![1; 2 * SEGMENT_BYTES + 100]);
        let options = SendOptions::default();
        let taken = sender.engine.send(channel, &payload, &options, sender.now);
        taken.expect("room for it");
    }
    sender.drive();
    let mut lanes = BTreeMap::<ChannelId, Vec<Lane>>::new();
    for (lane, frames) in &sender.packets {
        let data = |frame: &Frame| match frame {
            Frame::Data(data) => Some(data.channel),
            _ => None,
        };
        let bulk = frames.iter().any(|f| data(f) == Some(ChannelId::FILES));
        assert_eq!(*lane == Lane::Bulk, bulk);
        for frame in frames {
            assert_eq!(bulk, data(frame) == Some(ChannelId::FILES), "{frame:?}");
            if let Some(channel) = data(frame) {
                lanes.entry(channel).or_default().push(*lane);
            }
        }
    }
    let counts: Vec<_> = lanes.iter().map(|(c, lanes)| (c.0, lanes.len())).collect();
    assert_eq!(counts, [(0, 3), (1, 3), (2, 3), (16, 3)]);
}

#[test]
fn a_relay_that_answers_late_has_little_of_a_file_on_its_way() {
    let ms = Duration::from_millis;
    let mut sender = Sender::new(BTreeMap::new(), Some(file(64 << 20)), 1);
    sender.offer();
    sender.unanswered = Some(Vec::new());
    sender.bind();
    let mut most = 0;
    for _ in 0..8 {
        most = most.max(sender.answered(ms(20)));
    }
    assert!(most >= RELAY_FLIGHT, "{most} are on their way");
    // What it has now waits in a queue, on a road that takes 20 ms.
    for _ in 0..20 {
        sender.answered(ms(400));
    }
    let least = sender.answered(ms(400));
    assert!(least <= 4, "{least} are on their way");
    let again = (0..40).map(|_| sender.answered(ms(20))).max();
    assert!(
        again >= Some(RELAY_FLIGHT),
        "the queue was of others: {again:?}"
    );
}

#[test]
fn what_is_said_goes_out_while_no_more_of_a_file_may() {
    let mut sender = Sender::new(BTreeMap::new(), Some(file(4 << 20)), 1);
    sender.offer();
    sender.unanswered = Some(Vec::new());
    sender.bind();
    let of_file = sender.packets.len();
    assert!(of_file < RELAY_FLIGHT, "{of_file} are on their way");
    let word = Bytes::from_static(b"a word");
    let options = SendOptions::default();
    let said = sender
        .engine
        .send(ChannelId::MESSAGES, &word, &options, sender.now);
    said.expect("room for it");
    sender.drive();
    assert_eq!(sender.packets.len(), of_file + 1);
}

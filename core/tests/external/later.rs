//! Content that can't be read for a while.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use outlive_core::ChannelId;
use outlive_core::engine::{Ending, SendOptions};

use crate::sender::{HEAD, Sender, TRANSFER, file};

/// A sender that has asked for content, and is to ask again when this is over.
fn busy(content: &[u8]) -> (Sender, Duration) {
    let mut sender = Sender::new(BTreeMap::new(), Some(content.to_vec()), 1);
    sender.offer();
    let later = sender.now.elapsed + Duration::from_millis(10);
    sender.later = Some(later);
    sender.bind();
    assert_eq!(sender.asked, 1);
    (sender, later)
}

#[test]
fn content_that_can_not_be_read_is_asked_for_again_when_it_is_time_and_holds_no_other_channel_up() {
    let content = file(100_000);
    let (mut sender, later) = busy(&content);
    let packets = sender.packets.len();
    for channel in [ChannelId::MESSAGES, ChannelId(16)] {
        let (word, options) = (Bytes::from_static(b"a word"), SendOptions::default());
        let said = sender.engine.send(channel, &word, &options, sender.now);
        said.expect("room for it");
        sender.drive();
    }
    assert_eq!(sender.packets.len(), packets + 2);
    assert_eq!(sender.asked, 1);
    assert_eq!(sender.engine.deadline(), Some(later));
    sender.now.elapsed = later;
    sender.later = Some(later + Duration::from_millis(10));
    sender.engine.tick(sender.now);
    sender.drive();
    assert_eq!(sender.asked, 2);
    sender.now.elapsed = later + Duration::from_millis(10);
    sender.later = None;
    sender.engine.tick(sender.now);
    sender.drive();
    assert_eq!(sender.endings, []);
    let messages = sender.messages();
    let of_file = messages
        .iter()
        .find_map(|message| message.strip_prefix(HEAD));
    assert!(of_file == Some(&content[..]));
}

#[test]
fn a_transfer_whose_content_can_not_be_read_ends_when_it_is_given_up() {
    let (mut sender, _) = busy(&file(100_000));
    sender
        .engine
        .give_up(ChannelId::FILES, TRANSFER, sender.now);
    sender.drive();
    assert_eq!(sender.endings, [Ending::Cancelled]);
    assert_eq!(sender.asked, 1);
}

//! Messages whose payload lies in a file: what the engine keeps of them, and what leaves.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use outlive_core::engine::{Ending, Engine, Event, External, Output, SendOptions, Stored};
use outlive_core::limits::{FILE_PART_BYTES, RELAY_FLIGHT, SEGMENT_BYTES};
use outlive_core::link::LinkClass;
use outlive_core::record::{Extent, Key};
use outlive_core::seal::KIND_PLAIN;
use outlive_core::transport::{Lane, Refusal};
use outlive_core::wire::frame::{Ack, Data, Frame, Received};
use outlive_core::wire::packet::{self, PacketBuilder};
use outlive_core::{
    ChannelId, Digest, Entropy, EnvelopeId, Generation, Identity, Now, PeerId, Position, Seq,
    StoreId, TransferId, WallTime,
};

const TRANSFER: TransferId = TransferId([3; 16]);
const HEAD: &[u8] = b"what stands before the bytes";

/// An engine, its store, and the file that it sends of.
struct Sender {
    engine: Engine,
    disk: BTreeMap<Bytes, Bytes>,
    file: Option<Vec<u8>>,
    /// Bytes of the file that were read.
    read: usize,
    frames: Vec<Frame>,
    packets: Vec<(Lane, Vec<Frame>)>,
    endings: Vec<Ending>,
    /// What the relay was handed and has not answered, unless it answers at once.
    unanswered: Option<Vec<EnvelopeId>>,
    now: Now,
}

/// What the engine wanted read.
enum Found {
    Rows(Vec<(Bytes, Bytes)>),
    Content(Option<Bytes>),
}

fn peer() -> PeerId {
    Identity::from_seed([1; 32]).peer_id()
}

impl Sender {
    fn new(disk: BTreeMap<Bytes, Bytes>, file: Option<Vec<u8>>, start: u32) -> Self {
        let now = Now {
            elapsed: Duration::from_secs(1),
            wall: WallTime(1_000_000),
        };
        let stored = Stored {
            session: disk.get(&Key::Session(peer()).to_bytes()).cloned(),
            segments: Vec::new(),
        };
        let me = Identity::from_seed([99; 32]);
        let entropy = Entropy::from_seed([u8::try_from(start).unwrap(); 32]);
        let mut engine = Engine::open(&me, peer(), start, &stored, entropy, now).expect("our own");
        engine.seal_nothing();
        Self {
            engine,
            disk,
            file,
            read: 0,
            frames: Vec::new(),
            packets: Vec::new(),
            endings: Vec::new(),
            unanswered: None,
            now,
        }
    }

    fn offer(&mut self) {
        let length = self.file.as_ref().map_or(0, Vec::len) as u64;
        let mut offset = 0;
        while offset < length {
            let extent = Extent {
                transfer: TRANSFER,
                offset,
                length: (length - offset).min(FILE_PART_BYTES),
            };
            let part = External {
                extent,
                beginning: Bytes::from_static(HEAD),
            };
            offset += extent.length;
            let options = SendOptions::default();
            let taken = self
                .engine
                .send_external(ChannelId::FILES, &part, &options, self.now);
            taken.expect("room for it");
        }
        self.drive();
    }

    fn bind(&mut self) {
        let relayed = LinkClass::Relayed(StoreId([7; 16]));
        self.engine
            .bind(Generation::nth(1, 1), relayed, 0, self.now);
        self.drive();
    }

    fn drive(&mut self) {
        while self.step() {}
    }

    /// Does all that the engine wants done, and then tells it that its store has done what was asked
    /// of it. Returns whether there was something.
    fn step(&mut self) -> bool {
        let (mut wrote, mut read) = (false, None);
        while let Some(output) = self.engine.poll() {
            match output {
                Output::Transmit(transmit) => {
                    let frames = packet::decode(&transmit.packet.slice(1..)).expect("in the clear");
                    self.frames.extend(frames.clone());
                    self.packets.push((transmit.lane, frames));
                    match &mut self.unanswered {
                        Some(unanswered) => unanswered.push(transmit.envelope),
                        None => {
                            let (link, envelope) = (transmit.generation, transmit.envelope);
                            self.engine.accepted(link, envelope, self.now);
                        }
                    }
                }
                Output::Write(batch) => {
                    for (key, value) in batch {
                        match value {
                            Some(value) => self.disk.insert(key, value),
                            None => self.disk.remove(&key),
                        };
                    }
                    wrote = true;
                }
                Output::Read { range, limit } => {
                    let rows = self.disk.range(range).take(limit.records.min(16));
                    let rows = rows.map(|(k, v)| (k.clone(), v.clone())).collect();
                    read = Some(Found::Rows(rows));
                }
                Output::Content(extent) => {
                    let content = self.file.as_ref().map(|file| {
                        let from = extent.offset as usize;
                        let end = file.len().min(from + extent.length as usize);
                        self.read += end - from;
                        Bytes::copy_from_slice(&file[from..end])
                    });
                    read = Some(Found::Content(content));
                }
                Output::Event(Event::Ended { how, .. }) => self.endings.push(how),
                _ => {}
            }
        }
        if wrote {
            self.engine.written(self.now);
        }
        let Some(found) = read else { return wrote };
        match found {
            Found::Rows(rows) => self.engine.read(&rows, self.now).expect("own records"),
            Found::Content(content) => self.engine.content(content, self.now),
        }
        true
    }

    /// The relay answers all that it was handed, after so long. Returns how much was on its way then.
    fn answered(&mut self, after: Duration) -> usize {
        self.now.elapsed += after;
        let packets = self.unanswered.replace(Vec::new()).unwrap_or_default();
        for envelope in &packets {
            let link = Generation::nth(1, 1);
            self.engine.accepted(link, *envelope, self.now);
        }
        self.drive();
        packets.len()
    }

    /// Records in the outbox.
    fn records(&self) -> usize {
        let all = Key::outbox(peer(), ChannelId::FILES, Position(0), Position(u64::MAX));
        self.disk.range(all).count()
    }

    /// The peer has so many segments of all that left.
    fn acknowledge(&mut self, segments: u64) {
        let mut all = Vec::new();
        for frame in &self.frames {
            if let Frame::Data(data) = frame
                && data.seq.0 <= segments
            {
                all.push((data.epoch, data.id, data.index));
            }
        }
        let digest = all.iter().fold(Digest::default(), |sum, (_, id, index)| {
            sum.with(*id, *index)
        });
        let ack = Ack {
            epoch: all[0].0,
            answers: None,
            received: vec![Received {
                channel: ChannelId::FILES,
                next: Seq(segments + 1),
                digest,
                consumed: Seq(1),
                limit: Seq(segments + 1_000),
                ranges: Vec::new(),
            }],
        };
        let mut packet = PacketBuilder::new();
        assert!(packet.push(&Frame::Ack(ack)));
        let packet = [&[KIND_PLAIN][..], &packet.finish()].concat();
        let generation = Generation::nth(1, 1);
        let envelope = Some(EnvelopeId(1));
        self.engine
            .receive(generation, envelope, packet.into(), self.now);
        self.drive();
    }

    /// What left, by message.
    fn messages(&self) -> Vec<Vec<u8>> {
        let mut messages = Vec::new();
        for frame in &self.frames {
            if let Frame::Data(Data { index, payload, .. }) = frame {
                if *index == 0 {
                    messages.push(Vec::new());
                }
                let message: &mut Vec<u8> = messages.last_mut().expect("a first segment");
                message.extend_from_slice(payload);
            }
        }
        messages
    }
}

fn file(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|n| (n / 7 % 251) as u8).collect()
}

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
    sender.now.elapsed += Duration::from_secs(61);
    sender.now.wall = sender.now.wall.plus(Duration::from_secs(61));
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
    sender.now.elapsed += Duration::from_secs(2);
    sender.now.wall = sender.now.wall.plus(Duration::from_secs(2));
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

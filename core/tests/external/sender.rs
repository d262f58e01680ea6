//! An engine that sends, with its store and the file that it sends of.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use outlive_core::engine::{Ending, Engine, Event, External, Output, SendOptions, Stored};
use outlive_core::limits::FILE_PART_BYTES;
use outlive_core::link::LinkClass;
use outlive_core::record::{Extent, Key};
use outlive_core::seal::KIND_PLAIN;
use outlive_core::transport::Lane;
use outlive_core::wire::frame::{Ack, Data, Frame, Received};
use outlive_core::wire::packet::{self, PacketBuilder};
use outlive_core::{
    ChannelId, Digest, Entropy, EnvelopeId, Generation, Identity, Now, PeerId, Position, Seq,
    StoreId, TransferId, WallTime,
};

pub(crate) const TRANSFER: TransferId = TransferId([3; 16]);
pub(crate) const HEAD: &[u8] = b"what stands before the bytes";

/// An engine, its store, and the file that it sends of.
pub(crate) struct Sender {
    pub(crate) engine: Engine,
    pub(crate) disk: BTreeMap<Bytes, Bytes>,
    pub(crate) file: Option<Vec<u8>>,
    /// When the file may be read again, if it can't be now.
    pub(crate) later: Option<Duration>,
    /// How often it was asked for.
    pub(crate) asked: usize,
    /// Bytes of the file that were read.
    pub(crate) read: usize,
    pub(crate) frames: Vec<Frame>,
    pub(crate) packets: Vec<(Lane, Vec<Frame>)>,
    pub(crate) endings: Vec<Ending>,
    /// What the relay was handed and has not answered, unless it answers at once.
    pub(crate) unanswered: Option<Vec<EnvelopeId>>,
    pub(crate) now: Now,
}

/// What the engine wanted read.
enum Found {
    Rows(Vec<(Bytes, Bytes)>),
    Content(Option<Bytes>),
    Later(Duration),
}

pub(crate) fn peer() -> PeerId {
    Identity::from_seed([1; 32]).peer_id()
}

impl Sender {
    pub(crate) fn new(disk: BTreeMap<Bytes, Bytes>, file: Option<Vec<u8>>, start: u32) -> Self {
        let now = Now {
            elapsed: Duration::from_secs(1),
            wall: WallTime(1_000_000),
            ..Now::default()
        };
        let session = disk.get(&Key::Session(peer()).to_bytes());
        let stored = Stored::new(session.map(|value| &value[..])).expect("our own");
        let me = Identity::from_seed([99; 32]);
        let entropy = Entropy::from_seed([u8::try_from(start).unwrap(); 32]);
        let mut engine = Engine::open(&me, peer(), start, stored, entropy, now);
        engine.seal_nothing();
        Self {
            engine,
            disk,
            file,
            later: None,
            asked: 0,
            read: 0,
            frames: Vec::new(),
            packets: Vec::new(),
            endings: Vec::new(),
            unanswered: None,
            now,
        }
    }

    pub(crate) fn offer(&mut self) {
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

    pub(crate) fn bind(&mut self) {
        let relayed = LinkClass::Relayed(StoreId([7; 16]));
        self.engine
            .bind(Generation::nth(1, 1), relayed, 0, self.now);
        self.drive();
    }

    pub(crate) fn drive(&mut self) {
        while self.step() {}
    }

    /// Does all that the engine wants done, and then tells it that its store has done what was asked
    /// of it. Returns whether there was something.
    pub(crate) fn step(&mut self) -> bool {
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
                    self.asked += 1;
                    if let Some(later) = self.later {
                        read = Some(Found::Later(later));
                        continue;
                    }
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
            Found::Later(later) => self.engine.content_later(later, self.now),
        }
        true
    }

    /// The relay answers all that it was handed, after so long. Returns how much was on its way then.
    pub(crate) fn answered(&mut self, after: Duration) -> usize {
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
    pub(crate) fn records(&self) -> usize {
        let all = Key::outbox(peer(), ChannelId::FILES, Position(0), Position(u64::MAX));
        self.disk.range(all).count()
    }

    /// The peer has so many segments of all that left.
    pub(crate) fn acknowledge(&mut self, segments: u64) {
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
    pub(crate) fn messages(&self) -> Vec<Vec<u8>> {
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

pub(crate) fn file(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|n| (n / 7 % 251) as u8).collect()
}

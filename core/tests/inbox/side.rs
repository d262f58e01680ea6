//! One side of a session: an engine over a store that never fails.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use outlive_core::engine::{Engine, Event, Output, SendOptions, Skipped, Stored, Taken, Transmit};
use outlive_core::limits::InboxLimits;
use outlive_core::link::LinkClass;
use outlive_core::record::{InboxRecord, Key, Record, SkippedRecord};
use outlive_core::seal::KIND_PLAIN;
use outlive_core::wire::frame::{Data, Frame};
use outlive_core::wire::packet::{self, PacketBuilder};
use outlive_core::{
    ChannelId, Entropy, EnvelopeId, Epoch, Generation, Identity, MessageId, Now, PeerId, Position,
    Seq, StoreId, WallTime,
};

pub(crate) const RELAYED: LinkClass = LinkClass::Relayed(StoreId([7; 16]));
pub(crate) const ONE: ChannelId = ChannelId(1);
pub(crate) const OTHER: ChannelId = ChannelId(16);
pub(crate) const LINK: Generation = Generation::nth(1, 1);

/// The epoch of a peer that is played by the test.
pub(crate) const PEER_EPOCH: Epoch = Epoch(5);

pub(crate) struct Side {
    pub(crate) engine: Engine,
    disk: BTreeMap<Bytes, Bytes>,
    peer: PeerId,
    pub(crate) now: Now,
    pub(crate) sent: Vec<Transmit>,
    pub(crate) parked: Vec<EnvelopeId>,
    pub(crate) released: Vec<EnvelopeId>,
    pub(crate) redelivers: usize,
    pub(crate) events: Vec<Event>,
}

impl Side {
    pub(crate) fn new(seed: u8, limits: InboxLimits) -> Self {
        Self::over(seed, 1, BTreeMap::new(), limits)
    }

    fn over(seed: u8, start: u32, disk: BTreeMap<Bytes, Bytes>, limits: InboxLimits) -> Self {
        let peer = Identity::from_seed([seed; 32]).peer_id();
        let now = Now {
            elapsed: Duration::from_secs(1),
            wall: WallTime(1_000_000),
            ..Now::default()
        };
        let session = disk.get(&Key::Session(peer).to_bytes());
        let mut stored = Stored::new(session.map(|value| &value[..])).expect("our own record");
        for range in stored.segments(peer) {
            let rows = disk
                .range(range)
                .map(|(key, value)| (key.clone(), value.clone()));
            let rows: Vec<_> = rows.collect();
            stored.read(peer, &rows).expect("our own records");
        }
        let entropy = Entropy::from_seed([seed + start as u8; 32]);
        let me = Identity::from_seed([99; 32]);
        let mut engine = Engine::open(&me, peer, start, stored, entropy, now);
        // Frames are made and read by hand here.
        engine.seal_nothing();
        engine.set_inbox_limits(limits);
        Self {
            engine,
            disk,
            peer,
            now,
            sent: Vec::new(),
            parked: Vec::new(),
            released: Vec::new(),
            redelivers: 0,
            events: Vec::new(),
        }
    }

    pub(crate) fn bind(&mut self, class: LinkClass) {
        self.engine.bind(LINK, class, 0, self.now);
        self.drive();
    }

    /// Does all the engine asks for.
    pub(crate) fn drive(&mut self) {
        while let Some(output) = self.engine.poll() {
            match output {
                Output::Transmit(transmit) => self.sent.push(transmit),
                Output::Write(batch) => {
                    for (key, value) in batch {
                        match value {
                            Some(value) => self.disk.insert(key, value),
                            None => self.disk.remove(&key),
                        };
                    }
                    self.engine.written(self.now);
                }
                Output::Read { range, limit } => {
                    let rows: Vec<_> = self
                        .disk
                        .range(range)
                        .take(limit.records)
                        .map(|(key, value)| (key.clone(), value.clone()))
                        .collect();
                    self.engine.read(&rows, self.now).expect("own records");
                }
                Output::Release { envelope, .. } => self.released.push(envelope),
                Output::Park { envelope, .. } => self.parked.push(envelope),
                Output::Redeliver { .. } => self.redelivers += 1,
                Output::Drop { reason, .. } => panic!("the link was given up: {reason}"),
                Output::Content(_) => panic!("nothing here lies in files"),
                Output::Event(event) => self.events.push(event),
            }
        }
    }

    pub(crate) fn send(&mut self, channel: ChannelId, payload: Vec<u8>) {
        let options = SendOptions::default();
        self.engine
            .send(channel, &payload.into(), &options, self.now)
            .expect("room");
        self.drive();
    }

    pub(crate) fn receive(&mut self, envelope: Option<u64>, packet: Bytes) -> Taken {
        let envelope = envelope.map(EnvelopeId);
        let taken = self.engine.receive(LINK, envelope, packet, self.now);
        self.drive();
        taken
    }

    pub(crate) fn pass(&mut self, time: Duration) {
        self.now = self.now.after(time);
        self.engine.tick(self.now);
        self.drive();
    }

    /// What waits in an inbox.
    pub(crate) fn inbox(&self, channel: ChannelId) -> Vec<(Position, InboxRecord)> {
        self.disk
            .range(Key::inbox(
                self.peer,
                channel,
                Position(0),
                Position(u64::MAX),
            ))
            .filter_map(|(key, value)| match Key::from_bytes(key) {
                Ok(Key::Inbox(_, _, position)) => Some((
                    position,
                    InboxRecord::from_bytes(value).expect("own record"),
                )),
                _ => None,
            })
            .collect()
    }

    /// The app takes and commits the first message of an inbox.
    pub(crate) fn commit(&mut self, channel: ChannelId, bytes: u64) -> Seq {
        let (position, record) = self.inbox(channel).remove(0);
        self.engine.hand(channel, position, &record);
        self.engine
            .commit(channel, position, &record, bytes, self.now);
        self.drive();
        record.last
    }

    /// The app takes and skips the first message of an inbox, half of which is in its file.
    pub(crate) fn skip(&mut self, channel: ChannelId) -> Seq {
        let (position, record) = self.inbox(channel).remove(0);
        self.engine.hand(channel, position, &record);
        let skipped = Skipped {
            record: &record,
            payload: &Bytes::from_static(b"1234"),
            bytes: 8,
            attempts: 1,
            reason: "no good",
        };
        self.engine.skip(channel, position, skipped, self.now);
        self.drive();
        record.last
    }

    /// What is known of the messages of a channel that were skipped.
    pub(crate) fn skipped(&self, channel: ChannelId) -> Vec<SkippedRecord> {
        let rows = self.disk.range(Key::skipped(self.peer, channel));
        rows.map(|(_, value)| SkippedRecord::from_bytes(value).expect("own record"))
            .collect()
    }

    /// The frames it sent since this was asked last.
    pub(crate) fn said(&mut self) -> Vec<Frame> {
        std::mem::take(&mut self.sent)
            .iter()
            .flat_map(|transmit| frames(&transmit.packet))
            .collect()
    }
}

pub(crate) fn frames(packet: &Bytes) -> Vec<Frame> {
    packet::decode(&packet.slice(1..)).expect("decodes")
}

pub(crate) fn pack(frames: &[Frame]) -> Bytes {
    let mut builder = PacketBuilder::new();
    for frame in frames {
        assert!(builder.push(frame), "the packet is full");
    }
    [&[KIND_PLAIN][..], &builder.finish()].concat().into()
}

/// A message of eight bytes in one segment.
pub(crate) fn message(channel: ChannelId, seq: u64) -> Frame {
    let mut id = [channel.0 as u8; 16];
    id[..8].copy_from_slice(&seq.to_le_bytes());
    Frame::Data(Data {
        epoch: PEER_EPOCH,
        channel,
        seq: Seq(seq),
        id: MessageId(id),
        index: 0,
        count: 1,
        again: None,
        payload: Bytes::from_static(b"12345678"),
    })
}

/// Carries packets both ways over a direct link until nobody has more to say.
pub(crate) fn talk(one: &mut Side, other: &mut Side) {
    while !one.sent.is_empty() || !other.sent.is_empty() {
        for transmit in std::mem::take(&mut one.sent) {
            other.receive(None, transmit.packet);
        }
        for transmit in std::mem::take(&mut other.sent) {
            one.receive(None, transmit.packet);
        }
    }
}

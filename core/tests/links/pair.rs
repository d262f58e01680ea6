//! Two engines and the wires between them, on which nothing is lost but what a test takes away.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use outlive_core::engine::{DropReason, Engine, Output, SendOptions, Stored, Taken, Transmit};
use outlive_core::link::LinkClass;
use outlive_core::record::{InboxBody, InboxRecord, Key, Record};
use outlive_core::seal::KIND_PLAIN;
use outlive_core::transport::{Lane, Refusal};
use outlive_core::wire::frame::Frame;
use outlive_core::wire::packet::{self, PacketBuilder};
use outlive_core::{ChannelId, Entropy, Generation, Identity, Now, Position, WallTime};

pub(crate) const CHAT: ChannelId = ChannelId::MESSAGES;

/// The content of a full segment.
pub(crate) const MUCH: &str = match str::from_utf8(&[b'm'; 16 * 1024]) {
    Ok(much) => much,
    Err(_) => "",
};

pub(crate) type Lose = Box<dyn Fn(Generation, &Frame) -> bool>;

pub(crate) struct Peer {
    pub(crate) engine: Engine,
    pub(crate) disk: BTreeMap<Bytes, Bytes>,
    pub(crate) dropped: Vec<(Generation, DropReason)>,
}

impl Peer {
    pub(crate) fn retired(&self, link: Generation) -> bool {
        self.dropped
            .iter()
            .any(|(generation, _)| *generation == link)
    }
}

/// Two peers. Links have the same generation at both ends.
pub(crate) struct Pair {
    pub(crate) peers: [Peer; 2],
    /// Packets and where they go.
    pub(crate) wire: VecDeque<(usize, Transmit)>,
    pub(crate) now: Now,
    /// What is lost on its way over a link.
    pub(crate) lose: Lose,
    /// How long a packet takes over a link.
    pub(crate) takes: Box<dyn Fn(Generation) -> Duration>,
    /// Packets under way that take some time, and when they arrive.
    pub(crate) slow: VecDeque<(Duration, usize, Transmit)>,
    /// Whole packets that were.
    pub(crate) lost: Vec<(usize, Transmit)>,
    /// A link that delivers a packet in a tenth of a second each way, and what waits for it.
    pub(crate) narrow: Option<Generation>,
    pub(crate) waiting: [VecDeque<Transmit>; 2],
    /// How long each packet of a file takes, one behind the other, beside everything else; what waits
    /// for that, and how many bytes there were in all.
    pub(crate) part_takes: Option<Duration>,
    pub(crate) parts: VecDeque<(Duration, usize, Transmit)>,
    pub(crate) part_bytes: usize,
    /// A link whose relay refuses what is larger than a Ping, and why.
    pub(crate) refuse: Option<(Generation, Refusal)>,
    /// How much it has refused.
    pub(crate) refused: usize,
    /// Packets that were sent.
    pub(crate) packets: usize,
}

pub(crate) fn identity(n: u8) -> Identity {
    Identity::from_seed([n; 32])
}

impl Pair {
    /// Whose packets can be looked into, and lose single frames.
    pub(crate) fn new() -> Self {
        let mut pair = Self::sealed();
        for peer in &mut pair.peers {
            peer.engine.seal_nothing();
        }
        pair
    }

    pub(crate) fn sealed() -> Self {
        let now = Now {
            elapsed: Duration::from_secs(1),
            wall: WallTime(1_000_000),
            ..Now::default()
        };
        let peer = |n: u8| {
            let (stored, entropy) = (Stored::default(), Entropy::from_seed([n; 32]));
            let (me, other) = (identity(n), identity(3 - n).peer_id());
            Peer {
                engine: Engine::open(&me, other, 1, stored, entropy, now),
                disk: BTreeMap::new(),
                dropped: Vec::new(),
            }
        };
        Self {
            peers: [peer(1), peer(2)],
            wire: VecDeque::new(),
            now,
            lose: Box::new(|_, _| false),
            takes: Box::new(|_| Duration::ZERO),
            slow: VecDeque::new(),
            lost: Vec::new(),
            narrow: None,
            waiting: Default::default(),
            part_takes: None,
            parts: VecDeque::new(),
            part_bytes: 0,
            refuse: None,
            refused: 0,
            packets: 0,
        }
    }

    pub(crate) fn bind(&mut self, generation: Generation) {
        self.bind_as(generation, LinkClass::Direct);
    }

    pub(crate) fn bind_as(&mut self, generation: Generation, class: LinkClass) {
        for peer in &mut self.peers {
            peer.engine.bind(generation, class, 0, self.now);
        }
        self.settle();
    }

    pub(crate) fn send(&mut self, text: &'static str) {
        self.send_from(0, text);
    }

    pub(crate) fn send_from(&mut self, from: usize, text: &'static str) {
        self.send_on(from, CHAT, text);
    }

    pub(crate) fn send_on(&mut self, from: usize, channel: ChannelId, text: &'static str) {
        let sender = &mut self.peers[from].engine;
        let payload = Bytes::from_static(text.as_bytes());
        let sent = sender.send(channel, &payload, &SendOptions::default(), self.now);
        sent.expect("there is room");
        self.settle();
    }

    /// The app at the other side takes a message out of its inbox, and commits it.
    pub(crate) fn take(&mut self) {
        let from = identity(1).peer_id();
        let peer = &mut self.peers[1];
        let inbox = Key::inbox(from, CHAT, Position(0), Position(u64::MAX));
        let (key, value) = peer.disk.range(inbox).next().expect("a message");
        let Ok(Key::Inbox(_, _, position)) = Key::from_bytes(key) else {
            panic!("a key of the inbox");
        };
        let record = InboxRecord::from_bytes(value).expect("own record");
        peer.engine.hand(CHAT, position, &record);
        let bytes = match &record.body {
            InboxBody::Inline(payload) => payload.len() as u64,
            InboxBody::Segments(_) => panic!("one segment a message"),
        };
        peer.engine.commit(CHAT, position, &record, bytes, self.now);
        self.settle();
    }

    /// Messages that reached the other side, each once.
    pub(crate) fn arrived(&self) -> u64 {
        let inboxes = &self.peers[1].engine.session().inboxes;
        inboxes.get(&CHAT).map_or(0, |inbox| inbox.messages)
    }

    pub(crate) fn delivered(&self) -> bool {
        !self.peers[0].engine.outstanding()
    }

    /// Does all that can be done without time.
    pub(crate) fn settle(&mut self) {
        loop {
            for from in 0..2 {
                self.poll(from);
            }
            let due = |(at, ..): &(Duration, usize, Transmit)| *at <= self.now.elapsed;
            if let Some(at) = self.slow.iter().position(due)
                && let Some((_, to, transmit)) = self.slow.remove(at)
            {
                self.deliver(to, &transmit);
                continue;
            }
            let Some((to, transmit)) = self.wire.pop_front() else {
                return;
            };
            match (self.takes)(transmit.generation) {
                Duration::ZERO => drop(self.deliver(to, &transmit)),
                time => self.slow.push_back((self.now.elapsed + time, to, transmit)),
            }
        }
    }

    pub(crate) fn poll(&mut self, from: usize) {
        let peer = &mut self.peers[from];
        while let Some(output) = peer.engine.poll() {
            match output {
                Output::Transmit(transmit) => {
                    self.packets += 1;
                    let part = Some(transmit.lane) == self.part_takes.map(|_| Lane::Bulk);
                    if let Some(takes) = self.part_takes.filter(|_| part) {
                        let behind = self.parts.back().map_or(self.now.elapsed, |(at, ..)| *at);
                        self.part_bytes += transmit.packet.len();
                        self.parts.push_back((behind + takes, 1 - from, transmit));
                    } else if self.narrow == Some(transmit.generation) {
                        peer.engine.writable(transmit.generation, false, self.now);
                        self.waiting[1 - from].push_back(transmit);
                    } else {
                        self.wire.push_back((1 - from, transmit));
                    }
                }
                Output::Write(batch) => {
                    for (key, value) in batch {
                        match value {
                            Some(value) => peer.disk.insert(key, value),
                            None => peer.disk.remove(&key),
                        };
                    }
                    peer.engine.written(self.now);
                }
                Output::Read { range, limit } => {
                    let rows = peer.disk.range(range).take(limit.records);
                    let rows: Vec<_> = rows.map(|(k, v)| (k.clone(), v.clone())).collect();
                    peer.engine.read(&rows, self.now).expect("own disk");
                }
                Output::Drop { generation, reason } => {
                    peer.engine.unbind(generation, self.now);
                    peer.dropped.push((generation, reason));
                }
                Output::Release { .. }
                | Output::Park { .. }
                | Output::Redeliver { .. }
                | Output::Content(_)
                | Output::Event(_) => {}
            }
        }
    }

    pub(crate) fn deliver(&mut self, to: usize, transmit: &Transmit) -> Taken {
        // As a relay says; of packets on direct links nobody says so, and nothing comes of it.
        let Transmit {
            generation,
            envelope,
            ..
        } = *transmit;
        let sender = &mut self.peers[1 - to].engine;
        let large = transmit.packet.len() > 1_024;
        let refuse = self.refuse.filter(|(of, _)| *of == generation && large);
        if let Some((_, reason)) = refuse {
            self.refused += 1;
            sender.refused(generation, envelope, reason, self.now);
            return Taken::Yes;
        }
        sender.accepted(generation, envelope, self.now);
        if transmit.packet.first() != Some(&KIND_PLAIN) {
            let packet = transmit.packet.clone();
            let engine = &mut self.peers[to].engine;
            return engine.receive(generation, None, packet, self.now);
        }
        let frames = packet::decode(&transmit.packet.slice(1..)).expect("own packet");
        let mut builder = PacketBuilder::new();
        let lost = |frame: &&Frame| (self.lose)(transmit.generation, frame);
        for frame in frames.iter().filter(|frame| !lost(frame)) {
            assert!(builder.push(frame));
        }
        if builder.is_empty() {
            self.lost.push((to, transmit.clone()));
            return Taken::Yes;
        }
        let packet = [&[KIND_PLAIN][..], &builder.finish()].concat().into();
        let engine = &mut self.peers[to].engine;
        engine.receive(transmit.generation, None, packet, self.now)
    }

    pub(crate) fn deliver_narrowly(&mut self) {
        for to in 0..2 {
            if let Some(transmit) = self.waiting[to].pop_front() {
                self.deliver(to, &transmit);
            }
            if let Some(narrow) = self.narrow.filter(|_| self.waiting[to].is_empty()) {
                self.peers[1 - to].engine.writable(narrow, true, self.now);
            }
        }
    }

    pub(crate) fn pass(&mut self, time: Duration) {
        let step = Duration::from_millis(100);
        let end = self.now.elapsed + time;
        while self.now.elapsed < end {
            self.now = self.now.after(step);
            for peer in &mut self.peers {
                peer.engine.tick(self.now);
            }
            self.deliver_narrowly();
            let arrived = |(at, ..): &(Duration, usize, Transmit)| *at <= self.now.elapsed;
            let arrived = self.parts.iter().take_while(|part| arrived(part)).count();
            for (_, to, part) in self.parts.drain(..arrived).collect::<Vec<_>>() {
                self.deliver(to, &part);
            }
            self.settle();
        }
    }
}

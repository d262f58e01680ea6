//! Frames per second through two engines, with no I/O: what the protocol itself costs. Every
//! message is sent, written, carried, written again, taken, committed, acknowledged and deleted.
//!
//! `plain` leaves packets readable, to show what sealing costs. The baseline encodes and decodes the
//! same Data frames with postcard, and does nothing else.
//!
//! `reconnect` binds a new link and has a message that waited delivered over it, again without I/O:
//! sealed against plain, which also takes as many packets.

mod baseline;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use baseline::Pair;
use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput};
use outlive_core::engine::{Engine, Event, Output, SendOptions, Stored};
use outlive_core::limits::{CONSUMED_DELAY, DIRECT_WINDOW};
use outlive_core::link::LinkClass;
use outlive_core::record::{InboxBody, InboxRecord, Key, Record};
use outlive_core::wire::frame::Data;
use outlive_core::{
    ChannelId, Entropy, Epoch, Generation, Identity, MessageId, Now, PeerId, Position, Seq,
    WallTime,
};

const CHAT: ChannelId = ChannelId::MESSAGES;
const SIZES: [usize; 3] = [64, 256, 16 * 1024];
const GROUP: &str = "frames";
const RECONNECT: &str = "reconnect";

/// Messages in one go: what a direct link takes without an acknowledgement.
const BURST: u64 = DIRECT_WINDOW;

/// An engine, its store, and an app that commits what comes.
struct Side {
    engine: Engine,
    other: PeerId,
    store: BTreeMap<Bytes, Bytes>,
    sent: VecDeque<Bytes>,
    cursor: Position,
    committed: u64,
}

impl Side {
    fn new(me: u8, other: u8, sealed: bool, now: Now) -> Self {
        let identity = Identity::from_seed([me; 32]);
        let other = Identity::from_seed([other; 32]).peer_id();
        let entropy = Entropy::from_seed([me; 32]);
        let mut engine = Engine::open(&identity, other, 1, Stored::default(), entropy, now);
        if !sealed {
            engine.seal_nothing();
        }
        Self {
            engine,
            other,
            store: BTreeMap::new(),
            sent: VecDeque::new(),
            cursor: Position(0),
            committed: 0,
        }
    }

    fn run(&mut self, now: Now) {
        while let Some(output) = self.engine.poll() {
            match output {
                Output::Transmit(transmit) => self.sent.push_back(transmit.packet),
                Output::Write(batch) => {
                    for (key, value) in batch {
                        match value {
                            Some(value) => self.store.insert(key, value),
                            None => self.store.remove(&key),
                        };
                    }
                    self.engine.written(now);
                }
                Output::Read { range, limit } => {
                    let mut bytes = 0;
                    let rows: Vec<_> = self
                        .store
                        .range(range)
                        .take(limit.records)
                        .take_while(|(_, value)| {
                            let room = bytes < limit.bytes;
                            bytes += value.len();
                            room
                        })
                        .map(|(key, value)| (key.clone(), value.clone()))
                        .collect();
                    self.engine.read(&rows, now).expect("own records");
                }
                Output::Event(Event::Inbox { end, .. }) => self.take(end, now),
                Output::Drop { reason, .. } => panic!("the link was dropped: {reason}"),
                Output::Content(_)
                | Output::Event(_)
                | Output::Park { .. }
                | Output::Release { .. }
                | Output::Redeliver { .. } => {}
            }
        }
    }

    fn take(&mut self, end: Position, now: Now) {
        let range = Key::inbox(self.other, CHAT, self.cursor, end);
        let arrived: Vec<_> = self.store.range(range).map(|(_, value)| value).collect();
        let first = end.minus(arrived.len() as u64);
        for (at, value) in arrived.into_iter().enumerate() {
            let record = InboxRecord::from_bytes(value).expect("own record");
            let InboxBody::Inline(payload) = &record.body else {
                panic!("a message of one segment is kept whole");
            };
            let (position, bytes) = (first.plus(at as u64), payload.len() as u64);
            self.engine.hand(CHAT, position, &record);
            self.engine.commit(CHAT, position, &record, bytes, now);
            self.committed += 1;
        }
        self.cursor = end;
    }
}

/// Two engines over one direct link.
struct Joined {
    sides: [Side; 2],
    link: Generation,
    packets: u64,
    now: Now,
}

impl Joined {
    fn new(sealed: bool) -> Self {
        let now = Now {
            elapsed: Duration::from_secs(1),
            wall: WallTime(1_000_000),
            ..Now::default()
        };
        let mut joined = Self {
            sides: [Side::new(1, 2, sealed, now), Side::new(2, 1, sealed, now)],
            link: Generation::nth(1, 1),
            packets: 0,
            now,
        };
        joined.bind();
        joined.settle();
        joined
    }

    fn bind(&mut self) {
        for side in &mut self.sides {
            side.engine.bind(self.link, LinkClass::Direct, 0, self.now);
        }
    }

    /// Passes packets until nobody has any.
    fn settle(&mut self) {
        let [one, other] = &mut self.sides;
        loop {
            one.run(self.now);
            other.run(self.now);
            if one.sent.is_empty() && other.sent.is_empty() {
                return;
            }
            for packet in one.sent.drain(..) {
                self.packets += 1;
                other.engine.receive(self.link, None, packet, self.now);
            }
            for packet in other.sent.drain(..) {
                self.packets += 1;
                one.engine.receive(self.link, None, packet, self.now);
            }
        }
    }

    /// A burst of messages from the first to the second, until both are at rest again.
    fn burst(&mut self, payload: &Bytes) {
        let [one, _] = &mut self.sides;
        for _ in 0..BURST {
            one.engine
                .send(CHAT, payload, &SendOptions::default(), self.now)
                .expect("room in the outbox");
        }
        self.settle();
        self.now.elapsed += CONSUMED_DELAY;
        for side in &mut self.sides {
            side.engine.tick(self.now);
        }
        self.settle();
    }
}

impl Joined {
    /// A link is lost, a message is sent, and another link comes up.
    fn reconnect(&mut self, payload: &Bytes) {
        for side in &mut self.sides {
            side.engine.unbind(self.link, self.now);
        }
        let [one, _] = &mut self.sides;
        one.engine
            .send(CHAT, payload, &SendOptions::default(), self.now)
            .expect("room in the outbox");
        self.settle();
        self.link = self.link.next();
        self.bind();
        self.settle();
    }
}

fn data(payload: &Bytes, seq: u64) -> Data {
    Data {
        epoch: Epoch(u64::MAX / 3),
        channel: CHAT,
        seq: Seq(seq),
        id: MessageId([7; 16]),
        index: 0,
        count: 1,
        again: None,
        payload: payload.clone(),
    }
}

fn frames(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group(GROUP);
    group.throughput(Throughput::Elements(BURST));
    for size in SIZES {
        let payload = Bytes::from(vec![0xa5; size]);
        for (name, sealed) in [("sealed", true), ("plain", false)] {
            let mut joined = Joined::new(sealed);
            let mut bursts = 0;
            group.bench_function(BenchmarkId::new(name, size), |bencher| {
                bencher.iter(|| {
                    joined.burst(&payload);
                    bursts += 1;
                });
            });
            let [one, other] = &joined.sides;
            assert_eq!(other.committed, bursts * BURST, "messages were lost");
            assert!(!one.engine.outstanding(), "messages still wait");
        }
        group.bench_function(BenchmarkId::new("postcard", size), |bencher| {
            bencher.iter(|| {
                for seq in 1..=BURST {
                    let bytes = postcard::to_allocvec(&data(&payload, seq)).expect("encodes");
                    let back: Data = postcard::from_bytes(&bytes).expect("decodes");
                    std::hint::black_box(back);
                }
            });
        });
    }
    group.finish();
}

fn reconnect(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group(RECONNECT);
    let payload = Bytes::from(vec![0xa5; SIZES[1]]);
    let mut packets = Vec::new();
    for (name, sealed) in [("sealed", true), ("plain", false)] {
        let mut joined = Joined::new(sealed);
        joined.reconnect(&payload);
        let (before, mut rounds) = (joined.packets, 0);
        group.bench_function(BenchmarkId::new(name, SIZES[1]), |bencher| {
            bencher.iter(|| {
                joined.reconnect(&payload);
                rounds += 1;
            });
        });
        let [one, other] = &joined.sides;
        assert_eq!(other.committed, rounds + 1, "messages were lost");
        assert!(!one.engine.outstanding(), "messages still wait");
        if rounds > 0 {
            packets.push((joined.packets - before).div_ceil(rounds));
        }
    }
    group.finish();
    if let [sealed, plain] = packets[..] {
        println!("packets of a reconnect: {sealed} sealed, {plain} plain");
    }
}

fn main() {
    let mut criterion = baseline::criterion();
    frames(&mut criterion);
    reconnect(&mut criterion);
    criterion.final_summary();
    Pair {
        group: RECONNECT,
        ours: "sealed",
        baseline: "plain",
    }
    .print(&SIZES[1].to_string());
    for (ours, baseline) in [("sealed", "postcard"), ("sealed", "plain")] {
        let pair = Pair {
            group: GROUP,
            ours,
            baseline,
        };
        for size in SIZES {
            pair.print(&size.to_string());
        }
    }
}

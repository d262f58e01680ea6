//! Frames per second through two engines, with no I/O: what the protocol itself costs. Every
//! message is sent, written, carried, written again, taken, committed, acknowledged and deleted.
//!
//! The baseline encodes and decodes the same Data frames with postcard, and does nothing else.

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
    ChannelId, Entropy, Epoch, Generation, Identity, MessageId, Now, PeerId, Plain, Position, Seq,
    WallTime,
};

const CHAT: ChannelId = ChannelId::MESSAGES;
const LINK: Generation = Generation::nth(1, 1);
const SIZES: [usize; 3] = [64, 256, 16 * 1024];
const GROUP: &str = "frames";

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
    fn new(other: PeerId, seed: u8, now: Now) -> Self {
        let mut engine = Engine::open(
            other,
            1,
            &Stored::default(),
            Entropy::from_seed([seed; 32]),
            Box::new(Plain),
            now,
        )
        .expect("an empty store");
        engine.bind(LINK, LinkClass::Direct, 0, now);
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
                Output::Event(_) | Output::Release { .. } | Output::Redeliver { .. } => {}
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
    now: Now,
}

impl Joined {
    fn new() -> Self {
        let now = Now {
            elapsed: Duration::from_secs(1),
            wall: WallTime(1_000_000),
        };
        let id = |seed| Identity::from_seed([seed; 32]).peer_id();
        let mut joined = Self {
            sides: [Side::new(id(2), 1, now), Side::new(id(1), 2, now)],
            now,
        };
        joined.settle();
        joined
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
                other.engine.receive(LINK, None, packet, self.now);
            }
            for packet in other.sent.drain(..) {
                one.engine.receive(LINK, None, packet, self.now);
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
        let mut joined = Joined::new();
        let mut bursts = 0;
        group.bench_function(BenchmarkId::new("engine", size), |bencher| {
            bencher.iter(|| {
                joined.burst(&payload);
                bursts += 1;
            });
        });
        let [one, other] = &joined.sides;
        assert_eq!(other.committed, bursts * BURST, "messages were lost");
        assert!(!one.engine.outstanding(), "messages still wait");
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

fn main() {
    let mut criterion = baseline::criterion();
    frames(&mut criterion);
    criterion.final_summary();
    let pair = Pair {
        group: GROUP,
        ours: "engine",
        baseline: "postcard",
    };
    for size in SIZES {
        pair.print(&size.to_string());
    }
}

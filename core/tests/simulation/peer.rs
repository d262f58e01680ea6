//! One peer: an engine, its store, and an app that takes and commits messages.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use outlive_core::engine::{Engine, Event, Output, Rule, Stage, Stored, Ticket, Transmit};
use outlive_core::limits::InboxLimits;
use outlive_core::link::{LinkClass, Reads};
use outlive_core::record::{
    Ending, Extent, Gap, InboxBody, InboxRecord, Key, Record, SegmentRecord,
};
use outlive_core::store::Batch;
use outlive_core::{
    ChannelId, Entropy, EnvelopeId, Epoch, Generation, Identity, MessageId, Now, PeerId, Position,
    Seq, TransferId,
};

pub(crate) type Disk = BTreeMap<Bytes, Bytes>;

/// A message the app was handed.
pub(crate) struct Handed {
    pub(crate) channel: ChannelId,
    pub(crate) record: InboxRecord,
    pub(crate) payload: Bytes,
    pub(crate) position: Position,
    pub(crate) attempt: u32,
    /// The most it can be: a crash may come between the count and the app.
    pub(crate) most: u32,
}

impl Handed {
    pub(crate) const fn redelivered(&self) -> bool {
        self.record.redelivered || self.attempt > 1
    }
}

/// What a peer says of the envelopes it got.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Mail {
    Acknowledge(EnvelopeId),
    Park(EnvelopeId),
    Redeliver,
}

/// What the engine wants read.
enum Asked {
    Rows(std::ops::Range<Bytes>, usize),
    Content(Extent),
}

/// What was read.
enum Found {
    Rows(Vec<(Bytes, Bytes)>),
    Content(Option<Bytes>),
}

pub(crate) struct Peer {
    identity: Identity,
    pub(crate) other: PeerId,
    pub(crate) disk: Disk,
    pub(crate) snapshot: Option<Disk>,
    pub(crate) engine: Option<Engine>,
    pub(crate) starts: u32,
    pub(crate) generation: Generation,
    pub(crate) write: Option<Batch>,
    read: Option<Asked>,
    /// Whether the store reads what is asked for before it does the write that waits.
    pub(crate) reads_first: bool,
    /// What lies in files, which no crash touches.
    pub(crate) files: BTreeMap<TransferId, Bytes>,
    pub(crate) sent: VecDeque<(Transmit, Vec<u8>)>,
    pub(crate) tickets: Vec<(Ticket, u64)>,
    pub(crate) queued: Vec<u64>,
    pub(crate) ended_ids: Vec<MessageId>,
    /// Those of them whose time was over.
    pub(crate) expired_ids: Vec<MessageId>,
    pub(crate) renewed: u32,
    /// Up to where it was told that the other's app has committed all.
    pub(crate) consumed: Vec<(ChannelId, Position)>,
    /// What its own app has committed.
    pub(crate) committed: BTreeSet<MessageId>,
    /// What the app heard to be missing since it was started.
    pub(crate) told: Vec<(ChannelId, Gap)>,
    /// What was missing before messages that it committed.
    pub(crate) learned: Vec<(ChannelId, Gap)>,
    /// What it asks its relay to do with what it got.
    pub(crate) mail: VecDeque<(Generation, Mail)>,
    limits: InboxLimits,
    /// Per channel: where the app reads next.
    cursors: BTreeMap<ChannelId, Position>,
    hand: VecDeque<(ChannelId, Position, InboxRecord, u64)>,
    /// What the app gets when this many more writes are done.
    handing: Option<(Handed, u32)>,
    commits: u32,
    /// How often each message was handed out.
    hands: BTreeMap<(MessageId, Epoch), u32>,
    broken: Option<Rule>,
}

impl Peer {
    pub(crate) fn new(
        identity: Identity,
        other: PeerId,
        limits: InboxLimits,
        broken: Option<Rule>,
    ) -> Self {
        Self {
            identity,
            other,
            disk: Disk::new(),
            snapshot: None,
            engine: None,
            starts: 0,
            generation: Generation::at_start(0),
            write: None,
            read: None,
            reads_first: false,
            files: BTreeMap::new(),
            sent: VecDeque::new(),
            tickets: Vec::new(),
            queued: Vec::new(),
            ended_ids: Vec::new(),
            expired_ids: Vec::new(),
            renewed: 0,
            consumed: Vec::new(),
            committed: BTreeSet::new(),
            told: Vec::new(),
            learned: Vec::new(),
            mail: VecDeque::new(),
            limits,
            cursors: BTreeMap::new(),
            hand: VecDeque::new(),
            handing: None,
            commits: 0,
            hands: BTreeMap::new(),
            broken,
        }
    }

    pub(crate) fn start(&mut self, entropy: [u8; 32], now: Now) {
        if self.engine.is_some() {
            return;
        }
        self.starts += 1;
        self.generation = Generation::at_start(self.starts);
        let session = self.disk.get(&Key::Session(self.other).to_bytes());
        let mut stored = Stored::new(session.map(|value| &value[..])).expect("own disk");
        for range in stored.segments(self.other) {
            let rows = self.disk.range(range);
            let rows: Vec<_> = rows
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect();
            stored.read(self.other, &rows).expect("own disk");
        }
        let entropy = Entropy::from_seed(entropy);
        let mut engine = Engine::open(
            &self.identity,
            self.other,
            self.starts,
            stored,
            entropy,
            now,
        );
        engine.overhear();
        engine.set_inbox_limits(self.limits);
        if let Some(rule) = self.broken {
            engine.break_rule(rule);
        }
        self.engine = Some(engine);
        self.pump();
    }

    pub(crate) fn stop(&mut self) {
        self.engine = None;
        self.write = None;
        self.read = None;
        self.sent.clear();
        self.mail.clear();
        self.tickets.clear();
        self.hand.clear();
        self.handing = None;
        self.cursors.clear();
        self.told.clear();
    }

    pub(crate) fn bind(&mut self, class: LinkClass, now: Now) -> Generation {
        self.bind_where(class, Reads::Always, now)
    }

    /// The same for a relay where the other is known to read, or not.
    pub(crate) fn bind_where(&mut self, class: LinkClass, reads: Reads, now: Now) -> Generation {
        self.generation = self.generation.next();
        let generation = self.generation;
        if let Some(engine) = &mut self.engine {
            engine.bind(generation, class, 0, now);
            engine.peer_reads(generation, reads, 0, now);
        }
        self.pump();
        generation
    }

    /// Does what the engine asks for; writes and reads wait until the world lets them happen.
    pub(crate) fn pump(&mut self) {
        let Some(engine) = &mut self.engine else {
            return;
        };
        let mut sent = Vec::new();
        while let Some(output) = engine.poll() {
            match output {
                Output::Transmit(transmit) => sent.push(transmit),
                Output::Write(batch) => {
                    assert!(self.write.is_none(), "two writes at once");
                    self.write = Some(batch);
                }
                Output::Read { range, limit } => {
                    assert!(self.read.is_none(), "two reads at once");
                    self.read = Some(Asked::Rows(range, limit.records));
                }
                Output::Content(extent) => {
                    assert!(self.read.is_none(), "two reads at once");
                    self.read = Some(Asked::Content(extent));
                }
                Output::Release {
                    generation,
                    envelope,
                } => {
                    let mail = Mail::Acknowledge(envelope);
                    self.mail.push_back((generation, mail));
                }
                Output::Park {
                    generation,
                    envelope,
                } => self.mail.push_back((generation, Mail::Park(envelope))),
                Output::Redeliver { generation } => {
                    self.mail.push_back((generation, Mail::Redeliver));
                }
                Output::Drop { .. } => {}
                Output::Event(event) => match event {
                    Event::Progress {
                        channel,
                        stage: Stage::Queued,
                        below,
                    } => {
                        for (ticket, number) in &self.tickets {
                            if ticket.channel == channel && ticket.end <= below {
                                self.queued.push(*number);
                            }
                        }
                        self.tickets
                            .retain(|(t, _)| t.channel != channel || t.end > below);
                    }
                    Event::Progress {
                        channel,
                        stage: Stage::Consumed,
                        below,
                    } => self.consumed.push((channel, below)),
                    Event::Ended { id, how, .. } => {
                        self.ended_ids.push(id);
                        if how == Ending::Expired {
                            self.expired_ids.push(id);
                        }
                    }
                    Event::Renewed { .. } => self.renewed += 1,
                    Event::Gap {
                        channel,
                        epoch,
                        first,
                        last,
                    } => self.told.push((channel, Gap { epoch, first, last })),
                    _ => {}
                },
            }
        }
        self.sent.extend(sent.into_iter().zip(engine.overhear()));
    }

    /// The store does what it was asked to. What it read may be told after a write that came behind.
    pub(crate) fn flush(&mut self, now: Now) {
        let early = self.reads_first.then(|| self.found()).flatten();
        if let Some(batch) = self.write.take() {
            apply(&mut self.disk, batch);
            if let Some(engine) = &mut self.engine {
                engine.written(now);
            }
            if let Some((_, writes)) = &mut self.handing {
                *writes = writes.saturating_sub(1);
            }
            self.pump();
        }
        let Some(found) = early.or_else(|| self.found()) else {
            return;
        };
        if let Some(engine) = &mut self.engine {
            match found {
                Found::Rows(rows) => engine.read(&rows, now).expect("own disk"),
                Found::Content(content) => engine.content(content, now),
            }
        }
        self.pump();
    }

    fn found(&mut self) -> Option<Found> {
        self.read.take().map(|asked| match asked {
            Asked::Rows(range, records) => {
                let rows = self.disk.range(range).take(records);
                Found::Rows(rows.map(|(k, v)| (k.clone(), v.clone())).collect())
            }
            Asked::Content(extent) => {
                Found::Content(self.files.get(&extent.transfer).map(|file| {
                    let from = extent.offset as usize;
                    file.slice(from..from + extent.length as usize)
                }))
            }
        })
    }

    pub(crate) fn tick(&mut self, now: Now) {
        if let Some(engine) = &mut self.engine {
            engine.tick(now);
        }
        self.pump();
    }

    /// The app takes the next message of some channel, or of this one.
    pub(crate) fn take(&mut self, only: Option<ChannelId>) -> Option<Handed> {
        if self.handing.is_some() {
            let (handed, _) = self.handing.take_if(|(_, writes)| *writes == 0)?;
            return Some(self.handed(handed));
        }
        let engine = self.engine.as_mut()?;
        let ends: Vec<_> = engine
            .session()
            .inboxes
            .iter()
            .map(|(&channel, inbox)| (channel, inbox.next))
            .filter(|(channel, _)| only.is_none_or(|only| only == *channel))
            .collect();
        for (channel, end) in ends {
            let cursor = self.cursors.entry(channel).or_default();
            let range = Key::inbox(self.other, channel, *cursor, end);
            let Some((key, value)) = self.disk.range(range).next() else {
                continue;
            };
            let Ok(Key::Inbox(_, _, position)) = Key::from_bytes(key) else {
                continue;
            };
            let record = InboxRecord::from_bytes(value).expect("own disk");
            *cursor = position.next();
            let payload = payload(&self.disk, self.other, channel, &record);
            let before = record.start < self.starts;
            let attempt = record.attempt(before);
            let hands = self.hands.entry((record.id, record.epoch)).or_default();
            *hands += 1;
            // What came before this start counts as handed out in it.
            let most = *hands + u32::from(before);
            let here = if attempt == 1 {
                engine.hand(channel, position, &record)
            } else {
                engine.hand_again(channel, position, &record, attempt)
            };
            assert!(here, "nobody else commits");
            let handed = Handed {
                channel,
                position,
                record,
                payload,
                attempt,
                most,
            };
            if attempt == 1 {
                return Some(self.handed(handed));
            }
            // Durable before the app has it: that takes the next write, after one on its way.
            let writes = 1 + u32::from(self.write.is_some());
            self.handing = Some((handed, writes));
            self.pump();
            return None;
        }
        None
    }

    fn handed(&mut self, handed: Handed) -> Handed {
        self.hand.push_back((
            handed.channel,
            handed.position,
            handed.record.clone(),
            handed.payload.len() as u64,
        ));
        handed
    }

    /// The app commits a message that it has in hand, or one of this channel: mostly the first, and now
    /// and then the last.
    pub(crate) fn commit(&mut self, only: Option<ChannelId>, now: Now) {
        let Some(engine) = &mut self.engine else {
            return;
        };
        let mut wanted = self.hand.iter().enumerate().filter_map(|(at, handed)| {
            let (channel, ..) = handed;
            only.is_none_or(|only| only == *channel).then_some(at)
        });
        self.commits += 1;
        let one = if self.commits.is_multiple_of(3) {
            wanted.next_back()
        } else {
            wanted.next()
        };
        if let Some((channel, position, record, bytes)) = one.and_then(|at| self.hand.remove(at)) {
            engine.commit(channel, position, &record, bytes, now);
            self.committed.insert(record.id);
            self.learned.extend(record.gap.map(|gap| (channel, gap)));
        }
        self.pump();
    }

    pub(crate) fn outstanding(&self) -> bool {
        self.engine.as_ref().is_some_and(Engine::outstanding)
    }

    pub(crate) fn deadline(&self) -> Option<Duration> {
        self.engine.as_ref().and_then(Engine::deadline)
    }
}

pub(crate) fn apply(disk: &mut Disk, batch: Batch) {
    for (key, value) in batch {
        match value {
            Some(value) => disk.insert(key, value),
            None => disk.remove(&key),
        };
    }
}

fn payload(disk: &Disk, peer: PeerId, channel: ChannelId, record: &InboxRecord) -> Bytes {
    let count = match &record.body {
        InboxBody::Inline(payload) => return payload.clone(),
        InboxBody::Segments(count) => u64::from(*count),
    };
    let mut whole = Vec::new();
    for seq in record.last.0 + 1 - count..=record.last.0 {
        let key = Key::Segment(peer, record.epoch, channel, Seq(seq)).to_bytes();
        let value = disk
            .get(&key)
            .expect("a segment of a whole message is in the store");
        match SegmentRecord::from_bytes(value).expect("own disk") {
            SegmentRecord::Data { payload, .. } => whole.extend_from_slice(&payload),
            SegmentRecord::Placed { .. } => panic!("nobody here places content in files"),
            SegmentRecord::Skip { .. } => panic!("a skip in a whole message"),
        }
    }
    Bytes::from(whole)
}

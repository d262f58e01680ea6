//! The world around two peers, and what must hold in it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use outlive_core::engine::{Engine, External, Rule, SendOptions, Taken, Ticket, Transmit};
use outlive_core::limits::InboxLimits;
use outlive_core::link::LinkClass;
use outlive_core::record::Extent;
use outlive_core::seal::KIND_SEALED;
use outlive_core::transport::{Class, Refusal};
use outlive_core::wire::frame::Frame;
use outlive_core::wire::packet;
use outlive_core::{
    ChannelId, EnvelopeId, Epoch, Generation, Identity, MessageId, Now, RunSet, Seq, StoreId,
    TransferId, WallTime,
};

use crate::peer::{Handed, Mail, Peer, apply};
use crate::signaling::Signaling;

/// What of a sealed packet names its key and number.
const SEALED_HEADER: usize = 29;

const CHANNELS: [ChannelId; 2] = [ChannelId(1), ChannelId(16)];

/// How much room there is at the receiving ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Inboxes {
    /// More than is ever sent.
    Roomy,
    /// Inboxes that are full after a few messages, and a relay that has a few envelopes on the way
    /// at a time.
    Crowded,
}

impl Inboxes {
    fn limits(self, random: &mut Random) -> InboxLimits {
        match self {
            Self::Roomy => InboxLimits::default(),
            Self::Crowded => InboxLimits {
                messages: [1, 2, 3, 5][random.below(4)],
                bytes: [1_000, 50_000, 100_000][random.below(3)],
            },
        }
    }

    /// Envelopes on the way to a peer that it has neither acknowledged nor parked.
    const fn window(self) -> usize {
        match self {
            Self::Roomy => usize::MAX,
            Self::Crowded => 3,
        }
    }
}

/// What must never happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// I1: a message that was Ok did not arrive, and nobody was told.
    Lost(u64),
    /// I2: a message came twice and was not marked.
    Doubled(u64),
    /// I1: a message did not arrive, and its recipient was told of no gap there.
    Unexplained(u64),
    /// A gap was told where a message arrived, or not in its place.
    FalseGap(u64),
    /// A message does not show how often the app had it in hand.
    Miscounted(u64),
    /// I3: a message came after a later one.
    Reordered(u64),
    /// I3: a message did not come because another channel is full.
    Blocked(u64),
    /// I5: something came of a packet of a retired link.
    StaleLink,
    /// I7: an engine holds more in memory than it may.
    Overgrown(&'static str),
    /// I8: two messages under one epoch, channel and seq.
    SeqUsedTwice,
    /// I8: two packets under one key and number.
    NumberUsedTwice,
    /// I9: garbage was taken for a packet.
    GarbageTaken,
    /// A payload is not what was sent.
    Garbled(u64),
    /// Something is outstanding for ever.
    Stuck,
    /// The network never falls silent.
    Restless,
    /// A new epoch was drawn although no store went back in time.
    RenewedForNothing,
    /// A connection was asked for what it can't do, or given something stale.
    Misused,
    /// Two that want a connection do not end up with the same one.
    Apart,
}

pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }
    pub(crate) fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }
    pub(crate) fn seed(&mut self) -> [u8; 32] {
        let mut seed = [0; 32];
        for part in seed.chunks_mut(8) {
            part.copy_from_slice(&self.next().to_le_bytes());
        }
        seed
    }
}

#[derive(Clone)]
struct Envelope {
    number: u64,
    class: Class,
    expires: WallTime,
    packet: Bytes,
}

enum ToRelay {
    Submit(Transmit),
    Mail(Mail),
}

enum FromRelay {
    Accepted(EnvelopeId),
    Refused(EnvelopeId),
    Deliver(Option<EnvelopeId>, Bytes),
}

struct Connection {
    generation: Generation,
    to: VecDeque<ToRelay>,
    from: VecDeque<FromRelay>,
    pushed: BTreeSet<u64>,
    on_the_way: BTreeSet<u64>,
}

struct Message {
    from: usize,
    channel: ChannelId,
    /// As long as no store went back in time, its positions in the outbox are its seqs.
    seqs: std::ops::Range<u64>,
    order: u64,
    bytes: usize,
    expires: Option<WallTime>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    Send,
    Take,
    Commit,
    Flush,
    Tick,
    Connect,
    Disconnect,
    ToRelay,
    FromRelay,
    Push,
    Direct,
    LinkUp,
    LinkDown,
    Stale,
    Garbage,
    Replay,
    Tamper,
    Meet,
    Crash,
    Start,
    RelayCrash,
    RelayStart,
    RelayLose,
    Silent,
    Refuse,
    Expire,
    Cancel,
    Snapshot,
    Restore,
    Lose,
    Vanish,
    GiveUp,
}

/// So short that a few acts fit into [`ACK_DELAY`](outlive_core::limits::ACK_DELAY).
const QUICK: Duration = Duration::from_micros(100);

/// What a message says: its number, and then bytes of which no two segments have the same.
fn payload(number: u64, bytes: usize) -> Bytes {
    let rest = (0..).map(|n: u64| (number + n / 251 + n) as u8);
    let payload = number.to_le_bytes().into_iter().chain(rest);
    payload.take(bytes).collect()
}

/// The file that a message lies in.
fn transfer(number: u64) -> TransferId {
    TransferId(u128::from(number).to_le_bytes())
}

fn number(TransferId(bytes): TransferId) -> u64 {
    bytes
        .first_chunk()
        .map_or(0, |number| u64::from_le_bytes(*number))
}

pub(crate) struct World {
    pub(crate) random: Random,
    story: bool,
    inboxes: Inboxes,
    /// The only channel whose inboxes the apps take from, if there is one.
    only: Option<ChannelId>,
    pub(crate) now: Now,
    /// How long anything takes. In a quick story, apps answer while an acknowledgement waits for it.
    pace: Duration,
    pub(crate) peers: [Peer; 2],
    relay_up: bool,
    refusing: bool,
    store: StoreId,
    envelopes: u64,
    mailbox: [Vec<Envelope>; 2],
    connections: [Option<Connection>; 2],
    direct: Option<[(Generation, VecDeque<Bytes>); 2]>,
    retired: Vec<(usize, Generation, Bytes)>,
    /// Packets a hostile relay wrote down: for whom, and what.
    recorded: Vec<(usize, Bytes)>,
    headers: BTreeSet<Bytes>,
    pub(crate) kinds: [u64; 4],
    messages: BTreeMap<u64, Message>,
    names: BTreeMap<MessageId, u64>,
    orders: BTreeMap<(usize, ChannelId), u64>,
    ok: BTreeSet<u64>,
    ended: BTreeSet<MessageId>,
    pub(crate) exempt: BTreeSet<u64>,
    pub(crate) rolls: [u32; 2],
    delivered: BTreeMap<(usize, u64), Vec<u32>>,
    last: BTreeMap<(usize, ChannelId), u64>,
    attempts: BTreeMap<(usize, MessageId, Epoch, u32), u32>,
    wire: BTreeMap<(usize, Epoch, ChannelId, Seq), MessageId>,
    spoken: u64,
    /// Whether some of the messages lie in files.
    files: bool,
    /// How many of those arrived.
    pub(crate) from_files: u64,
    /// What the peers negotiate beside their messages, if they do.
    pub(crate) signaling: Option<Signaling>,
    pub(crate) faults: Vec<Fault>,
}

impl World {
    pub(crate) fn new(seed: u64, inboxes: Inboxes, broken: Option<Rule>, story: bool) -> Self {
        let [one, two] = [1, 2].map(|n| Identity::from_seed([n; 32]));
        let (of_one, of_two) = (one.peer_id(), two.peer_id());
        let limits = inboxes.limits(&mut Random(seed));
        let mut random = Random(seed.wrapping_mul(0x2545_f491_4f6c_dd1d) ^ 0x6f75_746c_6976_6521);
        let now = Now {
            elapsed: Duration::from_secs(1),
            wall: WallTime(1_000_000),
        };
        let mut peers = [
            Peer::new(one, of_two, limits, broken),
            Peer::new(two, of_one, limits, broken),
        ];
        for peer in &mut peers {
            peer.start(random.seed(), now);
        }
        Self {
            random,
            story,
            inboxes,
            only: None,
            now,
            pace: if matches!(seed % 8, 2 | 3) {
                QUICK
            } else {
                Duration::from_millis(10)
            },
            peers,
            relay_up: true,
            refusing: false,
            store: StoreId([1; 16]),
            envelopes: 0,
            mailbox: [Vec::new(), Vec::new()],
            connections: [None, None],
            direct: None,
            retired: Vec::new(),
            recorded: Vec::new(),
            headers: BTreeSet::new(),
            kinds: [0; 4],
            messages: BTreeMap::new(),
            names: BTreeMap::new(),
            orders: BTreeMap::new(),
            ok: BTreeSet::new(),
            ended: BTreeSet::new(),
            exempt: BTreeSet::new(),
            rolls: [0, 0],
            delivered: BTreeMap::new(),
            last: BTreeMap::new(),
            attempts: BTreeMap::new(),
            wire: BTreeMap::new(),
            spoken: 0,
            files: false,
            from_files: 0,
            signaling: None,
            faults: Vec::new(),
        }
    }

    /// Has half of the messages lie in files that may vanish, and may be given up.
    pub(crate) const fn with_files(mut self) -> Self {
        self.files = true;
        self
    }

    pub(crate) fn log(&self, text: impl FnOnce() -> String) {
        if self.story {
            println!("{:>8} {}", self.now.elapsed.as_millis(), text());
        }
    }

    pub(crate) fn fault(&mut self, fault: Fault) {
        self.log(|| format!("FAULT {fault:?}"));
        if self.faults.len() < 8 {
            self.faults.push(fault);
        }
    }

    pub(crate) fn play(&mut self) {
        use Act::{
            Cancel, Commit, Connect, Crash, Direct, Disconnect, Expire, Flush, FromRelay, Garbage,
            LinkDown, LinkUp, Lose, Meet, Push, Refuse, RelayCrash, RelayLose, RelayStart, Replay,
            Restore, Send, Silent, Snapshot, Stale, Start, Take, Tamper, Tick, ToRelay,
        };
        let mut deck: Vec<(Act, usize)> = vec![
            (Send, 9),
            (Take, 8),
            (Commit, 6),
            (Flush, 18),
            (Tick, 5),
            (Connect, 6),
            (Disconnect, 2),
            (ToRelay, 14),
            (FromRelay, 14),
            (Push, 14),
            (Direct, 12),
        ];
        let groups: [&[(Act, usize)]; 10] = [
            &[(LinkUp, 3), (LinkDown, 2), (Stale, 3)],
            &[(Crash, 2), (Start, 6)],
            &[(RelayCrash, 1), (RelayStart, 5)],
            &[(RelayLose, 1), (RelayStart, 3)],
            &[(Silent, 2)],
            &[(Expire, 2), (Cancel, 2)],
            &[(Snapshot, 3), (Restore, 2), (Start, 6), (Meet, 3)],
            &[(Lose, 1), (Start, 6), (Meet, 3)],
            &[(Refuse, 2), (Garbage, 1)],
            &[(Replay, 6), (Tamper, 3)],
        ];
        for group in groups {
            if self.random.chance(45) {
                deck.extend_from_slice(group);
            }
        }
        if self.files {
            deck.extend([(Act::Vanish, 1), (Act::GiveUp, 2)]);
        }
        let total: usize = deck.iter().map(|(_, weight)| weight).sum();
        let length = [25, 60, 150, 300][self.random.below(4)];
        let mut rare = 0;
        for _ in 0..length {
            let mut pick = self.random.below(total);
            let (act, _) = *deck
                .iter()
                .find(|(_, weight)| {
                    let here = pick < *weight;
                    pick = pick.wrapping_sub(if here { 0 } else { *weight });
                    here
                })
                .expect("the weights sum up");
            if matches!(act, Restore | Lose | RelayLose | Silent) {
                rare += 1;
                if rare > 4 {
                    continue;
                }
            }
            let who = self.random.below(2);
            self.act(act, who);
        }
    }

    fn act(&mut self, act: Act, who: usize) {
        self.pass(self.pace);
        if !matches!(act, Act::Tick) {
            self.log(|| format!("{act:?} {who}"));
        }
        match act {
            Act::Send => self.send(who),
            Act::Take => {
                if let Some(handed) = self.peers[who].take(self.only) {
                    self.arrived(who, &handed);
                }
            }
            Act::Commit => self.peers[who].commit(self.only, self.now),
            Act::Flush => {
                let peer = &mut self.peers[who];
                peer.reads_first = !peer.reads_first;
                peer.flush(self.now);
            }
            Act::Tick => self.tick(who, Duration::from_millis(700)),
            Act::Connect => self.connect(who),
            Act::Disconnect => self.disconnect(who),
            Act::ToRelay => self.relay_hears(who),
            Act::FromRelay => self.relay_speaks(who),
            Act::Push => self.push(who),
            Act::Direct => self.direct_packet(who),
            Act::LinkUp => self.link_up(),
            Act::LinkDown => self.link_down(),
            Act::Stale => self.stale(),
            Act::Garbage => self.garbage(who),
            Act::Replay => self.replay(who),
            Act::Meet => self.meet(),
            Act::Tamper => self.tamper(who),
            Act::Crash => self.crash(who),
            Act::Start => {
                let seed = self.random.seed();
                self.peers[who].start(seed, self.now);
            }
            Act::RelayCrash => self.relay_down(),
            Act::RelayStart => self.relay_up = true,
            Act::RelayLose => {
                self.relay_down();
                self.mailbox = [Vec::new(), Vec::new()];
                self.store = StoreId([self.random.next() as u8; 16]);
            }
            Act::Silent => {
                let count = self.mailbox[who].len();
                if count > 0 {
                    let lost = self.random.below(count);
                    self.mailbox[who].remove(lost);
                }
            }
            Act::Refuse => self.refusing = !self.refusing,
            Act::Expire => {
                self.now.wall = self.now.wall.plus(Duration::from_secs(20));
                self.tick(who, Duration::from_millis(1));
            }
            Act::Cancel => {
                let now = self.now;
                let peer = &mut self.peers[who];
                if let (Some(engine), Some((ticket, number))) =
                    (&mut peer.engine, peer.tickets.last())
                    && engine.cancel(*ticket, now)
                {
                    // A crash may keep the word of it from the app, which asked for it.
                    self.exempt.insert(*number);
                }
                peer.pump();
            }
            Act::Snapshot => self.peers[who].snapshot = Some(self.peers[who].disk.clone()),
            Act::Restore => {
                if let Some(snapshot) = self.peers[who].snapshot.clone() {
                    self.roll_back(who, snapshot);
                }
            }
            Act::Lose => self.roll_back(who, BTreeMap::new()),
            Act::Vanish => {
                if let Some(transfer) = self.some_file(who) {
                    self.peers[who].files.remove(&transfer);
                }
            }
            Act::GiveUp => self.give_up(who),
        }
        self.signal();
        self.collect();
    }

    /// Moves what the engines sent onto the wires, and notes what they told their apps.
    fn collect(&mut self) {
        for who in 0..2 {
            let engine = self.peers[who].engine.as_ref();
            if let Some(what) = engine.and_then(Engine::overgrown) {
                self.fault(Fault::Overgrown(what));
            }
            while let Some((transmit, frames)) = self.peers[who].sent.pop_front() {
                self.spoke(who, &transmit, frames);
                if let Some(direct) = &mut self.direct
                    && direct[who].0 == transmit.generation
                {
                    direct[1 - who].1.push_back(transmit.packet);
                } else if let Some(connection) = &mut self.connections[who]
                    && connection.generation == transmit.generation
                {
                    connection.to.push_back(ToRelay::Submit(transmit));
                }
            }
            while let Some((generation, mail)) = self.peers[who].mail.pop_front() {
                self.log(|| format!("  {who} -> {generation} {mail:?}"));
                if let Some(connection) = &mut self.connections[who]
                    && connection.generation == generation
                {
                    connection.to.push_back(ToRelay::Mail(mail));
                }
            }
            let queued = std::mem::take(&mut self.peers[who].queued);
            self.ok.extend(queued);
            let ended = std::mem::take(&mut self.peers[who].ended_ids);
            self.ended.extend(ended);
        }
    }

    fn spoke(&mut self, who: usize, transmit: &Transmit, frames: Vec<u8>) {
        let frames = packet::decode(&frames.into()).expect("own packet");
        self.log(|| {
            format!(
                "  {who} -> {} {:?} {frames:?}",
                transmit.generation, transmit.class
            )
        });
        self.written_down(who, &transmit.packet);
        for frame in frames {
            match frame {
                Frame::Ping(_) | Frame::Pong(_) => {}
                Frame::Data(data) => {
                    self.spoken += 1;
                    let key = (who, data.epoch, data.channel, data.seq);
                    let id = *self.wire.entry(key).or_insert(data.id);
                    if id != data.id && self.rolls == [0, 0] {
                        self.fault(Fault::SeqUsedTwice);
                    }
                }
                _ => self.spoken += 1,
            }
        }
    }

    /// What a hostile relay notes of a packet, and what it must never see.
    fn written_down(&mut self, who: usize, packet: &Bytes) {
        let kind = packet.first().copied().unwrap_or_default();
        if let Some(count) = self.kinds.get_mut(usize::from(kind)) {
            *count += 1;
        }
        if kind == KIND_SEALED && !self.headers.insert(packet.slice(..SEALED_HEADER)) {
            self.fault(Fault::NumberUsedTwice);
        }
        if self.recorded.len() < 200 {
            self.recorded.push((1 - who, packet.clone()));
        }
    }

    fn recorded(&mut self, who: usize) -> Option<(Generation, Bytes)> {
        let direct = self.direct.as_ref().map(|direct| direct[who].0);
        let relayed = self.connections[who].as_ref().map(|of| of.generation);
        let generation = if self.random.chance(50) {
            direct.or(relayed)?
        } else {
            relayed.or(direct)?
        };
        if self.recorded.is_empty() {
            return None;
        }
        let which = self.random.below(self.recorded.len());
        let (to, packet) = self.recorded[which].clone();
        // One in five goes back to who sent it.
        (to == who || self.random.chance(20)).then_some((generation, packet))
    }

    /// A hostile relay delivers what it wrote down, again.
    fn replay(&mut self, who: usize) {
        let Some((generation, packet)) = self.recorded(who) else {
            return;
        };
        self.log(|| format!("  replayed to {who}"));
        self.deliver(who, generation, packet);
    }

    /// It changes a byte of it, or cuts it.
    fn tamper(&mut self, who: usize) {
        let Some((generation, packet)) = self.recorded(who) else {
            return;
        };
        let at = self.random.below(packet.len());
        let mut bytes = packet.to_vec();
        if self.random.chance(70) {
            bytes[at] ^= 1 << self.random.below(8);
        } else {
            bytes.truncate(at);
        }
        if self.deliver(who, generation, bytes.into()) == Some(Taken::Yes) {
            self.fault(Fault::GarbageTaken);
        }
    }

    fn deliver(&mut self, who: usize, generation: Generation, packet: Bytes) -> Option<Taken> {
        let direct = self
            .direct
            .as_ref()
            .is_some_and(|of| of[who].0 == generation);
        // Numbers that the relay has given to nothing else: acknowledging them changes nothing.
        let envelope = (!direct).then_some(EnvelopeId(u64::MAX));
        let now = self.now;
        let engine = self.peers[who].engine.as_mut()?;
        let taken = engine.receive(generation, envelope, packet, now);
        self.peers[who].pump();
        Some(taken)
    }

    fn send(&mut self, who: usize) {
        let channel = CHANNELS[self.random.below(2)];
        let number = self.next_number();
        let bytes = if self.random.chance(10) { 40_000 } else { 8 };
        let payload = payload(number, bytes);
        let ttl = self.random.chance(20).then(|| Duration::from_secs(15));
        if self.files && self.random.chance(50) {
            self.submit_of_file(who, channel, payload, ttl);
        } else {
            self.submit(who, channel, payload, ttl);
        }
    }

    /// Sends a message as [`submit`](Self::submit) does, of which all but the number is in a file.
    fn submit_of_file(
        &mut self,
        who: usize,
        channel: ChannelId,
        payload: Bytes,
        ttl: Option<Duration>,
    ) {
        const BEFORE: usize = 100;
        const NUMBER: usize = 8;
        let number = self.next_number();
        let external = External {
            extent: Extent {
                transfer: transfer(number),
                offset: BEFORE as u64,
                length: (payload.len() - NUMBER) as u64,
            },
            beginning: payload.slice(..NUMBER),
        };
        let file = [&[0xee; BEFORE], &payload[NUMBER..]].concat();
        let options = SendOptions { ttl, once: None };
        let peer = &mut self.peers[who];
        let Some(engine) = &mut peer.engine else {
            return;
        };
        let taken = engine.send_external(channel, &external, &options, self.now);
        let ticket = taken.expect("room");
        peer.files.insert(external.extent.transfer, file.into());
        self.submitted(who, ticket, payload.len(), ttl);
    }

    /// A file that something was sent of. What is lost with it is what its owner took away.
    fn some_file(&mut self, who: usize) -> Option<TransferId> {
        let files = &self.peers[who].files;
        let which = self.random.below(files.len().max(1));
        let transfer = *files.keys().nth(which)?;
        self.exempt.insert(number(transfer));
        Some(transfer)
    }

    fn give_up(&mut self, who: usize) {
        let Some(transfer) = self.some_file(who) else {
            return;
        };
        let channel = self.messages[&number(transfer)].channel;
        let now = self.now;
        if let Some(engine) = &mut self.peers[who].engine {
            engine.give_up(channel, transfer, now);
        }
        self.peers[who].pump();
    }

    /// Sends a message that begins with the number which is the next.
    pub(crate) fn submit(
        &mut self,
        who: usize,
        channel: ChannelId,
        payload: Bytes,
        ttl: Option<Duration>,
    ) -> Option<(Ticket, u64)> {
        let options = SendOptions { ttl, once: None };
        let engine = self.peers[who].engine.as_mut()?;
        let ticket = engine
            .send(channel, &payload, &options, self.now)
            .expect("room");
        Some((ticket, self.submitted(who, ticket, payload.len(), ttl)))
    }

    fn submitted(
        &mut self,
        who: usize,
        ticket: Ticket,
        bytes: usize,
        ttl: Option<Duration>,
    ) -> u64 {
        let (number, channel) = (self.next_number(), ticket.channel);
        let expires = ttl.map(|ttl| self.now.wall.plus(ttl));
        let peer = &mut self.peers[who];
        peer.tickets.push((ticket, number));
        peer.pump();
        self.names.insert(ticket.id, number);
        let order = self.orders.entry((who, channel)).or_default();
        *order += 1;
        self.messages.insert(
            number,
            Message {
                from: who,
                channel,
                seqs: ticket.first.0..ticket.end.0,
                order: *order,
                bytes,
                expires,
            },
        );
        self.log(|| format!("  message {number} is {}", ticket.id));
        number
    }

    /// The number of the next message.
    pub(crate) fn next_number(&self) -> u64 {
        self.messages.len() as u64 + 1
    }

    fn arrived(&mut self, who: usize, handed: &Handed) {
        let number = handed
            .payload
            .first_chunk()
            .map_or(0, |first| u64::from_le_bytes(*first));
        self.log(|| format!("  app {who} gets {number} attempt={}", handed.attempt));
        let Some(message) = self.messages.get(&number) else {
            return self.fault(Fault::Garbled(number));
        };
        let (order, bytes, from) = (message.order, message.bytes, message.from);
        if let Some(gap) = handed.record.gap
            && self.rolls == [0, 0]
            && gap.last.0 + 1 != message.seqs.start
        {
            return self.fault(Fault::FalseGap(number));
        }
        let signal = handed.channel == ChannelId::SIGNALING;
        if bytes != handed.payload.len()
            || (!signal && handed.payload != payload(number, bytes))
            || from == who
            || self.names.get(&handed.record.id) != Some(&number)
        {
            self.fault(Fault::Garbled(number));
        }
        if let (ChannelId::SIGNALING, Some(signaling)) = (handed.channel, &mut self.signaling) {
            signaling.arrived(who, &handed.payload);
        }
        self.from_files += u64::from(self.peers[from].files.contains_key(&transfer(number)));
        let roll = self.rolls[who];
        let times = self.delivered.entry((who, number)).or_default();
        let before = times.last().copied();
        times.push(roll);
        let name = (who, handed.record.id, handed.record.epoch, roll);
        let tried = self.attempts.insert(name, handed.attempt);
        if handed.attempt <= tried.unwrap_or(0) || handed.attempt > handed.most {
            self.faults.push(Fault::Miscounted(number));
        }
        match before {
            Some(last) if !handed.redelivered() && last == roll => {
                self.fault(Fault::Doubled(number));
            }
            Some(_) => {}
            None => {
                let last = self.last.entry((who, handed.channel)).or_default();
                let inverted = order < *last;
                *last = order.max(*last);
                if inverted && self.rolls == [0, 0] {
                    self.fault(Fault::Reordered(number));
                }
            }
        }
    }

    fn tick(&mut self, who: usize, time: Duration) {
        self.pass(time);
        self.peers[who].tick(self.now);
    }

    fn connect(&mut self, who: usize) {
        if self.connections[who].is_some() || !self.relay_up || self.peers[who].engine.is_none() {
            return;
        }
        let generation = self.peers[who].bind(LinkClass::Relayed(self.store), self.now);
        self.connections[who] = Some(Connection {
            generation,
            to: VecDeque::new(),
            from: VecDeque::new(),
            pushed: BTreeSet::new(),
            on_the_way: BTreeSet::new(),
        });
    }

    fn disconnect(&mut self, who: usize) {
        let Some(connection) = self.connections[who].take() else {
            return;
        };
        for message in connection.from {
            if let FromRelay::Deliver(_, packet) = message {
                self.retired.push((who, connection.generation, packet));
            }
        }
        self.unbind(who, connection.generation);
    }

    fn unbind(&mut self, who: usize, generation: Generation) {
        let now = self.now;
        if let Some(engine) = &mut self.peers[who].engine {
            engine.unbind(generation, now);
        }
        self.peers[who].pump();
    }

    fn relay_hears(&mut self, who: usize) {
        let Some(connection) = &mut self.connections[who] else {
            return;
        };
        match connection.to.pop_front() {
            Some(ToRelay::Mail(Mail::Acknowledge(EnvelopeId(number)))) => {
                connection.on_the_way.remove(&number);
                self.mailbox[who].retain(|envelope| envelope.number != number);
            }
            Some(ToRelay::Mail(Mail::Park(EnvelopeId(number)))) => {
                connection.on_the_way.remove(&number);
            }
            Some(ToRelay::Mail(Mail::Redeliver)) => {
                connection.pushed.clear();
                connection.on_the_way.clear();
            }
            Some(ToRelay::Submit(transmit)) => {
                if self.refusing && transmit.class == Class::Keep {
                    connection
                        .from
                        .push_back(FromRelay::Refused(transmit.envelope));
                    return;
                }
                connection
                    .from
                    .push_back(FromRelay::Accepted(transmit.envelope));
                let other = 1 - who;
                match transmit.class {
                    Class::NowOrNever => {
                        if let Some(connection) = &mut self.connections[other] {
                            connection
                                .from
                                .push_back(FromRelay::Deliver(None, transmit.packet));
                        }
                        return;
                    }
                    Class::NewestOnly => {
                        self.mailbox[other].retain(|e| e.class != Class::NewestOnly);
                    }
                    Class::Keep => {}
                }
                self.envelopes += 1;
                self.mailbox[other].push(Envelope {
                    number: self.envelopes,
                    class: transmit.class,
                    expires: transmit.expires,
                    packet: transmit.packet,
                });
            }
            None => {}
        }
    }

    fn push(&mut self, who: usize) {
        let Some(connection) = &mut self.connections[who] else {
            return;
        };
        let now = self.now.wall;
        self.mailbox[who].retain(|envelope| envelope.expires > now);
        if connection.on_the_way.len() >= self.inboxes.window() {
            return;
        }
        let next = self.mailbox[who]
            .iter()
            .find(|e| !connection.pushed.contains(&e.number));
        if let Some(envelope) = next {
            connection.pushed.insert(envelope.number);
            connection.on_the_way.insert(envelope.number);
            let number = Some(EnvelopeId(envelope.number));
            connection
                .from
                .push_back(FromRelay::Deliver(number, envelope.packet.clone()));
        }
    }

    fn relay_speaks(&mut self, who: usize) {
        let Some(connection) = &mut self.connections[who] else {
            return;
        };
        let generation = connection.generation;
        let Some(message) = connection.from.pop_front() else {
            return;
        };
        let now = self.now;
        let Some(engine) = &mut self.peers[who].engine else {
            return;
        };
        match message {
            FromRelay::Accepted(envelope) => engine.accepted(generation, envelope, now),
            FromRelay::Refused(envelope) => {
                engine.refused(generation, envelope, Refusal::MailboxFull, now);
            }
            FromRelay::Deliver(envelope, packet) => {
                engine.receive(generation, envelope, packet, now);
            }
        }
        self.peers[who].pump();
    }

    fn direct_packet(&mut self, who: usize) {
        let Some(direct) = &mut self.direct else {
            return;
        };
        let (generation, queue) = &mut direct[who];
        let Some(packet) = queue.pop_front() else {
            return;
        };
        let (generation, now) = (*generation, self.now);
        if let Some(engine) = &mut self.peers[who].engine {
            engine.receive(generation, None, packet, now);
        }
        self.peers[who].pump();
    }

    fn link_up(&mut self) {
        if self.direct.is_some() || self.peers.iter().any(|peer| peer.engine.is_none()) {
            return;
        }
        let now = self.now;
        let generations = [0, 1].map(|who: usize| self.peers[who].bind(LinkClass::Direct, now));
        self.direct = Some(generations.map(|generation| (generation, VecDeque::new())));
    }

    fn link_down(&mut self) {
        let Some(direct) = self.direct.take() else {
            return;
        };
        for (who, (generation, queue)) in direct.into_iter().enumerate() {
            self.retired
                .extend(queue.into_iter().map(|packet| (who, generation, packet)));
            self.unbind(who, generation);
        }
    }

    /// A packet of a retired link comes late.
    fn stale(&mut self) {
        let Some((who, generation, packet)) = self.retired.pop() else {
            return;
        };
        let now = self.now;
        let Some(engine) = &mut self.peers[who].engine else {
            return;
        };
        let taken = engine.receive(generation, None, packet, now);
        self.peers[who].pump();
        if taken != Taken::No {
            self.fault(Fault::StaleLink);
        }
    }

    fn garbage(&mut self, who: usize) {
        let Some(connection) = &self.connections[who] else {
            return;
        };
        let generation = connection.generation;
        let length = self.random.below(64);
        let mut bytes: Vec<u8> = (0..length).map(|_| self.random.next() as u8).collect();
        if let Some(kind) = bytes.first_mut() {
            *kind %= 4;
        }
        let now = self.now;
        let Some(engine) = &mut self.peers[who].engine else {
            return;
        };
        let taken = engine.receive(generation, Some(EnvelopeId(u64::MAX)), bytes.into(), now);
        self.peers[who].pump();
        if taken != Taken::No {
            self.fault(Fault::GarbageTaken);
        }
    }

    fn crash(&mut self, who: usize) {
        if self.peers[who].engine.is_none() {
            return;
        }
        // What was on its way to the disk may have got there, unknown to anybody.
        if self.random.chance(50)
            && let Some(batch) = self.peers[who].write.take()
        {
            apply(&mut self.peers[who].disk, batch);
        }
        self.peers[who].stop();
        self.connections[who] = None;
        self.direct
            .take()
            .into_iter()
            .flatten()
            .enumerate()
            .for_each(|(peer, (generation, _))| {
                if peer != who {
                    self.unbind(peer, generation);
                }
            });
    }

    fn relay_down(&mut self) {
        self.relay_up = false;
        self.disconnect(0);
        self.disconnect(1);
    }

    fn roll_back(&mut self, who: usize, disk: crate::peer::Disk) {
        self.crash(who);
        self.peers[who].disk = disk;
        self.rolls[who] += 1;
        // What only the lost disk knew of is gone; what was in hand may be.
        for (&number, message) in &self.messages {
            if message.from == who && !self.delivered.contains_key(&(1 - who, number)) {
                self.exempt.insert(number);
            }
            if message.from != who && !self.delivered.contains_key(&(who, number)) {
                self.exempt.insert(number);
            }
        }
    }

    /// Both are there for a while and come to terms.
    fn meet(&mut self) {
        for who in 0..2 {
            self.act(Act::Start, who);
            self.act(Act::Connect, who);
        }
        for _ in 0..8 {
            self.steps();
        }
    }

    fn steps(&mut self) {
        let steps = [
            Act::FromRelay,
            Act::Push,
            Act::ToRelay,
            Act::Direct,
            Act::Take,
            Act::Commit,
            Act::Flush,
        ];
        for who in 0..2 {
            for act in steps {
                self.act(act, who);
            }
        }
    }

    /// Everything works again: all that was sent has to arrive, and then there is silence.
    pub(crate) fn settle(&mut self) {
        self.refusing = false;
        let direct = self.random.chance(30);
        self.relay_up = true;
        for who in 0..2 {
            self.act(Act::Start, who);
            self.act(Act::Connect, who);
        }
        self.act(if direct { Act::LinkUp } else { Act::LinkDown }, 0);
        if self.inboxes == Inboxes::Crowded {
            self.settle_one_channel();
        }
        let mut quiet = 0;
        for round in 0..4_000 {
            quiet = if self.round() { 0 } else { quiet + 1 };
            let waiting = self.peers.iter().any(Peer::outstanding);
            if quiet > 60 || (quiet > 20 && !waiting && round > 60) {
                break;
            }
        }
        if quiet <= 20 {
            self.fault(Fault::Restless);
        }
        let mut mailboxes = self.mailbox.iter().flatten();
        let left = mailboxes.any(|envelope| envelope.class == Class::Keep);
        // Where the sender lost what came before, there may never be room for the rest.
        let left = left && (self.inboxes == Inboxes::Roomy || self.rolls == [0, 0]);
        if left || self.peers.iter().any(Peer::outstanding) {
            self.fault(Fault::Stuck);
        }
        for number in self.missing() {
            self.fault(Fault::Lost(number));
        }
        if self.rolls == [0, 0] {
            if self.peers.iter().any(|peer| peer.renewed > 0) {
                self.fault(Fault::RenewedForNothing);
            }
            self.check_gaps();
        }
    }

    /// The apps know of each message that did not come, and of none that did, that it is missing:
    /// though they forgot what they had been told when they crashed.
    fn check_gaps(&mut self) {
        let mut gaps = BTreeMap::<(usize, ChannelId), RunSet<Seq>>::new();
        for (who, peer) in self.peers.iter().enumerate() {
            for (channel, gap) in peer.told.iter().chain(&peer.learned) {
                let of = gaps.entry((who, *channel)).or_default();
                of.insert_run(gap.first, gap.last.next());
            }
        }
        let mut faults = Vec::new();
        for number in &self.ok {
            let Some(message) = self.messages.get(number) else {
                continue;
            };
            let to = 1 - message.from;
            let gap = gaps.get(&(to, message.channel));
            let told = |seq| gap.is_some_and(|gap| gap.contains(Seq(seq)));
            let arrived = self.delivered.contains_key(&(to, *number));
            if !arrived && !message.seqs.clone().all(told) {
                faults.push(Fault::Unexplained(*number));
            }
            if arrived && message.seqs.clone().any(told) {
                faults.push(Fault::FalseGap(*number));
            }
        }
        for fault in faults {
            self.fault(fault);
        }
    }

    /// The apps take from one channel alone, and what was sent on it has to arrive, however full
    /// the other is.
    fn settle_one_channel(&mut self) {
        let taken = CHANNELS[self.random.below(2)];
        self.only = Some(taken);
        let mut blocked = Vec::new();
        for _ in 0..1_000 {
            self.round();
            blocked = self.missing();
            blocked.retain(|number| self.messages[number].channel == taken);
            if blocked.is_empty() {
                break;
            }
        }
        for number in blocked {
            self.fault(Fault::Blocked(number));
        }
        self.only = None;
    }

    /// Both clocks go on. The one on the wall shows whole milliseconds, and what is less counts with
    /// what follows: it goes on by parts of one, and would stand still if they were lost.
    fn pass(&mut self, time: Duration) {
        let millis = |elapsed: Duration| Duration::from_millis(elapsed.as_millis() as u64);
        let before = millis(self.now.elapsed);
        self.now.elapsed += time;
        let passed = millis(self.now.elapsed) - before;
        self.now.wall = self.now.wall.plus(passed);
    }

    /// Everybody does what there is to do; if there is nothing, time passes up to the next
    /// deadline. Returns whether there was something.
    pub(crate) fn round(&mut self) -> bool {
        let spoken = self.spoken;
        self.steps();
        let busy = self
            .connections
            .iter()
            .flatten()
            .any(|c| !c.to.is_empty() || !c.from.is_empty())
            // A few may be Pings, which end only with the link.
            || self.direct.iter().flatten().any(|(_, queue)| queue.len() > 3)
            || self.peers.iter().any(|peer| peer.write.is_some());
        if spoken != self.spoken || busy {
            return true;
        }
        let next = self.peers.iter().filter_map(Peer::deadline);
        let next = next.chain(self.signaling.iter().filter_map(Signaling::deadline));
        if let Some(next) = next.min()
            && next > self.now.elapsed
        {
            self.pass(next - self.now.elapsed);
        }
        for who in 0..2 {
            self.peers[who].tick(self.now);
        }
        self.signal();
        self.collect();
        spoken != self.spoken
    }

    /// Messages that were Ok and neither arrived nor ended.
    fn missing(&self) -> Vec<u64> {
        let ended: BTreeSet<u64> = self
            .ended
            .iter()
            .filter_map(|id| self.names.get(id))
            .copied()
            .collect();
        let is_missing = |number: &&u64| {
            let Some(message) = self.messages.get(number) else {
                return true;
            };
            let from = message.from;
            // A crash may keep the word of an expiry from the app, which set the time.
            let expired = message.expires.is_some_and(|at| at <= self.now.wall);
            !expired
                && !self.delivered.contains_key(&(1 - from, **number))
                && !self.exempt.contains(number)
                && !ended.contains(number)
        };
        self.ok.iter().filter(is_missing).copied().collect()
    }
}

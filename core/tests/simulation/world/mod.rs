//! The world around two peers, and what must hold in it.

mod acts;
mod app;
mod attacker;
mod network;
mod outcome;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use outlive_core::engine::{Rule, Transmit};
use outlive_core::limits::InboxLimits;
use outlive_core::link::Reads;
use outlive_core::transport::Class;
use outlive_core::{
    ChannelId, EnvelopeId, Epoch, Generation, Identity, MessageId, Now, Seq, StoreId, StoreTime,
    TransferId, WallTime,
};

use self::acts::{Act, CLOCKS, DAY};
use crate::peer::{Mail, Peer};
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
    /// I4: something was said that the store does not hold.
    NotDurable(&'static str),
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
    /// The app has committed everything, and the peer is not told so.
    Uncounted,
    /// What the apps have committed is not told to who waits for it.
    Unheard,
    /// A message is told as consumed that no app has committed.
    Flattered(u64),
    /// A message is told as expired before its time.
    Hasty(u64),
    /// Something is outstanding for ever.
    Stuck,
    /// The network never falls silent.
    Restless,
    /// A new epoch was drawn although no store went back in time.
    RenewedForNothing,
    /// Something was left at a relay where the peer reads nothing.
    Wasted,
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
    expires: StoreTime,
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
    expires: Option<StoreTime>,
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
    /// Whether each believes that the other reads at the relay.
    reads: [Reads; 2],
    /// Whether they change their minds about that.
    elsewhere: bool,
    days: bool,
    clocks: bool,
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
            // In the midst of what the other may be set to.
            store: StoreTime(CLOCKS / 2 * DAY),
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
            reads: [Reads::Always; 2],
            elsewhere: false,
            days: false,
            clocks: false,
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

    /// Has days go by in the midst of it all, after which keys are replaced.
    pub(crate) const fn with_days(mut self) -> Self {
        self.days = true;
        self
    }

    /// Has the clock on the wall set to something else in the midst of it all.
    pub(crate) const fn with_clocks(mut self) -> Self {
        self.clocks = true;
        self
    }

    /// Has each believe now and then that the other reads nothing at the relay.
    pub(crate) const fn with_mail_elsewhere(mut self) -> Self {
        self.elsewhere = true;
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
}

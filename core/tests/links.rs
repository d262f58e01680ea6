//! What a session makes of links that linger, and of pongs that are lost: two engines and the wires
//! between them, on which nothing is lost but what a test takes away.

use std::cell::Cell;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use outlive_core::engine::{DropReason, Engine, Output, SendOptions, Stored, Taken, Transmit};
use outlive_core::limits::{ACK_DELAY, LINK_SILENCE, PING_IDLE};
use outlive_core::link::LinkClass;
use outlive_core::seal::KIND_PLAIN;
use outlive_core::wire::frame::Frame;
use outlive_core::wire::packet::{self, PacketBuilder};
use outlive_core::{ChannelId, Entropy, Generation, Identity, Now, StoreId, WallTime};

const CHAT: ChannelId = ChannelId::MESSAGES;

type Lose = Box<dyn Fn(Generation, &Frame) -> bool>;

struct Peer {
    engine: Engine,
    disk: BTreeMap<Bytes, Bytes>,
    dropped: Vec<(Generation, DropReason)>,
}

impl Peer {
    fn retired(&self, link: Generation) -> bool {
        self.dropped
            .iter()
            .any(|(generation, _)| *generation == link)
    }
}

/// Two peers. Links have the same generation at both ends.
struct Pair {
    peers: [Peer; 2],
    /// Packets and where they go.
    wire: VecDeque<(usize, Transmit)>,
    now: Now,
    /// What is lost on its way over a link.
    lose: Lose,
    /// How long a packet takes over a link.
    takes: Box<dyn Fn(Generation) -> Duration>,
    /// Packets under way that take some time, and when they arrive.
    slow: VecDeque<(Duration, usize, Transmit)>,
    /// Whole packets that were.
    lost: Vec<(usize, Transmit)>,
    /// A link that delivers a packet in a tenth of a second each way, and what waits for it.
    narrow: Option<Generation>,
    waiting: [VecDeque<Transmit>; 2],
    /// Packets that were sent.
    packets: usize,
}

fn identity(n: u8) -> Identity {
    Identity::from_seed([n; 32])
}

impl Pair {
    /// Whose packets can be looked into, and lose single frames.
    fn new() -> Self {
        let mut pair = Self::sealed();
        for peer in &mut pair.peers {
            peer.engine.seal_nothing();
        }
        pair
    }

    fn sealed() -> Self {
        let now = Now {
            elapsed: Duration::from_secs(1),
            wall: WallTime(1_000_000),
        };
        let peer = |n: u8| {
            let (stored, entropy) = (Stored::default(), Entropy::from_seed([n; 32]));
            let (me, other) = (identity(n), identity(3 - n).peer_id());
            let opened = Engine::open(&me, other, 1, &stored, entropy, now);
            Peer {
                engine: opened.expect("a new session"),
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
            packets: 0,
        }
    }

    fn bind(&mut self, generation: Generation) {
        self.bind_as(generation, LinkClass::Direct);
    }

    fn bind_as(&mut self, generation: Generation, class: LinkClass) {
        for peer in &mut self.peers {
            peer.engine.bind(generation, class, 0, self.now);
        }
        self.settle();
    }

    fn send(&mut self, text: &'static str) {
        self.send_from(0, text);
    }

    fn send_from(&mut self, from: usize, text: &'static str) {
        let sender = &mut self.peers[from].engine;
        let payload = Bytes::from_static(text.as_bytes());
        let sent = sender.send(CHAT, &payload, &SendOptions::default(), self.now);
        sent.expect("there is room");
        self.settle();
    }

    /// Messages that reached the other side, each once.
    fn arrived(&self) -> u64 {
        let inboxes = &self.peers[1].engine.session().inboxes;
        inboxes.get(&CHAT).map_or(0, |inbox| inbox.messages)
    }

    fn delivered(&self) -> bool {
        !self.peers[0].engine.outstanding()
    }

    /// Does all that can be done without time.
    fn settle(&mut self) {
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

    fn poll(&mut self, from: usize) {
        let peer = &mut self.peers[from];
        while let Some(output) = peer.engine.poll() {
            match output {
                Output::Transmit(transmit) => {
                    self.packets += 1;
                    if self.narrow == Some(transmit.generation) {
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

    fn deliver(&mut self, to: usize, transmit: &Transmit) -> Taken {
        // As a relay says; of packets on direct links nobody says so, and nothing comes of it.
        let Transmit {
            generation,
            envelope,
            ..
        } = *transmit;
        let sender = &mut self.peers[1 - to].engine;
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

    fn deliver_narrowly(&mut self) {
        for to in 0..2 {
            if let Some(transmit) = self.waiting[to].pop_front() {
                self.deliver(to, &transmit);
            }
            if let Some(narrow) = self.narrow.filter(|_| self.waiting[to].is_empty()) {
                self.peers[1 - to].engine.writable(narrow, true, self.now);
            }
        }
    }

    fn pass(&mut self, time: Duration) {
        let step = Duration::from_millis(100);
        let end = self.now.elapsed + time;
        while self.now.elapsed < end {
            self.now.elapsed += step;
            self.now.wall = self.now.wall.plus(step);
            for peer in &mut self.peers {
                peer.engine.tick(self.now);
            }
            self.deliver_narrowly();
            self.settle();
        }
    }
}

#[test]
fn a_lost_pong_takes_no_link_down_while_anything_else_arrives() {
    let mut pair = Pair::new();
    let link = Generation::nth(1, 1);
    pair.bind(link);
    pair.lose = Box::new(|_, frame| matches!(frame, Frame::Pong(_)));
    for _ in 0..20 {
        // Long enough for a Ping, whose Pong is lost; then there is traffic, acknowledged as ever.
        pair.pass(PING_IDLE + Duration::from_secs(1));
        pair.send("hello");
        assert!(pair.delivered());
        pair.pass(LINK_SILENCE);
    }
    for peer in &pair.peers {
        assert_eq!(peer.dropped, []);
    }
    // Silence alone takes it down.
    pair.lose = Box::new(|_, _| true);
    pair.pass(PING_IDLE + LINK_SILENCE * 2);
    assert_eq!(pair.peers[0].dropped, [(link, DropReason::Silent)]);
}

#[test]
fn over_another_network_a_direct_link_carries_only_once_it_is_answered() {
    let mut pair = Pair::new();
    let [direct, relayed] = [1, 2].map(|n| Generation::nth(1, n));
    pair.bind(direct);
    pair.bind_as(relayed, LinkClass::Relayed(StoreId([7; 16])));
    pair.send("before");
    assert_eq!(pair.peers[0].engine.carrier(), Some(direct));
    // What we accepted does not follow us: nothing comes back on it.
    pair.lose = Box::new(move |generation, _| generation == direct);
    pair.peers[0].engine.network_changed(pair.now);
    assert_eq!(pair.peers[0].engine.carrier(), Some(relayed));
    pair.send("at once");
    assert_eq!(pair.arrived(), 2);
    // It was there all the time.
    pair.lose = Box::new(|_, _| false);
    pair.peers[0].engine.network_changed(pair.now);
    pair.settle();
    assert_eq!(pair.peers[0].engine.carrier(), Some(direct));
    pair.send("after");
    assert_eq!(pair.arrived(), 3);
    assert!(pair.delivered());
    // With no other, it carries until it is known to be dead.
    pair.peers[0].engine.unbind(relayed, pair.now);
    pair.peers[0].engine.network_changed(pair.now);
    assert_eq!(pair.peers[0].engine.carrier(), Some(direct));
}

#[test]
fn a_lost_answer_to_a_challenge_is_asked_for_again_while_other_things_are_heard() {
    let mut pair = Pair::new();
    let [direct, relayed] = [1, 2].map(|n| Generation::nth(1, n));
    pair.bind_as(relayed, LinkClass::Relayed(StoreId([7; 16])));
    // The answer to one of them; the other takes the link, and talks on it from now on.
    let answers = Cell::new(0);
    pair.lose = Box::new(move |_, frame| {
        let answer = matches!(frame, Frame::PathResponse(_));
        answer && answers.replace(answers.get() + 1) == 1
    });
    pair.bind(direct);
    let carriers = |pair: &Pair| pair.peers.each_ref().map(|peer| peer.engine.carrier());
    assert_eq!(carriers(&pair), [Some(direct), Some(relayed)]);
    for _ in 0..20 {
        pair.send("never silent for long");
        pair.pass(Duration::from_millis(100));
    }
    assert_eq!(carriers(&pair), [Some(direct); 2]);
}

#[test]
fn a_new_link_to_a_peer_that_moved_carries_as_soon_as_it_has_answered() {
    let mut pair = Pair::new();
    let [old, new] = [1, 2].map(|n| Generation::nth(1, n));
    pair.bind(old);
    pair.send("before");
    pair.lose = Box::new(move |generation, _| generation == old);
    pair.send("lost");
    assert_eq!(pair.arrived(), 1);
    pair.bind(new);
    assert_eq!(pair.peers[0].engine.carrier(), Some(new));
    assert_eq!(pair.arrived(), 2);
    pair.send("at once");
    assert_eq!(pair.arrived(), 3);
}

#[test]
fn a_link_that_owes_an_answer_for_a_second_is_doubted_until_it_is_heard() {
    let mut pair = Pair::new();
    let direct = Generation::nth(1, 1);
    pair.bind(direct);
    pair.pass(Duration::from_secs(5));
    assert!(!pair.peers[0].engine.doubts_a_link(), "nothing is owed");
    pair.lose = Box::new(|_, _| true);
    pair.send("lost");
    pair.pass(Duration::from_millis(900));
    assert!(!pair.peers[0].engine.doubts_a_link());
    pair.pass(Duration::from_millis(200));
    assert!(pair.peers[0].engine.doubts_a_link());
    pair.lose = Box::new(|_, _| false);
    pair.pass(Duration::from_secs(3));
    assert!(!pair.peers[0].engine.doubts_a_link());
    // Of a relay it is never said: what it holds is answered when the peer is there.
    let mut pair = Pair::new();
    pair.bind_as(direct, LinkClass::Relayed(StoreId([7; 16])));
    pair.lose = Box::new(|_, _| true);
    pair.send("held");
    pair.pass(Duration::from_secs(5));
    assert!(!pair.peers[0].engine.doubts_a_link());
}

#[test]
fn a_link_under_load_is_known_by_its_round_trip_when_it_dies() {
    let mut pair = Pair::new();
    let [direct, relayed] = [1, 2].map(|n| Generation::nth(1, n));
    pair.bind(direct);
    pair.bind_as(relayed, LinkClass::Relayed(StoreId([7; 16])));
    pair.send("before");
    pair.lose = Box::new(move |generation, _| generation == direct);
    pair.send("lost");
    assert_eq!(pair.arrived(), 1);
    // There was never a silence in which a Ping would have measured it.
    pair.pass(Duration::from_millis(200));
    assert_eq!(pair.arrived(), 2);
}

#[test]
fn an_answer_is_overdue_whether_the_clock_says_so_or_a_message_that_comes_before_it() {
    let mut pair = Pair::new();
    let [direct, relayed] = [1, 2].map(|n| Generation::nth(1, n));
    pair.bind(direct);
    pair.bind_as(relayed, LinkClass::Relayed(StoreId([7; 16])));
    pair.send("before");
    pair.lose = Box::new(move |generation, _| generation == direct);
    pair.send("lost");
    // No tick: what the app sends is what the engine hears first.
    pair.now.elapsed += Duration::from_millis(200);
    pair.send("later");
    assert_eq!(pair.arrived(), 3);
    // That these are acknowledged says nothing of the link that is dead.
    pair.send("and later");
    assert_eq!(pair.arrived(), 4);
}

/// Talks for so long, and returns how often another link began to carry.
fn talk(pair: &mut Pair, seconds: u32) -> usize {
    let mut changes = 0;
    for _ in 0..seconds * 10 {
        let carrier = pair.peers[0].engine.carrier();
        pair.send("hello");
        pair.pass(Duration::from_millis(100));
        changes += usize::from(carrier != pair.peers[0].engine.carrier());
    }
    changes
}

#[test]
fn a_direct_link_that_answers_late_yields_to_a_relay_and_carries_again_when_it_is_well() {
    let mut pair = Pair::new();
    let [direct, relayed] = [1, 2].map(|n| Generation::nth(1, n));
    pair.bind(direct);
    pair.bind_as(relayed, LinkClass::Relayed(StoreId([7; 16])));
    assert_eq!(talk(&mut pair, 5), 0);
    assert_eq!(pair.peers[0].engine.carrier(), Some(direct));
    pair.takes = Box::new(move |generation| Duration::from_secs(u64::from(generation == direct)));
    assert_eq!(talk(&mut pair, 30), 1);
    assert_eq!(pair.peers[0].engine.carrier(), Some(relayed));
    pair.takes = Box::new(|_| Duration::ZERO);
    assert_eq!(talk(&mut pair, 60), 1);
    assert_eq!(pair.peers[0].engine.carrier(), Some(direct));
    pair.pass(Duration::from_secs(1));
    assert_eq!(pair.arrived(), 950);
    assert!(pair.delivered());
}

#[test]
fn links_that_all_answer_late_do_not_take_turns() {
    let mut pair = Pair::new();
    let [direct, relayed] = [1, 2].map(|n| Generation::nth(1, n));
    pair.bind(direct);
    pair.bind_as(relayed, LinkClass::Relayed(StoreId([7; 16])));
    pair.takes = Box::new(move |generation| {
        Duration::from_millis(if generation == direct { 600 } else { 400 })
    });
    talk(&mut pair, 5);
    assert_eq!(talk(&mut pair, 60), 0);
    assert_eq!(pair.peers[0].engine.carrier(), Some(direct));
}

/// Has a narrow direct link and a relay, and megabytes to send. Returns which of them carries after
/// each tenth of a second.
fn send_much(pair: &mut Pair, time: Duration) -> Vec<Option<Generation>> {
    const MUCH: &str = match str::from_utf8(&[b'm'; 16 * 1024]) {
        Ok(much) => much,
        Err(_) => "",
    };
    for _ in 0..600 {
        pair.send(MUCH);
    }
    let mut carriers = Vec::new();
    let end = pair.now.elapsed + time;
    while pair.now.elapsed < end {
        pair.pass(Duration::from_millis(100));
        carriers.push(pair.peers[0].engine.carrier());
    }
    carriers
}

#[test]
fn what_a_direct_link_takes_in_slowly_goes_over_a_relay_that_is_wide() {
    let mut pair = Pair::sealed();
    let [direct, relayed] = [1, 2].map(|n| Generation::nth(1, n));
    pair.narrow = Some(direct);
    pair.bind(direct);
    pair.bind_as(relayed, LinkClass::Relayed(StoreId([7; 16])));
    pair.pass(Duration::from_secs(1));
    let carriers = send_much(&mut pair, Duration::from_secs(8));
    let before = carriers
        .iter()
        .take_while(|carrier| **carrier == Some(direct));
    assert!((30..=50).contains(&before.count()), "{carriers:?}");
    assert!(pair.delivered(), "at 30 segments a second it takes 20 s");
    assert_eq!(pair.arrived(), 600, "each once");
    let again = carriers.last() == Some(&Some(direct));
    assert!(again, "nothing was learned of the relay: {carriers:?}");
}

#[test]
fn a_link_with_a_message_now_and_then_stays_up() {
    let mut pair = Pair::new();
    pair.bind(Generation::nth(1, 1));
    for (n, pause) in [1, 14, 15, 16, 29, 31, 60, 75, 600].into_iter().enumerate() {
        pair.pass(Duration::from_secs(pause));
        pair.send("hello");
        assert!(pair.delivered(), "after {pause} s");
        assert_eq!(pair.arrived(), n as u64 + 1);
    }
    for peer in &pair.peers {
        assert_eq!(peer.dropped, []);
    }
}

#[test]
fn the_hundredth_link_resumes_like_the_first_while_dead_ones_are_still_open() {
    let mut pair = Pair::new();
    for n in 1..=100 {
        let link = Generation::nth(1, n);
        // Nothing gets through on the links before, and neither end has heard of it yet.
        pair.lose = Box::new(move |generation, _| generation < link);
        pair.send("before");
        pair.bind(link);
        pair.pass(Duration::from_secs(3));
        assert!(pair.delivered(), "link {n}");
        pair.send("after");
        pair.pass(Duration::from_secs(3));
        assert!(pair.delivered(), "link {n}");
        assert_eq!(pair.arrived(), u64::from(n) * 2, "each once");
    }
    // What was lost comes after all, very late.
    let lost = std::mem::take(&mut pair.lost);
    assert!(lost.len() > 100);
    pair.lose = Box::new(|_, _| false);
    for (to, transmit) in lost {
        let retired = pair.peers[to].retired(transmit.generation);
        let taken = pair.deliver(to, &transmit);
        assert!(!retired || taken == Taken::No);
        pair.settle();
    }
    assert_eq!(pair.arrived(), 200);
}

/// How long an app takes to answer.
const AT_ONCE: Duration = Duration::from_micros(300);

/// Two apps take turns, and each answers at once.
fn take_turns(pair: &mut Pair, turns: usize) {
    for turn in 0..turns {
        pair.now.elapsed += AT_ONCE;
        pair.send_from(turn % 2, "and you?");
    }
}

#[test]
fn peers_that_take_turns_acknowledge_with_their_answers() {
    let mut pair = Pair::sealed();
    pair.bind(Generation::nth(1, 1));
    take_turns(&mut pair, 4);
    let before = pair.packets;
    take_turns(&mut pair, 10);
    assert_eq!(pair.packets - before, 10, "a packet a turn");
    pair.now.elapsed += ACK_DELAY;
    for peer in &mut pair.peers {
        assert!(peer.engine.deadline() >= Some(pair.now.elapsed));
        peer.engine.tick(pair.now);
    }
    pair.settle();
    assert_eq!(pair.packets - before, 11, "no answer came to the last");
    assert!(pair.peers.iter().all(|peer| !peer.engine.outstanding()));
}

#[test]
fn what_the_app_does_not_answer_is_acknowledged_at_once() {
    let mut pair = Pair::sealed();
    pair.bind(Generation::nth(1, 1));
    pair.send("first");
    assert!(pair.delivered(), "nothing is known of the app yet");
    take_turns(&mut pair, 4);
    pair.send("the app has taken turns before");
    assert!(!pair.delivered());
    pair.send("two are not kept waiting");
    assert!(pair.delivered());
    pair.send("nor is what follows, as no answer came between them");
    assert!(pair.delivered());

    take_turns(&mut pair, 4);
    pair.send("once more");
    assert!(!pair.delivered());
    let deadline = pair.peers[1].engine.deadline();
    let deadline = deadline.expect("an acknowledgement that waits");
    assert!(deadline <= pair.now.elapsed + ACK_DELAY);
    pair.now.elapsed = deadline;
    pair.peers[1].engine.tick(pair.now);
    pair.settle();
    assert!(pair.delivered(), "no later than its time");
    pair.send("and now it is known that no answer comes");
    assert!(pair.delivered());
}

#[test]
fn what_waits_for_an_answer_is_acknowledged_before_the_process_ends() {
    let mut pair = Pair::sealed();
    pair.bind(Generation::nth(1, 1));
    take_turns(&mut pair, 4);
    pair.send("the last");
    assert!(!pair.delivered());
    pair.peers[1].engine.hasten(pair.now);
    pair.settle();
    assert!(pair.delivered());
}

#[test]
fn an_acknowledgement_that_a_full_link_does_not_take_wakes_nobody_again_and_again() {
    let mut pair = Pair::sealed();
    let link = Generation::nth(1, 1);
    pair.bind(link);
    take_turns(&mut pair, 4);
    pair.peers[1].engine.writable(link, false, pair.now);
    pair.send("to a peer whose transport takes nothing");
    pair.now.elapsed += ACK_DELAY;
    pair.peers[1].engine.tick(pair.now);
    pair.settle();
    assert!(!pair.delivered());
    assert!(pair.peers[1].engine.deadline() > Some(pair.now.elapsed));
    pair.peers[1].engine.writable(link, true, pair.now);
    pair.settle();
    assert!(pair.delivered());
}

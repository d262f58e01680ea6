//! Two peers and what carries packets between them, at the mercy of the test.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use outlive_core::engine::{Rule, SendOptions, Taken};
use outlive_core::limits::InboxLimits;
use outlive_core::link::LinkClass;
use outlive_core::transport::Class;
use outlive_core::{ChannelId, EnvelopeId, Generation, Identity, Now, PeerId, StoreId, WallTime};

use crate::peer::Peer;

pub(crate) const CHAT: ChannelId = ChannelId::MESSAGES;
pub(crate) const ALICE: usize = 0;
pub(crate) const BOB: usize = 1;

/// A packet as a relay sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) to: usize,
    pub(crate) class: Class,
    pub(crate) packet: Bytes,
}

pub(crate) struct World {
    pub(crate) peers: [Peer; 2],
    pub(crate) now: Now,
    links: [Option<Generation>; 2],
    class: LinkClass,
    /// Everything that ever left a peer.
    pub(crate) seen: Vec<Seen>,
    /// On its way, not delivered.
    pub(crate) wire: VecDeque<Seen>,
    entropy: u32,
    /// What each app was handed.
    pub(crate) heard: [Vec<String>; 2],
}

pub(crate) fn identity(n: u8) -> Identity {
    Identity::from_seed([n; 32])
}

pub(crate) fn id(n: u8) -> PeerId {
    identity(n).peer_id()
}

impl World {
    pub(crate) fn new(class: LinkClass) -> Self {
        Self::with(class, None)
    }

    /// Two peers who break this rule.
    fn with(class: LinkClass, broken: Option<Rule>) -> Self {
        let mut world = Self {
            peers: [
                Peer::new(identity(1), id(2), InboxLimits::default(), broken),
                Peer::new(identity(2), id(1), InboxLimits::default(), broken),
            ],
            now: Now {
                elapsed: Duration::from_secs(1),
                wall: WallTime(1_700_000_000_000),
                ..Now::default()
            },
            links: [None, None],
            class,
            seen: Vec::new(),
            wire: VecDeque::new(),
            entropy: 0,
            heard: [Vec::new(), Vec::new()],
        };
        world.start(ALICE);
        world.start(BOB);
        world
    }

    pub(crate) const fn relayed_class() -> LinkClass {
        LinkClass::Relayed(StoreId([7; 16]))
    }

    pub(crate) fn relayed() -> Self {
        Self::new(Self::relayed_class())
    }

    pub(crate) fn start(&mut self, who: usize) {
        self.entropy += 1;
        let mut seed = [0; 32];
        seed[..4].copy_from_slice(&self.entropy.to_le_bytes());
        self.peers[who].start(seed, self.now);
    }

    pub(crate) fn crash(&mut self, who: usize) {
        self.peers[who].stop();
        self.links[who] = None;
    }

    /// It begins anew, with nothing on its disk.
    pub(crate) fn lose_store(&mut self, who: usize) {
        self.crash(who);
        self.peers[who].disk.clear();
        self.start(who);
        self.bind(who);
    }

    pub(crate) fn bind(&mut self, who: usize) -> Generation {
        let generation = self.peers[who].bind(self.class, self.now);
        self.links[who] = Some(generation);
        self.collect();
        generation
    }

    pub(crate) fn unbind(&mut self, who: usize) {
        if let (Some(generation), Some(engine)) =
            (self.links[who].take(), &mut self.peers[who].engine)
        {
            engine.unbind(generation, self.now);
        }
        self.peers[who].pump();
    }

    pub(crate) fn send(&mut self, who: usize, text: &str) {
        let payload = Bytes::copy_from_slice(text.as_bytes());
        if let Some(engine) = &mut self.peers[who].engine {
            engine
                .send(CHAT, &payload, &SendOptions::default(), self.now)
                .expect("room");
        }
        self.peers[who].pump();
        self.collect();
    }

    /// One write happens, if one waits.
    pub(crate) fn flush(&mut self, who: usize) {
        self.peers[who].flush(self.now);
        self.collect();
    }

    /// Everything is written that waits to be.
    pub(crate) fn flush_all(&mut self, who: usize) {
        self.flush(who);
        while self.peers[who].write.is_some() {
            self.flush(who);
        }
    }

    fn collect(&mut self) {
        for who in [ALICE, BOB] {
            while let Some((transmit, _)) = self.peers[who].sent.pop_front() {
                if self.class != LinkClass::Direct
                    && let Some(engine) = &mut self.peers[who].engine
                {
                    // The relay has it; what becomes of it is another matter.
                    engine.accepted(transmit.generation, transmit.envelope, self.now);
                }
                let seen = Seen {
                    to: 1 - who,
                    class: transmit.class,
                    packet: transmit.packet,
                };
                self.seen.push(seen.clone());
                self.wire.push_back(seen);
            }
            self.peers[who].mail.clear();
        }
    }

    /// Hands a packet to a peer as if it had just come.
    pub(crate) fn deliver(&mut self, to: usize, packet: Bytes) -> Taken {
        let Some(generation) = self.links[to] else {
            return Taken::No;
        };
        let envelope = (self.class != LinkClass::Direct).then_some(EnvelopeId(u64::MAX));
        let Some(engine) = &mut self.peers[to].engine else {
            return Taken::No;
        };
        let taken = engine.receive(generation, envelope, packet, self.now);
        self.peers[to].pump();
        self.collect();
        taken
    }

    /// Takes all messages that are there.
    pub(crate) fn listen(&mut self) {
        for who in [ALICE, BOB] {
            while let Some(handed) = self.peers[who].take(None) {
                let mark = if handed.redelivered() { "again: " } else { "" };
                let text = String::from_utf8_lossy(&handed.payload).into_owned();
                self.heard[who].push(format!("{mark}{text}"));
                self.peers[who].commit(None, self.now);
            }
        }
        self.collect();
    }

    /// Everything gets where it should, until nothing is on its way.
    pub(crate) fn settle(&mut self) {
        for _ in 0..200 {
            for who in [ALICE, BOB] {
                self.flush(who);
            }
            self.listen();
            let Some(Seen { to, packet, .. }) = self.wire.pop_front() else {
                let busy = self.peers.iter().any(|peer| peer.write.is_some());
                if !busy {
                    return;
                }
                continue;
            };
            self.deliver(to, packet);
        }
        panic!("the wire does not fall silent: {:?}", self.wire);
    }

    /// Lets time pass, deadline by deadline, and everything get where it should.
    pub(crate) fn pass(&mut self, time: Duration) {
        let end = self.now.elapsed + time;
        while self.now.elapsed < end {
            let next = self.peers.iter().filter_map(Peer::deadline).min();
            let step = next
                .map_or(time, |at| at.saturating_sub(self.now.elapsed))
                .clamp(Duration::from_millis(1), end - self.now.elapsed);
            self.now = self.now.after(step);
            for who in [ALICE, BOB] {
                self.peers[who].tick(self.now);
            }
            self.collect();
            self.settle();
        }
    }

    /// Two peers that have shared keys, and nothing on its way.
    pub(crate) fn acquainted(class: LinkClass) -> Self {
        Self::acquainted_with(class, None)
    }

    /// The same of two who break this rule.
    pub(crate) fn acquainted_with(class: LinkClass, broken: Option<Rule>) -> Self {
        let mut world = Self::with(class, broken);
        world.bind(ALICE);
        world.bind(BOB);
        world.send(ALICE, "hello");
        world.settle();
        world.send(BOB, "hello to you");
        world.settle();
        assert_eq!(world.heard, [vec!["hello to you"], vec!["hello"]]);
        for peer in &world.peers {
            let engine = peer.engine.as_ref().expect("it runs");
            assert!(engine.session().keys.sending.is_some());
        }
        world
    }

    /// A session still works: a message each way arrives, once.
    pub(crate) fn still_works(&mut self) {
        assert_eq!(self.news(), [vec!["there"], vec!["still"]]);
    }

    /// The same after a store went back in time: what is on its way meanwhile may be marked.
    pub(crate) fn finds_together(&mut self) {
        let news = self
            .news()
            .map(|news| news.join("\n").replace("again: ", ""));
        assert_eq!(news, ["there", "still"]);
    }

    fn news(&mut self) -> [Vec<String>; 2] {
        let before = self.heard.clone().map(|heard| heard.len());
        self.send(ALICE, "still");
        self.send(BOB, "there");
        self.settle();
        self.pass(Duration::from_secs(60));
        [ALICE, BOB].map(|who| self.heard[who][before[who]..].to_vec())
    }

    pub(crate) fn kinds(&self, from: usize) -> Vec<u8> {
        self.seen[from..]
            .iter()
            .map(|seen| seen.packet[0])
            .collect()
    }
}

//! Two negotiators, their connections, and the channel between them with all that it allows itself:
//! what it loses when its time is over, brings twice after a restart, and late after a loss.

mod acts;
mod outcome;
mod work;

use std::collections::VecDeque;
use std::time::Duration;

use outlive_core::negotiator::{Negotiator, Output, Rule, Status};
use outlive_core::wire::signal::Signal;
use outlive_core::{Entropy, Identity, Negotiation, Now, PeerId, Round, WallTime};

pub(crate) use self::acts::{Act, both};
pub(crate) use self::outcome::Fault;
use crate::connection::Connection;

/// A signal on its way.
#[derive(Clone, Debug)]
struct Letter {
    signal: Signal,
    /// How many offers and withdrawals its sender had made, over all its starts.
    made: u32,
    /// How often its sender had begun to count from below.
    lost: u32,
}

#[derive(Clone, Debug)]
struct End {
    negotiator: Negotiator,
    start: u32,
    /// The most starts that it ever counted.
    most_starts: u32,
    entropy: u8,
    lost: u32,
    connection: Option<Connection>,
    work: VecDeque<Output>,
    /// What was asked for failed: nothing can be done until the connection is let go of.
    failed: bool,
    made: u32,
    /// What it has heard of what the other has made: how often that had begun to count from below,
    /// and how many offers it had made.
    heard: (u32, u32),
    /// Signals on their way to it, in order.
    inbound: VecDeque<Letter>,
    /// The last one that it had.
    had: Option<Letter>,
    /// Those that come out of order, above all those of a past that the other has lost.
    late: Vec<Letter>,
    wants: bool,
    forbids: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct World {
    now: Now,
    ends: [End; 2],
    tags: u32,
    broken: Option<Rule>,
    /// Whether anything has gone wrong.
    troubled: bool,
    /// Whether signals were forged.
    hostile: bool,
    /// Whether what is taken back has not left yet, or always has.
    pub(crate) cancels: bool,
    /// Whether a connection whose ICE was restarted never comes up again.
    pub(crate) restarts_hang: bool,
    pub(crate) faults: Vec<Fault>,
}

pub(crate) fn peers() -> [PeerId; 2] {
    let mut peers = [1, 2].map(|n| Identity::from_seed([n; 32]).peer_id());
    peers.sort();
    peers
}

fn negotiator(who: usize, start: u32, entropy: u8, broken: Option<Rule>) -> Negotiator {
    let peers = peers();
    let mut seed = [entropy; 32];
    seed[0] = who as u8;
    let entropy = Entropy::from_seed(seed);
    let mut negotiator =
        Negotiator::new(peers[who], peers[1 - who], Round::at_start(start), entropy);
    if let Some(rule) = broken {
        negotiator.break_rule(rule);
    }
    negotiator
}

impl World {
    /// Two peers, the polite one first, both in their third start.
    pub(crate) fn new(broken: Option<Rule>) -> Self {
        let end = |who| End {
            negotiator: negotiator(who, 3, 0, broken),
            start: 3,
            most_starts: 3,
            entropy: 0,
            lost: 0,
            connection: None,
            work: VecDeque::new(),
            failed: false,
            made: 0,
            heard: (0, 0),
            inbound: VecDeque::new(),
            had: None,
            late: Vec::new(),
            wants: false,
            forbids: false,
        };
        Self {
            now: Now {
                elapsed: Duration::from_secs(1),
                wall: WallTime(1_000_000),
                ..Now::default()
            },
            ends: [end(0), end(1)],
            tags: 0,
            broken,
            troubled: false,
            hostile: false,
            cancels: false,
            restarts_hang: false,
            faults: Vec::new(),
        }
    }

    pub(crate) fn want(&mut self, who: usize) {
        self.ends[who].wants = true;
        self.ends[who].forbids = false;
        self.ends[who].negotiator.want(self.now);
        self.collect(who);
    }

    pub(crate) fn allow(&mut self, who: usize) {
        self.ends[who].wants = false;
        self.ends[who].forbids = false;
        self.ends[who].negotiator.allow();
        self.collect(who);
    }

    pub(crate) fn forbid(&mut self, who: usize) {
        self.troubled = true;
        self.ends[who].wants = false;
        self.ends[who].forbids = true;
        self.ends[who].negotiator.forbid();
        self.collect(who);
    }

    pub(crate) fn status(&self, who: usize) -> Status {
        self.ends[who].negotiator.status()
    }

    /// Bytes that a negotiator holds, roughly.
    pub(crate) fn weight(&self, who: usize) -> usize {
        format!("{:?}", self.ends[who].negotiator).len()
    }

    /// A signal that no honest peer makes. From now on connections answer misuse with errors.
    pub(crate) fn forge(&mut self, to: usize, signal: Signal) {
        self.troubled = true;
        self.hostile = true;
        self.ends[to].negotiator.receive(signal, self.now);
        self.collect(to);
    }

    /// The name of the negotiation that is going on here, which the peer knows.
    pub(crate) fn name(&self, who: usize) -> Option<Negotiation> {
        match self.status(who) {
            Status::Idle | Status::Waiting => None,
            Status::Negotiating(name) | Status::Connecting(name) | Status::Up(name) => Some(name),
        }
    }
}

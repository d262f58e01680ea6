//! Two negotiators, their connections, and the channel between them with all that it allows itself:
//! what it loses when its time is over, brings twice after a restart, and late after a loss.

use std::collections::VecDeque;
use std::time::Duration;

use outlive_core::negotiator::{Negotiator, Output, Rule, Status};
use outlive_core::wire::signal::Signal;
use outlive_core::{Entropy, Identity, Negotiation, Now, PeerId, Round, WallTime};

use crate::connection::{Connection, Description, Misuse, Tag};

/// What must never happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// A connection was asked for something it can't do, or something stale.
    Misuse(usize, Misuse),
    /// An offer was applied although a newer one, or that it was taken back, had been heard before.
    StaleOffer(usize),
    /// A connection was asked for that is forbidden.
    Forbidden(usize),
    /// They never agree, though nothing stands in their way.
    NeverUp,
    /// They go on for ever.
    Restless,
    /// They waited for some time to be over, where signals would have been enough.
    Slow,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Act {
    /// The next signal arrives here.
    Deliver(usize),
    /// The connection here does the next thing it was asked to do.
    Work(usize),
    /// The same, and fails.
    Fail(usize),
    /// The next signal to here was too late.
    Expire(usize),
    /// The next signal to here comes later than others, and maybe more than once.
    Delay(usize),
    /// Time passes up to the deadline here.
    Wait(usize),
    /// ICE is to be restarted from here.
    Restart(usize),
    /// The connection here hears nothing.
    Silent(usize),
    /// The connection dies.
    Down,
    /// The connections find each other, if they fit.
    Up,
    /// The process here starts anew. The last signal that it had is brought again.
    Crash(usize),
    /// The same, and its store is lost: it counts from the beginning. What it had sent comes late.
    Lose(usize),
    /// One of the late signals arrives here, and stays to come again.
    Late(usize),
}

impl Act {
    /// Whether it is more than two peers that do what they want at the same time.
    const fn is_trouble(self) -> bool {
        match self {
            Self::Deliver(_) | Self::Work(_) | Self::Restart(_) | Self::Up => false,
            Self::Fail(_)
            | Self::Expire(_)
            | Self::Delay(_)
            | Self::Wait(_)
            | Self::Silent(_)
            | Self::Down
            | Self::Crash(_)
            | Self::Lose(_)
            | Self::Late(_) => true,
        }
    }
}

pub(crate) fn both(act: fn(usize) -> Act) -> [Act; 2] {
    [act(0), act(1)]
}

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

    /// Whether it can happen, and changes anything.
    pub(crate) fn possible(&self, act: Act) -> bool {
        match act {
            Act::Deliver(to) | Act::Expire(to) | Act::Delay(to) => {
                !self.ends[to].inbound.is_empty()
            }
            Act::Work(at) => !self.ends[at].work.is_empty(),
            Act::Fail(at) => matches!(
                self.ends[at].work.front(),
                Some(
                    Output::CreateOffer { .. }
                        | Output::ApplyOffer { .. }
                        | Output::ApplyAnswer { .. }
                )
            ),
            Act::Wait(at) => self.ends[at].negotiator.deadline().is_some(),
            Act::Restart(at) => self.ends[at].negotiator.status() != Status::Idle,
            Act::Silent(at) => self.ends[at].connection.as_ref().is_some_and(|c| c.up),
            Act::Down => self.ends.iter().any(|end| {
                let connection = end.connection.as_ref();
                connection.is_some_and(|connection| connection.up)
            }),
            Act::Up => self.comes_up(),
            Act::Crash(_) | Act::Lose(_) => true,
            Act::Late(at) => !self.ends[at].late.is_empty(),
        }
    }

    pub(crate) fn act(&mut self, act: Act) {
        if !self.possible(act) {
            return;
        }
        self.troubled |= act.is_trouble();
        match act {
            Act::Deliver(to) => {
                if let Some(letter) = self.ends[to].inbound.pop_front() {
                    self.ends[to].had = Some(letter.clone());
                    self.deliver(to, letter);
                }
            }
            Act::Expire(to) => {
                self.ends[to].inbound.pop_front();
            }
            Act::Delay(to) => {
                let to = &mut self.ends[to];
                to.late.extend(to.inbound.pop_front());
            }
            Act::Late(to) => {
                self.ends[to].late.rotate_left(1);
                if let Some(letter) = self.ends[to].late.last().cloned() {
                    self.deliver(to, letter);
                }
            }
            Act::Work(at) => self.work(at),
            Act::Fail(at) => {
                if let Some(
                    Output::CreateOffer { negotiation, .. }
                    | Output::ApplyOffer { negotiation, .. }
                    | Output::ApplyAnswer { negotiation, .. },
                ) = self.ends[at].work.pop_front()
                {
                    self.fail(at, negotiation);
                }
            }
            Act::Wait(at) => {
                if let Some(deadline) = self.ends[at].negotiator.deadline() {
                    self.pass(deadline.saturating_sub(self.now.elapsed));
                    self.tick(at);
                }
            }
            Act::Restart(at) => {
                self.ends[at].negotiator.restart(self.now);
                self.collect(at);
            }
            Act::Silent(at) => {
                let end = &mut self.ends[at];
                if let Some(connection) = end.connection.as_ref().filter(|c| c.up) {
                    end.negotiator.silent(connection.last, self.now);
                }
                self.collect(at);
            }
            Act::Down => {
                for at in 0..2 {
                    let end = &mut self.ends[at];
                    if let Some(connection) = end.connection.as_mut().filter(|c| c.up) {
                        connection.up = false;
                        end.negotiator.down(connection.last, self.now);
                        self.collect(at);
                    }
                }
            }
            Act::Up => self.up(),
            Act::Crash(at) => self.crash(at),
            Act::Lose(at) => {
                // What waits in a mailbox waits on; it comes behind what is sent from now on.
                let to = &mut self.ends[1 - at];
                to.late.extend(to.inbound.drain(..));
                self.ends[at].start = 0;
                self.ends[at].had = None;
                self.crash(at);
            }
        }
    }

    /// Lets time pass without anything else.
    pub(crate) fn pass(&mut self, time: Duration) {
        self.now.elapsed += time;
        self.now.wall = self.now.wall.plus(time);
    }

    fn tick(&mut self, at: usize) {
        self.ends[at].negotiator.tick(self.now);
        self.collect(at);
    }

    fn crash(&mut self, at: usize) {
        let broken = self.broken;
        let end = &mut self.ends[at];
        end.start += 1;
        // Without its store it counts from below, at each start until they are as many as before.
        if end.start <= end.most_starts {
            end.lost += 1;
        }
        end.most_starts = end.most_starts.max(end.start);
        end.entropy += 1;
        end.negotiator = negotiator(at, end.start, end.entropy, broken);
        end.connection = None;
        end.work.clear();
        end.failed = false;
        end.heard = (0, 0);
        if let Some(letter) = end.had.take() {
            end.inbound.push_front(letter);
        }
        if end.forbids {
            self.forbid(at);
        } else if end.wants {
            self.want(at);
        }
    }

    fn deliver(&mut self, to: usize, letter: Letter) {
        let end = &mut self.ends[to];
        let before = end.heard;
        let made = (letter.lost, letter.made);
        let tells = match &letter.signal {
            Signal::Offer(_) | Signal::Answer(_) | Signal::Withdraw(_) => true,
            Signal::Candidate(_) | Signal::Decline(_) | Signal::Addresses(_) => false,
        };
        if tells {
            end.heard = before.max(made);
        }
        let is_offer = matches!(letter.signal, Signal::Offer(_));
        end.negotiator.receive(letter.signal, self.now);
        let work = end.work.len();
        self.collect(to);
        let applied = self.ends[to]
            .work
            .iter()
            .skip(work)
            .any(|output| matches!(output, Output::ApplyOffer { .. }));
        // A past that was lost is nothing a peer can be known by.
        if is_offer && applied && made.0 == before.0 && made.1 <= before.1 {
            self.fault(Fault::StaleOffer(to));
        }
    }

    /// Moves what a negotiator wants done to where it is done.
    fn collect(&mut self, at: usize) {
        while let Some(output) = self.ends[at].negotiator.poll() {
            match output {
                Output::Send { signal, .. } => {
                    if matches!(signal, Signal::Offer(_) | Signal::Withdraw(_)) {
                        self.ends[at].made += 1;
                    }
                    let bytes = signal.to_bytes();
                    assert_eq!(Signal::decode(&bytes), Ok(Some(signal.clone())));
                    let letter = Letter {
                        signal,
                        made: self.ends[at].made,
                        lost: self.ends[at].lost,
                    };
                    self.ends[1 - at].inbound.push_back(letter);
                }
                Output::Cancel { negotiation } => {
                    if self.cancels {
                        self.ends[1 - at]
                            .inbound
                            .retain(|letter| letter.signal.negotiation() != Some(negotiation));
                    }
                }
                output => {
                    if self.ends[at].forbids && output != Output::Reset {
                        self.fault(Fault::Forbidden(at));
                    }
                    self.ends[at].work.push_back(output);
                }
            }
        }
    }

    fn tag(&mut self) -> Tag {
        self.tags += 1;
        Tag(self.tags)
    }

    fn work(&mut self, at: usize) {
        let Some(output) = self.ends[at].work.pop_front() else {
            return;
        };
        if self.ends[at].failed && output != Output::Reset {
            return;
        }
        let (negotiation, done) = match output {
            Output::Reset => {
                self.ends[at].failed = false;
                self.ends[at].connection = None;
                return;
            }
            Output::Rollback => {
                if let Some(connection) = &mut self.ends[at].connection {
                    connection.rollback();
                }
                return;
            }
            Output::CreateOffer {
                negotiation,
                restart,
            } => {
                let tag = self.tag();
                let connection = self.connection(at, negotiation);
                let offer = connection.create_offer(tag, negotiation, restart);
                let done = offer.map(|offer| self.described(at, negotiation, offer));
                (negotiation, done)
            }
            Output::ApplyOffer { negotiation, sdp } => {
                let tag = self.tag();
                let connection = self.connection(at, negotiation);
                let answer = sdp
                    .parse()
                    .and_then(|offer| connection.apply_offer(tag, negotiation, offer));
                let done = answer.map(|answer| self.described(at, negotiation, answer));
                (negotiation, done)
            }
            Output::ApplyAnswer { negotiation, sdp } => {
                let connection = self.connection(at, negotiation);
                let done = sdp
                    .parse()
                    .and_then(|answer| connection.apply_answer(answer));
                (negotiation, done)
            }
            Output::AddCandidate {
                negotiation,
                candidate,
            } => {
                let connection = self.connection(at, negotiation);
                let of = candidate.parse().map(Tag);
                let done = of.map_or(Ok(()), |of| connection.add_candidate(of));
                if self.hostile {
                    return;
                }
                (negotiation, done)
            }
            Output::Send { .. } | Output::Cancel { .. } => return,
        };
        match done {
            Ok(()) => {}
            Err(_) if self.hostile => self.fail(at, negotiation),
            Err(misuse) => self.fault(Fault::Misuse(at, misuse)),
        }
    }

    fn fail(&mut self, at: usize, negotiation: Negotiation) {
        self.ends[at].failed = true;
        self.ends[at].negotiator.failed(negotiation, self.now);
        self.collect(at);
    }

    fn connection(&mut self, at: usize, negotiation: Negotiation) -> &mut Connection {
        if self.ends[at].connection.is_none() {
            let tag = self.tag();
            self.ends[at].connection = Some(Connection::new(tag, negotiation));
        }
        self.ends[at].connection.as_mut().expect("just made")
    }

    /// A description was made; one candidate is found before that is told, one after.
    fn described(&mut self, at: usize, negotiation: Negotiation, description: Description) {
        let negotiator = &mut self.ends[at].negotiator;
        let candidate = description.tag.0.to_string();
        negotiator.found(negotiation, candidate.clone());
        negotiator.described(negotiation, description.to_string(), self.now);
        negotiator.found(negotiation, candidate);
        self.collect(at);
    }

    /// Whether the connections would find each other.
    fn comes_up(&self) -> bool {
        let waiting = |end: &End| end.connection.as_ref().is_some_and(|c| !c.up);
        let hangs = |end: &End| end.connection.as_ref().is_some_and(|c| c.restarts > 0);
        self.connections_fit()
            && self.ends.iter().any(waiting)
            && !(self.restarts_hang && self.ends.iter().any(hangs))
    }

    fn up(&mut self) {
        if !self.comes_up() {
            return;
        }
        for at in 0..2 {
            let end = &mut self.ends[at];
            if let Some(connection) = &mut end.connection {
                connection.up = true;
                end.negotiator.up(connection.last, self.now);
            }
            self.collect(at);
        }
    }

    fn fault(&mut self, fault: Fault) {
        if self.faults.len() < 8 {
            self.faults.push(fault);
        }
    }

    /// A connection that has lost its other end notices after a while.
    fn notice(&mut self) {
        let fit = self.connections_fit();
        for at in 0..2 {
            let end = &mut self.ends[at];
            if let Some(connection) = end.connection.as_mut().filter(|c| c.up && !fit) {
                connection.up = false;
                end.negotiator.down(connection.last, self.now);
            }
            self.collect(at);
        }
    }

    fn busy(&self) -> bool {
        self.ends
            .iter()
            .any(|end| !end.inbound.is_empty() || !end.work.is_empty())
    }

    /// Nothing fails any more: if anybody wants a connection and nobody forbids it, there has to be
    /// one in the end, the same at both ends, and then silence.
    pub(crate) fn settle(&mut self) {
        let wanted = self.ends.iter().any(|end| end.wants);
        let forbidden = self.ends.iter().any(|end| end.forbids);
        // Back-off takes a dozen waits to its widest span, and two negotiations may miss each other.
        for _ in 0..40 {
            if !self.quieten() {
                return self.fault(Fault::Restless);
            }
            self.up();
            self.notice();
            if self.busy() {
                continue;
            }
            if self.is_up() {
                return;
            }
            let deadlines = self.ends.iter().filter_map(|end| end.negotiator.deadline());
            let Some(next) = deadlines.min() else {
                break;
            };
            if !self.troubled && !self.restarts_hang {
                self.fault(Fault::Slow);
            }
            self.pass(next.saturating_sub(self.now.elapsed));
            self.tick(0);
            self.tick(1);
        }
        self.quieten();
        if wanted && !forbidden {
            self.fault(Fault::NeverUp);
        }
    }

    /// All signals arrive, and all that is asked for is done. Returns false if that does not end.
    fn quieten(&mut self) -> bool {
        for _ in 0..200 {
            if !self.busy() {
                return true;
            }
            for act in [both(Act::Work), both(Act::Deliver)].concat() {
                self.act(act);
            }
        }
        false
    }

    fn connections_fit(&self) -> bool {
        match [0, 1].map(|at: usize| self.ends[at].connection.as_ref()) {
            [Some(one), Some(two)] => one.fits(two),
            _ => false,
        }
    }

    /// Whether neither has a connection, nor is about to have one.
    pub(crate) fn is_off(&self) -> bool {
        self.ends.iter().all(|end| {
            let status = end.negotiator.status();
            end.connection.is_none() && matches!(status, Status::Idle | Status::Waiting)
        })
    }

    pub(crate) fn is_up(&self) -> bool {
        let [one, two] = [0, 1].map(|at| self.status(at));
        let same = matches!((one, two), (Status::Up(one), Status::Up(two)) if one == two);
        let up = |end: &End| end.connection.as_ref().is_some_and(|c| c.up);
        same && self.connections_fit() && self.ends.iter().all(up)
    }
}

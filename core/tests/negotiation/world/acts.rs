//! What can happen to two negotiators.

use std::time::Duration;

use outlive_core::negotiator::{Output, Status};
use outlive_core::wire::signal::Signal;

use super::{Fault, Letter, World, negotiator};

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

impl World {
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
        self.now = self.now.after(time);
    }

    pub(super) fn tick(&mut self, at: usize) {
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
            Signal::Candidate(_)
            | Signal::Decline(_)
            | Signal::Addresses(_)
            | Signal::Mailboxes(_) => false,
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
}

//! What becomes of two negotiators when nothing fails any more, and what must never happen.

use outlive_core::negotiator::Status;

use super::{Act, End, World, both};
use crate::connection::Misuse;

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

impl World {
    /// Whether the connections would find each other.
    pub(super) fn comes_up(&self) -> bool {
        let waiting = |end: &End| end.connection.as_ref().is_some_and(|c| !c.up);
        let hangs = |end: &End| end.connection.as_ref().is_some_and(|c| c.restarts > 0);
        self.connections_fit()
            && self.ends.iter().any(waiting)
            && !(self.restarts_hang && self.ends.iter().any(hangs))
    }

    pub(super) fn up(&mut self) {
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

    pub(super) fn fault(&mut self, fault: Fault) {
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

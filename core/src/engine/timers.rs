//! What time alone brings about: probes, Pings, expiry, delayed words.

use std::time::Duration;

use super::Engine;
use super::event::DropReason;
use super::link::Link;
use super::writes::After;
use crate::Now;
use crate::limits::{PROBE_BUSY, PROBE_FIRST, PROBE_MOST_DIRECT, PROBE_MOST_RELAYED};

/// How long a change that nobody waits for may stay unwritten.
pub(super) const LAZY_WRITE: Duration = Duration::from_millis(500);

/// When to ask again because something is outstanding and nothing moves.
#[derive(Debug)]
pub(super) struct Probe {
    /// The next question.
    pub(super) at: Option<Duration>,
    /// The last one, or when there was something to ask about for the first time since.
    last: Option<Duration>,
    wait: Duration,
    /// When something moved last, or was begun to be waited for.
    moved: Duration,
    /// Whether everything goes over all links, because the best one brought no progress.
    pub(super) spread: bool,
}

impl Default for Probe {
    fn default() -> Self {
        Self {
            at: None,
            last: None,
            wait: PROBE_FIRST,
            moved: Duration::ZERO,
            spread: false,
        }
    }
}

impl Probe {
    /// Something moved.
    pub(super) fn progress(&mut self, now: Duration) {
        self.spread = false;
        self.restart(now);
    }

    /// Begins to wait when nothing was waited for.
    fn begin(&mut self, now: Duration) {
        self.last = None;
        self.restart(now);
    }

    /// Begins to wait anew.
    pub(super) fn restart(&mut self, now: Duration) {
        let last = *self.last.get_or_insert(now);
        self.wait = PROBE_FIRST;
        self.moved = now;
        self.at = Some((now + PROBE_FIRST).min(last + PROBE_BUSY));
    }

    /// Begins to wait, unless it does already.
    pub(super) fn start(&mut self, now: Duration) {
        if self.at.is_none() {
            self.restart(now);
        }
    }

    fn asked(&mut self, now: Duration, most: Duration) {
        self.wait = (self.wait * 2).min(most);
        self.last = Some(now);
        self.at = Some(now + self.wait);
    }
}

impl Engine {
    /// When [`tick`](Engine::tick) has something to do next, in the driver's elapsed time.
    #[must_use]
    pub fn deadline(&self) -> Option<Duration> {
        let now = self.now.elapsed;
        let probe = self
            .probe
            .at
            .filter(|_| self.links.best().is_some() && self.wants_answer());
        let expiry = self.next_expiry().map(|at| now + self.now.store.until(at));
        let consumed = self.tell_consumed.as_ref().map(|(at, _)| *at);
        let content = self.sending.values().filter_map(|of| of.content_at);
        self.links
            .iter()
            .filter_map(|link| link.deadline(now))
            .chain(
                [
                    probe,
                    expiry,
                    consumed,
                    self.write_lazily,
                    self.links.deadline(),
                ]
                .into_iter()
                .flatten(),
            )
            .chain(content.filter(|at| *at > now))
            .min()
    }

    /// Something is about to wait for the peer. If nothing did before, the time of the last question
    /// says nothing.
    pub(super) fn expect_answer(&mut self) {
        let now = self.now.elapsed;
        if self.wants_answer() {
            self.probe.start(now);
        } else {
            self.probe.begin(now);
        }
    }

    pub(super) fn time_passed(&mut self) {
        let now = self.now;
        if self.write_lazily.is_some_and(|at| at <= now.elapsed) {
            self.write_lazily = None;
            self.writes.touch();
        }
        if let Some((_, epochs)) = self.tell_consumed.take_if(|(at, _)| *at <= now.elapsed) {
            // The write of the last of them may take longer.
            for epoch in epochs {
                self.defer(After::Consumed { epoch });
            }
        }
        self.start_sweeps();
        self.links.time_passed(now.elapsed);
        self.check_links(now);
        self.ask_again(now);
    }

    fn check_links(&mut self, now: Now) {
        let mut dead = Vec::new();
        let mut overdue = false;
        let (full, best) = (self.is_full_for_pings(), self.links.best());
        for link in self.links.iter_mut() {
            if link.pulse.silent(now.elapsed) {
                dead.push(link.generation);
            } else if link.pulse.ping_due(now.elapsed) {
                let carries = best == Some(link.generation);
                link.ping(self.entropy.token(), full && carries, now.elapsed);
                link.pulse.asks(now.elapsed);
            }
            link.challenge_again(now.elapsed);
            overdue |= link.pulse.overdue(now.elapsed);
        }
        if overdue && self.links.len() > 1 {
            self.probe.spread = true;
            if self.wants_answer() {
                self.measure();
            }
        }
        for generation in dead {
            self.give_up_link(generation, DropReason::Silent);
        }
    }

    /// What waits for the link that carries goes over all links, once an answer of it is overdue.
    /// Looked at before anything is sent: a message of the app may come before the tick that was to
    /// find it out, and progress over one link says nothing of another. Links that do not carry are
    /// left to the tick: nothing waits for them alone.
    pub(super) fn spread_if_overdue(&mut self) {
        let now = self.now.elapsed;
        let best = self.links.best();
        let overdue = |link: &Link| best == Some(link.generation) && link.pulse.overdue(now);
        if self.links.len() > 1 && self.links.iter().any(overdue) {
            self.probe.spread = true;
        }
    }

    /// Something is outstanding, the link is up and nothing moves: ask again, with back-off [4].
    /// That a relay has it in custody is no reason not to ask.
    fn ask_again(&mut self, now: Now) {
        if self.probe.at.is_none_or(|at| at > now.elapsed) {
            return;
        }
        if !self.wants_answer() {
            self.probe.at = None;
            self.probe.last = None;
            return;
        }
        if self.links.best().is_none() {
            return;
        }
        // What moves is asked about now and then too, and needs no other way; nor does a peer's app that
        // takes its time.
        let stands_still = now.elapsed >= self.probe.moved + PROBE_FIRST;
        if stands_still && self.links.len() > 1 && self.live.outstanding() {
            self.probe.spread = true;
        }
        let best = self.links.best();
        let spread = self.probe.spread;
        let mut direct = false;
        for link in self.links.iter_mut() {
            if spread || Some(link.generation) == best {
                link.resume_due = true;
                direct |= link.is_direct();
            }
        }
        self.probe.asked(
            now.elapsed,
            if direct {
                PROBE_MOST_DIRECT
            } else {
                PROBE_MOST_RELAYED
            },
        );
    }
}

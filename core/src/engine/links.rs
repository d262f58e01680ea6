//! The links bound to a session, and which of them carries what.
//!
//! A link is known by its generation. What comes under a generation that is not here is from a
//! retired link and changes nothing (I5).

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::Duration;

use super::link::Link;
use super::pulse::FIRST_OVERDUE;
use super::quality::Merit;
use super::trial::Trial;
use crate::Generation;
use crate::limits::LINKS;

/// All links bound to the session.
#[derive(Debug, Default)]
pub(super) struct Links {
    bound: BTreeMap<Generation, Link>,
    best: Option<Generation>,
    trial: Trial,
}

impl Links {
    pub(super) fn get(&mut self, generation: Generation) -> Option<&mut Link> {
        self.bound.get_mut(&generation)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Link> {
        self.bound.values()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Link> {
        self.bound.values_mut()
    }

    pub(super) fn len(&self) -> usize {
        self.bound.len()
    }

    /// Binds a link. Returns the one that has to go for it, if there are too many: the oldest of
    /// those that are no better than others.
    pub(super) fn bind(&mut self, link: Link, now: Duration) -> Option<Generation> {
        let tried = self.trial.of().and_then(|tries| self.bound.get(&tries));
        if let Some(tried) = tried
            && !tried.is_direct()
            && tried.is_like(&link)
        {
            self.trial.replace(tried.generation, link.generation);
        }
        self.bound.insert(link.generation, link);
        let surplus = if self.bound.len() > LINKS {
            self.bound
                .values()
                .max_by_key(|link| (link.preference(), Reverse(link.generation)))
                .map(|link| link.generation)
        } else {
            None
        };
        if let Some(generation) = surplus {
            self.bound.remove(&generation);
        }
        self.choose(now);
        surplus
    }

    /// A link is gone. Returns whether it was bound.
    pub(super) fn unbind(&mut self, generation: Generation, now: Duration) -> bool {
        let was_bound = self.bound.remove(&generation).is_some();
        self.choose(now);
        was_bound
    }

    /// The link that carries what is to be sent.
    pub(super) const fn best(&self) -> Option<Generation> {
        self.best
    }

    pub(super) fn get_best(&mut self) -> Option<&mut Link> {
        self.bound.get_mut(&self.best?)
    }

    /// This link if it is still bound and leads to the peer, else the best.
    pub(super) fn get_or_best(&mut self, generation: Generation) -> Option<&mut Link> {
        let link = self.bound.get(&generation);
        if link.is_some_and(Link::leads_to_peer) {
            self.get(generation)
        } else {
            self.get_best()
        }
    }

    /// All links, the best first.
    pub(super) fn order(&self) -> Vec<Generation> {
        let others = self.bound.keys().copied().filter(|g| Some(*g) != self.best);
        self.best.into_iter().chain(others).collect()
    }

    /// Whether there is something to be said against the direct links: one makes one wait, or takes in
    /// little. Then others are worth measuring.
    pub(super) fn in_doubt(&self, now: Duration) -> bool {
        let is_slow = |link: &Link| {
            link.is_direct()
                && link.validated()
                && (link.standing.lags() || link.pulse.merit(now).is_slow())
        };
        self.bound.len() > 1
            && (self.trial.of().is_some()
                || self.bound.values().any(is_slow)
                || self.worth_a_trial(now).next().is_some())
    }

    /// The link whose turn it is to show what it takes in. The others rest.
    pub(super) const fn on_trial(&self) -> Option<Generation> {
        self.trial.of()
    }

    /// When a trial has lasted long enough.
    pub(super) fn deadline(&self) -> Option<Duration> {
        self.trial.deadline()
    }

    pub(super) fn time_passed(&mut self, now: Duration) {
        if self.trial.deadline().is_some_and(|at| at <= now) {
            self.choose(now);
        }
    }

    /// An answer to a Ping came over this link. Who reads no mailbox where the Ping was left answers over
    /// another. Returns whether it was awaited.
    pub(super) fn pong(&mut self, over: Generation, token: [u8; 8], now: Duration) -> bool {
        let of = |link: &&mut Link| link.generation == over || !link.is_direct();
        let mut links = self.bound.values_mut().filter(of);
        links.any(|link| link.pulse.pong(token, now))
    }

    /// The other end of a link has just shown that it is there. A link that carries and is as good in
    /// kind, but older, has not: somebody had a reason to make this one.
    pub(super) fn validated(&mut self, generation: Generation, now: Duration) {
        self.choose(now);
        let carrier = self.trial.rests().or(self.best);
        let present = carrier.and_then(|carrier| self.bound.get(&carrier));
        if let (Some(present), Some(new)) = (present, self.bound.get(&generation))
            && present.is_like(new)
            && present.generation < new.generation
            && !new.standing.lags()
        {
            self.trial.replace(present.generation, generation);
            if self.trial.of().is_none() {
                self.best = Some(generation);
            }
        }
    }

    /// Judges the direct links by what was measured on them and on the others. A relay is never
    /// judged: it is what is there when nothing else is good.
    fn judge(&mut self, now: Duration) {
        let merits = self.merits(now);
        for link in self.bound.values_mut() {
            let own = link.pulse.merit(now);
            let mut others = merits.iter().filter(|(of, _)| *of != link.generation);
            if others.any(|(_, other)| own.is_gone_beside(other)) {
                // Else it would carry again for that as soon as nobody asks how late it is.
                link.pulse.quality.forget_what_it_takes();
            }
        }
        let merits = self.merits(now);
        for link in self.bound.values_mut().filter(|link| link.is_direct()) {
            let own = link.pulse.merit(now);
            let others = merits.iter().filter(|(of, _)| *of != link.generation);
            let best = others.map(|(_, merit)| *merit).reduce(Merit::best_of);
            link.standing = link.standing.judged(&own, &best.unwrap_or_default(), now);
        }
    }

    fn merits(&self, now: Duration) -> Vec<(Generation, Merit)> {
        let of = |link: &&Link| link.validated() && link.leads_to_peer();
        let leading = self.bound.values().filter(of);
        leading
            .map(|link| (link.generation, link.pulse.merit(now)))
            .collect()
    }

    /// The links of which nobody knows whether they take in more than the one that carries and takes
    /// in little.
    fn worth_a_trial(&self, now: Duration) -> impl Iterator<Item = &Link> {
        let carrier = self.best.and_then(|best| self.bound.get(&best));
        let narrow = carrier.filter(|link| {
            link.is_direct() && link.pulse.quality.takes_little(now) && self.trial.is_due(now)
        });
        let others = narrow.map(|carrier| {
            self.bound.values().filter(move |link| {
                link.generation != carrier.generation
                    && link.may_stand_in(now)
                    && link.pulse.quality.takes(now).is_none()
            })
        });
        others.into_iter().flatten()
    }

    /// Has another link carry for a while if it might take in more, and no longer than until that is
    /// known.
    fn try_others(&mut self, now: Duration) {
        if let Some(tries) = self.trial.of() {
            let tried = self
                .bound
                .get(&tries)
                .filter(|link| link.may_stand_in(now) && link.pulse.quality.takes(now).is_none());
            if tried.is_none() || self.trial.deadline().is_some_and(|at| at <= now) {
                let before = self.trial.end();
                self.best = before.filter(|rests| self.bound.contains_key(rests));
            }
            return;
        }
        let Some(carrier) = self.best.and_then(|best| self.bound.get(&best)) else {
            return;
        };
        let (own, carrier) = (carrier.pulse.merit(now), carrier.generation);
        let tries = self
            .worth_a_trial(now)
            .filter(|link| link.pulse.merit(now).keeps_up_with(&own))
            .min_by_key(|link| (link.preference(), link.generation))
            .map(|link| link.generation);
        if let Some(tries) = tries {
            self.trial.begin(tries, carrier, now);
        }
    }

    /// Chooses the best link: validated before others, so that a recorded packet can't pull a session
    /// over, then those that do not yield, then direct before relayed, then by rank, then by round trip.
    /// A link yields that lags, or rests while another is tried, if there is one that may stand in for it.
    /// A link takes over from one of its own kind only if it is clearly faster, so that two of equal
    /// speed don't take turns.
    pub(super) fn choose(&mut self, now: Duration) {
        self.judge(now);
        self.try_others(now);
        let rests = |link: &Link| self.on_trial().is_some_and(|of| of != link.generation);
        let replaceable = |link: &Link| {
            let mut others = self.bound.values();
            others.any(|other| other.generation != link.generation && other.may_stand_in(now))
        };
        let yields = |link: &Link| rests(link) || (link.standing.lags() && replaceable(link));
        let merit = |link: &Link| {
            let round_trip = link.pulse.quality.round_trip().unwrap_or(FIRST_OVERDUE);
            let unlike = (!link.validated(), yields(link), link.preference());
            (unlike, round_trip, link.generation)
        };
        let leading = self.bound.values().filter(|link| link.leads_to_peer());
        let Some(winner) = leading.min_by_key(|link| merit(link)) else {
            self.best = None;
            return;
        };
        let present = self.best.and_then(|best| self.bound.get(&best));
        if let Some(present) = present.filter(|link| link.leads_to_peer()) {
            let same_kind = present.preference() == winner.preference()
                && yields(present) == yields(winner)
                && present.validated() == winner.validated();
            let clearly_faster = match (
                winner.pulse.quality.round_trip(),
                present.pulse.quality.round_trip(),
            ) {
                (Some(new), Some(old)) => new * 5 < old * 4,
                _ => false,
            };
            // A newer link over the same relay replaces the one before it.
            let successor = !winner.is_direct() && present.class == winner.class;
            if same_kind && !clearly_faster && !successor {
                return;
            }
        }
        let newest_alike = self
            .bound
            .values()
            .filter(|link| !link.is_direct() && link.is_like(winner))
            .map(|link| link.generation)
            .max();
        self.best = Some(newest_alike.unwrap_or(winner.generation));
    }
}

#[cfg(test)]
mod tests;

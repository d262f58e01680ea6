//! The links bound to a session, and which of them carries what.
//!
//! A link is known by its generation. What comes under a generation that is not here is from a
//! retired link and changes nothing (I5).

use std::collections::BTreeMap;
use std::time::Duration;

use super::link::{FIRST_OVERDUE, Link};
use super::quality::Merit;
use crate::Generation;
use crate::limits::LINKS;

/// All links bound to the session.
#[derive(Debug, Default)]
pub(super) struct Links {
    bound: BTreeMap<Generation, Link>,
    best: Option<Generation>,
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
        self.bound.insert(link.generation, link);
        let surplus = if self.bound.len() > LINKS {
            self.bound
                .values()
                .max_by_key(|link| {
                    (
                        !link.is_direct(),
                        link.rank,
                        std::cmp::Reverse(link.generation),
                    )
                })
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

    pub(super) fn unbind(&mut self, generation: Generation, now: Duration) -> Option<Link> {
        let link = self.bound.remove(&generation);
        self.choose(now);
        link
    }

    /// The link that carries what is to be sent.
    pub(super) const fn best(&self) -> Option<Generation> {
        self.best
    }

    /// This link if it is still bound, else the best.
    pub(super) fn or_best(&self, generation: Generation) -> Option<Generation> {
        if self.bound.contains_key(&generation) {
            Some(generation)
        } else {
            self.best
        }
    }

    /// All links, the best first.
    pub(super) fn order(&self) -> Vec<Generation> {
        let others = self.bound.keys().copied().filter(|g| Some(*g) != self.best);
        self.best.into_iter().chain(others).collect()
    }

    /// Whether a direct link makes one wait: then others are worth measuring.
    pub(super) fn in_doubt(&self, now: Duration) -> bool {
        self.bound.len() > 1
            && self.bound.values().any(|link| {
                link.is_direct()
                    && link.validated
                    && (link.standing.lags() || link.merit(now).is_slow())
            })
    }

    /// The other end of a link has just shown that it is there. A link that carries and is as good in
    /// kind, but older, has not: somebody had a reason to make this one.
    pub(super) fn validated(&mut self, generation: Generation, now: Duration) {
        self.choose(now);
        let present = self.best.and_then(|best| self.bound.get(&best));
        if let (Some(present), Some(new)) = (present, self.bound.get(&generation))
            && present.class == new.class
            && present.rank == new.rank
            && present.generation < new.generation
            && !new.standing.lags()
        {
            self.best = Some(generation);
        }
    }

    /// Judges the direct links by what was measured on them and on the others. A relay is never
    /// judged: it is what is there when nothing else is good.
    fn judge(&mut self, now: Duration) {
        let merits: Vec<_> = self
            .bound
            .values()
            .filter(|link| link.validated)
            .map(|link| (link.generation, link.merit(now)))
            .collect();
        for link in self.bound.values_mut().filter(|link| link.is_direct()) {
            let own = link.merit(now);
            let others = merits.iter().filter(|(of, _)| *of != link.generation);
            let best = others.map(|(_, merit)| *merit).reduce(Merit::best_of);
            link.standing = link.standing.judged(&own, &best.unwrap_or_default(), now);
        }
    }

    /// Chooses the best link: validated before others, so that a recorded packet can't pull a session
    /// over, then those that do not lag, then direct before relayed, then by rank, then by round trip.
    /// A link takes over from one of its own kind only if it is clearly faster, so that two of equal
    /// speed don't take turns.
    pub(super) fn choose(&mut self, now: Duration) {
        self.judge(now);
        let merit = |link: &Link| {
            let round_trip = link.quality.round_trip().unwrap_or(FIRST_OVERDUE);
            let lags = link.standing.lags();
            let unlike = (!link.validated, lags, !link.is_direct(), link.rank);
            (unlike, round_trip, link.generation)
        };
        let Some(winner) = self.bound.values().min_by_key(|link| merit(link)) else {
            self.best = None;
            return;
        };
        if let Some(present) = self.best.and_then(|best| self.bound.get(&best)) {
            let same_kind = present.is_direct() == winner.is_direct()
                && present.rank == winner.rank
                && present.standing.lags() == winner.standing.lags()
                && present.validated == winner.validated;
            let clearly_faster = match (winner.quality.round_trip(), present.quality.round_trip()) {
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
            .filter(|link| {
                !link.is_direct() && link.class == winner.class && link.rank == winner.rank
            })
            .map(|link| link.generation)
            .max();
        self.best = Some(newest_alike.unwrap_or(winner.generation));
    }
}

#[cfg(test)]
mod tests {
    use super::super::quality::Quality;
    use super::*;
    use crate::StoreId;
    use crate::link::LinkClass;

    const T: Duration = Duration::from_secs(100);

    fn generation(n: u32) -> Generation {
        (0..n).fold(Generation::at_start(1), |g, _| g.next())
    }

    fn direct(n: u32) -> Link {
        let mut link = Link::new(generation(n), LinkClass::Direct, 0, T);
        link.validated = true;
        link
    }

    fn relayed(n: u32, rank: u8) -> Link {
        Link::new(
            generation(n),
            LinkClass::Relayed(StoreId([rank; 16])),
            rank,
            T,
        )
    }

    #[test]
    fn a_direct_link_goes_before_a_relayed_one() {
        let mut links = Links::default();
        links.bind(relayed(1, 0), T);
        assert_eq!(links.best(), Some(generation(1)));
        links.bind(direct(2), T);
        assert_eq!(links.best(), Some(generation(2)));
        links.bind(relayed(3, 0), T);
        assert_eq!(links.best(), Some(generation(2)));
        links.unbind(generation(2), T);
        assert_eq!(links.best(), Some(generation(3)));
    }

    #[test]
    fn a_link_that_did_not_answer_its_challenge_carries_nothing_while_there_is_another() {
        let unanswered = |n| Link::new(generation(n), LinkClass::Direct, 0, T);
        let mut links = Links::default();
        links.bind(unanswered(1), T);
        assert_eq!(links.best(), Some(generation(1)));
        links.bind(relayed(2, 0), T);
        assert_eq!(links.best(), Some(generation(2)));
        if let Some(link) = links.get(generation(1)) {
            link.validated = true;
        }
        links.choose(T);
        assert_eq!(links.best(), Some(generation(1)));
    }

    #[test]
    fn two_links_of_like_speed_do_not_take_turns() {
        let mut links = Links::default();
        links.bind(direct(1), T);
        links.bind(direct(2), T);
        let ms = Duration::from_millis;
        for (one, two, best) in [
            (50, 49, 1),
            (50, 41, 1),
            (50, 30, 2),
            (29, 30, 2),
            (20, 30, 1),
        ] {
            for (n, round_trip) in [(1, one), (2, two)] {
                if let Some(link) = links.get(generation(n)) {
                    link.quality = Quality::default();
                    link.quality.measured(ms(round_trip), T);
                }
            }
            links.choose(T);
            assert_eq!(
                links.best(),
                Some(generation(best)),
                "{one} ms against {two} ms"
            );
        }
    }

    #[test]
    fn one_link_too_many_retires_the_worst() {
        let mut links = Links::default();
        links.bind(relayed(1, 1), T);
        for n in 2..=LINKS as u32 {
            assert_eq!(links.bind(direct(n), T), None);
        }
        assert_eq!(links.bind(direct(99), T), Some(generation(1)));
        assert_eq!(links.len(), LINKS);
    }
}

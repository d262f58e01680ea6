//! How well a link answers, and when another is so much better that it carries no more.
//!
//! The kind of a link is only the first guess. What counts for an app is when an answer comes, and
//! loss, delay and a queue in a narrow place all show in that. What a link takes in at most shows
//! only while it is full, and is compared by itself.

use std::time::Duration;

/// An answer within this time is soon enough for whoever talks: such a link is not compared with
/// others. Shorter, and links take turns over differences that nobody notices; longer, and somebody
/// waits while there is a better one.
const SOON: Duration = Duration::from_millis(200);

/// A link lags when another answers, or takes in, so many times as well.
const LAG: u32 = 3;

/// Bytes a second that are enough: a link that takes in so many is not compared with others that were
/// never full.
const ENOUGH: u64 = 1024 * 1024;

/// Answers before a link is judged by them. The first ones tell little of how they vary.
const ANSWERS: u32 = 4;

/// How long an answer tells something about the link; and how long one that was full counts as full.
const FRESH: Duration = Duration::from_secs(10);

/// How long what a link took in when it was full counts.
const FULL_FRESH: Duration = Duration::from_secs(300);

/// A link that answers this late, and many times later than another, is as good as gone: what it took in
/// is forgotten.
const GONE: Duration = Duration::from_secs(1);

/// How long a link that lagged must do well before it carries again, for the first time. Each time it
/// lags again the time doubles: however bad the weather, links take turns ever more rarely.
const PROOF: Duration = Duration::from_secs(5);

/// The longest such time.
const PROOF_MOST: Duration = Duration::from_secs(300);

/// After so long without lagging a link is judged as if it never had.
const FORGIVEN: Duration = Duration::from_secs(300);

/// What was measured on a link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Quality {
    /// The smoothed round trip and its mean deviation (RFC 6298).
    smoothed: Option<(Duration, Duration)>,
    answers: u32,
    /// When the last of them came.
    answered: Duration,
    /// Bytes a second that the peer acknowledged while the link was full, and when that was.
    full: Option<(u64, Duration)>,
}

impl Quality {
    /// An answer came after this time.
    pub(super) fn measured(&mut self, sample: Duration, now: Duration) {
        let (smoothed, deviation) = match self.smoothed {
            None => (sample, sample / 2),
            // A transport that does not know the way yet sends what was lost again only after long
            // (RFC 9002, 6.2.2). The way is as short as the answers say that come after.
            Some((smoothed, _)) if self.answers < ANSWERS && sample < smoothed / 2 => {
                (sample, sample / 2)
            }
            Some((smoothed, deviation)) => (
                smoothed * 7 / 8 + sample / 8,
                deviation * 3 / 4 + smoothed.abs_diff(sample) / 4,
            ),
        };
        self.smoothed = Some((smoothed, deviation));
        self.answers = self.answers.saturating_add(1);
        self.answered = now;
    }

    /// While the link was full the peer acknowledged so many bytes in this time.
    pub(super) fn took(&mut self, bytes: u64, time: Duration, now: Duration) {
        let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1);
        let rate = bytes.saturating_mul(1_000) / millis;
        let known = self.takes(now);
        self.full = Some((known.map_or(rate, |known| known.midpoint(rate)), now));
    }

    /// What it took in is no reason to use it.
    pub(super) const fn forget_what_it_takes(&mut self) {
        self.full = None;
    }

    /// The smoothed round trip.
    pub(super) fn round_trip(&self) -> Option<Duration> {
        self.smoothed.map(|(smoothed, _)| smoothed)
    }

    /// Bytes a second that the link takes in, if that is known.
    pub(super) fn takes(&self, now: Duration) -> Option<u64> {
        let known = self.full?;
        (now.saturating_sub(known.1) <= FULL_FRESH).then_some(known.0)
    }

    /// Whether it was full just now, and takes in so little that others are worth a try.
    pub(super) fn takes_little(&self, now: Duration) -> bool {
        let little = |(takes, at)| takes < ENOUGH && now.saturating_sub(at) <= FRESH;
        self.full.is_some_and(little)
    }

    /// What it comes to at the moment. `waited` is how long an answer has been awaited for by now.
    pub(super) fn merit(&self, waited: Duration, now: Duration) -> Merit {
        let fresh = now.saturating_sub(self.answered) <= FRESH;
        let known = self.smoothed.filter(|_| fresh && self.answers >= ANSWERS);
        let within = known.map(|(smoothed, deviation)| smoothed + deviation * 2);
        Merit {
            answers_within: within.map(|within| within.max(waited)),
            waited,
            takes: self.takes(now),
        }
    }
}

/// How good a link is at the moment, as far as that is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Merit {
    /// Nearly all answers come within this time.
    answers_within: Option<Duration>,
    /// The next one takes longer than this.
    waited: Duration,
    /// Bytes a second.
    takes: Option<u64>,
}

impl Merit {
    /// Answers take at least so long.
    fn answers_after(&self) -> Duration {
        self.answers_within.unwrap_or(self.waited)
    }

    /// Whether it makes one wait, so that it is worth looking at others.
    pub(super) fn is_slow(&self) -> bool {
        self.answers_after() > SOON
    }

    /// What the better of two can do.
    pub(super) fn best_of(self, other: Self) -> Self {
        let sooner = [self.answers_within, other.answers_within];
        Self {
            answers_within: sooner.into_iter().flatten().min(),
            waited: self.waited.min(other.waited),
            takes: self.takes.max(other.takes),
        }
    }

    fn lags_behind(&self, other: &Self) -> bool {
        let sooner = other.answers_within;
        let slower = self.is_slow() && sooner.is_some_and(|it| self.answers_after() > it * LAG);
        slower || self.is_narrower_than(other)
    }

    /// Whether it answers so late that the other is better, however little that takes in.
    pub(super) fn is_gone_beside(&self, other: &Self) -> bool {
        let late = |other: Duration| self.answers_after() > GONE.max(other * LAG);
        other.answers_within.is_some_and(late)
    }

    fn is_narrower_than(&self, other: &Self) -> bool {
        match (self.takes, other.takes) {
            (Some(own), Some(other)) => own.saturating_mul(LAG.into()) < other,
            _ => false,
        }
    }

    /// Whether its answers come soon enough, or not much later, and nobody knows it to take in far less.
    pub(super) fn keeps_up_with(&self, other: &Self) -> bool {
        let soon_enough = |own| own <= SOON || own * 2 <= other.answers_after() * LAG;
        self.answers_within.is_some_and(soon_enough) && !self.is_narrower_than(other)
    }

    fn answers_before(&self, other: &Self) -> bool {
        self.answers_within
            .is_some_and(|own| own < other.answers_after())
    }
}

/// Whether a link is good enough to carry what it would be the first choice for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Standing {
    /// It is, or nothing speaks against it.
    #[default]
    Good,
    /// It was not, some time ago.
    Again {
        /// When it began to be again.
        since: Duration,
        /// How long it had to do well for that.
        proof: Duration,
    },
    /// It is not: another is far better.
    Lags {
        /// Since when it does well.
        well: Option<Duration>,
        /// How long it has to.
        proof: Duration,
    },
}

impl Standing {
    pub(super) const fn lags(self) -> bool {
        matches!(self, Self::Lags { .. })
    }

    /// The same in the light of what was measured on the link and on the best of the others.
    pub(super) fn judged(self, own: &Merit, other: &Merit, now: Duration) -> Self {
        match self {
            Self::Good | Self::Again { .. } if !own.lags_behind(other) => self,
            Self::Good => Self::Lags {
                well: None,
                proof: PROOF,
            },
            Self::Again { since, proof } => Self::Lags {
                well: None,
                proof: if now.saturating_sub(since) < FORGIVEN {
                    (proof * 2).min(PROOF_MOST)
                } else {
                    PROOF
                },
            },
            // The other has become so bad that there is nothing to prove.
            Self::Lags { proof, .. }
                if own.answers_before(other) && other.is_slow() && !own.lags_behind(other) =>
            {
                Self::Again { since: now, proof }
            }
            Self::Lags { proof, .. } if !own.keeps_up_with(other) => {
                Self::Lags { well: None, proof }
            }
            Self::Lags { well, proof } => {
                let since = well.unwrap_or(now);
                if now.saturating_sub(since) < proof {
                    Self::Lags {
                        well: Some(since),
                        proof,
                    }
                } else {
                    Self::Again { since: now, proof }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T: Duration = Duration::from_secs(100);

    const fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    /// A link that was asked four times a second, and answered after these times.
    fn answered(samples: &[u64]) -> Merit {
        let mut quality = Quality::default();
        for sample in samples {
            quality.measured(ms(*sample), T);
        }
        quality.merit(Duration::ZERO, T)
    }

    fn takes(bytes: u64) -> Merit {
        let mut quality = Quality::default();
        quality.took(bytes, Duration::from_secs(1), T);
        quality.merit(Duration::ZERO, T)
    }

    fn lags(own: &Merit, other: &Merit) -> bool {
        Standing::Good.judged(own, other, T).lags()
    }

    #[test]
    fn a_link_that_answers_soon_lags_behind_none() {
        assert!(!lags(&answered(&[80; 20]), &answered(&[1; 20])));
    }

    #[test]
    fn a_link_with_many_times_the_delay_of_another_lags() {
        let relayed = answered(&[40; 20]);
        assert!(lags(&answered(&[2_000; 4]), &relayed));
        assert!(!lags(&answered(&[100; 20]), &relayed));
        let far = answered(&[800; 20]);
        assert!(!lags(&answered(&[2_000; 20]), &far), "both are far away");
    }

    #[test]
    fn a_link_whose_answers_are_late_again_and_again_lags_and_one_late_answer_is_nothing() {
        let relayed = answered(&[40; 20]);
        let losing = [40, 180, 40, 260, 120, 40, 340, 90].repeat(3);
        assert!(lags(&answered(&losing), &relayed));
        let mut once = vec![40; 20];
        once.push(120);
        assert!(!lags(&answered(&once), &relayed));
    }

    #[test]
    fn an_answer_that_was_late_while_the_link_came_up_is_forgotten_with_the_next() {
        let mut quality = Quality::default();
        for sample in [240, 22, 23, 22] {
            quality.measured(ms(sample), T);
        }
        let round_trip = quality.round_trip().unwrap_or_default();
        assert!(round_trip < ms(24), "{round_trip:?}");
        quality.measured(ms(240), T);
        quality.measured(ms(22), T);
        let round_trip = quality.round_trip().unwrap_or_default();
        assert!(round_trip > ms(40), "later it counts: {round_trip:?}");
    }

    #[test]
    fn few_answers_and_old_ones_are_no_reason() {
        let (slow, fast) = (answered(&[2_000; 3]), answered(&[40; 20]));
        assert!(!lags(&slow, &fast), "of a few answers");
        assert!(!lags(&answered(&[2_000; 20]), &answered(&[40; 3])));
        let mut quality = Quality::default();
        (0..20).for_each(|_| quality.measured(ms(40), T));
        let old = quality.merit(Duration::ZERO, T + FRESH * 2);
        assert!(!lags(&answered(&[2_000; 20]), &old));
    }

    #[test]
    fn who_waits_for_an_answer_knows_that_it_takes_so_long() {
        let mut quality = Quality::default();
        (0..20).for_each(|_| quality.measured(ms(40), T));
        let fast = answered(&[40; 20]);
        assert!(!lags(&quality.merit(ms(100), T), &fast));
        assert!(lags(&quality.merit(ms(700), T), &fast));
    }

    #[test]
    fn a_link_that_takes_a_fraction_of_another_lags() {
        assert!(lags(&takes(10), &takes(100)));
        assert!(!lags(&takes(50), &takes(100)));
        assert!(!lags(&takes(10), &Merit::default()));
    }

    #[test]
    fn a_link_that_takes_a_fraction_of_another_does_not_keep_up_however_soon_it_answers() {
        let with = |takes, mut quality: Quality| {
            (0..20).for_each(|_| quality.measured(ms(40), T));
            quality.took(takes, Duration::from_secs(1), T);
            quality.merit(Duration::ZERO, T)
        };
        let (narrow, wide) = (with(10, Quality::default()), with(100, Quality::default()));
        let standing = Standing::Good.judged(&narrow, &wide, T);
        assert!(standing.lags());
        let standing = standing.judged(&narrow, &wide, T + PROOF * 2);
        assert!(standing.judged(&narrow, &wide, T + PROOF * 9).lags());
    }

    #[test]
    fn a_link_that_lagged_carries_when_it_has_done_well_for_a_while() {
        let (good, bad) = (answered(&[40; 20]), answered(&[900; 20]));
        let relayed = answered(&[40; 20]);
        let mut standing = Standing::Good.judged(&bad, &relayed, T);
        assert!(standing.lags());
        standing = standing.judged(&good, &relayed, T);
        standing = standing.judged(&good, &relayed, T + PROOF / 2);
        assert!(standing.lags(), "not at once");
        standing = standing.judged(&bad, &relayed, T + PROOF * 3 / 4);
        standing = standing.judged(&good, &relayed, T + PROOF);
        standing = standing.judged(&good, &relayed, T + PROOF * 3 / 2);
        assert!(standing.lags(), "the time begins anew");
        standing = standing.judged(&good, &relayed, T + PROOF * 2);
        assert!(!standing.lags());
    }

    #[test]
    fn a_link_that_lags_is_better_than_one_that_does_not_answer() {
        let slow = answered(&[900; 20]);
        let relayed = answered(&[40; 20]);
        let standing = Standing::Good.judged(&slow, &relayed, T);
        assert!(standing.lags());
        let silent = Quality::default().merit(Duration::from_secs(8), T);
        assert!(!standing.judged(&slow, &silent, T).lags());
    }

    #[test]
    fn a_narrow_link_and_a_wide_one_that_is_late_do_not_take_turns() {
        let with = |after, takes| {
            let mut quality = Quality::default();
            (0..20).for_each(|_| quality.measured(ms(after), T));
            quality.took(takes, Duration::from_secs(1), T);
            quality.merit(Duration::ZERO, T)
        };
        for late in [150, 250, 600] {
            let (narrow, wide) = (with(50, 10), with(late, 100));
            let (mut standing, mut changes) = (Standing::Good, 0);
            for _ in 0..100 {
                let judged = standing.judged(&narrow, &wide, T);
                changes += u32::from(judged.lags() != standing.lags());
                standing = judged;
            }
            assert!(
                changes <= 1,
                "{changes} beside one that answers after {late} ms"
            );
            assert!(standing.lags(), "{late} ms");
        }
    }

    #[test]
    fn a_link_that_lags_every_minute_carries_ever_more_rarely() {
        let (good, bad) = (answered(&[40; 20]), answered(&[900; 20]));
        let relayed = answered(&[40; 20]);
        let (mut standing, mut changes) = (Standing::Good, 0);
        for second in 0..3_600 {
            let own = if second % 30 == 0 { &bad } else { &good };
            let judged = standing.judged(own, &relayed, T + Duration::from_secs(second));
            changes += u32::from(judged.lags() != standing.lags());
            standing = judged;
        }
        assert!(changes <= 8, "{changes} in an hour");
    }
}

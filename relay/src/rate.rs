//! How fast something may go on. A peer's limits hold back and refuse nothing: whoever went over one is
//! not heard until it is within it again. What goes over an address's limits is turned away.

use std::num::NonZeroU64;
use std::time::Duration;

use tokio::time::Instant;

/// What may come at once, in seconds of the rate, unless said otherwise: short bursts are what
/// honest use looks like.
const BURST_SECONDS: u64 = 20;

/// So much a second, and so much at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    per_second: NonZeroU64,
    burst: u64,
}

impl Rate {
    /// So much a second, and at once what comes together in 20 s. `None`, which is no limit, for 0.
    ///
    /// ```
    /// # use outlive_relay::Rate;
    /// assert_eq!(Rate::new(100).map(Rate::burst), Some(2_000));
    /// assert_eq!(Rate::new(0), None);
    /// ```
    #[must_use]
    pub const fn new(per_second: u64) -> Option<Self> {
        match NonZeroU64::new(per_second) {
            Some(per_second) => Some(Self {
                per_second,
                burst: per_second.get().saturating_mul(BURST_SECONDS),
            }),
            None => None,
        }
    }

    /// The same with so much at once.
    #[must_use]
    pub const fn with_burst(self, burst: u64) -> Self {
        Self { burst, ..self }
    }

    /// So many times as much. `None`, which is no limit, for 0.
    pub(crate) const fn times(self, count: u64) -> Option<Self> {
        match Self::new(self.per_second().saturating_mul(count)) {
            Some(rate) => Some(rate.with_burst(self.burst.saturating_mul(count))),
            None => None,
        }
    }

    /// What may come a second.
    #[must_use]
    pub const fn per_second(self) -> u64 {
        self.per_second.get()
    }

    /// What may come at once.
    #[must_use]
    pub const fn burst(self) -> u64 {
        self.burst
    }

    /// How long it takes until so much is there.
    fn time_for(self, count: u64) -> Duration {
        /// Longer than anything waits, and short enough for every clock.
        const MOST: u64 = 30 * 24 * 3_600 * 1_000_000_000;
        let nanos = u128::from(count) * 1_000_000_000 / u128::from(self.per_second.get());
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(MOST).min(MOST))
    }
}

/// What is left of a rate's burst, told by the moment at which all of it is there again.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Bucket {
    full: Option<Instant>,
}

impl Bucket {
    /// Takes `count` out, also when less is left. Returns when the debt is paid: now if there is
    /// none.
    pub(crate) fn take(&mut self, rate: Option<Rate>, count: u64, now: Instant) -> Instant {
        let Some(rate) = rate else {
            return now;
        };
        let full = self.full.map_or(now, |full| full.max(now)) + rate.time_for(count);
        self.full = Some(full);
        full.checked_sub(rate.time_for(rate.burst))
            .map_or(now, |paid| paid.max(now))
    }

    /// Whether it is as good as new.
    pub(crate) fn is_full(&self, now: Instant) -> bool {
        self.full.is_none_or(|full| full <= now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_burst_passes_and_what_is_beyond_waits_for_its_time() {
        let rate = Rate::new(10).map(|rate| rate.with_burst(30));
        let (mut bucket, start) = (Bucket::default(), Instant::now());
        assert_eq!(bucket.take(rate, 30, start), start);
        assert_eq!(bucket.take(rate, 10, start), start + SECOND);
        assert_eq!(bucket.take(rate, 5, start + SECOND), start + SECOND * 3 / 2);
        assert!(!bucket.is_full(start + SECOND * 4));
        assert!(bucket.is_full(start + SECOND * 9 / 2));
        // Time that nobody used saves up no more than the burst.
        let later = start + SECOND * 3_600;
        assert_eq!(bucket.take(rate, 30, later), later);
        assert_eq!(bucket.take(rate, 1, later), later + SECOND / 10);
    }

    #[test]
    fn a_rate_of_many_is_that_of_one_so_many_times() {
        let rate = Rate::new(10).map(|rate| rate.with_burst(30));
        let of_three = Rate::new(30).map(|rate| rate.with_burst(90));
        assert_eq!(rate.and_then(|rate| rate.times(3)), of_three);
        assert_eq!(rate.and_then(|rate| rate.times(0)), None);
        let most = rate.and_then(|rate| rate.times(u64::MAX));
        assert_eq!(most.map(Rate::burst), Some(u64::MAX));
    }

    #[test]
    fn without_a_limit_nothing_waits() {
        let (mut bucket, now) = (Bucket::default(), Instant::now());
        assert_eq!(bucket.take(None, u64::MAX, now), now);
        assert!(bucket.is_full(now));
    }

    #[test]
    fn no_number_is_too_large() {
        let (mut bucket, now) = (Bucket::default(), Instant::now());
        for rate in [Rate::new(1), Rate::new(u64::MAX)] {
            for count in [u64::MAX, 0, 1] {
                assert!(bucket.take(rate, count, now) >= now);
            }
        }
    }
}

//! Waiting between attempts, with full jitter: after the n-th failure a random time up to
//! `base * 2^n`, so that clients that lost their relay together don't come back together
//! ([Brooker 2015]).
//!
//! [Brooker 2015]: https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/

use std::time::Duration;

/// The span from which the first wait is drawn.
const BASE: Duration = Duration::from_millis(200);

/// The widest span.
const MOST: Duration = Duration::from_secs(30);

/// Counts failures and says how long to wait.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// It worked: the next failure is the first again.
    pub(crate) const fn succeeded(&mut self) {
        self.failures = 0;
    }

    /// It failed: how long to wait, given a random number.
    pub(crate) fn failed(&mut self, random: u32) -> Duration {
        let span = BASE
            .saturating_mul(2u32.saturating_pow(self.failures))
            .min(MOST);
        self.failures = self.failures.saturating_add(1);
        span.mul_f64(f64::from(random) / f64::from(u32::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_up_to_a_bound_and_start_over() {
        let mut backoff = Backoff::default();
        let spans: Vec<_> = (0..12).map(|_| backoff.failed(u32::MAX)).collect();
        assert_eq!(spans[0], BASE);
        assert!(spans.windows(2).all(|pair| pair[0] <= pair[1]));
        assert_eq!(spans[11], MOST);
        assert_eq!(Backoff::default().failed(0), Duration::ZERO);
        backoff.succeeded();
        assert_eq!(backoff.failed(u32::MAX), BASE);
    }
}

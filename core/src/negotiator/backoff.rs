//! Waiting between attempts at a direct link, with jitter. It never ends: both ends try again and
//! again, so that a peer that slept is found when it wakes.

use std::time::Duration;

use crate::Entropy;
use crate::limits::{DIRECT_AGAIN_FIRST, DIRECT_AGAIN_MOST};

/// Counts failures and says how long to wait.
#[derive(Clone, Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// It worked: the next failure is the first again.
    pub(super) const fn succeeded(&mut self) {
        self.failures = 0;
    }

    /// Whether nothing failed since it worked.
    pub(super) const fn is_untried(&self) -> bool {
        self.failures == 0
    }

    /// It failed: how long to wait. Between half of a span and all of it, so that no peer is asked
    /// at once whatever it does to make us fail; the span doubles each time.
    pub(super) fn failed(&mut self, entropy: &mut Entropy) -> Duration {
        let span = DIRECT_AGAIN_FIRST
            .saturating_mul(2_u32.saturating_pow(self.failures))
            .min(DIRECT_AGAIN_MOST);
        self.failures = self.failures.saturating_add(1);
        let [low, high, ..] = entropy.token();
        let part = f64::from(u16::from_le_bytes([low, high])) / f64::from(u16::MAX);
        span.mul_f64(f64::midpoint(1.0, part))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_up_to_a_bound_and_start_over() {
        let mut entropy = Entropy::from_seed([1; 32]);
        let mut backoff = Backoff::default();
        let mut span = DIRECT_AGAIN_FIRST;
        for _ in 0..20 {
            let wait = backoff.failed(&mut entropy);
            assert!(wait >= span / 2 && wait <= span, "{wait:?} of {span:?}");
            span = (span * 2).min(DIRECT_AGAIN_MOST);
        }
        backoff.succeeded();
        assert!(backoff.failed(&mut entropy) <= DIRECT_AGAIN_FIRST);
    }
}

//! What a relay does not take: when it is tried again.

use std::time::Duration;

/// How long a relay counts as one that refuses.
const REFUSING: Duration = Duration::from_secs(30);

/// The wait after the first refusal. Each further one in a row doubles it, up to 64 times.
const FIRST_WAIT: Duration = Duration::from_secs(1);

/// What the relay behind a link did not take.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    /// It takes nothing before this moment.
    held_until: Option<Duration>,
    /// How often it refused in a row.
    in_a_row: u32,
    /// When it refused last.
    last: Option<Duration>,
}

impl Refusals {
    /// The relay took nothing this time: the next try waits, longer each time.
    pub(super) fn refused(&mut self, now: Duration) {
        self.last = Some(now);
        if self.hold(now) {
            // It left with what was refused before, and is the same try.
            return;
        }
        self.held_until = Some(now + FIRST_WAIT * 2u32.saturating_pow(self.in_a_row.min(6)));
        self.in_a_row = self.in_a_row.saturating_add(1);
    }

    /// The relay never takes this packet: nothing is to be tried again.
    pub(super) const fn refused_for_good(&mut self, now: Duration) {
        self.last = Some(now);
    }

    /// It took one.
    pub(super) const fn taken(&mut self) {
        self.in_a_row = 0;
    }

    /// Why it took nothing is no more.
    pub(super) const fn forget(&mut self) {
        self.held_until = None;
        self.in_a_row = 0;
    }

    /// Whether the next try still waits.
    pub(super) fn hold(&self, now: Duration) -> bool {
        self.held_until.is_some_and(|at| now < at)
    }

    /// Whether it refused something not long ago.
    pub(super) fn lately(&self, now: Duration) -> bool {
        self.last.is_some_and(|at| now < at + REFUSING)
    }

    /// When the next try is due.
    pub(super) fn deadline(&self, now: Duration) -> Option<Duration> {
        self.held_until.filter(|at| *at > now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T: Duration = Duration::from_secs(100);

    #[test]
    fn packets_that_are_refused_together_are_one_try() {
        let seconds = Duration::from_secs;
        let mut refusals = Refusals::default();
        let refused = |refusals: &mut Refusals, now| {
            for late in 0..20 {
                refusals.refused(now + Duration::from_millis(late));
            }
        };
        refused(&mut refusals, T);
        assert!(refusals.hold(T + seconds(1) / 2) && !refusals.hold(T + seconds(1)));
        refused(&mut refusals, T + seconds(1));
        assert!(refusals.hold(T + seconds(2)) && !refusals.hold(T + seconds(3)));
    }
}

//! How much of files may be on its way through a relay.
//!
//! A connection to a relay is one queue: what is handed to it waits behind all that was handed to it
//! before. A file would fill it, and on a narrow road whoever talks would wait for seconds. So files
//! keep the queue short. How long it is shows in when the relay answers, against the soonest that it
//! ever did, as in LEDBAT (RFC 6817): while answers are in time a little more goes out, and when they
//! are late less does.

use std::time::Duration;

use crate::limits::RELAY_FLIGHT;

/// Packets of files that may be on their way however late answers are, and at first.
const LEAST: usize = 2;

/// How much later than the soonest an answer is in time: RFC 6817 has 100 ms. On a long road it is as
/// long as the road, which is what TCP takes to send again what was lost: that is no queue.
const QUEUE: Duration = Duration::from_millis(100);

/// How long an answer counts as the soonest, at least. The road may have become another.
const MEMORY: Duration = Duration::from_secs(300);

/// Packets of files that may wait for the answer of one relay.
#[derive(Debug)]
pub(super) struct BulkWindow {
    packets: usize,
    /// Whether no answer was late yet: then each that comes allows one more (RFC 5681, 3.1).
    opening: bool,
    /// Answers to go until there is another change: those to what was on its way at the last one say
    /// nothing of it.
    settling: usize,
    /// The soonest answer of this while and of the one before.
    soonest: [Option<Duration>; 2],
    /// Since when this while is.
    since: Duration,
}

impl Default for BulkWindow {
    fn default() -> Self {
        Self {
            packets: LEAST,
            opening: true,
            settling: 0,
            soonest: [None; 2],
            since: Duration::ZERO,
        }
    }
}

impl BulkWindow {
    /// Whether one more may go out, beside so many.
    pub(super) const fn has_room(&self, on_their_way: usize) -> bool {
        on_their_way < self.packets
    }

    /// The relay answered a packet after that time.
    pub(super) fn answered(&mut self, took: Duration, now: Duration) {
        let soonest = self.remember(took, now);
        self.settling = self.settling.saturating_sub(1);
        if took > soonest + soonest.max(QUEUE) {
            self.opening = false;
            if self.settling == 0 {
                self.settling = self.packets;
                self.packets = (self.packets * 3 / 4).max(LEAST);
            }
        } else if self.settling == 0 {
            self.packets = (self.packets + 1).min(RELAY_FLIGHT);
            self.settling = if self.opening { 0 } else { self.packets };
        }
    }

    fn remember(&mut self, took: Duration, now: Duration) -> Duration {
        if now.saturating_sub(self.since) >= MEMORY {
            self.soonest = [None, self.soonest[0]];
            self.since = now;
        }
        let [current, before] = &mut self.soonest;
        let soonest = current.map_or(took, |soonest| soonest.min(took));
        *current = Some(soonest);
        before.map_or(soonest, |before| before.min(soonest))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    const fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    /// Has so many packets go over a road that takes one of them in `each`, one behind the other, and
    /// answers after `road`. Returns the longest that one of the last hundred took.
    fn longest(
        window: &mut BulkWindow,
        road: Duration,
        each: Duration,
        packets: usize,
    ) -> Duration {
        let (mut now, mut free) = (Duration::ZERO, Duration::ZERO);
        let mut on_their_way = VecDeque::new();
        let mut took = Vec::new();
        for _ in 0..packets {
            while window.has_room(on_their_way.len()) {
                free = free.max(now) + each;
                on_their_way.push_back((now, free + road));
            }
            if let Some((said, answered)) = on_their_way.pop_front() {
                now = answered;
                took.push(now - said);
                window.answered(now - said, now);
            }
        }
        took.into_iter().rev().take(100).max().unwrap_or_default()
    }

    #[test]
    fn a_narrow_road_has_a_short_queue() {
        for (road, each) in [(ms(40), ms(30)), (ms(40), ms(65)), (ms(10), ms(10))] {
            let longest = longest(&mut BulkWindow::default(), road, each, 500);
            let most = road + each + QUEUE.max(road + each) + each * 2;
            assert!(longest <= most, "{longest:?} over {road:?}");
        }
    }

    #[test]
    fn a_narrow_road_is_full_all_the_same() {
        let mut window = BulkWindow::default();
        longest(&mut window, ms(40), ms(30), 500);
        assert!(window.has_room(2), "two are what it takes to be full");
    }

    #[test]
    fn a_wide_road_is_filled() {
        let mut window = BulkWindow::default();
        longest(&mut window, ms(40), ms(1), 100);
        assert!(window.has_room(RELAY_FLIGHT - 1) && !window.has_room(RELAY_FLIGHT));
    }

    #[test]
    fn what_tcp_sends_again_on_a_long_road_is_no_queue() {
        let mut window = BulkWindow::default();
        for n in 0..200 {
            window.answered(if n % 3 == 0 { ms(390) } else { ms(200) }, ms(0));
        }
        assert!(window.has_room(RELAY_FLIGHT - 1));
    }

    #[test]
    fn answers_to_what_was_on_its_way_count_once() {
        let mut window = BulkWindow::default();
        longest(&mut window, ms(40), ms(1), 100);
        for _ in 0..RELAY_FLIGHT {
            window.answered(ms(900), ms(0));
            assert_eq!(window.packets, RELAY_FLIGHT * 3 / 4, "from the first on");
        }
    }

    #[test]
    fn a_road_that_became_longer_is_known_after_a_while() {
        let mut window = BulkWindow::default();
        window.answered(ms(10), ms(0));
        for second in 0..MEMORY.as_secs() * 2 {
            window.answered(ms(300), Duration::from_secs(second));
        }
        assert_eq!(window.packets, LEAST);
        for _ in 0..600 {
            window.answered(ms(300), MEMORY * 2);
        }
        assert!(window.has_room(RELAY_FLIGHT - 1));
    }
}

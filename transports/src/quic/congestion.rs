//! How fast a connection may send: a controller, and a bound on what it lets out at once.

use std::any::Any;
use std::sync::Arc;
use std::time::Instant;

use quinn_proto::RttEstimator;
use quinn_proto::congestion::{
    BbrConfig, Controller, ControllerFactory, ControllerMetrics, CubicConfig,
};

/// How a connection finds out how fast it may send.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Congestion {
    /// BBR: goes by the rate at which data arrives, and takes a lost or late packet for that alone.
    /// Where packets are lost by chance, as on a radio, it is many times as fast as the other.
    #[default]
    Bbr,
    /// CUBIC: takes each lost packet for a full queue. A little faster where none is lost.
    Cubic,
}

impl Congestion {
    pub(super) fn factory(self) -> Arc<dyn ControllerFactory + Send + Sync> {
        match self {
            Self::Bbr => Arc::new(Bounded::default()),
            Self::Cubic => Arc::new(CubicConfig::default()),
        }
    }
}

/// How many times what was really under way at once the window may be. It doubles in a round trip
/// while a connection starts; less than that would slow the start down.
const GROWTH: u64 = 3;

/// Makes BBR controllers whose window follows what is used of it.
///
/// quinn's BBR adds to its window what is acknowledged, as long as it does not know the path's rate;
/// and it does not learn it while an app sends little. A connection that carries a chat for a day
/// would then let a file out in one burst.
#[derive(Debug, Default)]
struct Bounded(Arc<BbrConfig>);

impl ControllerFactory for Bounded {
    fn build(self: Arc<Self>, now: Instant, mtu: u16) -> Box<dyn Controller> {
        Box::new(BoundedController {
            inner: self.0.clone().build(now, mtu),
            acknowledged: 0,
            most: 0,
        })
    }
}

struct BoundedController {
    inner: Box<dyn Controller>,
    /// Bytes acknowledged in the batch that is being told.
    acknowledged: u64,
    /// The most bytes that were under way at once.
    most: u64,
}

impl Controller for BoundedController {
    fn on_sent(&mut self, now: Instant, bytes: u64, last_packet_number: u64) {
        self.inner.on_sent(now, bytes, last_packet_number);
    }

    fn on_ack(
        &mut self,
        now: Instant,
        sent: Instant,
        bytes: u64,
        app_limited: bool,
        rtt: &RttEstimator,
    ) {
        self.acknowledged = self.acknowledged.saturating_add(bytes);
        self.inner.on_ack(now, sent, bytes, app_limited, rtt);
    }

    fn on_end_acks(
        &mut self,
        now: Instant,
        in_flight: u64,
        app_limited: bool,
        largest_packet_num_acked: Option<u64>,
    ) {
        let before = in_flight.saturating_add(self.acknowledged);
        self.acknowledged = 0;
        self.most = self.most.max(before);
        self.inner
            .on_end_acks(now, in_flight, app_limited, largest_packet_num_acked);
    }

    fn on_congestion_event(
        &mut self,
        now: Instant,
        sent: Instant,
        is_persistent_congestion: bool,
        lost_bytes: u64,
    ) {
        self.inner
            .on_congestion_event(now, sent, is_persistent_congestion, lost_bytes);
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.inner.on_mtu_update(new_mtu);
    }

    fn window(&self) -> u64 {
        let used = self.most.saturating_mul(GROWTH);
        self.inner.window().min(used.max(self.initial_window()))
    }

    fn metrics(&self) -> ControllerMetrics {
        let mut metrics = self.inner.metrics();
        metrics.congestion_window = self.window();
        metrics
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(Self {
            inner: self.inner.clone_box(),
            ..*self
        })
    }

    fn initial_window(&self) -> u64 {
        self.inner.initial_window()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Has a window that grows for ever.
    #[derive(Clone)]
    struct Boundless;

    impl Controller for Boundless {
        fn on_congestion_event(&mut self, _: Instant, _: Instant, _: bool, _: u64) {}
        fn on_mtu_update(&mut self, _: u16) {}
        fn window(&self) -> u64 {
            u64::MAX
        }
        fn clone_box(&self) -> Box<dyn Controller> {
            Box::new(self.clone())
        }
        fn initial_window(&self) -> u64 {
            10_000
        }
        fn into_any(self: Box<Self>) -> Box<dyn Any> {
            self
        }
    }

    #[test]
    fn a_window_follows_what_was_under_way() {
        let mut controller = BoundedController {
            inner: Box::new(Boundless),
            acknowledged: 0,
            most: 0,
        };
        let now = Instant::now();
        assert_eq!(controller.window(), 10_000);
        for _ in 0..1_000 {
            controller.on_end_acks(now, 2_000, true, None);
        }
        assert_eq!(controller.window(), 10_000, "a chat");
        controller.on_end_acks(now, 20_000, false, None);
        assert_eq!(controller.window(), 60_000, "a file");
        assert_eq!(controller.clone_box().window(), 60_000);
    }
}

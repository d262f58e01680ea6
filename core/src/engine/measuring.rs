//! Measuring the links while there is something to measure them with.
//!
//! Whoever talks has the link that carries asked now and then how long an answer takes. Only while a
//! direct link makes one wait the others are asked too: a relay is not bothered for nothing.

use std::time::Duration;

use super::Engine;
use super::link::Link;
use super::outbox::Sending;
use super::pump::lane;
use crate::transport::Lane;
use crate::{ChannelId, Generation};

/// From one Ping that measures to the next. Each costs 17 bytes, with messages that go anyhow.
const SAMPLE: Duration = Duration::from_millis(250);

/// The same through a relay, which counts every packet.
const SAMPLE_RELAYED: Duration = Duration::from_millis(500);

/// Bytes not yet acknowledged beyond which a link counts as full: then an answer waits in our own
/// queue, and tells nothing of the way. Below it, what a link needs for so much is what it is worth.
const FULL_BYTES: usize = 256 * 1024;

/// How long a link must be full until what it took in tells something.
const FULL_TIME: Duration = Duration::from_secs(2);

/// What a full link takes in.
#[derive(Debug, Default)]
pub(super) struct Gauge {
    /// Which one is being looked at, and since when.
    of: Option<(Generation, Duration)>,
    /// Segments that were acknowledged since.
    segments: u64,
}

impl Gauge {
    pub(super) const fn acknowledged(&mut self, segments: u64) {
        self.segments = self.segments.saturating_add(segments);
    }
}

impl Engine {
    /// Whether so much waits for the peer that what carries is full.
    fn is_full(&self) -> bool {
        let bytes: usize = self.sending.values().map(Sending::cached_bytes).sum();
        bytes > FULL_BYTES
    }

    /// Whether so much waits on the lane that Pings are on.
    pub(super) fn is_full_for_pings(&self) -> bool {
        let on_it = |channel: ChannelId| lane(channel) == Lane::Interactive;
        let channels = self.sending.iter().filter(|(of, _)| on_it(**of));
        let bytes: usize = channels.map(|(_, sending)| sending.cached_bytes()).sum();
        bytes > FULL_BYTES
    }

    /// Something was sent: asks the links how long an answer takes, if that is due.
    pub(super) fn measure(&mut self) {
        let now = self.now.elapsed;
        self.gauge(self.is_full(), now);
        let full = self.is_full_for_pings();
        let carrier = self.links.best();
        let doubt = self.links.in_doubt(now);
        for link in self.links.iter_mut() {
            let carries = carrier == Some(link.generation);
            let wanted = doubt || (carries && link.is_direct());
            if wanted && link.sample_due(every(link), now) {
                link.ping(self.entropy.token(), full && carries, now);
            }
        }
        if doubt {
            self.links.choose(now);
        }
    }

    fn gauge(&mut self, full: bool, now: Duration) {
        let Some(carrier) = self.links.best().filter(|_| full && !self.probe.spread) else {
            self.gauge = Gauge::default();
            return;
        };
        match self.gauge.of {
            Some((of, since)) if of == carrier => {
                let time = now.saturating_sub(since);
                if time < FULL_TIME {
                    return;
                }
                let segments = self.gauge.segments;
                if let Some(link) = self.links.get(carrier) {
                    link.quality.took(segments, time, now);
                }
                self.links.choose(now);
            }
            _ => {}
        }
        self.gauge = Gauge {
            of: Some((carrier, now)),
            segments: 0,
        };
    }
}

const fn every(link: &Link) -> Duration {
    if link.is_direct() {
        SAMPLE
    } else {
        SAMPLE_RELAYED
    }
}

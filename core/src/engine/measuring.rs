//! Measuring the links while there is something to measure them with.
//!
//! Whoever talks has the link that carries asked now and then how long an answer takes. Only while a
//! direct link makes one wait, or takes in little, the others are asked too: a relay is not bothered for
//! nothing.

use std::time::Duration;

use super::Engine;
use super::link::Link;
use super::outbox::Sending;
use super::pump::lane;
use crate::transport::Lane;
use crate::{ChannelId, Generation};

/// From one Ping that measures to the next. Each costs 17 bytes, with messages that go anyhow;
/// 301 through a relay, unless nothing is padded.
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
    /// Bytes that were acknowledged since.
    bytes: u64,
}

impl Engine {
    /// Whether so much waits for the peer that what carries is full. What the peer has no room for waits
    /// for that, and not for the link.
    fn is_full(&self) -> bool {
        let waits = |(channel, sending): (&ChannelId, &Sending)| {
            let out = self.live.out.get(channel).filter(|_| !sending.crowded)?;
            let segments = out.next.since(out.low);
            Some(segments.saturating_mul(sending.bytes_of_a_segment()))
        };
        let bytes = self.sending.iter().filter_map(waits);
        bytes.fold(0, u64::saturating_add) > FULL_BYTES as u64
    }

    /// Whether so much waits on the lane that Pings are on.
    pub(super) fn is_full_for_pings(&self) -> bool {
        let on_it = |channel: ChannelId| lane(channel) == Lane::Interactive;
        let channels = self.sending.iter().filter(|(of, _)| on_it(**of));
        let bytes: usize = channels.map(|(_, sending)| sending.cached_bytes()).sum();
        bytes > FULL_BYTES
    }

    /// Something is under way: asks the links how long an answer takes, if that is due.
    pub(super) fn measure(&mut self) {
        let now = self.now.elapsed;
        let full = self.is_full_for_pings();
        let carrier = self.links.best();
        let doubt = self.links.in_doubt(now);
        let tries = self.links.on_trial();
        for link in self.links.iter_mut() {
            let carries = carrier == Some(link.generation);
            // What waits on the way to a link that rests is ours.
            let rests = tries.is_some() && tries != Some(link.generation);
            let wanted = (doubt && !rests) || (carries && link.is_direct());
            if wanted && link.sample_due(every(link), now) {
                link.ping(self.entropy.token(), full && carries, now);
            }
        }
        if doubt {
            self.links.choose(now);
        }
    }

    /// The peer acknowledged so much, roughly: tells what the link takes in that carries, while it is
    /// full. What was sent may wait on the way to the link, so that sending tells nothing of it. What
    /// another link still delivers is counted too; links are compared by a factor of three.
    pub(super) fn gauge(&mut self, bytes: u64) {
        let now = self.now.elapsed;
        if !self.is_full() || self.probe.spread {
            self.gauge = Gauge::default();
            return;
        }
        self.measure();
        let Some(carrier) = self.links.best() else {
            return;
        };
        match self.gauge.of {
            Some((of, since)) if of == carrier => {
                self.gauge.bytes = self.gauge.bytes.saturating_add(bytes);
                let time = now.saturating_sub(since);
                if time < FULL_TIME {
                    return;
                }
                if let Some(link) = self.links.get(carrier) {
                    link.pulse.quality.took(self.gauge.bytes, time, now);
                }
                self.links.choose(now);
            }
            _ => {}
        }
        self.gauge = Gauge {
            of: Some((carrier, now)),
            bytes: 0,
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

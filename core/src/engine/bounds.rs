//! What an engine holds in memory, for simulations that see it stay bounded (I7).

use super::Engine;
use super::link::REPLIES;
use crate::limits::{
    CHANNELS, HELD_SEGMENTS, LINKS, OUTBOX_CACHE_BYTES, PEER_EPOCHS, RELAY_FLIGHT, RESUMES_OPEN,
    SEGMENT_BYTES,
};

/// What is sent on a link beside messages and waits for its relay's answer too: Resumes, Acks and
/// handshakes, paced by their own timers.
const CONTROL_FLIGHT: usize = 2 * RELAY_FLIGHT;

impl Engine {
    /// What has grown beyond its bound, if something has.
    #[doc(hidden)]
    #[must_use]
    pub fn overgrown(&self) -> Option<&'static str> {
        // The one record that is needed is held whatever its size.
        let cache = OUTBOX_CACHE_BYTES + 2 * SEGMENT_BYTES;
        let cached = |of: &super::Sending| of.cached_bytes() > cache;
        let held = |of: &std::collections::BTreeMap<_, _>| of.len() as u64 > HELD_SEGMENTS;
        let flights = RELAY_FLIGHT + CONTROL_FLIGHT;
        let bounds = [
            ("channels", self.sending.len() > CHANNELS),
            ("the outbox in memory", self.sending.values().any(cached)),
            (
                "messages elsewhere",
                self.sending.values().any(super::Sending::is_overgrown),
            ),
            ("channels held", self.held.len() > CHANNELS * PEER_EPOCHS),
            ("segments held", self.held.values().any(held)),
            ("streams parked", self.parked.len() > CHANNELS * PEER_EPOCHS),
            ("links", self.links.len() > LINKS),
            ("words without a link", self.unsaid_is_overgrown()),
            (
                "replies",
                self.links.iter().any(|of| of.replies.len() > REPLIES),
            ),
            (
                "flights",
                self.links.iter().any(|of| of.flights.len() > flights),
            ),
            ("Resumes without an answer", self.asked.len() > RESUMES_OPEN),
        ];
        bounds
            .into_iter()
            .find_map(|(what, over)| over.then_some(what))
    }
}

//! A new epoch of our own. Only evidence about our own store makes us draw one; the numbers in brackets are
//! those of the rules in section 10 of `docs/PROTOCOL.md`.

use std::collections::BTreeMap;

use super::Engine;
use super::event::Event;
use super::flight::Flight;
use super::writes::After;
use crate::limits::OWN_EPOCHS;
use crate::record::{PastChannel, PastEpoch};

impl Engine {
    /// Our store went back in time and has used seqs twice: a new epoch begins, and what waits is
    /// offered again under it, marked with where it was offered first [10].
    pub(super) fn renew(&mut self) {
        let epoch = self.entropy.epoch();
        let mut past = PastEpoch {
            epoch: self.live.epoch,
            channels: BTreeMap::new(),
        };
        for (&channel, out) in &mut self.live.out {
            let high = self
                .sending
                .get(&channel)
                .map_or(out.next, |sending| sending.high);
            past.channels.insert(
                channel,
                PastChannel {
                    base: out.base,
                    high,
                },
            );
            out.low = out.offer;
            out.low_tally = out.offer_tally;
            out.base = out.offer.minus(1);
            out.base_sum = out.offer_tally.digest;
            out.again_below = out.again_below.max(high);
            out.custody.clear();
            if let Some(sending) = self.sending.get_mut(&channel) {
                sending.renewed(out.offer);
            }
        }
        if self.live.past.len() >= OWN_EPOCHS {
            self.live.past.remove(0);
        }
        self.live.past.push(past);
        self.live.epoch = epoch;
        self.asked.clear();
        for link in self.links.iter_mut() {
            link.sent.clear();
            link.flights.values_mut().for_each(Flight::clear);
            link.resume_due = true;
        }
        self.writes.touch();
        self.defer(After::Event(Event::Renewed { epoch }));
        self.probe.restart(self.now.elapsed);
    }
}

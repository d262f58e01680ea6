//! What a relay says of the packets that were handed to it: it holds one, or did not take it.
//!
//! Custody never empties the outbox: it only spares sending again what the relay's store holds.

use super::ending::Ended;
use super::event::{Event, Output, Stage};
use super::{Engine, timers};
use crate::link::{LinkClass, Reads};
use crate::record::{Custody, Ending};
use crate::transport::Refusal;
use crate::{ChannelId, EnvelopeId, Generation, Now, Position, StoreId};

impl Engine {
    /// The relay behind a link holds this packet.
    pub fn accepted(&mut self, generation: Generation, envelope: EnvelopeId, now: Now) {
        self.now = now;
        let Some(link) = self.links.get(generation) else {
            return;
        };
        let Some(flight) = link.flights.remove(&envelope) else {
            return;
        };
        link.refusals.taken();
        if let Some(said) = flight.bulk {
            link.bulk
                .answered(now.elapsed.saturating_sub(said), now.elapsed);
        }
        let LinkClass::Relayed(store) = link.class else {
            return;
        };
        // Elsewhere the peer may not come for it: the sender is not to leave.
        let fetched = link.reads == Reads::Always;
        self.in_custody(store, &flight.runs, fetched);
        self.probe.progress(now.elapsed);
    }

    /// The relay behind a link did not take this packet.
    pub fn refused(
        &mut self,
        generation: Generation,
        envelope: EnvelopeId,
        reason: Refusal,
        now: Now,
    ) {
        self.now = now;
        let Some(link) = self.links.get(generation) else {
            return;
        };
        let Some(flight) = link.flights.remove(&envelope) else {
            return;
        };
        if reason.may_pass() {
            link.refusals.refused(now.elapsed);
            for &(channel, position) in &flight.runs {
                link.sent
                    .entry(channel)
                    .or_default()
                    .remove_run(position, position.next());
            }
            for (channel, first, id) in flight.heads {
                let event = Event::Held {
                    channel,
                    first,
                    id,
                    reason,
                };
                self.outputs.push_back(Output::Event(event));
            }
        } else {
            link.refusals.refused_for_good(now.elapsed);
            for (channel, position) in flight.runs {
                let ended = self.end_message(channel, position, Ending::Refused(reason));
                // Which message it is of is known when it goes out again, to be refused once more.
                if ended == Ended::OnceRead
                    && let Some(link) = self.links.get(generation)
                    && let Some(sent) = link.sent.get_mut(&channel)
                {
                    sent.remove_run(position, position.next());
                }
            }
        }
        self.links.choose(now.elapsed);
    }

    /// What relays refused may be taken from now on: it is handed to them again at once.
    pub fn ask_relays_again(&mut self, now: Now) {
        self.now = now;
        for link in self.links.iter_mut() {
            link.refusals.forget();
        }
    }

    /// A relay's store holds these. `fetched`: the peer reads there, and the app is told of it.
    fn in_custody(&mut self, store: StoreId, runs: &[(ChannelId, Position)], fetched: bool) {
        /// Relays whose custody is remembered; of one more the oldest is forgotten, and what it
        /// holds is sent to it again.
        const RELAYS: usize = 4;
        for &(channel, position) in runs {
            let Some(out) = self.live.out.get_mut(&channel) else {
                continue;
            };
            if position < out.low {
                continue;
            }
            if !out.custody.iter().any(|custody| custody.store == store) {
                if out.custody.len() >= RELAYS {
                    out.custody.remove(0);
                }
                out.custody.push(Custody {
                    store,
                    held: Default::default(),
                });
            }
            if let Some(custody) = out.custody.iter_mut().find(|c| c.store == store) {
                custody.held.insert(position);
            }
        }
        let mut channels: Vec<_> = runs.iter().map(|(channel, _)| *channel).collect();
        channels.dedup();
        for channel in channels.into_iter().filter(|_| fetched) {
            let Some(out) = self.live.out.get(&channel) else {
                continue;
            };
            let Some(custody) = out.custody.iter().find(|c| c.store == store) else {
                continue;
            };
            let below = custody.held.first_gap(out.low);
            let event = Event::Progress {
                channel,
                stage: Stage::Custody,
                below,
            };
            self.outputs.push_back(Output::Event(event));
        }
        let at = self.now.elapsed + timers::LAZY_WRITE;
        self.write_lazily.get_or_insert(at);
    }
}

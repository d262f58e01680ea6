//! What of a mailbox is on its way to its recipient.
//!
//! Each sender has a window of its own: one whose envelopes are not acknowledged stops only its
//! own delivery. What the recipient parks stays in the mailbox and makes room in the window: that
//! something lies behind the last envelope that was sent is all that is kept of it here.

mod turns;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use outlive_core::store::{ReadLimit, Store, StoreError};
use outlive_core::wire::relay::{FromRelay, Sender};
use outlive_core::{EnvelopeId, PeerId};
use outlive_storage::StoreClock;

use self::turns::Turns;
use crate::records::{self, Envelope};

/// Envelopes of one sender that may be on their way unacknowledged.
const SENDER_ENVELOPES: usize = 128;

/// Envelopes of all senders together.
const ALL_ENVELOPES: usize = 4_096;

/// Senders with nothing on its way whose last envelope is remembered. What the recipient acknowledged
/// is in the store until its deletion is written: whoever began from the start then would deliver it
/// again.
const IDLE_SENDERS: usize = 4_096;

/// Senders that wait for their turn. The mail of more of them is searched for when these had theirs:
/// what comes and expires while nothing is taken would add to them without end.
const TURNS: usize = 4_096;

/// What is read of one sender's mail at once.
const READ: ReadLimit = ReadLimit {
    records: 32,
    bytes: 256 * 1024,
};

#[derive(Default)]
struct OnTheWay {
    /// The last envelope that was sent.
    last: EnvelopeId,
    unacknowledged: BTreeSet<EnvelopeId>,
    /// Whether something up to `last` is parked.
    parked: bool,
    /// Whether it is among those with nothing on its way.
    idle: bool,
}

/// The delivery of one mailbox over one connection.
pub(crate) struct Window {
    store: Arc<dyn Store>,
    clock: Arc<StoreClock>,
    recipient: PeerId,
    /// Where the search for senders goes on.
    search: Vec<std::ops::Range<Bytes>>,
    /// Whether a sender found no room among those that wait: then the search begins again.
    search_again: bool,
    senders: HashMap<Sender, OnTheWay>,
    /// Senders that have more, in the order of their turns.
    ready: Turns,
    /// Senders that had nothing on its way when that was looked at last, the oldest first.
    idle: VecDeque<Sender>,
    on_the_way: usize,
    /// Whether a sender was forgotten of whom something is parked.
    forgot_parked: bool,
}

impl Window {
    pub(crate) fn new(store: Arc<dyn Store>, clock: Arc<StoreClock>, recipient: PeerId) -> Self {
        Self {
            store,
            clock,
            recipient,
            search: records::mailbox(&recipient).into(),
            search_again: false,
            senders: HashMap::new(),
            ready: Turns::default(),
            idle: VecDeque::new(),
            on_the_way: 0,
            forgot_parked: false,
        }
    }

    /// These senders have new mail.
    pub(crate) fn wake(&mut self, senders: impl IntoIterator<Item = Sender>) {
        for sender in senders {
            if self.ready.len() < TURNS {
                self.ready.add(sender);
            } else {
                self.search_again = true;
                self.rest(sender);
            }
        }
    }

    /// Whether [`next`](Self::next) may find something.
    pub(crate) fn has_more(&self) -> bool {
        self.on_the_way < ALL_ENVELOPES
            && (!self.search.is_empty() || self.search_again || !self.ready.is_empty())
    }

    /// The recipient has these. Returns how many of them were on their way to it.
    pub(crate) fn acknowledged(&mut self, sender: Sender, numbers: &[EnvelopeId]) -> usize {
        let Some(of) = self.senders.get_mut(&sender) else {
            return 0;
        };
        let removed = |number: &&EnvelopeId| of.unacknowledged.remove(number);
        let known = numbers.iter().filter(removed).count();
        self.on_the_way = self.on_the_way.saturating_sub(known);
        self.wake([sender]);
        known
    }

    /// The recipient has no room for these: they stay in the mailbox, others pass them.
    pub(crate) fn parked(&mut self, sender: Sender, numbers: &[EnvelopeId]) {
        let Some(of) = self.senders.get_mut(&sender) else {
            return;
        };
        let was_full = of.unacknowledged.len() >= SENDER_ENVELOPES;
        for number in numbers {
            if of.unacknowledged.remove(number) {
                self.on_the_way = self.on_the_way.saturating_sub(1);
                of.parked = true;
            }
        }
        if was_full {
            self.wake([sender]);
        } else {
            // It has no more, or its turn comes. Turns of all whose mail is parked would be too many, and
            // have the search begin again, which would bring what is parked.
            self.rest(sender);
        }
    }

    /// The recipient wants again what it has not acknowledged.
    pub(crate) fn redeliver(&mut self, sender: Sender) {
        // Of any other nothing is outstanding, and what it has in the mailbox comes without being asked
        // for, unless it was forgotten with what is parked. Whoever could name senders as it likes would
        // take all turns.
        let Some(of) = self.senders.remove(&sender) else {
            if self.forgot_parked {
                self.wake([sender]);
            }
            return;
        };
        if of.idle {
            // Its place among the idle stays.
            let anew = OnTheWay {
                idle: true,
                ..OnTheWay::default()
            };
            self.senders.insert(sender, anew);
        }
        self.on_the_way = self.on_the_way.saturating_sub(of.unacknowledged.len());
        self.wake([sender]);
    }

    /// The next envelopes to deliver; none if this step found none. Cancellation-safe: nothing
    /// changes before the store has answered.
    pub(crate) async fn next(&mut self) -> Result<Vec<FromRelay>, StoreError> {
        // A store may answer at once, each time: through much that has expired the search would hold
        // up all other tasks of this thread.
        tokio::task::consume_budget().await;
        self.find_sender().await?;
        let Some(sender) = self.ready.first() else {
            return Ok(Vec::new());
        };
        let of = self.senders.entry(sender).or_default();
        let room = SENDER_ENVELOPES.saturating_sub(of.unacknowledged.len());
        if room == 0 {
            // Its turn comes again with an acknowledgement.
            self.ready.pass();
            return Ok(Vec::new());
        }
        let limit = ReadLimit {
            records: room.min(READ.records),
            ..READ
        };
        let range = records::envelopes_behind(&self.recipient, &sender, of.last);
        let rows = self.store.range(range, limit).await?;
        self.ready.pass();
        let bytes = rows.iter().map(|(_, value)| value.len()).sum::<usize>();
        let more = rows.len() >= limit.records || bytes >= limit.bytes;
        if more {
            self.ready.add(sender);
        }
        let (present, _) = self.clock.now();
        let mut deliveries = BTreeMap::new();
        for (key, value) in rows {
            let Some((_, number)) = records::sender_of(&key) else {
                continue;
            };
            of.last = of.last.max(number);
            let Some(envelope) = records::from_value::<Envelope>(&value) else {
                continue;
            };
            if envelope.expires > present && of.unacknowledged.insert(number) {
                self.on_the_way += 1;
                deliveries.insert(number, envelope.packet);
            }
        }
        if !more {
            self.rest(sender);
        }
        let deliver = |(number, packet)| FromRelay::Deliver {
            from: sender,
            envelope: Some(number),
            packet,
        };
        Ok(deliveries.into_iter().map(deliver).collect())
    }

    /// Counts a sender among the idle, if nothing of it is on its way.
    fn rest(&mut self, sender: Sender) {
        if let Some(of) = self.senders.get_mut(&sender)
            && of.unacknowledged.is_empty()
        {
            if !std::mem::replace(&mut of.idle, true) {
                self.idle.push_back(sender);
            }
            self.forget_idle();
        }
    }

    /// Forgets those that were idle for longest. Numbers only grow: what comes of them later is found
    /// from the beginning, with what is parked.
    fn forget_idle(&mut self) {
        while self.idle.len() > IDLE_SENDERS {
            let Some(oldest) = self.idle.pop_front() else {
                return;
            };
            if let Some(of) = self.senders.get_mut(&oldest) {
                of.idle = false;
                // Whoever has a turn before it rests again would begin from the start without need.
                if of.unacknowledged.is_empty() && !self.ready.holds(&oldest) {
                    self.forgot_parked |= of.parked;
                    self.senders.remove(&oldest);
                }
            }
        }
    }

    /// One step of the search for senders whose mail was there before the connection, or who found no
    /// room among those that wait.
    async fn find_sender(&mut self) -> Result<(), StoreError> {
        if self.ready.len() >= TURNS {
            return Ok(());
        }
        if self.search.is_empty() && std::mem::take(&mut self.search_again) {
            self.search = records::mailbox(&self.recipient).into();
        }
        let Some(range) = self.search.last().cloned() else {
            return Ok(());
        };
        let rows = self
            .store
            .range(
                range,
                ReadLimit {
                    records: 1,
                    bytes: 1,
                },
            )
            .await?;
        let found = rows.first().and_then(|(key, _)| records::sender_of(key));
        match (found, self.search.last_mut()) {
            (Some((sender, _)), Some(range)) => {
                range.start = records::behind(&self.recipient, &sender);
            }
            (None, _) | (_, None) => drop(self.search.pop()),
        }
        self.wake(found.map(|(sender, _)| sender));
        Ok(())
    }
}

#[cfg(test)]
mod tests;

//! Which slot of our mailbox a peer's envelope came out of: there it is acknowledged.

use std::collections::{BTreeSet, HashMap};

use outlive_core::transport::{Outgoing, Sender, Slot};
use outlive_core::{EnvelopeId, PeerId};

/// Envelopes out of slots that are not acknowledged yet. The relay has no more on their way; what
/// comes beyond stays in the mailbox and comes with the next connection.
const ENVELOPES: usize = 4_096;

/// Peers whose slots are remembered for asking for their mail again, and slots of one of them. What
/// lies in others comes again with the next connection.
const PEERS: usize = 4_096;
const SLOTS: usize = 8;

/// The slots of one connection.
#[derive(Default)]
pub(super) struct Slots {
    of: HashMap<(PeerId, EnvelopeId), Slot>,
    used: HashMap<PeerId, BTreeSet<Slot>>,
}

impl Slots {
    /// An envelope that claims to be from `peer` came out of a slot. Returns whether there is room
    /// to remember that.
    pub(super) fn note(&mut self, peer: PeerId, slot: Slot, envelope: EnvelopeId) -> bool {
        if self.of.len() >= ENVELOPES {
            return false;
        }
        self.of.insert((peer, envelope), slot);
        if self.used.len() < PEERS || self.used.contains_key(&peer) {
            let used = self.used.entry(peer).or_default();
            if used.len() < SLOTS {
                used.insert(slot);
            }
        }
        true
    }

    /// Where an envelope is that nobody here takes.
    pub(super) fn dropped(
        &mut self,
        peer: PeerId,
        envelope: Option<EnvelopeId>,
    ) -> Option<(Sender, EnvelopeId)> {
        let envelope = envelope?;
        let slot = self.of.remove(&(peer, envelope))?;
        Some((Sender::Slot(slot), envelope))
    }

    /// What a session says of its peer's mail, said of where that mail is.
    pub(super) fn addressed(&mut self, item: Outgoing) -> Vec<Outgoing> {
        match item {
            Outgoing::Acknowledge {
                from: Sender::Peer(peer),
                envelopes,
            } => self
                .parted(peer, envelopes)
                .map(|(from, envelopes)| Outgoing::Acknowledge { from, envelopes })
                .collect(),
            Outgoing::Park {
                from: Sender::Peer(peer),
                envelopes,
            } => self
                .parted(peer, envelopes)
                .map(|(from, envelopes)| Outgoing::Park { from, envelopes })
                .collect(),
            Outgoing::Redeliver {
                from: Sender::Peer(peer),
            } => {
                self.of.retain(|(of, _), _| *of != peer);
                let slots = self.used.get(&peer).into_iter().flatten();
                std::iter::once(Sender::Peer(peer))
                    .chain(slots.map(|slot| Sender::Slot(*slot)))
                    .map(|from| Outgoing::Redeliver { from })
                    .collect()
            }
            other => vec![other],
        }
    }

    fn parted(
        &mut self,
        peer: PeerId,
        envelopes: Vec<EnvelopeId>,
    ) -> impl Iterator<Item = (Sender, Vec<EnvelopeId>)> + use<> {
        let mut parted: HashMap<Sender, Vec<EnvelopeId>> = HashMap::new();
        for envelope in envelopes {
            let slot = self.of.remove(&(peer, envelope));
            let sender = slot.map_or(Sender::Peer(peer), Sender::Slot);
            parted.entry(sender).or_default().push(envelope);
        }
        parted.into_iter()
    }
}

#[cfg(test)]
mod tests {
    use outlive_core::Identity;

    use super::*;

    fn peer(n: u8) -> PeerId {
        Identity::from_seed([n; 32]).peer_id()
    }

    #[test]
    fn mail_is_acknowledged_where_it_came_from() {
        let (mut slots, slot) = (Slots::default(), Slot([7; 32]));
        assert!(slots.note(peer(1), slot, EnvelopeId(5)));
        let acknowledge = |from, number| Outgoing::Acknowledge {
            from,
            envelopes: vec![EnvelopeId(number)],
        };
        let mut of = |item| slots.addressed(item);
        let named = Sender::Peer(peer(1));
        assert_eq!(of(acknowledge(named, 6)), [acknowledge(named, 6)]);
        assert_eq!(
            of(acknowledge(named, 5)),
            [acknowledge(Sender::Slot(slot), 5)]
        );
        let again = |from| Outgoing::Redeliver { from };
        assert_eq!(of(again(named)), [again(named), again(Sender::Slot(slot))]);
        assert_eq!(of(again(peer(2).into())), [again(peer(2).into())]);
    }

    #[test]
    fn no_more_is_remembered_than_the_limits_say() {
        let mut slots = Slots::default();
        for n in 0..=u8::MAX {
            slots.note(peer(1), Slot([n; 32]), EnvelopeId(u64::from(n)));
        }
        assert_eq!(slots.used[&peer(1)].len(), SLOTS);
        let noted = (0..10_000).filter(|n| slots.note(peer(2), Slot([0; 32]), EnvelopeId(*n)));
        assert_eq!(noted.count(), ENVELOPES - 256);
    }
}

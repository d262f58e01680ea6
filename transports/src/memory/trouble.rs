//! What is wrong with a relay in memory, as [`Faults`](super::Faults) bring it about.

use std::collections::BTreeMap;

use outlive_core::PeerId;
use outlive_core::transport::{Refusal, TransportError};
use tokio::time::Instant;

use super::faults::Way;
use super::state::State;

/// What is wrong between one peer and the relay.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Trouble {
    /// How many hold back what it says, and what it is told.
    held: [usize; 2],
    /// How many hold back its delayed deliveries, and how many more are to be delayed.
    pub(super) delays: usize,
    pub(super) to_delay: usize,
    pub(super) to_double: usize,
    /// Why what is sent to it is refused, and how many more times.
    pub(super) refusal: Option<(Refusal, usize)>,
}

pub(super) fn held(troubles: &BTreeMap<PeerId, Trouble>, peer: PeerId, way: Way) -> bool {
    troubles.get(&peer).is_some_and(|of| match way {
        Way::ToRelay => of.held[0] > 0,
        Way::FromRelay => of.held[1] > 0,
    })
}

impl State {
    fn trouble(&mut self, peer: PeerId, change: impl FnOnce(&mut Trouble)) {
        let trouble = self.troubles.entry(peer).or_default();
        change(trouble);
        if *trouble == Trouble::default() {
            self.troubles.remove(&peer);
        }
        if let Some(&number) = self.signed_in.get(&peer) {
            self.run(number);
            if let Some(connection) = self.connections.get(&number) {
                connection.line.arrived.notify_one();
            }
        }
        self.tell();
    }

    pub(super) fn hold(&mut self, peer: PeerId, way: Way, on: bool) {
        self.trouble(peer, |of| {
            let held = match way {
                Way::ToRelay => &mut of.held[0],
                Way::FromRelay => &mut of.held[1],
            };
            *held = count(*held, on);
        });
    }

    pub(super) fn delay(&mut self, peer: PeerId, deliveries: usize) {
        self.trouble(peer, |of| {
            of.delays = of.delays.saturating_add(1);
            of.to_delay = of.to_delay.saturating_add(deliveries);
        });
    }

    pub(super) fn release_late(&mut self, peer: PeerId) {
        self.trouble(peer, |of| {
            of.delays = of.delays.saturating_sub(1);
            if of.delays == 0 {
                of.to_delay = 0;
            }
        });
    }

    pub(super) fn double(&mut self, peer: PeerId, deliveries: usize) {
        self.trouble(peer, |of| {
            of.to_double = of.to_double.saturating_add(deliveries);
        });
    }

    pub(super) fn refuse(&mut self, to: PeerId, refusal: Option<(Refusal, usize)>) {
        self.trouble(to, |of| of.refusal = refusal.filter(|(_, left)| *left > 0));
    }

    pub(super) fn cut(&mut self, peer: PeerId) -> bool {
        let Some(&number) = self.signed_in.get(&peer) else {
            return false;
        };
        if let Some(connection) = self.connections.get_mut(&number) {
            connection.cut(TransportError::Broken("it was cut".to_owned()));
        }
        self.sign_out(number);
        self.tell();
        true
    }

    pub(super) fn cut_all(&mut self) {
        let peers: Vec<PeerId> = self.signed_in.keys().copied().collect();
        for peer in peers {
            self.cut(peer);
        }
    }

    pub(super) fn die(&mut self, peer: PeerId) -> bool {
        let number = self.signed_in.get(&peer).copied();
        let Some(connection) = number.and_then(|number| self.connections.get_mut(&number)) else {
            return false;
        };
        connection.dead_since = Some(Instant::now());
        connection.answers.clear();
        connection.said.clear();
        connection.line.room.notify_one();
        connection.line.arrived.notify_one();
        true
    }

    pub(super) fn lose_store(&mut self) {
        self.cut_all();
        self.store = None;
        self.mailboxes.clear();
        self.counts.waiting = 0;
        self.tell();
    }

    pub(super) fn down(&mut self, on: bool) {
        self.down = count(self.down, on);
        if on {
            self.cut_all();
        }
    }

    pub(super) const fn unreachable(&mut self, on: bool) {
        self.unreachable = count(self.unreachable, on);
    }

    pub(super) fn hold_dialing(&mut self, on: bool) {
        self.dialing_held = count(self.dialing_held, on);
        self.redial.send_replace(());
    }
}

const fn count(of: usize, on: bool) -> usize {
    if on {
        of.saturating_add(1)
    } else {
        of.saturating_sub(1)
    }
}

//! The faults of a relay in memory, as a test injects them.

use std::fmt;
use std::sync::Arc;

use outlive_core::PeerId;
use outlive_core::transport::Refusal;

use super::shared::Shared;

/// A direction between a peer and its relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// What the peer says.
    ToRelay,
    /// What the peer is told.
    FromRelay,
}

/// The switchboard of a [`MemoryRelay`](super::MemoryRelay)'s faults. Clones act on the same relay.
/// What concerns a peer holds for its present connection and for later ones, if not said otherwise.
#[derive(Clone)]
pub struct Faults {
    shared: Arc<Shared>,
}

impl fmt::Debug for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Faults")
    }
}

impl Faults {
    pub(super) const fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Cuts a peer's connection: what is on its way in either direction is lost with it. Returns
    /// whether there was one.
    pub fn cut(&self, peer: PeerId) -> bool {
        self.shared.lock().cut(peer)
    }

    /// Lets a peer's present connection lead nowhere, unnoticed by either end: what is written is
    /// swallowed, nothing is delivered, the peer counts as present. It ends when it is cut, when
    /// the peer closes it, or after 50 s of silence. Returns whether there was one.
    pub fn half_dead(&self, peer: PeerId) -> bool {
        self.shared.lock().die(peer)
    }

    /// Holds back what travels this way, in order, until the guard and all others are dropped.
    pub fn hold(&self, peer: PeerId, way: Way) -> Hold {
        self.shared.lock().hold(peer, way, true);
        self.guard(Held::Traffic(peer, way))
    }

    /// Delays the next deliveries out of a peer's mailbox until the guard and all others are
    /// dropped: what comes behind overtakes them. With their connection they are lost, and
    /// delivered anew over the next.
    pub fn delay(&self, peer: PeerId, deliveries: usize) -> Hold {
        self.shared.lock().delay(peer, deliveries);
        self.guard(Held::Late(peer))
    }

    /// Makes the next deliveries out of a peer's mailbox come twice.
    pub fn duplicate(&self, peer: PeerId, deliveries: usize) {
        self.shared.lock().double(peer, deliveries);
    }

    /// Refuses the next messages for a recipient. `usize::MAX` refuses until [`accept`](Self::accept).
    pub fn refuse(&self, recipient: PeerId, reason: Refusal, messages: usize) {
        self.shared
            .lock()
            .refuse(recipient, Some((reason, messages)));
    }

    /// Takes messages for a recipient again.
    pub fn accept(&self, recipient: PeerId) {
        self.shared.lock().refuse(recipient, None);
    }

    /// Refuses new connections until the guard and all others are dropped. Present ones live on.
    pub fn unreachable(&self) -> Hold {
        self.shared.lock().unreachable(true);
        self.guard(Held::Unreachable)
    }

    /// Lets attempts to connect hang until the guard and all others are dropped.
    pub fn hold_dialing(&self) -> Hold {
        self.shared.lock().hold_dialing(true);
        self.guard(Held::Dialing)
    }

    /// The relay's process is killed: every connection is cut, and there is none until the guard
    /// and all others are dropped. What it accepted is kept.
    pub fn down(&self) -> Hold {
        self.shared.lock().down(true);
        self.guard(Held::Down)
    }

    /// The relay's process is killed and started again at once. What it accepted is kept.
    pub fn restart(&self) {
        drop(self.down());
    }

    /// The relay loses its store and is started again: every connection is cut, no mailbox holds
    /// anything, and the store has a new id.
    pub fn lose_store(&self) {
        self.shared.lock().lose_store();
    }

    fn guard(&self, what: Held) -> Hold {
        Hold {
            shared: self.shared.clone(),
            what,
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Held {
    Traffic(PeerId, Way),
    Late(PeerId),
    Unreachable,
    Dialing,
    Down,
}

/// A fault of a [`MemoryRelay`](super::MemoryRelay) that lasts until this is dropped.
#[must_use = "the fault ends when this is dropped"]
pub struct Hold {
    shared: Arc<Shared>,
    what: Held,
}

impl fmt::Debug for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Hold").field(&self.what).finish()
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        match self.what {
            Held::Traffic(peer, way) => state.hold(peer, way, false),
            Held::Late(peer) => state.release_late(peer),
            Held::Unreachable => state.unreachable(false),
            Held::Dialing => state.hold_dialing(false),
            Held::Down => state.down(false),
        }
    }
}

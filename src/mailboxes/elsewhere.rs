//! Relays that are not this node's: those of peers, and those that it has left.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Weak};

use outlive_core::transport::RelayTransport;
use outlive_core::{PeerId, StoreId};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::DropGuard;
use tracing::error;

use super::{Mailboxes, Place};
use crate::lock::lock;
use crate::node::Inner;
use crate::relay::{Attach, RelayState, RelayTask, RelayUse};
use crate::task::Input;

/// Relays elsewhere that are used at once. No more are dialed until there are less.
const ELSEWHERE: usize = 1_024;

/// A relay that is not ours. It is used as long as somebody holds this.
pub(crate) struct Elsewhere {
    pub(crate) address: String,
    attach: mpsc::Sender<Attach>,
    state: watch::Receiver<RelayState>,
    _ends: DropGuard,
}

impl Elsewhere {
    /// Whether it goes on: it ends by itself if its address can never work, or leads to a relay that is in use
    /// already.
    pub(super) fn is_used(&self) -> bool {
        !self.attach.is_closed()
    }

    fn is_connected(&self) -> bool {
        *self.state.borrow() == RelayState::Connected
    }

    /// Has a session get links over it.
    pub(crate) fn attach(
        self: &Arc<Self>,
        inner: &Inner,
        peer: PeerId,
        inputs: mpsc::Sender<Input>,
    ) {
        let relay = self.clone();
        inner.tasks.spawn(async move {
            // One that has ended, for its address can't be used, binds none.
            let _ = relay.attach.send(Attach { peer, inputs }).await;
        });
    }
}

impl Mailboxes {
    /// The way to a relay that is not ours, if the app lets us have one.
    fn way_to(&self, address: &str) -> Option<Arc<dyn RelayTransport>> {
        let foreign = self.foreign.as_ref()?;
        // What a panic left half done is the app's alone.
        let asked = catch_unwind(AssertUnwindSafe(|| foreign(address)));
        asked.unwrap_or_else(|_| {
            error!(
                relay = address,
                "the app panicked when it was asked for a way to this relay, which is not used"
            );
            None
        })
    }
}

impl Inner {
    /// The relay at a place where none of ours is, which is dialed if it is not already, under whatever
    /// address. `None` if it is not to be used.
    pub(crate) fn reach(self: &Arc<Self>, place: Place<'_>) -> Option<Arc<Elsewhere>> {
        let address = place.relay;
        if let Some(known) = self.reached(place) {
            return Some(known);
        }
        let transport = self.mailboxes.way_to(address)?;
        let mut elsewhere = lock(&self.mailboxes.elsewhere);
        elsewhere.retain(|_, of| of.upgrade().is_some_and(|of| of.is_used()));
        if self.cancel.is_cancelled() || elsewhere.len() >= ELSEWHERE {
            return None;
        }
        // While the app was asked, somebody else may have asked it too.
        if let Some(known) = elsewhere.get(address).and_then(Weak::upgrade) {
            return Some(known);
        }
        let cancel = self.links_cancel.child_token();
        let used = RelayUse {
            address: address.to_owned(),
            home: false,
        };
        let (attach, state) = RelayTask::start(self, transport, used, cancel.clone());
        let reached = Arc::new(Elsewhere {
            address: address.to_owned(),
            attach,
            state,
            _ends: cancel.drop_guard(),
        });
        elsewhere.insert(address.to_owned(), Arc::downgrade(&reached));
        Some(reached)
    }

    /// The relay that is used at a place, if there is one.
    pub(crate) fn reached(&self, place: Place<'_>) -> Option<Arc<Elsewhere>> {
        let here = self.mailboxes.here.borrow().clone();
        let elsewhere = lock(&self.mailboxes.elsewhere);
        let at = |address: &str| elsewhere.get(address).and_then(Weak::upgrade);
        let known = at(place.relay).filter(|of| of.is_used());
        // One that can't be reached holds up nobody who knows another address.
        let other = || at(here.alias_of(place.relay));
        let leads = |of: &Arc<Elsewhere>| of.is_used() && !here.is_unreachable(&of.address);
        known.or_else(|| other().filter(leads))
    }

    /// Whether a relay elsewhere is used at this address.
    pub(super) fn is_reached(&self, address: &str) -> bool {
        let elsewhere = lock(&self.mailboxes.elsewhere);
        let known = elsewhere.get(address).and_then(Weak::upgrade);
        known.is_some_and(|of| of.is_used())
    }

    /// Whether no connection is to be made to a relay elsewhere, since it is in use already. One of ours is
    /// not to be proved anything by another address. Another may be, if the proof is `tied` to the connection
    /// and can't be passed on: a relay that was dialed before and lies about its store is not to keep us from
    /// it. If it does not lie, it says itself that the first connection has a successor.
    pub(crate) fn is_in_use(&self, address: &str, store: StoreId, tied: bool) -> bool {
        let here = self.mailboxes.here.borrow().clone();
        here.is_ours(address)
            || here.has_at_another_address(address, store)
            || (!tied && self.other_address(address, store).is_some())
    }

    /// The other address at which a relay elsewhere with this store is connected.
    pub(crate) fn other_address(&self, address: &str, store: StoreId) -> Option<String> {
        let here = self.mailboxes.here.borrow().clone();
        let elsewhere = lock(&self.mailboxes.elsewhere);
        let mut others = elsewhere.values().filter_map(Weak::upgrade);
        let other = others.find(|of| {
            let known = here.store_at((&of.address).into());
            of.address != address && of.is_connected() && known == Some(store)
        });
        other.map(|of| of.address.clone())
    }

    /// The relays in use that are not ours, and how each of them is.
    pub(crate) fn elsewhere(&self) -> Vec<(String, watch::Receiver<RelayState>)> {
        let elsewhere: HashMap<_, _> = lock(&self.mailboxes.elsewhere).clone();
        let used = elsewhere.into_values().filter_map(|of| of.upgrade());
        let used = used.filter(|of| of.is_used());
        used.map(|of| (of.address.clone(), of.state.clone()))
            .collect()
    }
}

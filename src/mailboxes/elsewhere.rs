//! Relays that are not this node's: those of peers, and those that it has left.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Weak};

use outlive_core::PeerId;
use outlive_core::transport::RelayTransport;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::DropGuard;
use tracing::error;

use super::Mailboxes;
use crate::lock::lock;
use crate::node::Inner;
use crate::relay::{Attach, RelayState, RelayTask, RelayUse};
use crate::task::Input;

/// A relay that is not ours. It is used as long as somebody holds this.
pub(crate) struct Elsewhere {
    pub(crate) address: String,
    attach: mpsc::Sender<Attach>,
    state: watch::Receiver<RelayState>,
    _ends: DropGuard,
}

impl Elsewhere {
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
    /// The relay at an address that is none of ours, which is dialed if it is not already. `None` if it is
    /// not to be used.
    pub(crate) fn reach(self: &Arc<Self>, address: &str) -> Option<Arc<Elsewhere>> {
        let present = |elsewhere: &HashMap<_, Weak<Elsewhere>>| {
            let known = elsewhere.get(address).and_then(Weak::upgrade);
            known.filter(|known| !known.attach.is_closed())
        };
        if let Some(known) = present(&lock(&self.mailboxes.elsewhere)) {
            return Some(known);
        }
        let transport = self.mailboxes.way_to(address)?;
        let mut elsewhere = lock(&self.mailboxes.elsewhere);
        if self.cancel.is_cancelled() {
            return None;
        }
        // While the app was asked, somebody else may have asked it too.
        if let Some(known) = present(&elsewhere) {
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
        elsewhere.retain(|_, of| of.strong_count() > 0);
        elsewhere.insert(address.to_owned(), Arc::downgrade(&reached));
        Some(reached)
    }

    /// The relays in use that are not ours, and how each of them is.
    pub(crate) fn elsewhere(&self) -> Vec<(String, watch::Receiver<RelayState>)> {
        let elsewhere: HashMap<_, _> = lock(&self.mailboxes.elsewhere).clone();
        let present = elsewhere.into_values().filter_map(|of| of.upgrade());
        present
            .map(|of| (of.address.clone(), of.state.clone()))
            .collect()
    }
}

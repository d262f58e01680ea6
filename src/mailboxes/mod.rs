//! Where mail is read: by this node, which tells its peers, and by peers, whose relays it then has to reach.
//!
//! ```text
//!   relays in use ─▶ keeper ─▶ Here ─▶ sessions ─▶ what peers are told
//!                      │                  └──────▶ reach ─┐
//!                      └─ mailboxes that were left ───────┴▶ Elsewhere ─▶ links
//! ```
//!
//! A node uses relays of its own, at which it has its mailboxes. A peer may have its elsewhere: it says so on
//! channel 0, and what it is sent is left there.

mod elsewhere;
mod here;
mod keeper;
mod own;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, Weak};

use outlive_core::StoreId;
use outlive_core::transport::RelayTransport;
use tokio::sync::{Notify, watch};

pub(crate) use self::elsewhere::Elsewhere;
pub(crate) use self::here::{Here, Place};
pub(crate) use self::keeper::Keeper;
use crate::lock::lock;

/// How a relay is reached that is not one of ours; `None` if it is not to be.
pub(crate) type ForeignRelays = Box<dyn Fn(&str) -> Option<Arc<dyn RelayTransport>> + Send + Sync>;

/// Addresses of which it is remembered which relay is there. Of more, it is found out anew.
const ADDRESSES: usize = 1_024;

/// What a node knows of relays, its own and others.
pub(crate) struct Mailboxes {
    /// How others are reached, if they are to be.
    foreign: Option<ForeignRelays>,
    here: watch::Sender<Here>,
    /// What relays have said at sign-in, by their addresses.
    stores: Mutex<HashMap<String, StoreId>>,
    elsewhere: Mutex<HashMap<String, Weak<Elsewhere>>>,
    /// Rings when there is something new for the keeper.
    changed: Notify,
}

impl Mailboxes {
    pub(crate) fn new(foreign: Option<ForeignRelays>) -> Self {
        Self {
            foreign,
            here: watch::Sender::default(),
            stores: Mutex::default(),
            elsewhere: Mutex::default(),
            changed: Notify::new(),
        }
    }

    /// Whether relays are reached that are not ours. If not, peers are taken to read where we do.
    pub(crate) const fn reaches_elsewhere(&self) -> bool {
        self.foreign.is_some()
    }

    /// The relays in use.
    pub(crate) fn here(&self) -> watch::Receiver<Here> {
        self.here.subscribe()
    }

    /// Other relays are in use now.
    pub(crate) fn relays_changed(&self) {
        self.changed.notify_one();
    }

    /// We have signed in to the relay at this address. Returns whether that is one of ours under another.
    pub(crate) fn signed_in(&self, address: &str, store: StoreId) -> bool {
        let mut stores = lock(&self.stores);
        if stores.len() < ADDRESSES || stores.contains_key(address) {
            stores.insert(address.to_owned(), store);
        }
        drop(stores);
        self.changed.notify_one();
        self.here.borrow().has_at_another_address(address, store)
    }

    fn stores(&self) -> HashMap<String, StoreId> {
        lock(&self.stores).clone()
    }
}

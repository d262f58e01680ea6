//! Where mail is read: by this node, which tells its peers, and by peers, whose relays it then has to reach.
//!
//! ```text
//!   relays in use ─▶ Here ─▶ sessions ─▶ what peers are told
//!      │               ▲        └──────▶ reach ─┐
//!      └─▶ keeper ─────┴─ those that were left ─┴▶ Elsewhere ─▶ links
//! ```
//!
//! A node uses relays of its own, at which it has its mailboxes. A peer may have its elsewhere: it says so on
//! channel 0, and what it is sent is left there.

mod elsewhere;
mod here;
mod keeper;
mod own;
mod stores;

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, Weak};

use outlive_core::StoreId;
use outlive_core::transport::RelayTransport;
use tokio::sync::{Notify, watch};

pub(crate) use self::elsewhere::Elsewhere;
pub(crate) use self::here::{Here, Place};
pub(crate) use self::keeper::Keeper;
use self::stores::Stores;
use crate::lock::lock;
use crate::node::Inner;
use crate::relay::RelayUse;

/// How a relay is reached that is not one of ours; `None` if it is not to be.
pub(crate) type ForeignRelays = Box<dyn Fn(&str) -> Option<Arc<dyn RelayTransport>> + Send + Sync>;

/// Addresses that are remembered to lead where others do, or nowhere. With one more all are found out anew.
const ALIASES: usize = 1_024;

/// What a node knows of relays, its own and others.
pub(crate) struct Mailboxes {
    /// How others are reached, if they are to be.
    foreign: Option<ForeignRelays>,
    here: watch::Sender<Arc<Here>>,
    known: Mutex<Known>,
    elsewhere: Mutex<HashMap<String, Weak<Elsewhere>>>,
    /// Rings when there is something new for the keeper.
    changed: Notify,
}

#[derive(Default)]
struct Known {
    stores: Stores,
    /// The addresses at which we have read and do no more, but for what may wait there.
    left: Vec<String>,
    /// Relays elsewhere that could not be reached for long.
    unreachable: BTreeSet<String>,
    /// Addresses that were found to lead to a relay elsewhere that has another.
    aliases: HashMap<String, String>,
}

impl Known {
    /// A relay elsewhere can't be reached. Returns whether that is news.
    fn lose(&mut self, address: &str) -> bool {
        if self.unreachable.len() >= ALIASES {
            self.unreachable.clear();
        }
        self.unreachable.insert(address.to_owned())
    }

    fn is_left(&self, address: &str) -> bool {
        self.left.iter().any(|left| left == address)
    }

    /// These relays are in use now: any other at which we have read is left. The keeper finds out which of
    /// those can be read; until then nobody is to believe that peers have moved along with us. Who uses none
    /// at the moment has not moved.
    fn uses(&mut self, relays: &[String]) {
        if relays.is_empty() {
            return;
        }
        self.left.retain(|left| !relays.contains(left));
        let home = self.stores.home();
        let in_use = |store| relays.iter().any(|of| home.get(of) == Some(store));
        let gone = home
            .iter()
            .filter(|(of, store)| !relays.contains(of) && !in_use(store) && !self.is_left(of));
        let mut gone: Vec<_> = gone.map(|(of, _)| of.clone()).collect();
        gone.sort();
        self.left.splice(0..0, gone);
    }
}

impl Mailboxes {
    pub(crate) fn new(foreign: Option<ForeignRelays>) -> Self {
        Self {
            foreign,
            here: watch::Sender::default(),
            known: Mutex::default(),
            elsewhere: Mutex::default(),
            changed: Notify::new(),
        }
    }

    /// Whether relays are reached that are not ours. If not, peers are taken to read where we do.
    pub(crate) const fn reaches_elsewhere(&self) -> bool {
        self.foreign.is_some()
    }

    /// What is known of relays now.
    pub(crate) fn here(&self) -> watch::Receiver<Arc<Here>> {
        self.here.subscribe()
    }
}

impl Inner {
    /// Other relays are in use now.
    pub(crate) fn relays_changed(&self) {
        lock(&self.mailboxes.known).uses(&self.relay_addresses());
        self.publish_here();
        self.mailboxes.changed.notify_one();
    }

    /// A relay has said at sign-in which it is.
    pub(crate) fn signed_in(&self, used: &RelayUse, store: StoreId) {
        if !self.mailboxes.reaches_elsewhere() {
            return;
        }
        let RelayUse { address, home } = used;
        let mut known = lock(&self.mailboxes.known);
        let news = known
            .stores
            .note(address, *home, store, |of| self.is_reached(of));
        let back = known.unreachable.remove(address) | known.aliases.remove(address).is_some();
        drop(known);
        match news || back {
            true if *home => self.relays_changed(),
            true => self.publish_here(),
            false => {}
        }
    }

    /// A relay elsewhere is in use at another address, ours or elsewhere: it is not used at this one.
    pub(crate) fn note_alias(&self, address: &str, store: StoreId) {
        let other = self.other_address(address, store);
        let mut known = lock(&self.mailboxes.known);
        known
            .stores
            .note(address, false, store, |of| self.is_reached(of));
        if let Some(other) = other {
            if known.aliases.len() >= ALIASES {
                known.aliases.clear();
            }
            // What led here leads there: one step is enough to find it.
            for to in known.aliases.values_mut().filter(|to| *to == address) {
                to.clone_from(&other);
            }
            known.aliases.remove(&other);
            known.aliases.insert(address.to_owned(), other);
        }
        drop(known);
        self.publish_here();
    }

    /// Whether there is a mailbox of ours, or was.
    pub(crate) fn reads_at(&self, used: &RelayUse) -> bool {
        used.home || lock(&self.mailboxes.known).is_left(&used.address)
    }

    /// A relay elsewhere can't be reached, for long.
    pub(crate) fn unreachable(&self, address: &str) {
        let mut known = lock(&self.mailboxes.known);
        let (news, left) = (known.lose(address), known.is_left(address));
        drop(known);
        if news {
            self.publish_here();
        }
        if news && left {
            // It may have another address.
            self.mailboxes.changed.notify_one();
        }
    }

    /// A relay elsewhere is used no more. Whoever holds it hears of it if it was found to be in use at another
    /// address. `useless`: its own can never work.
    pub(crate) fn left_elsewhere(&self, address: &str, in_use: bool, useless: bool) {
        let mut known = lock(&self.mailboxes.known);
        if useless {
            known.lose(address);
        } else {
            known.unreachable.remove(address);
        }
        drop(known);
        self.publish_here();
        if in_use {
            self.mailboxes.here.send_modify(|_| {});
            self.mailboxes.changed.notify_one();
        }
    }

    /// Lets sessions see what is known.
    fn publish_here(&self) {
        // All under the lock, so that the last word is the last.
        let known = lock(&self.mailboxes.known);
        let here = Here::new(self.relay_addresses(), &known);
        self.mailboxes.here.send_if_modified(|before| {
            let changed = **before != here;
            *before = Arc::new(here);
            changed
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_uses_other_relays_than_before_has_left_those() {
        let mut known = Known::default();
        let mut uses = |relays: &[&str]| {
            for relay in ["a", "b", "alias of b", "c"] {
                let store = StoreId([relay.bytes().last().unwrap_or_default(); 16]);
                known.stores.remember(relay, store);
            }
            known.uses(&relays.iter().map(|of| (*of).to_owned()).collect::<Vec<_>>());
            known.left.clone()
        };
        assert_eq!(uses(&["a", "b", "c"]), [""; 0]);
        assert_eq!(uses(&["b", "c"]), ["a"]);
        assert_eq!(uses(&["alias of b"]), ["c", "a"], "the last first");
        assert_eq!(uses(&[]), ["c", "a"], "nobody moves to nowhere");
        assert_eq!(uses(&["a"]), ["alias of b", "b", "c"]);
    }
}

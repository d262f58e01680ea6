//! What sessions see of the relays that this node uses.

use std::collections::{BTreeSet, HashMap};

use outlive_core::limits::MAILBOXES;
use outlive_core::{Mailbox, StoreId, is_relay_address};

use super::stores::Stores;

/// A relay, as somebody says where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place<'a> {
    pub(crate) relay: &'a str,
    pub(crate) store: Option<StoreId>,
}

impl<'a> From<&'a Mailbox> for Place<'a> {
    fn from(mailbox: &'a Mailbox) -> Self {
        Self {
            relay: &mailbox.relay,
            store: Some(mailbox.store),
        }
    }
}

impl<'a> From<&'a String> for Place<'a> {
    fn from(relay: &'a String) -> Self {
        Self { relay, store: None }
    }
}

/// The relays in use, as far as it is known which they are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Here {
    /// The addresses of our own, the best first.
    relays: Vec<String>,
    /// Which relay is where.
    stores: HashMap<String, StoreId>,
    /// Where we have read, and still look.
    left: Vec<String>,
    /// Relays elsewhere that could not be reached for long.
    unreachable: BTreeSet<String>,
}

impl Here {
    pub(super) fn new(
        relays: Vec<String>,
        stores: &Stores,
        left: &[String],
        unreachable: &BTreeSet<String>,
    ) -> Self {
        let stores = stores
            .all()
            .map(|(address, store)| (address.clone(), store));
        Self {
            relays,
            stores: stores.collect(),
            left: left.to_vec(),
            unreachable: unreachable.clone(),
        }
    }

    /// What peers are told.
    pub(crate) fn mailboxes(&self) -> Vec<Mailbox> {
        let relays = self.relays.iter().filter(|relay| is_relay_address(relay));
        let known = relays.filter_map(|relay| {
            let (relay, store) = (relay.clone(), *self.stores.get(relay)?);
            Some(Mailbox { store, relay })
        });
        known.take(MAILBOXES).collect()
    }

    /// Which relay is at a place: as it has said itself, or as it is said of it.
    pub(crate) fn store_at(&self, place: Place<'_>) -> Option<StoreId> {
        self.stores.get(place.relay).copied().or(place.store)
    }

    /// Whether one of our own is there.
    pub(crate) fn has(&self, place: Place<'_>) -> bool {
        let store = self.store_at(place);
        let is_it = |of: &String| of == place.relay || self.is_at(of, store);
        self.relays.iter().any(is_it)
    }

    /// Whether the relay with this store is at an address.
    fn is_at(&self, address: &str, store: Option<StoreId>) -> bool {
        let known = self.stores.get(address).copied();
        known.is_some() && known == store
    }

    /// Whether one of our own has this store at another address than this.
    pub(super) fn has_at_another_address(&self, address: &str, store: StoreId) -> bool {
        let mut others = self.relays.iter().filter(|of| *of != address);
        others.any(|of| self.is_at(of, Some(store)))
    }

    pub(crate) fn left(&self) -> &[String] {
        &self.left
    }

    pub(crate) fn is_unreachable(&self, place: Place<'_>) -> bool {
        self.unreachable.contains(place.relay)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store(n: u8) -> StoreId {
        StoreId([n; 16])
    }

    fn here(known: &[(&str, u8)]) -> Here {
        let mut stores = Stores::default();
        for (address, n) in known {
            stores.note(address, *address == "wss://ours", store(*n), |_| true);
        }
        let relays = vec!["wss://ours".to_owned(), "wss://new".to_owned()];
        Here::new(relays, &stores, &[], &BTreeSet::new())
    }

    fn at(relay: &str, n: Option<u8>) -> Place<'_> {
        let store = n.map(store);
        Place { relay, store }
    }

    #[test]
    fn a_relay_is_ours_by_its_address_or_its_store() {
        let here = here(&[("wss://ours", 1), ("wss://alias", 1), ("wss://theirs", 2)]);
        for (place, ours) in [
            (at("wss://ours", None), true),
            (at("wss://ours", Some(7)), true),
            (at("wss://new", Some(7)), true),
            (at("wss://other-name", Some(1)), true),
            (at("wss://alias", None), true),
            (at("wss://theirs", None), false),
            (at("wss://unknown", None), false),
        ] {
            assert_eq!(here.has(place), ours, "{place:?}");
        }
    }

    #[test]
    fn what_we_have_seen_ourselves_counts_more_than_what_is_said() {
        let here = here(&[("wss://ours", 1), ("wss://alias", 1), ("wss://theirs", 2)]);
        assert!(here.has(at("wss://alias", Some(7))));
        assert!(!here.has(at("wss://theirs", Some(1))));
    }

    #[test]
    fn only_relays_that_are_known_are_told() {
        let told = here(&[("wss://ours", 1)]).mailboxes();
        let relays: Vec<_> = told.iter().map(|mailbox| &*mailbox.relay).collect();
        assert_eq!(relays, ["wss://ours"]);
    }
}

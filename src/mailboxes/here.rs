//! What sessions see of the relays that this node uses.

use std::collections::{BTreeSet, HashMap};

use outlive_core::limits::MAILBOXES;
use outlive_core::{Mailbox, StoreId, is_relay_address};

use super::Known;

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
    /// Where we read no more but for what may wait there, as far as it is reached; the last first.
    left: Vec<String>,
    /// Relays elsewhere that could not be reached for long.
    unreachable: BTreeSet<String>,
    /// Addresses that lead to a relay elsewhere that has another.
    aliases: HashMap<String, String>,
}

impl Here {
    pub(super) fn new(relays: Vec<String>, known: &Known) -> Self {
        let stores = known.stores.all();
        let stores = stores.map(|(address, store)| (address.clone(), store));
        Self {
            relays,
            stores: stores.collect(),
            left: known.left.clone(),
            unreachable: known.unreachable.clone(),
            aliases: known.aliases.clone(),
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

    /// The addresses of relays at which we read no more, the last first.
    pub(crate) fn left(&self) -> &[String] {
        &self.left
    }

    /// Whether none of those can be reached.
    pub(crate) fn has_lost_all_left(&self) -> bool {
        self.left.iter().all(|of| self.is_unreachable(of))
    }

    pub(crate) fn is_unreachable(&self, address: &str) -> bool {
        self.unreachable.contains(address)
    }

    /// Whether this address is one of our own.
    pub(super) fn is_ours(&self, address: &str) -> bool {
        self.relays.iter().any(|of| of == address)
    }

    /// Under which address a relay elsewhere is used.
    pub(super) fn alias_of<'a>(&'a self, address: &'a str) -> &'a str {
        self.aliases.get(address).map_or(address, String::as_str)
    }

    /// Whether the relay of a link is at a place. One of ours is known by its store, `ours`; what others say
    /// of theirs is not to bring them what is meant for somebody else.
    pub(crate) fn is_at_place(
        &self,
        address: &str,
        ours: Option<StoreId>,
        place: Place<'_>,
    ) -> bool {
        let is_it = match ours {
            Some(store) => self.store_at(place) == Some(store),
            None => self.alias_of(place.relay) == address,
        };
        is_it || address == place.relay
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store(n: u8) -> StoreId {
        StoreId([n; 16])
    }

    fn here(known: &[(&str, u8)]) -> Here {
        let mut all = Known::default();
        for (address, n) in known {
            let home = *address == "wss://ours";
            all.stores.note(address, home, store(*n), |_| true);
        }
        let relays = vec!["wss://ours".to_owned(), "wss://new".to_owned()];
        Here::new(relays, &all)
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
    fn a_relay_elsewhere_gets_nothing_for_what_it_says_its_store_is() {
        let mut here = here(&[("wss://ours", 1), ("wss://theirs", 2), ("wss://liar", 2)]);
        let is_at = |here: &Here, place| here.is_at_place("wss://liar", None, place);
        assert!(!is_at(&here, at("wss://theirs", Some(2))));
        assert!(is_at(&here, at("wss://liar", None)));
        here.aliases
            .insert("wss://theirs".to_owned(), "wss://liar".to_owned());
        assert!(is_at(&here, at("wss://theirs", Some(2))), "found out");
        let place = at("wss://other-name", Some(1));
        assert!(here.is_at_place("wss://ours", Some(store(1)), place));
    }

    #[test]
    fn only_relays_that_are_known_are_told() {
        let told = here(&[("wss://ours", 1)]).mailboxes();
        let relays: Vec<_> = told.iter().map(|mailbox| &*mailbox.relay).collect();
        assert_eq!(relays, ["wss://ours"]);
    }
}

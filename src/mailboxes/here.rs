//! The relays that a node uses itself.

use std::collections::HashMap;

use outlive_core::limits::MAILBOXES;
use outlive_core::{Mailbox, StoreId, is_relay_address};

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
    relays: Vec<(String, Option<StoreId>)>,
    /// What other addresses lead to.
    others: HashMap<String, StoreId>,
}

impl Here {
    /// `stores` are the relays that are known to be at their addresses.
    pub(super) fn new(relays: Vec<String>, stores: &HashMap<String, StoreId>) -> Self {
        let relays: Vec<_> = relays
            .into_iter()
            .map(|address| {
                let store = stores.get(&address).copied();
                (address, store)
            })
            .collect();
        let mut here = Self {
            relays,
            others: HashMap::new(),
        };
        let ours = |(address, store): &(&String, &StoreId)| {
            here.has_at_another_address(address.as_str(), **store)
        };
        let others = stores.iter().filter(ours);
        here.others = others.map(|(of, store)| (of.clone(), *store)).collect();
        here
    }

    /// What peers are told.
    pub(crate) fn mailboxes(&self) -> Vec<Mailbox> {
        let relays = self.relays.iter();
        let known = relays.filter_map(|(relay, store)| {
            let (relay, store) = (relay.clone(), (*store)?);
            is_relay_address(&relay).then_some(Mailbox { store, relay })
        });
        known.take(MAILBOXES).collect()
    }

    /// Whether one of the relays is there.
    pub(crate) fn has(&self, place: Place<'_>) -> bool {
        let Place { relay, store } = place;
        let store = store.or_else(|| self.others.get(relay).copied());
        let mut relays = self.relays.iter();
        relays.any(|(address, known)| address == relay || (known.is_some() && *known == store))
    }

    /// Whether the relay at an address is one of these, which has another here.
    pub(super) fn has_at_another_address(&self, address: &str, store: StoreId) -> bool {
        let at = |(known, _): &(String, Option<StoreId>)| known == address;
        !self.relays.iter().any(at) && self.relays.iter().any(|(_, known)| *known == Some(store))
    }
}

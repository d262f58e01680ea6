//! Which relay is at which address, as relays have said at sign-in.

use std::collections::HashMap;

use outlive_core::StoreId;

/// Addresses elsewhere of which it is remembered which relay is there. Of more, those that are not in use are
/// forgotten.
const ELSEWHERE: usize = 1_024;

/// The relays that are known to be at their addresses.
#[derive(Clone, Debug, Default)]
pub(super) struct Stores {
    /// Of the relays that are ours: as many as the app uses.
    home: HashMap<String, StoreId>,
    elsewhere: HashMap<String, StoreId>,
}

impl Stores {
    /// Returns whether that is news.
    pub(super) fn note(
        &mut self,
        address: &str,
        home: bool,
        store: StoreId,
        is_used: impl Fn(&str) -> bool,
    ) -> bool {
        if !home && self.elsewhere.len() >= ELSEWHERE && !self.elsewhere.contains_key(address) {
            self.elsewhere.retain(|of, _| is_used(of));
            if self.elsewhere.len() >= ELSEWHERE {
                return false;
            }
        }
        if let Some(known) = self.home.get_mut(address).filter(|_| !home) {
            // It was ours. What was seen last counts.
            *known = store;
        }
        let of = if home {
            &mut self.home
        } else {
            &mut self.elsewhere
        };
        of.insert(address.to_owned(), store) != Some(store)
    }

    /// What was said before this start counts until something else is said.
    pub(super) fn remember(&mut self, address: &str, store: StoreId) {
        self.home.entry(address.to_owned()).or_insert(store);
    }

    /// Forgets those of ours that are so no more.
    pub(super) fn keep(&mut self, is_ours: impl Fn(&String) -> bool) {
        self.home.retain(|of, _| is_ours(of));
    }

    /// Those of the relays that are ours, or were.
    pub(super) const fn home(&self) -> &HashMap<String, StoreId> {
        &self.home
    }

    /// All of them, ours last: those count where both are known.
    pub(super) fn all(&self) -> impl Iterator<Item = (&String, StoreId)> {
        let all = self.elsewhere.iter().chain(&self.home);
        all.map(|(address, store)| (address, *store))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn however_many_others_there_are_our_own_are_known() {
        let (mut stores, one, other) = (Stores::default(), StoreId([1; 16]), StoreId([2; 16]));
        for n in 0..ELSEWHERE {
            assert!(stores.note(&format!("wss://{n}"), false, other, |_| true));
        }
        assert!(!stores.note("wss://more", false, other, |_| true));
        assert!(stores.note("wss://ours", true, one, |_| true));
        assert!(
            !stores.note("wss://ours", true, one, |_| true),
            "it is known"
        );
        assert!(stores.note("wss://more", false, other, |of| of == "wss://7"));
        let all: HashMap<_, _> = stores.all().collect();
        let known = ["wss://ours", "wss://7", "wss://more", "wss://8"];
        let known = known.map(|of| all.get(&of.to_owned()).copied());
        assert_eq!(known, [Some(one), Some(other), Some(other), None]);
        stores.remember("wss://ours", other);
        assert_eq!(stores.home()["wss://ours"], one, "that is newer");
    }
}

//! The mailboxes that this node has, and those that it had.

use std::collections::HashMap;

use outlive_core::limits::LEFT_MAILBOX_TIME;
use outlive_core::record::{OwnMailbox, OwnMailboxesRecord};
use outlive_core::{Mailbox, StoreId, StoreTime};

/// Mailboxes that were left and are read. Of one more the first that was left is read no longer.
const LEFT: usize = 16;

/// What becomes of the mailboxes now that these relays are in use, and these were signed in to. One that is
/// in use no more is left, and forgotten when nothing can wait there any more. Who uses none at the moment has
/// not moved.
pub(super) fn updated(
    before: &OwnMailboxesRecord,
    relays: &[String],
    stores: &HashMap<String, StoreId>,
    now: StoreTime,
) -> OwnMailboxesRecord {
    let mut mailboxes: Vec<_> = before.mailboxes.clone();
    for of in &mut mailboxes {
        if relays.contains(&of.mailbox.relay) {
            of.left = None;
        } else if !relays.is_empty() {
            of.left.get_or_insert(now);
        }
    }
    // Those that we signed in to, perhaps for a moment.
    let mut signed_in: Vec<_> = stores.iter().collect();
    signed_in.sort();
    for (relay, &store) in signed_in {
        let is_left = !relays.is_empty() && !relays.contains(relay);
        let known = mailboxes.iter_mut().find(|of| of.mailbox.relay == *relay);
        match known {
            Some(known) => known.mailbox.store = store,
            None => mailboxes.push(OwnMailbox {
                mailbox: Mailbox {
                    store,
                    relay: relay.clone(),
                },
                left: is_left.then_some(now),
            }),
        }
    }
    mailboxes.retain(|of| {
        of.left
            .is_none_or(|left| now < left.plus(LEFT_MAILBOX_TIME))
    });
    let left = mailboxes.iter().filter(|of| of.left.is_some()).count();
    for _ in LEFT..left {
        let first = mailboxes.iter().filter_map(|of| of.left).min();
        if let Some(at) = mailboxes.iter().position(|of| of.left == first) {
            mailboxes.remove(at);
        }
    }
    OwnMailboxesRecord {
        mailboxes,
        announced: before.announced.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 86_400_000;

    fn at(relays: &[&str]) -> (Vec<String>, HashMap<String, StoreId>) {
        let relays: Vec<_> = relays.iter().map(|relay| (*relay).to_owned()).collect();
        let store = |relay: &String| StoreId([relay.as_bytes()[0]; 16]);
        let stores = relays.iter().map(|relay| (relay.clone(), store(relay)));
        (relays.clone(), stores.collect())
    }

    fn names(record: &OwnMailboxesRecord) -> Vec<(&str, Option<u64>)> {
        let name = |of: &'_ OwnMailbox| of.left.map(|left| left.0 / DAY);
        let mailboxes = record.mailboxes.iter();
        mailboxes
            .map(|of| (of.mailbox.relay.as_str(), name(of)))
            .collect()
    }

    fn move_to(record: &mut OwnMailboxesRecord, relays: &[&str], day: u64) {
        let (relays, stores) = at(relays);
        *record = updated(record, &relays, &stores, StoreTime(day * DAY));
    }

    #[test]
    fn a_mailbox_that_is_left_is_read_for_as_long_as_something_may_wait_there() {
        let mut record = OwnMailboxesRecord::default();
        move_to(&mut record, &["a", "b"], 0);
        assert_eq!(names(&record), [("a", None), ("b", None)]);
        move_to(&mut record, &["c"], 1);
        assert_eq!(
            names(&record),
            [("a", Some(1)), ("b", Some(1)), ("c", None)]
        );
        move_to(&mut record, &["c", "a"], 2);
        assert_eq!(names(&record), [("a", None), ("b", Some(1)), ("c", None)]);
        move_to(&mut record, &["c"], 30);
        assert_eq!(
            names(&record),
            [("a", Some(30)), ("b", Some(1)), ("c", None)]
        );
        move_to(&mut record, &["c"], 31);
        assert_eq!(names(&record), [("a", Some(30)), ("c", None)]);
    }

    #[test]
    fn who_uses_no_relay_has_not_moved() {
        let mut record = OwnMailboxesRecord::default();
        move_to(&mut record, &["a"], 0);
        move_to(&mut record, &[], 1);
        assert_eq!(names(&record), [("a", None)]);
    }

    #[test]
    fn a_relay_that_was_never_reached_is_no_mailbox() {
        let (relays, _) = at(&["a"]);
        let record = updated(
            &OwnMailboxesRecord::default(),
            &relays,
            &HashMap::new(),
            StoreTime(0),
        );
        assert_eq!(names(&record), []);
    }

    #[test]
    fn one_that_was_ours_for_a_moment_is_left_too() {
        let (_, stores) = at(&["a", "b"]);
        let (relays, _) = at(&["b"]);
        let record = updated(
            &OwnMailboxesRecord::default(),
            &relays,
            &stores,
            StoreTime(DAY),
        );
        assert_eq!(names(&record), [("a", Some(1)), ("b", None)]);
    }

    #[test]
    fn no_more_are_read_than_the_limit_says() {
        let mut record = OwnMailboxesRecord::default();
        for n in 0..=LEFT as u64 + 1 {
            move_to(&mut record, &[&format!("{n}")], n);
        }
        let left = record.mailboxes.iter().filter(|of| of.left.is_some());
        assert_eq!(left.count(), LEFT);
        assert_eq!(names(&record).first().map(|(name, _)| *name), Some("1"));
    }
}

//! A link that is given up while its mailbox holds what there was no room for: nobody asks for that any
//! more, as the next link brings it.

use bytes::Bytes;
use outlive_core::Generation;
use outlive_core::engine::{DropReason, Output, Taken};
use outlive_core::limits::{FORGED_PACKETS, LINKS};

use super::full;
use super::side::{LINK, ONE, RELAYED, Side, message, pack};

/// A receiver with a relay, whose mailbox holds what its full inbox has no room for.
fn crowded() -> Side {
    let mut side = full(2);
    let taken = side.receive(Some(3), pack(&[message(ONE, 3)]));
    assert_eq!(taken, Taken::NoRoom);
    side
}

/// Why the engine gives up its first link, if it does.
fn given_up(side: &mut Side) -> Option<DropReason> {
    std::iter::from_fn(|| side.engine.poll()).find_map(|output| match output {
        Output::Drop { generation, reason } if generation == LINK => Some(reason),
        _ => None,
    })
}

fn asks_for_what_was_parked(mut side: Side) -> bool {
    side.commit(ONE, 8);
    side.commit(ONE, 8);
    side.redelivers > 0
}

#[test]
fn a_link_given_up_for_a_violation_is_not_asked_for_what_was_parked() {
    let mut side = crowded();
    for _ in 0..FORGED_PACKETS {
        let junk = Bytes::from_static(b"\xffno packet");
        side.engine.receive(LINK, None, junk, side.now);
    }
    let reason = given_up(&mut side);
    assert!(matches!(reason, Some(DropReason::Violation(_))));
    assert!(!asks_for_what_was_parked(side));
}

#[test]
fn a_link_that_goes_for_a_newer_one_is_not_asked_for_what_was_parked() {
    let mut side = crowded();
    let newer = (2..).map(|n| Generation::nth(1, n));
    for generation in newer.take(LINKS) {
        side.engine.bind(generation, RELAYED, 0, side.now);
    }
    assert_eq!(given_up(&mut side), Some(DropReason::TooMany));
    assert!(!asks_for_what_was_parked(side));
}

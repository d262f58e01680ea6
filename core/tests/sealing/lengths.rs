//! The length of a packet that somebody else carries tells little of what is in it.

use std::collections::BTreeSet;

use outlive_core::Padding;
use outlive_core::link::LinkClass;

use crate::world::{ALICE, BOB, World};

/// Lengths of the packets that carry messages of so many bytes, and of what comes of them.
fn lengths(world: &mut World, messages: impl IntoIterator<Item = usize>) -> BTreeSet<usize> {
    let from = world.seen.len();
    for length in messages {
        world.send(ALICE, &"x".repeat(length));
        world.settle();
    }
    let seen = world.seen[from..].iter();
    seen.map(|seen| seen.packet.len()).collect()
}

#[test]
fn all_that_people_type_has_one_length_at_the_relay_and_so_has_the_word_that_it_came() {
    let mut world = World::acquainted(World::relayed_class());
    assert_eq!(lengths(&mut world, 1..150), BTreeSet::from([301]));
    let long = lengths(&mut world, (1_000..9_000).step_by(50));
    assert!(long.len() < 60, "{long:?}");
}

#[test]
fn first_contact_shows_as_little() {
    let [short, long] = [1, 100].map(|length| {
        let mut world = World::relayed();
        world.bind(ALICE);
        world.send(ALICE, &"x".repeat(length));
        world.flush_all(ALICE);
        let lengths = world.seen.iter().map(|seen| seen.packet.len());
        lengths.collect::<Vec<_>>()
    });
    assert!(!short.is_empty());
    assert_eq!(short, long);
}

#[test]
fn what_goes_directly_or_is_not_to_be_padded_has_the_length_it_has() {
    for class in [World::relayed_class(), LinkClass::Direct] {
        let mut world = World::acquainted(class);
        if class != LinkClass::Direct {
            for who in [ALICE, BOB] {
                let engine = world.peers[who].engine.as_mut().expect("it runs");
                engine.set_padding(Padding::Never);
            }
        }
        assert!(lengths(&mut world, 1..100).len() > 90, "{class:?}");
    }
}

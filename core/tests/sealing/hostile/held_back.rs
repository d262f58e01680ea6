//! Packets that are held back, and come when their time is over.

use std::time::Duration;

use outlive_core::limits::KEY_LIFE;
use outlive_core::seal::KIND_SEALED;

use crate::world::{ALICE, BOB, World};

#[test]
fn of_a_packet_sealed_by_itself_that_is_too_old_only_the_handshake_counts() {
    let mut world = World::relayed();
    world.bind(ALICE);
    world.send(ALICE, "first contact");
    world.flush_all(ALICE);
    let recorded: Vec<_> = world.seen.iter().map(|seen| seen.packet.clone()).collect();
    assert!(!recorded.is_empty());
    world.wire.clear();
    world.unbind(ALICE);
    // Bob's clock says that it is older than anything a relay may keep.
    let sent = world.now.wall;
    world.now.wall = sent.plus(KEY_LIFE + Duration::from_secs(1));
    world.bind(BOB);
    for packet in recorded {
        world.deliver(BOB, packet);
    }
    world.flush_all(BOB);
    world.listen();
    assert!(world.heard[BOB].is_empty(), "{:?}", world.heard[BOB]);
    let bob = world.peers[BOB].engine.as_ref().unwrap();
    assert!(!bob.session().keys.associations.is_empty(), "no answer");
    // His clock was wrong, and Alice is there: nothing is lost.
    world.now.wall = sent;
    world.bind(ALICE);
    world.settle();
    world.pass(Duration::from_secs(60));
    assert_eq!(world.heard[BOB], ["first contact"]);
}

#[test]
fn an_initiation_held_back_makes_nobody_doubt_keys_that_are_in_use() {
    let mut world = World::relayed();
    world.bind(ALICE);
    world.bind(BOB);
    world.send(ALICE, "hello");
    world.flush_all(ALICE);
    // The relay keeps everything of the first minute for itself; Alice asks again.
    let held: Vec<_> = world.wire.drain(..).collect();
    world.now.elapsed += Duration::from_secs(60);
    world.peers[ALICE].tick(world.now);
    world.settle();
    world.pass(Duration::from_secs(60));
    world.still_works();
    for seen in held {
        world.deliver(seen.to, seen.packet);
    }
    world.flush_all(BOB);
    let before = world.seen.len();
    world.send(BOB, "under the keys there are");
    world.flush_all(BOB);
    assert!(!world.kinds(before).is_empty());
    assert!(world.kinds(before).iter().all(|kind| *kind == KIND_SEALED));
}

#[test]
fn the_last_initiation_held_back_makes_nobody_doubt_keys_that_are_in_use() {
    let mut world = World::relayed();
    world.bind(ALICE);
    world.bind(BOB);
    world.send(ALICE, "hello");
    world.flush_all(ALICE);
    // Of what Alice says before there are keys the relay keeps the last for itself.
    let first: Vec<_> = world.wire.drain(..).collect();
    world.now.elapsed += Duration::from_secs(60);
    world.peers[ALICE].tick(world.now);
    world.flush_all(ALICE);
    let held: Vec<_> = world.seen.split_off(first.len());
    world.wire = first.into();
    world.settle();
    world.pass(Duration::from_secs(60));
    world.still_works();
    for seen in held {
        world.deliver(seen.to, seen.packet);
    }
    world.flush_all(BOB);
    let before = world.seen.len();
    world.send(BOB, "under the keys there are");
    world.flush_all(BOB);
    assert!(!world.kinds(before).is_empty());
    assert!(world.kinds(before).iter().all(|kind| *kind == KIND_SEALED));
}

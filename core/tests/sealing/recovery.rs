//! What brings two peers together again whose keys, stores or clocks have come apart.

use std::time::Duration;

use bytes::Bytes;
use outlive_core::link::LinkClass;
use outlive_core::seal::KIND_SEALED;
use outlive_core::{Epoch, WallTime};

use crate::world::{ALICE, BOB, World};

/// The first byte of what names the keys of a packet.
const LOCATOR: usize = 1;

const DAY: Duration = Duration::from_secs(24 * 3_600);

/// A message each way arrives, and each side hears that it did.
fn both_ways(world: &mut World) {
    world.send(ALICE, "from alice");
    world.send(BOB, "from bob");
    world.settle();
    world.pass(Duration::from_secs(3_600));
    // After a loss a message may come again, marked.
    let last = |who: usize| {
        let last = world.heard[who].last().map(String::as_str);
        last.map(|text| text.trim_start_matches("again: "))
    };
    assert_eq!(
        [last(ALICE), last(BOB)],
        [Some("from bob"), Some("from alice")]
    );
    for (who, name) in [(ALICE, "alice"), (BOB, "bob")] {
        let engine = world.peers[who].engine.as_ref().unwrap();
        assert!(
            !engine.outstanding(),
            "{name} does not hear that the message arrived"
        );
    }
}

fn restart(world: &mut World, who: usize) {
    world.crash(who);
    world.start(who);
    world.bind(who);
}

fn lose_store(world: &mut World, who: usize) {
    world.lose_store(who);
}

fn turn_clock_back(world: &mut World, time: Duration) {
    let time = u64::try_from(time.as_millis()).unwrap();
    world.now.wall = WallTime(world.now.wall.0 - time);
}

/// Alice writes to Bob, who hears her; his answer is lost.
fn half_acquainted() -> World {
    let mut world = World::relayed();
    world.bind(ALICE);
    world.bind(BOB);
    world.send(ALICE, "early");
    world.flush_all(ALICE);
    for seen in std::mem::take(&mut world.wire) {
        world.deliver(seen.to, seen.packet);
    }
    world.flush_all(BOB);
    world.wire.clear();
    world
}

#[test]
fn a_clock_that_went_back_before_there_were_keys_keeps_nobody_apart() {
    let mut world = half_acquainted();
    turn_clock_back(&mut world, DAY);
    restart(&mut world, ALICE);
    both_ways(&mut world);
}

#[test]
fn a_store_lost_and_a_clock_back_before_there_were_keys_keep_nobody_apart() {
    let mut world = half_acquainted();
    turn_clock_back(&mut world, DAY);
    lose_store(&mut world, ALICE);
    both_ways(&mut world);
}

#[test]
fn a_store_from_before_many_packets_catches_up() {
    let mut world = World::acquainted(World::relayed_class());
    let snapshot = world.peers[ALICE].disk.clone();
    for n in 0..3 {
        restart(&mut world, ALICE);
        world.send(ALICE, &format!("{n}"));
        world.settle();
    }
    world.crash(ALICE);
    world.peers[ALICE].disk = snapshot;
    world.start(ALICE);
    world.bind(ALICE);
    both_ways(&mut world);
}

/// As by a relay that kept a packet back until its sender had gone to where it was before it sealed it.
#[test]
fn a_store_that_went_back_is_heard_though_what_was_sealed_before_comes_afterwards() {
    let mut world = World::acquainted(World::relayed_class());
    let snapshot = world.peers[BOB].disk.clone();
    for _ in 0..3 {
        restart(&mut world, BOB);
        world.flush_all(BOB);
    }
    world.send(BOB, "late");
    world.flush_all(BOB);
    let late = world.wire.pop_back().expect("a packet").packet;
    assert_eq!(late[0], KIND_SEALED);
    world.wire.clear();
    world.crash(BOB);
    world.peers[BOB].disk = snapshot;
    world.start(BOB);
    world.bind(BOB);
    both_ways(&mut world);
    world.deliver(ALICE, late);
    world.settle();
    both_ways(&mut world);
}

#[test]
fn a_handshake_that_turned_out_to_be_needless_is_over_after_a_restart_too() {
    let mut world = World::acquainted(World::relayed_class());
    // Bob says again how far he is, of which nothing has to be written.
    let before = world.seen.len();
    world.send(ALICE, "still here");
    world.settle();
    let sent = world.seen[before].packet.clone();
    world.pass(Duration::from_secs(3_600));
    world.deliver(BOB, sent);
    world.flush_all(BOB);
    let sealed = world.wire.pop_back().expect("a packet").packet;
    // Anybody can make a packet that names keys which nobody has.
    let mut unknown = sealed.to_vec();
    unknown[LOCATOR] ^= 1;
    world.deliver(ALICE, unknown.into());
    world.flush_all(ALICE);
    let begun = |world: &World| {
        let engine = world.peers[ALICE].engine.as_ref().unwrap();
        engine.session().keys.pending.is_some()
    };
    assert!(begun(&world));
    world.deliver(ALICE, sealed);
    world.flush_all(ALICE);
    restart(&mut world, ALICE);
    assert!(!begun(&world), "bob has the keys");
}

#[test]
fn a_peer_that_lost_its_store_and_whose_clock_went_back_is_found_again() {
    let mut world = World::acquainted(World::relayed_class());
    turn_clock_back(&mut world, DAY);
    lose_store(&mut world, ALICE);
    both_ways(&mut world);
}

#[test]
fn a_store_from_before_a_change_of_keys_catches_up() {
    let mut world = World::acquainted(World::relayed_class());
    let snapshot = world.peers[ALICE].disk.clone();
    // Bob forgets everything, and the two agree anew.
    lose_store(&mut world, BOB);
    both_ways(&mut world);
    world.crash(ALICE);
    world.peers[ALICE].disk = snapshot;
    world.start(ALICE);
    world.bind(ALICE);
    both_ways(&mut world);
}

#[test]
fn two_stores_from_different_times_come_together() {
    let mut world = World::acquainted(World::relayed_class());
    let old = world.peers[ALICE].disk.clone();
    lose_store(&mut world, ALICE);
    both_ways(&mut world);
    let new = world.peers[BOB].disk.clone();
    for (who, disk) in [(ALICE, old), (BOB, new)] {
        world.crash(who);
        world.peers[who].disk = disk;
        world.start(who);
        world.bind(who);
    }
    both_ways(&mut world);
}

#[test]
fn a_peer_that_was_away_for_a_hundred_days_of_traffic_opens_what_waits() {
    let mut world = World::acquainted(World::relayed_class());
    world.unbind(BOB);
    for day in 0..100 {
        world.now.wall = world.now.wall.plus(DAY);
        world.now.elapsed += DAY;
        world.send(ALICE, &format!("day {day}"));
        world.flush_all(ALICE);
        if day < 70 {
            // What waited longer than the relay keeps it is gone.
            world.wire.clear();
        }
    }
    world.bind(BOB);
    world.settle();
    both_ways(&mut world);
}

#[test]
fn two_clocks_that_went_back_before_there_were_keys_keep_nobody_apart() {
    let mut world = World::new(LinkClass::Direct);
    world.bind(ALICE);
    world.bind(BOB);
    // What they said of each other by the old clocks is still on its way.
    turn_clock_back(&mut world, Duration::from_secs(10));
    restart(&mut world, ALICE);
    restart(&mut world, BOB);
    both_ways(&mut world);
}

#[test]
fn two_that_write_to_each_other_at_the_same_moment_come_to_shared_keys() {
    for class in [World::relayed_class(), LinkClass::Direct] {
        let mut world = World::new(class);
        world.bind(ALICE);
        world.bind(BOB);
        both_ways(&mut world);
        let before = world.seen.len();
        world.still_works();
        let kinds = world.kinds(before);
        assert!(kinds.iter().all(|kind| *kind == KIND_SEALED), "{kinds:?}");
    }
}

/// What Alice says in one packet at once when a link is bound, with something outstanding. It is held
/// back.
fn resume_held_back(world: &mut World) -> Bytes {
    world.unbind(ALICE);
    world.send(ALICE, "held back");
    world.flush_all(ALICE);
    world.wire.clear();
    world.bind(ALICE);
    world.flush_all(ALICE);
    let mut packets: Vec<_> = world.wire.drain(..).map(|seen| seen.packet).collect();
    assert_eq!(packets.len(), 2, "a Resume, and what it offers");
    packets.swap_remove(0)
}

/// The epoch of Alice's, and which Bob takes for hers.
fn epochs(world: &World) -> (Epoch, Option<Epoch>) {
    let session = |who: usize| world.peers[who].engine.as_ref().unwrap().session();
    (session(ALICE).epoch, session(BOB).peer_epoch)
}

#[test]
fn a_resume_under_keys_that_were_lost_brings_no_epoch_back() {
    let mut world = World::acquainted(World::relayed_class());
    let late = resume_held_back(&mut world);
    assert_eq!(late[0], KIND_SEALED);
    let before = epochs(&world).0;
    lose_store(&mut world, ALICE);
    both_ways(&mut world);
    let (present, known) = epochs(&world);
    assert_ne!(before, present);
    assert_eq!(known, Some(present));
    world.deliver(BOB, late);
    world.settle();
    assert_eq!(epochs(&world), (present, Some(present)));
    both_ways(&mut world);
}

#[test]
fn a_resume_under_keys_that_were_lost_brings_no_epoch_back_before_there_are_new_ones() {
    let mut world = World::acquainted(World::relayed_class());
    let late = resume_held_back(&mut world);
    world.now.wall = world.now.wall.plus(DAY);
    world.crash(ALICE);
    world.peers[ALICE].disk.clear();
    world.start(ALICE);
    world.send(ALICE, "anew");
    world.flush_all(ALICE);
    world.bind(ALICE);
    world.flush_all(ALICE);
    // Bob hears of her new epoch, and she has heard nothing of him yet.
    for seen in std::mem::take(&mut world.wire) {
        world.deliver(seen.to, seen.packet);
    }
    world.flush_all(BOB);
    world.wire.clear();
    let (present, known) = epochs(&world);
    assert_eq!(known, Some(present));
    world.deliver(BOB, late);
    world.flush_all(BOB);
    assert_eq!(epochs(&world), (present, Some(present)));
    both_ways(&mut world);
}

#[test]
fn a_resume_that_comes_behind_what_it_offers_tells_of_a_new_epoch_all_the_same() {
    let mut world = World::acquainted(World::relayed_class());
    world.now.wall = world.now.wall.plus(DAY);
    world.crash(ALICE);
    world.peers[ALICE].disk.clear();
    world.start(ALICE);
    let resume = resume_held_back(&mut world);
    for seen in world.seen.clone().into_iter().rev() {
        if seen.packet == resume {
            break;
        }
        world.deliver(seen.to, seen.packet);
    }
    world.flush_all(BOB);
    let (present, known) = epochs(&world);
    assert_ne!(known, Some(present));
    world.deliver(BOB, resume);
    world.flush_all(BOB);
    assert_eq!(epochs(&world), (present, Some(present)));
}

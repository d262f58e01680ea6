//! Keys: made once, kept through reconnects and crashes, made anew when lost.

use std::collections::BTreeSet;
use std::time::Duration;

use outlive_core::engine::Stored;
use outlive_core::limits::KEY_LIFE;
use outlive_core::link::LinkClass;
use outlive_core::seal::{KIND_ONE_WAY, KIND_SEALED};

use crate::world::{ALICE, BOB, World};

/// Locator, phase, start and number of a sealed packet: what must never come twice.
fn header(packet: &[u8]) -> Option<Vec<u8>> {
    (packet.first() == Some(&KIND_SEALED)).then(|| packet[..29].to_vec())
}

#[test]
fn first_contact_with_an_absent_peer_works_at_once() {
    let mut world = World::relayed();
    world.bind(ALICE);
    world.send(ALICE, "are you there?");
    world.flush_all(ALICE);
    assert!(!world.wire.is_empty());
    assert!(world.kinds(0).iter().all(|kind| *kind == KIND_ONE_WAY));
    // Days later.
    world.crash(ALICE);
    world.now.wall = world.now.wall.plus(Duration::from_secs(5 * 24 * 3_600));
    world.bind(BOB);
    let waiting = world.wire.clone();
    world.wire.clear();
    for seen in waiting {
        world.deliver(seen.to, seen.packet);
    }
    world.flush_all(BOB);
    world.listen();
    assert_eq!(world.heard[BOB], ["are you there?"]);
}

#[test]
fn keys_are_made_though_the_two_are_never_there_at_the_same_time() {
    let mut world = World::relayed();
    let mut mailbox = [Vec::new(), Vec::new()];
    world.send(ALICE, "one");
    for who in [ALICE, BOB, ALICE, BOB, ALICE, BOB] {
        world.bind(who);
        for packet in std::mem::take(&mut mailbox[who]) {
            world.deliver(who, packet);
        }
        world.flush_all(who);
        world.listen();
        world.flush_all(who);
        for seen in world.wire.drain(..) {
            mailbox[seen.to].push(seen.packet);
        }
        world.unbind(who);
    }
    let keys = world
        .peers
        .map(|peer| peer.engine.unwrap().session().keys.clone());
    let theirs = keys[BOB].sending().unwrap().theirs;
    assert_eq!(keys[ALICE].sending, Some(theirs));
}

#[test]
fn a_reconnect_with_keys_in_place_needs_no_packet_more() {
    for class in [World::relayed_class(), LinkClass::Direct] {
        let mut world = World::acquainted(class);
        world.unbind(ALICE);
        world.unbind(BOB);
        world.send(ALICE, "while away");
        world.flush(ALICE);
        let before = world.seen.len();
        world.bind(ALICE);
        world.bind(BOB);
        // The message is among the first that leave: no answer was waited for.
        let first: Vec<_> = world.wire.drain(..).filter(|seen| seen.to == BOB).collect();
        assert!(world.kinds(before).iter().all(|kind| *kind == KIND_SEALED));
        for seen in first {
            world.deliver(BOB, seen.packet);
        }
        world.flush_all(BOB);
        world.listen();
        assert_eq!(world.heard[BOB].last().unwrap(), "while away");
    }
}

#[test]
fn a_restart_goes_on_with_the_keys_there_are() {
    let mut world = World::acquainted(World::relayed_class());
    for who in [ALICE, BOB] {
        world.crash(who);
        world.start(who);
        let before = world.seen.len();
        world.bind(who);
        world.send(who, "after the restart");
        world.settle();
        assert!(world.kinds(before).iter().all(|kind| *kind == KIND_SEALED));
    }
    world.still_works();
}

#[test]
fn a_peer_that_lost_its_store_agrees_on_new_keys_and_the_other_learns_of_it() {
    for loser in [ALICE, BOB] {
        let mut world = World::acquainted(World::relayed_class());
        world.lose_store(loser);
        world.send(1 - loser, "do you know me?");
        world.settle();
        world.pass(Duration::from_secs(60));
        assert_eq!(world.heard[loser].last().unwrap(), "do you know me?");
        let before = world.seen.len();
        world.still_works();
        assert!(world.kinds(before).iter().all(|kind| *kind == KIND_SEALED));
        let other = world.peers[1 - loser].engine.as_ref().unwrap();
        assert_eq!(other.session().streams.len(), 2, "a new epoch was noticed");
    }
}

#[test]
fn a_phase_ends_without_a_pause_and_what_waits_of_it_still_opens() {
    let mut world = World::acquainted(World::relayed_class());
    world.send(ALICE, "from the old phase");
    world.flush(ALICE);
    let mut waiting: Vec<_> = world.wire.drain(..).collect();
    for day in 0..5 {
        world.now.wall = world.now.wall.plus(Duration::from_secs(25 * 3_600));
        world.send(ALICE, &format!("day {day}"));
        world.flush_all(ALICE);
        waiting.extend(world.wire.drain(..));
    }
    let phase = world.peers[ALICE]
        .engine
        .as_ref()
        .unwrap()
        .session()
        .keys
        .sending()
        .unwrap()
        .send
        .phase;
    assert!(phase.0 >= 4, "{phase:?}");
    for seen in waiting {
        world.deliver(seen.to, seen.packet);
    }
    world.settle();
    world.pass(Duration::from_secs(60));
    let expected = [
        "hello",
        "from the old phase",
        "day 0",
        "day 1",
        "day 2",
        "day 3",
        "day 4",
    ];
    assert_eq!(world.heard[BOB], expected);
}

#[test]
fn through_a_thousand_crashes_no_number_is_used_twice_under_one_key() {
    let mut world = World::acquainted(World::relayed_class());
    let mut random = 1_u64;
    let mut below = |n: u64| {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % n
    };
    let mut snapshot = world.peers[ALICE].disk.clone();
    for round in 0..1_000 {
        world.bind(ALICE);
        world.send(ALICE, &format!("{round}"));
        // The crash comes after any number of writes: before the lease, with it, behind it.
        for _ in 0..below(5) {
            world.flush(ALICE);
            if below(3) == 0 {
                world.send(ALICE, "more");
            }
            if below(4) == 0
                && let Some(seen) = world.wire.pop_front()
            {
                world.deliver(seen.to, seen.packet);
            }
        }
        match below(20) {
            // The disk is one from the past: a backup, or a clone of a machine.
            0 => world.peers[ALICE].disk.clone_from(&snapshot),
            1 => snapshot.clone_from(&world.peers[ALICE].disk),
            _ => {}
        }
        world.crash(ALICE);
        world.start(ALICE);
    }
    let headers: Vec<_> = world
        .seen
        .iter()
        .filter_map(|seen| header(&seen.packet))
        .collect();
    let unique: BTreeSet<_> = headers.iter().collect();
    assert_eq!(headers.len(), unique.len());
    assert!(
        headers.len() > 500,
        "{} packets under shared keys",
        headers.len()
    );
}

#[test]
fn numbers_only_grow_through_crashes_at_every_point_of_the_lease() {
    let mut world = World::acquainted(World::relayed_class());
    let from = world.seen.len();
    for round in 0..500 {
        world.bind(ALICE);
        world.send(ALICE, "on and on");
        for _ in 0..round % 5 {
            world.flush(ALICE);
        }
        world.crash(ALICE);
        world.start(ALICE);
    }
    let numbers: Vec<_> = world.seen[from..]
        .iter()
        .filter_map(|seen| header(&seen.packet))
        .map(|header| u64::from_le_bytes(header[21..].try_into().unwrap()))
        .collect();
    assert!(numbers.len() > 300, "{} packets", numbers.len());
    assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]));
}

/// Both agree on keys anew: one has lost its store.
fn lose_store(world: &mut World, who: usize) {
    world.lose_store(who);
    world.send(1 - who, "anew");
    world.send(who, "anew");
    world.settle();
    world.pass(Duration::from_secs(60));
    world.heard = [Vec::new(), Vec::new()];
}

fn restore(world: &mut World, who: usize, disk: &crate::peer::Disk) {
    world.crash(who);
    world.peers[who].disk.clone_from(disk);
    world.start(who);
    world.bind(who);
}

#[test]
fn a_store_that_was_restored_from_before_the_present_keys_gets_new_ones() {
    for restored in [ALICE, BOB] {
        let mut world = World::acquainted(World::relayed_class());
        let backup = world.peers[restored].disk.clone();
        lose_store(&mut world, 1 - restored);
        restore(&mut world, restored, &backup);
        world.pass(Duration::from_secs(1));
        world.finds_together();
    }
}

#[test]
fn two_stores_restored_from_different_days_find_together() {
    let mut world = World::acquainted(World::relayed_class());
    let early = world.peers[ALICE].disk.clone();
    for round in 0..8 {
        lose_store(&mut world, round % 2);
    }
    let late = world.peers[BOB].disk.clone();
    lose_store(&mut world, BOB);
    restore(&mut world, ALICE, &early);
    restore(&mut world, BOB, &late);
    world.finds_together();
}

#[test]
fn a_clock_that_went_back_with_its_store_keeps_nobody_out() {
    for restored in [ALICE, BOB] {
        let mut world = World::acquainted(World::relayed_class());
        let (backup, then) = (world.peers[restored].disk.clone(), world.now.wall);
        world.now.wall = then.plus(Duration::from_secs(30 * 24 * 3_600));
        lose_store(&mut world, restored);
        lose_store(&mut world, 1 - restored);
        world.now.wall = then;
        restore(&mut world, restored, &backup);
        world.finds_together();
    }
}

#[test]
fn keys_are_deleted_when_nothing_sealed_under_them_can_wait_any_more() {
    let mut world = World::acquainted(World::relayed_class());
    world.lose_store(BOB);
    world.send(ALICE, "under new keys");
    world.settle();
    world.pass(Duration::from_secs(60));
    for _ in 0..40 {
        world.now.wall = world.now.wall.plus(Duration::from_secs(24 * 3_600));
        world.still_works();
    }
    let limit = KEY_LIFE + Duration::from_secs(24 * 3_600);
    for peer in &world.peers {
        let keys = &peer.engine.as_ref().unwrap().session().keys;
        for of in &keys.associations {
            let over = of
                .superseded
                .is_some_and(|at| at.plus(limit) <= world.now.wall);
            assert!(!over, "keys are kept that are over: {:?}", of.mine);
        }
    }
}

#[test]
fn what_goes_to_the_store_shows_no_keys_in_its_debug_output() {
    let mut world = World::acquainted(World::relayed_class());
    world.send(ALICE, "one more write");
    let batch = world.peers[ALICE].write.clone().unwrap();
    let record = batch.ops().last().unwrap().1.clone().unwrap();
    // The keys are the last part of the record.
    let keys = format!("{:?}", record.slice(record.len() - 64..));
    let shown = format!("{batch:?}");
    assert!(!shown.contains(keys.trim_start_matches("b\"").trim_end_matches('"')));
    let stored = Stored::new(Some(&record)).unwrap();
    let shown = format!("{stored:?}");
    assert!(!shown.contains(keys.trim_start_matches("b\"").trim_end_matches('"')));
}

//! More than anybody can be expected to look at: of junk, of handshakes, in one packet.

use std::time::Duration;

use outlive_core::Entropy;
use outlive_core::engine::Taken;
use outlive_core::seal::{Keys, OneWay};
use outlive_core::wire::frame::{Frame, Handshake};
use outlive_core::wire::packet::PacketBuilder;

use super::relayed;
use crate::world::{ALICE, BOB, World, id, identity};

#[test]
fn junk_makes_no_reset_and_no_flood_of_handshakes() {
    let mut world = relayed();
    let before = world.seen.len();
    for n in 0..10_000_u32 {
        let mut junk = vec![2; 64];
        junk[1..5].copy_from_slice(&n.to_le_bytes());
        world.deliver(BOB, junk.into());
        world.flush(BOB);
    }
    assert!(
        world.seen.len() - before <= 2,
        "{} packets",
        world.seen.len() - before
    );
    world.settle();
    let bob = world.peers[BOB].engine.as_ref().unwrap();
    assert_eq!(bob.session().streams.len(), 1, "no reset");
    world.still_works();
}

/// How often Bob's keys change while junk under unknown keys comes to him each second, and Alice
/// writes each `every` seconds.
fn changes_of_keys(seconds: u32, every: u32) -> usize {
    let mut world = relayed();
    let keys = |world: &World| {
        world.peers[BOB]
            .engine
            .as_ref()
            .unwrap()
            .session()
            .keys
            .sending
    };
    let (mut before, mut changes) = (keys(&world), 0);
    for n in 0..seconds {
        let mut junk = vec![2; 64];
        junk[1..5].copy_from_slice(&n.to_le_bytes());
        world.deliver(BOB, junk.into());
        if n % every == 0 {
            world.send(ALICE, "about her day");
        }
        world.pass(Duration::from_secs(1));
        changes += usize::from(keys(&world) != before);
        before = keys(&world);
    }
    world.still_works();
    changes
}

#[test]
fn junk_changes_no_keys_while_the_two_speak_and_hardly_any_while_they_are_silent() {
    assert_eq!(changes_of_keys(600, 10), 0);
    let silent = changes_of_keys(4 * 3_600, u32::MAX);
    assert!(silent <= 16, "{silent} times in four hours");
}

#[test]
fn a_flood_of_packets_that_do_not_open_costs_the_link_and_no_more() {
    let mut world = relayed();
    let mut opened = 0;
    for n in 0..1_000_u32 {
        let mut junk = vec![3; 200];
        junk[1..5].copy_from_slice(&n.to_le_bytes());
        opened += u32::from(world.deliver(BOB, junk.into()) != Taken::No);
    }
    assert_eq!(opened, 0);
    // What comes over the link now is not even looked at.
    let seen = world.seen.clone();
    for packet in seen.iter().filter(|seen| seen.to == BOB) {
        assert_eq!(world.deliver(BOB, packet.packet.clone()), Taken::No);
    }
    world.bind(BOB);
    world.still_works();
}

#[test]
fn a_flood_of_handshakes_keeps_memory_and_disk_bounded() {
    let mut world = relayed();
    let bytes = |world: &World| -> usize {
        let disk = &world.peers[BOB].disk;
        disk.iter()
            .map(|(key, value)| key.len() + value.len())
            .sum()
    };
    let before = bytes(&world);
    // Alice herself forgets her keys again and again.
    for n in 0..50 {
        world.crash(ALICE);
        world.peers[ALICE].disk.clear();
        world.now.wall = world.now.wall.plus(Duration::from_secs(1));
        world.start(ALICE);
        world.bind(ALICE);
        world.send(ALICE, &format!("forgetful {n}"));
        world.settle();
    }
    assert!(bytes(&world) < before + 8_192, "{} bytes", bytes(&world));
    world.still_works();
}

#[test]
fn one_packet_makes_one_pair_of_keys_at_most() {
    let mut world = relayed();
    let now = world.now.wall.plus(Duration::from_secs(1));
    let mut entropy = Entropy::from_seed([77; 32]);
    let mut builder = PacketBuilder::new();
    for _ in 0..4 {
        let mut keys = Keys::default();
        keys.begin(&mut entropy, now);
        let message = keys.initiation(&identity(1), &id(2)).unwrap();
        assert!(builder.push(&Frame::Initiation(Handshake { message })));
    }
    let packet = OneWay::new(entropy.start())
        .seal(&identity(1), &id(2), &builder.finish(), &mut entropy, now)
        .unwrap();
    let count = |world: &World| {
        let bob = world.peers[BOB].engine.as_ref().unwrap();
        bob.session().keys.associations.len()
    };
    let before = count(&world);
    world.deliver(BOB, packet);
    world.flush_all(BOB);
    assert!(count(&world) <= before + 1, "each costs four exchanges");
}

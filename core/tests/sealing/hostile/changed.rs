//! Packets that were changed, or come to somebody else than they were meant for.

use bytes::Bytes;
use outlive_core::engine::Taken;
use outlive_core::limits::InboxLimits;
use outlive_core::seal::{KIND_ONE_WAY, KIND_SEALED, unwrap, wrap};
use outlive_core::{Entropy, Generation};

use super::relayed;
use crate::peer::Peer;
use crate::world::{ALICE, BOB, Seen, World, id, identity};

/// Everything that two peers say from their first contact on: under all kinds of packets, in all
/// stages of the handshake.
fn all_that_was_said() -> (World, Vec<Seen>) {
    let mut world = relayed();
    world.send(ALICE, "under the keys there are");
    world.settle();
    let seen = world.seen.clone();
    for kind in [KIND_ONE_WAY, KIND_SEALED] {
        for to in [ALICE, BOB] {
            let there = |seen: &&Seen| seen.packet[0] == kind && seen.to == to;
            assert!(seen.iter().any(|seen| there(&seen)), "{kind} to {to}");
        }
    }
    (world, seen)
}

/// Delivers what was changed on its way, and sees that none of it is taken.
fn none_is_taken(world: &mut World, to: usize, changed: impl Iterator<Item = (String, Vec<u8>)>) {
    for (n, (how, bytes)) in changed.enumerate() {
        if n % 32 == 0 {
            // Enough of it costs the link: the relay is hostile.
            world.bind(to);
        }
        assert_eq!(world.deliver(to, bytes.into()), Taken::No, "{how}");
    }
}

/// All packets that differ from this one in one bit.
fn flipped(packet: &Bytes) -> impl Iterator<Item = (String, Vec<u8>)> {
    (0..packet.len() * 8).map(|bit| {
        let mut bytes = packet.to_vec();
        bytes[bit / 8] ^= 1 << (bit % 8);
        (format!("bit {} of byte {}", bit % 8, bit / 8), bytes)
    })
}

/// All packets that this one begins with.
fn cut(packet: &Bytes) -> impl Iterator<Item = (String, Vec<u8>)> {
    (0..packet.len()).map(|length| (format!("cut to {length}"), packet[..length].to_vec()))
}

#[test]
fn a_packet_with_any_bit_changed_is_not_taken() {
    let (mut world, seen) = all_that_was_said();
    for seen in &seen {
        none_is_taken(&mut world, seen.to, flipped(&seen.packet));
    }
    world.bind(ALICE);
    world.bind(BOB);
    world.still_works();
}

#[test]
fn a_packet_cut_anywhere_is_not_taken() {
    let (mut world, seen) = all_that_was_said();
    for seen in &seen {
        none_is_taken(&mut world, seen.to, cut(&seen.packet));
    }
    world.bind(ALICE);
    world.bind(BOB);
    world.still_works();
}

#[test]
fn a_wrapped_packet_that_was_changed_or_cut_names_no_sender() {
    let (_, seen) = all_that_was_said();
    let mut entropy = Entropy::from_seed([78; 32]);
    for seen in &seen {
        let (sender, recipient) = [(id(2), identity(1)), (id(1), identity(2))][seen.to].clone();
        let wrapped = wrap(&sender, &recipient.peer_id(), &seen.packet, &mut entropy).unwrap();
        let whole = unwrap(&recipient, &wrapped).unwrap();
        assert_eq!(whole, (sender, seen.packet.clone()));
        for (how, bytes) in flipped(&wrapped).step_by(5).chain(cut(&wrapped)) {
            assert!(unwrap(&recipient, &bytes).is_err(), "{how}");
        }
    }
}

#[test]
fn a_packet_goes_back_to_its_sender_and_is_not_taken() {
    let mut world = relayed();
    let seen = world.seen.clone();
    for packet in &seen {
        assert_eq!(
            world.deliver(1 - packet.to, packet.packet.clone()),
            Taken::No
        );
    }
    world.settle();
    world.still_works();
}

#[test]
fn a_packet_delivered_to_another_session_is_not_taken() {
    let world = relayed();
    // Bob has a session with Carol too; the relay says that Alice's packets are hers.
    let mut with_carol = Peer::new(identity(2), id(3), InboxLimits::default(), None);
    with_carol.start([99; 32], world.now);
    let generation = with_carol.bind(World::relayed_class(), world.now);
    for packet in world.seen.iter().filter(|seen| seen.to == BOB) {
        let engine = with_carol.engine.as_mut().unwrap();
        let taken = engine.receive(generation, None, packet.packet.clone(), world.now);
        assert_eq!(taken, Taken::No);
        with_carol.pump();
    }
    assert!(with_carol.take(None).is_none());
}

#[test]
fn a_relay_that_answers_for_an_absent_peer_is_not_believed() {
    let mut world = World::relayed();
    world.bind(ALICE);
    world.send(ALICE, "only for bob");
    for _ in 0..4 {
        world.flush(ALICE);
    }
    // It makes up a peer of its own, and answers what Alice sent.
    let mut impostor = Peer::new(identity(66), id(1), InboxLimits::default(), None);
    impostor.start([66; 32], world.now);
    let generation: Generation = impostor.bind(World::relayed_class(), world.now);
    for seen in world.wire.drain(..) {
        let engine = impostor.engine.as_mut().unwrap();
        assert_eq!(
            engine.receive(generation, None, seen.packet, world.now),
            Taken::No
        );
    }
    for _ in 0..4 {
        impostor.flush(world.now);
    }
    let forged: Vec<Bytes> = impostor
        .sent
        .drain(..)
        .map(|(sent, _)| sent.packet)
        .collect();
    for packet in forged {
        assert_eq!(world.deliver(ALICE, packet), Taken::No);
    }
    let alice = world.peers[ALICE].engine.as_ref().unwrap();
    assert!(alice.outstanding() && alice.session().keys.associations.is_empty());
}

#[test]
fn a_peer_can_not_switch_sealing_off() {
    let mut world = relayed();
    for body in [&b""[..], &[1], &[1, 9, 8, 0, 0, 0, 0, 0, 0, 0, 0]] {
        let plain = [&[1][..], body].concat();
        assert_eq!(world.deliver(BOB, plain.into()), Taken::No);
    }
    world.settle();
    world.still_works();
}

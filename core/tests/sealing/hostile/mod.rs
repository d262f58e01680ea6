//! What a hostile relay or network may try.

use std::time::Duration;

use bytes::Bytes;
use outlive_core::engine::{Rule, Taken};
use outlive_core::limits::{InboxLimits, KEY_LIFE};
use outlive_core::link::LinkClass;
use outlive_core::seal::{KIND_ONE_WAY, KIND_SEALED, Keys, OneWay, unwrap, wrap};
use outlive_core::wire::frame::{Frame, Handshake};
use outlive_core::wire::packet::{self, PacketBuilder};
use outlive_core::{Entropy, Generation};

use crate::peer::Peer;
use crate::world::{ALICE, BOB, Seen, World, id, identity};

fn relayed() -> World {
    World::acquainted(World::relayed_class())
}

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
fn everything_ever_seen_comes_again_and_nothing_happens() {
    for class in [World::relayed_class(), LinkClass::Direct] {
        let mut world = World::acquainted(class);
        for n in 0..20 {
            world.send(ALICE, &format!("{n}"));
            world.send(BOB, &format!("{n}"));
            world.settle();
        }
        let heard = world.heard.clone();
        let seen = world.seen.clone();
        for packet in seen.iter().chain(seen.iter().rev()) {
            world.deliver(packet.to, packet.packet.clone());
        }
        world.settle();
        assert_eq!(world.heard, heard);
        // Handshakes among it brought no doubt into the keys there are.
        let before = world.seen.len();
        world.still_works();
        assert!(world.kinds(before).iter().all(|kind| *kind == KIND_SEALED));
    }
}

#[test]
fn a_recorded_question_is_not_answered_again() {
    let mut world = World::acquainted(LinkClass::Direct);
    let from = world.seen.len();
    world.pass(Duration::from_secs(40));
    let pings: Vec<_> = world.seen[from..].to_vec();
    assert!(pings.len() >= 4, "{} Pings and Pongs", pings.len());
    let before = world.seen.len();
    for packet in pings.iter().cycle().take(100) {
        world.deliver(packet.to, packet.packet.clone());
        world.flush_all(packet.to);
    }
    assert_eq!(world.seen.len(), before);
}

#[test]
fn a_recording_played_after_a_restart_harms_nothing() {
    let mut world = relayed();
    for n in 0..20 {
        world.send(ALICE, &format!("{n}"));
        world.settle();
    }
    let (heard, seen) = (world.heard.clone(), world.seen.clone());
    for who in [ALICE, BOB] {
        world.crash(who);
        world.start(who);
        world.bind(who);
    }
    for packet in &seen {
        world.deliver(packet.to, packet.packet.clone());
    }
    world.settle();
    world.pass(Duration::from_secs(120));
    assert_eq!(world.heard, heard);
    world.still_works();
}

#[test]
fn packets_in_any_order_and_twice_are_each_taken_once() {
    let mut world = relayed();
    for n in 0..50 {
        world.send(ALICE, &format!("{n:02}"));
        world.flush(ALICE);
    }
    let mut packets: Vec<_> = world.wire.drain(..).collect();
    packets.reverse();
    let twice = packets.clone();
    for packet in packets.into_iter().chain(twice) {
        world.deliver(packet.to, packet.packet);
    }
    world.settle();
    world.pass(Duration::from_secs(60));
    let expected: Vec<String> = (0..50).map(|n| format!("{n:02}")).collect();
    assert_eq!(world.heard[BOB][1..], expected);
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
fn an_old_handshake_fed_again_brings_no_old_keys_back() {
    let mut world = relayed();
    let early = world.seen.clone();
    // Both have lost nothing, and agree on new keys all the same after a loss on one side.
    world.crash(BOB);
    world.peers[BOB].disk.clear();
    world.start(BOB);
    world.bind(BOB);
    world.send(ALICE, "anew");
    world.settle();
    world.pass(Duration::from_secs(60));
    let streams = |world: &World| {
        [ALICE, BOB].map(|who| {
            let engine = world.peers[who].engine.as_ref().unwrap();
            engine.session().streams.len()
        })
    };
    let early_keys = [ALICE, BOB].map(|who| {
        let first = early.iter().filter(|seen| seen.to == who);
        first
            .filter_map(|seen| seen.packet.get(1..9))
            .map(<[u8]>::to_vec)
            .collect::<Vec<_>>()
    });
    let before = streams(&world);
    for packet in &early {
        world.deliver(packet.to, packet.packet.clone());
    }
    world.settle();
    assert_eq!(streams(&world), before, "no reset");
    for who in [ALICE, BOB] {
        let engine = world.peers[who].engine.as_ref().unwrap();
        let sending = engine.session().keys.sending.unwrap();
        assert!(!early_keys[who].contains(&sending.0.to_le_bytes().to_vec()));
    }
    world.still_works();
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

/// A direct link to Bob comes up, and brings a recorded packet of Alice's: whoever made the link has
/// that, not her keys. Returns that link, and over which ones Bob's next message goes.
fn recorded_over_another_link(broken: Option<Rule>) -> (Generation, Vec<Generation>) {
    const TEXT: &str = "not for strangers";
    let mut world = World::acquainted_with(World::relayed_class(), broken);
    world.send(ALICE, "recorded");
    world.flush(ALICE);
    let recorded = world.wire.front().cloned().unwrap();
    world.settle();
    let bob = &mut world.peers[BOB];
    let stranger = bob.bind(LinkClass::Direct, world.now);
    let engine = bob.engine.as_mut().unwrap();
    engine.receive(stranger, None, recorded.packet, world.now);
    bob.pump();
    bob.sent.clear();
    world.send(BOB, TEXT);
    for _ in 0..4 {
        world.peers[BOB].flush(world.now);
    }
    let says_it = |frames: &[u8]| {
        let frames = packet::decode(&Bytes::copy_from_slice(frames)).expect("own frames");
        frames
            .iter()
            .any(|frame| matches!(frame, Frame::Data(data) if data.payload == TEXT))
    };
    let over = world.peers[BOB].sent.iter();
    let over = over.filter(|(_, frames)| says_it(frames));
    let over = over.map(|(transmit, _)| transmit.generation).collect();
    (stranger, over)
}

#[test]
fn a_recorded_packet_does_not_pull_a_session_over_to_another_link() {
    let (stranger, over) = recorded_over_another_link(None);
    assert_eq!(over.len(), 1, "it goes once, over the link that is Alice's");
    assert!(!over.contains(&stranger));
    // Were links not validated, this would show it.
    let (stranger, over) = recorded_over_another_link(Some(Rule::Validate));
    assert_eq!(over, [stranger]);
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

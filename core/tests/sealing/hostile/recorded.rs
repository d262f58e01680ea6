//! Packets that were written down, and come again.

use std::time::Duration;

use bytes::Bytes;
use outlive_core::Generation;
use outlive_core::engine::Rule;
use outlive_core::link::LinkClass;
use outlive_core::seal::KIND_SEALED;
use outlive_core::wire::frame::Frame;
use outlive_core::wire::packet;

use super::relayed;
use crate::world::{ALICE, BOB, World};

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

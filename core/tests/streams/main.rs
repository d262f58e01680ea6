//! One engine, and frames made by hand: what a stream makes of segments and Skips in any order.

#[path = "../simulation/peer.rs"]
#[allow(dead_code, reason = "the simulation uses the rest")]
mod peer;

mod forgotten;
mod inbound;
mod outbound;
mod overtaken;
mod renewal;

use std::time::Duration;

use bytes::Bytes;
use outlive_core::engine::{SendOptions, Taken};
use outlive_core::limits::InboxLimits;
use outlive_core::link::LinkClass;
use outlive_core::wire::frame::{Channels, Data, First, Frame, Offered, Received, Resume, Skip};
use outlive_core::wire::packet::{self, PacketBuilder};
use outlive_core::{
    ChannelId, Digest, EnvelopeId, Epoch, Generation, Identity, MessageId, Now, ResumeId, Seq,
    StoreId,
};
use peer::Peer;

const CHAT: ChannelId = ChannelId::MESSAGES;
const EPOCH: Epoch = Epoch(5);
const RELAYED: LinkClass = LinkClass::Relayed(StoreId([1; 16]));

fn now(ms: u64) -> Now {
    Now::default().after(Duration::from_millis(1_000_000 + ms))
}

fn plain(frames: &[Frame]) -> Bytes {
    let mut builder = PacketBuilder::new();
    for frame in frames {
        assert!(builder.push(frame));
    }
    [&[1][..], &builder.finish()].concat().into()
}

fn peer(me: u8, other: u8) -> Peer {
    let identity = |n| Identity::from_seed([n; 32]);
    let mut peer = Peer::new(
        identity(me),
        identity(other).peer_id(),
        InboxLimits::default(),
        None,
    );
    peer.start([me; 32], now(0));
    peer.engine.as_mut().unwrap().seal_nothing();
    peer
}

fn receiver(class: LinkClass) -> (Peer, Generation) {
    let mut peer = peer(1, 2);
    let generation = peer.bind(class, now(0));
    (peer, generation)
}

fn said(peer: &mut Peer) -> Vec<Frame> {
    peer.sent
        .drain(..)
        .flat_map(|(_, frames)| packet::decode(&frames.into()).unwrap())
        .collect()
}

fn settle(peer: &mut Peer, ms: u64) {
    for _ in 0..5 {
        peer.flush(now(ms));
    }
}

fn feed(peer: &mut Peer, generation: Generation, ms: u64, frames: &[Frame]) {
    let engine = peer.engine.as_mut().unwrap();
    engine.receive(generation, Some(EnvelopeId(1)), plain(frames), now(ms));
    peer.pump();
    settle(peer, ms);
}

/// What waited in a mailbox while newer packets came.
fn feed_late(peer: &mut Peer, generation: Generation, frames: &[Frame]) {
    peer.engine.as_mut().unwrap().take_as_late(true);
    feed(peer, generation, 3, frames);
    peer.engine.as_mut().unwrap().take_as_late(false);
}

fn id(n: u8) -> MessageId {
    MessageId([n; 16])
}

fn data(seq: u64, message: u8, index: u32, count: u32) -> Frame {
    Frame::Data(Data {
        epoch: EPOCH,
        channel: CHAT,
        seq: Seq(seq),
        id: id(message),
        index,
        count,
        again: None,
        payload: Bytes::from_static(b"x"),
    })
}

/// The one segment of a message, under an epoch of the peer's.
fn of(epoch: u64, seq: u64, again: Option<First>) -> Frame {
    let Frame::Data(data) = data(seq, epoch as u8, 0, 1) else {
        unreachable!("it is a segment")
    };
    Frame::Data(Data {
        epoch: Epoch(epoch),
        again,
        ..data
    })
}

/// The peer tells that it is at this epoch, and knows nothing of us.
fn resume(epoch: u64) -> Frame {
    Frame::Resume(Resume {
        id: ResumeId(1),
        epoch: Epoch(epoch),
        peer_epoch: None,
        received: Vec::new(),
        offered: vec![Offered {
            channel: CHAT,
            lowest: Seq(1),
            digest: Digest::default(),
            end: Seq(9),
        }],
        answer: false,
    })
}

fn skip(seq: u64, message: u8, index: u32) -> Frame {
    Frame::Skip(Skip {
        epoch: EPOCH,
        channel: CHAT,
        first: Seq(seq),
        last: Seq(seq),
        digest: Digest::default().with(id(message), index),
    })
}

fn last_ack(peer: &mut Peer) -> Received {
    let acks = said(peer).into_iter().filter_map(|frame| match frame {
        Frame::Ack(ack) => ack.received.first().cloned(),
        _ => None,
    });
    acks.last().unwrap()
}

#[test]
fn a_held_segment_that_lost_its_head_to_a_skip_still_counts_in_the_digest() {
    let (mut peer, generation) = receiver(RELAYED);
    feed(&mut peer, generation, 1, &[data(3, 7, 2, 3)]);
    let skips = [skip(1, 7, 0), skip(2, 7, 1), skip(3, 7, 2)];
    feed(&mut peer, generation, 1, &skips);
    let whole = (0..3).fold(Digest::default(), |sum, index| sum.with(id(7), index));
    let ack = last_ack(&mut peer);
    assert_eq!((ack.next, ack.digest), (Seq(4), whole));
}

#[test]
fn the_digest_below_the_lowest_offered_is_adopted_though_more_is_held_behind_it() {
    let (mut peer, generation) = receiver(RELAYED);
    let held = [3, 4, 5, 6].map(|n| data(n.into(), n, 0, 1));
    feed(&mut peer, generation, 1, &held);
    let below = |end: u8| (1..end).fold(Digest::default(), |sum, n| sum.with(id(n), 0));
    let resume = Frame::Resume(Resume {
        id: ResumeId(1),
        epoch: EPOCH,
        peer_epoch: None,
        received: Vec::new(),
        offered: vec![Offered {
            channel: CHAT,
            lowest: Seq(5),
            digest: below(5),
            end: Seq(7),
        }],
        answer: true,
    });
    feed(&mut peer, generation, 1, &[resume]);
    let ack = last_ack(&mut peer);
    assert_eq!((ack.next, ack.digest), (Seq(7), below(7)));
}

#[test]
fn a_message_of_several_segments_that_expires_on_its_way_renews_nothing() {
    let (mut alice, mut bob) = (peer(1, 2), peer(2, 1));
    let (to_bob, to_alice) = (alice.bind(RELAYED, now(0)), bob.bind(RELAYED, now(0)));
    let options = SendOptions {
        ttl: Some(Duration::from_secs(5)),
        ..SendOptions::default()
    };
    let engine = alice.engine.as_mut().unwrap();
    let payload = Bytes::from(vec![0; 40_000]);
    engine.send(CHAT, &payload, &options, now(0)).unwrap();
    alice.pump();
    settle(&mut alice, 0);
    let mut segments = said(&mut alice);
    segments.retain(|frame| matches!(frame, Frame::Data(_)));
    assert_eq!(segments.len(), 3);
    // Only the last of them gets there.
    feed(&mut bob, to_alice, 1, &segments[2..]);
    for ms in (10_000..50_000).step_by(1_000) {
        for peer in [&mut alice, &mut bob] {
            peer.tick(now(ms));
            settle(peer, ms);
        }
        for frame in said(&mut alice) {
            feed(&mut bob, to_alice, ms, &[frame]);
        }
        for frame in said(&mut bob) {
            feed(&mut alice, to_bob, ms, &[frame]);
        }
    }
    assert!(!alice.outstanding());
    assert_eq!((alice.renewed, bob.renewed), (0, 0));
}

#[test]
fn as_many_volatile_channels_as_are_allowed_may_be_told_twice() {
    let (mut peer, generation) = receiver(LinkClass::Direct);
    let channels = (100..164).map(ChannelId).collect();
    let all = plain(&[Frame::Subscribe(Channels { channels })]);
    let engine = peer.engine.as_mut().unwrap();
    for _ in 0..2 {
        assert_eq!(
            engine.receive(generation, None, all.clone(), now(1)),
            Taken::Yes
        );
    }
}

#[test]
fn a_broken_packet_through_a_relay_costs_no_link() {
    let (mut peer, generation) = receiver(RELAYED);
    let engine = peer.engine.as_mut().unwrap();
    let newer = Bytes::from_static(&[1, 99, 1, 2, 3]);
    assert_eq!(engine.receive(generation, None, newer, now(1)), Taken::No);
    feed(&mut peer, generation, 1, &[data(1, 1, 0, 1)]);
    assert_eq!(last_ack(&mut peer).next, Seq(2));
}

#[test]
fn an_acknowledgement_of_everything_at_once_fits_into_a_packet() {
    let (mut peer, generation) = receiver(RELAYED);
    for channel in 0..64 {
        // Every other segment, so that each is a range of its own.
        let frames: Vec<Frame> = (0..64)
            .map(|n| {
                let Frame::Data(data) = data(3 + n * 2, 1, 0, 1) else {
                    unreachable!("it is a segment")
                };
                Frame::Data(Data {
                    channel: ChannelId(1_000 + channel),
                    ..data
                })
            })
            .collect();
        feed(&mut peer, generation, 1, &frames);
    }
    let acks = said(&mut peer).into_iter().filter_map(|frame| match frame {
        Frame::Ack(ack) => Some(ack.received.len()),
        _ => None,
    });
    assert_eq!(acks.last(), Some(64));
}

#[test]
fn of_a_backlog_of_any_length_only_the_windows_are_in_memory() {
    // I7: 32 MiB wait, of which the engine holds its cache.
    const MESSAGES: u32 = 32 * 1024;
    let (mut sender, mut receiver) = (peer(1, 2), peer(2, 1));
    let bounded = |peer: &Peer| assert_eq!(peer.engine.as_ref().unwrap().overgrown(), None);
    for n in 0..MESSAGES {
        let mut payload = n.to_le_bytes().to_vec();
        payload.resize(1_024, 0);
        let engine = sender.engine.as_mut().unwrap();
        let options = SendOptions::default();
        engine
            .send(CHAT, &payload.into(), &options, now(0))
            .unwrap();
        sender.pump();
        if n % 256 == 0 {
            settle(&mut sender, 0);
        }
        bounded(&sender);
    }
    settle(&mut sender, 0);
    // All of it goes, in the order in which it waits, and neither end ever holds more.
    let ends = [&mut sender, &mut receiver].map(|peer| peer.bind(LinkClass::Direct, now(0)));
    let (mut taken, mut ms) = (0, 0);
    while taken < MESSAGES {
        ms += 1;
        assert!(ms < 100_000, "it stopped after {taken}");
        for peer in [&mut sender, &mut receiver] {
            settle(peer, ms);
            peer.tick(now(ms));
        }
        let (there, back) = (sender.sent.split_off(0), receiver.sent.split_off(0));
        for (to, generation, packets) in [
            (&mut receiver, ends[1], there),
            (&mut sender, ends[0], back),
        ] {
            for (transmit, _) in packets {
                let engine = to.engine.as_mut().unwrap();
                engine.receive(generation, None, transmit.packet, now(ms));
                to.pump();
                bounded(to);
            }
        }
        while let Some(handed) = receiver.take(Some(CHAT)) {
            assert_eq!(handed.payload[..4], taken.to_le_bytes());
            taken += 1;
            receiver.commit(None, now(ms));
        }
    }
}

//! Segments that say where they were offered first: what is remembered of that is bounded.

use bytes::Bytes;
use outlive_core::engine::Taken;
use outlive_core::record::Record;
use outlive_core::wire::frame::{Data, First, Frame};
use outlive_core::{ChannelId, Epoch, Seq};

use crate::roomy;
use crate::side::{ONE, RELAYED, Side, message, pack};

/// A segment that says of which place of another epoch it is a copy.
fn copy(channel: ChannelId, seq: u64, part: (u32, u32), first: First) -> Frame {
    let Frame::Data(data) = message(channel, seq) else {
        unreachable!("it is a segment")
    };
    Frame::Data(Data {
        index: part.0,
        count: part.1,
        again: Some(first),
        payload: Bytes::from_static(b"x"),
        ..data
    })
}

#[test]
fn what_a_peer_says_of_copies_bounds_the_record_of_a_session() {
    let mut side = Side::new(1, roomy());
    side.bind(RELAYED);
    for n in 0..64 {
        let channel = ChannelId(100 + n);
        let first = |seq| First {
            epoch: Epoch(200 + seq % 7),
            seq: Seq((1 << 60) + 2 * seq),
        };
        let frames: Vec<_> = (2..1_000)
            .map(|seq| copy(channel, seq, (1, 2), first(seq)))
            .collect();
        for some in frames.chunks(500) {
            assert_eq!(side.receive(None, pack(some)), Taken::Yes);
        }
    }
    let record = side.engine.session().to_bytes().len();
    assert!(record < 64 * 1024, "{record} bytes");
}

#[test]
fn what_is_remembered_of_copies_counts_as_kept() {
    let mut side = Side::new(1, roomy());
    side.bind(RELAYED);
    for seq in 1..=500 {
        let first = First {
            epoch: Epoch(200),
            seq: Seq((1 << 60) + 2 * seq),
        };
        side.receive(Some(seq), pack(&[copy(ONE, seq, (0, 1), first)]));
        side.commit(ONE, 1);
    }
    let session = side.engine.session();
    let record = session.to_bytes().len() as u64;
    assert!(session.kept_bytes() + 1_024 > record, "{record} bytes");
}

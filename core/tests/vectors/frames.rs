//! Numbers, ids, and each frame of an opened packet.

use std::collections::BTreeMap;

use bytes::Bytes;
use outlive_core::wire::frame::{
    Ack, Channels, Close, CloseReason, Data, First, Frame, Offered, Received, Resume, Run, Skip,
    Token, Volatile,
};
use outlive_core::wire::packet::{self, PacketBuilder};
use outlive_core::{ChannelId, Digest, Epoch, MessageId, ResumeId, Seq};

use crate::document::{Vectors, blocks, hex};
use crate::peers::{a, counting};

const EPOCH: Epoch = Epoch(0x1122_3344_5566_7788);
const EARLIER_EPOCH: Epoch = Epoch(0x99aa_bbcc_ddee_ff00);
const PEER_EPOCH: Epoch = Epoch(0x0102_0304_0506_0708);
const RESUME: ResumeId = ResumeId(0xa1a2_a3a4_a5a6_a7a8);
pub(crate) const TOKEN: Token = Token([1, 2, 3, 4, 5, 6, 7, 8]);

/// A message of one segment, and one of two.
fn ids() -> (MessageId, MessageId) {
    (MessageId(counting(0)), MessageId(counting(0xf0)))
}

fn digests() -> [Digest; 3] {
    let (one, two) = ids();
    let first = Digest::default().with(one, 0);
    let second = first.with(two, 0);
    [first, second, second.with(two, 1)]
}

fn received(next: u64, digest: Digest, consumed: u64, ranges: &[(u64, u64)]) -> Received {
    Received {
        channel: ChannelId::MESSAGES,
        next: Seq(next),
        digest,
        consumed: Seq(consumed),
        limit: Seq(next + 256),
        ranges: ranges
            .iter()
            .map(|&(first, count)| Run {
                first: Seq(first),
                count,
            })
            .collect(),
    }
}

fn offered(lowest: u64, digest: Digest, end: u64) -> Offered {
    Offered {
        channel: ChannelId::MESSAGES,
        lowest: Seq(lowest),
        digest,
        end: Seq(end),
    }
}

pub(crate) fn check_ids(vectors: &mut Vectors) {
    let numbers = [0, 127, 128, 300, 16_384, u64::MAX];
    let varints: Vec<u8> = numbers
        .iter()
        .flat_map(|number| postcard::to_allocvec(number).expect("a number encodes"))
        .collect();
    let expected = vectors.take("varints");
    assert_eq!(hex(&varints), hex(&expected), "varints, encoded");
    let mut rest = &expected[..];
    for number in numbers {
        let (decoded, tail) = postcard::take_from_bytes::<u64>(rest).expect("a varint");
        assert_eq!(decoded, number);
        rest = tail;
    }
    assert_eq!(vectors.take("peer-seed"), counting::<32>(0));
    let key = vectors.take("peer-key");
    assert_eq!(hex(&key), hex(a().as_bytes()), "peer-key");
    let mut texts = blocks("vector-text");
    let text = texts.remove("peer-text").expect("the text of a PeerId");
    assert_eq!(text, [a().to_string()]);
    assert_eq!(text[0].parse(), Ok(a()));
    assert_eq!(texts, BTreeMap::new(), "texts that no test knows");
    for (name, digest) in ["digest-1", "digest-2", "digest-3"].iter().zip(digests()) {
        vectors.number(name, digest);
    }
}

pub(crate) fn check_streams(vectors: &mut Vectors) {
    let [first, _, third] = digests();
    let (one, two) = ids();
    vectors.frame(
        "resume-first",
        Frame::Resume(Resume {
            id: RESUME,
            epoch: EPOCH,
            peer_epoch: None,
            received: Vec::new(),
            offered: vec![offered(1, Digest::default(), 2)],
            answer: true,
        }),
    );
    vectors.frame(
        "resume",
        Frame::Resume(Resume {
            id: RESUME,
            epoch: EPOCH,
            peer_epoch: Some(PEER_EPOCH),
            received: vec![Received {
                channel: ChannelId::FIRST_APP,
                ..received(1, Digest::default(), 1, &[])
            }],
            offered: vec![offered(2, first, 4)],
            answer: true,
        }),
    );
    let data = Data {
        epoch: EPOCH,
        channel: ChannelId::MESSAGES,
        seq: Seq(1),
        id: one,
        index: 0,
        count: 1,
        again: None,
        payload: Bytes::from_static(b"hello"),
    };
    vectors.frame("data", Frame::Data(data.clone()));
    vectors.frame(
        "data-again",
        Frame::Data(Data {
            seq: Seq(3),
            id: two,
            index: 1,
            count: 2,
            again: Some(First {
                epoch: EARLIER_EPOCH,
                seq: Seq(300),
            }),
            payload: Bytes::from_static(b"world"),
            ..data
        }),
    );
    vectors.frame(
        "ack",
        Frame::Ack(Ack {
            epoch: EPOCH,
            answers: None,
            received: vec![received(2, first, 1, &[])],
        }),
    );
    vectors.frame(
        "ack-ranges",
        Frame::Ack(Ack {
            epoch: EPOCH,
            answers: Some(RESUME),
            received: vec![received(4, third, 2, &[(6, 2), (300, 1)])],
        }),
    );
    vectors.frame(
        "skip",
        Frame::Skip(Skip {
            epoch: EPOCH,
            channel: ChannelId::MESSAGES,
            first: Seq(4),
            last: Seq(4),
            digest: Digest::default().with(MessageId([0x33; 16]), 0),
        }),
    );
}

pub(crate) fn check_small_frames(vectors: &mut Vectors) {
    let channels = |list: &[u16]| Channels {
        channels: list.iter().copied().map(ChannelId).collect(),
    };
    let close = |reason| Frame::Close(Close { reason });
    vectors.frame("close", close(CloseReason::Closed));
    vectors.frame("close-not-accepted", close(CloseReason::NotAccepted));
    vectors.frame(
        "volatile",
        Frame::Volatile(Volatile {
            channel: ChannelId(20),
            payload: Bytes::from_static(b"typing"),
        }),
    );
    let subscribe = Frame::Subscribe(channels(&[20, 300]));
    vectors.frame("subscribe", subscribe.clone());
    vectors.frame("unsubscribe", Frame::Unsubscribe(channels(&[20])));
    vectors.frame("ping", Frame::Ping(TOKEN));
    vectors.frame("pong", Frame::Pong(TOKEN));
    vectors.frame("path-challenge", Frame::PathChallenge(TOKEN));
    vectors.frame("path-response", Frame::PathResponse(TOKEN));

    let mut builder = PacketBuilder::new();
    assert!(builder.push(&Frame::Ping(TOKEN)));
    let mut encoded = builder.finish();
    encoded.extend_from_slice(b"\x41\x03new");
    let mut behind = PacketBuilder::new();
    assert!(behind.push(&subscribe));
    encoded.extend_from_slice(&behind.finish()[1..]);
    encoded.extend_from_slice(b"\x40\x00\x40\x02\x00\x00");
    let expected = vectors.take("packet");
    assert_eq!(hex(&encoded), hex(&expected), "packet, encoded");
    assert_eq!(
        packet::decode(&Bytes::from(expected)),
        Ok(vec![Frame::Ping(TOKEN), subscribe])
    );
}

//! `docs/PROTOCOL.md` against the code: each named block of bytes in it is encoded from the value it
//! describes, and decoded back; each limit it names has the value it gives. A block that no test
//! knows, or a test that finds no block, is a failure too.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use outlive_core::wire::WireError;
use outlive_core::wire::frame::{
    Ack, Channels, Close, CloseReason, Data, First, Frame, Offered, Received, Resume, Run, Skip,
    Token, Volatile,
};
use outlive_core::wire::packet::{self, PacketBuilder};
use outlive_core::wire::relay::{
    self, Checked, Class, FromRelay, GoodbyeReason, Refusal, ToRelay, sign_in_statement,
};
use outlive_core::{
    ChannelId, Digest, EnvelopeId, Epoch, Identity, MessageId, PeerId, ResumeId, Seq, StoreId,
    limits,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

const DOCUMENT: &str = include_str!("../../../docs/PROTOCOL.md");

/// The fenced blocks of one kind: name and lines.
fn blocks(kind: &str) -> BTreeMap<&'static str, Vec<&'static str>> {
    let mut blocks = BTreeMap::new();
    let mut lines = DOCUMENT.lines();
    while let Some(line) = lines.next() {
        let Some((found, name)) = line
            .strip_prefix("```")
            .and_then(|info| info.split_once(' '))
        else {
            continue;
        };
        let body: Vec<_> = lines.by_ref().take_while(|line| *line != "```").collect();
        if found == kind {
            assert!(blocks.insert(name, body).is_none(), "{name} stands twice");
        }
    }
    blocks
}

/// The bytes of hex with comments.
fn bytes(lines: &[&str]) -> Vec<u8> {
    let hex: String = lines
        .iter()
        .flat_map(|line| line.split('#').next())
        .flat_map(|hex| hex.chars().filter(|c| !c.is_whitespace()))
        .collect();
    data_encoding::HEXLOWER
        .decode(hex.as_bytes())
        .expect("lower-case hex")
}

/// The blocks of a kind that no test has asked for yet.
struct Vectors {
    blocks: BTreeMap<&'static str, Vec<&'static str>>,
}

impl Vectors {
    fn read() -> Self {
        Self {
            blocks: blocks("vector"),
        }
    }

    fn take(&mut self, name: &str) -> Vec<u8> {
        let lines = self.blocks.remove(name);
        bytes(&lines.unwrap_or_else(|| panic!("the document lacks the vector {name}")))
    }

    /// A frame: kind, length, body.
    fn frame(&mut self, name: &str, frame: Frame) {
        let expected = [&[packet::VERSION], &self.take(name)[..]].concat();
        let mut builder = PacketBuilder::new();
        assert!(builder.push(&frame), "{name} fits no packet");
        assert_eq!(hex(&builder.finish()), hex(&expected), "{name}, encoded");
        let decoded = packet::decode(&Bytes::from(expected));
        assert_eq!(decoded, Ok(vec![frame]), "{name}, decoded");
    }

    fn message<M>(&mut self, name: &str, message: M)
    where
        M: Serialize + DeserializeOwned + Checked + PartialEq + std::fmt::Debug,
    {
        self.messages(name, vec![message]);
    }

    /// A WebSocket message of one or more relay messages.
    fn messages<M>(&mut self, name: &str, messages: Vec<M>)
    where
        M: Serialize + DeserializeOwned + Checked + PartialEq + std::fmt::Debug,
    {
        let expected = self.take(name);
        let mut encoded = Vec::new();
        for message in &messages {
            relay::encode(message, &mut encoded);
        }
        assert_eq!(hex(&encoded), hex(&expected), "{name}, encoded");
        let decoded = relay::decode::<M>(&expected);
        assert_eq!(decoded, Ok(messages), "{name}, decoded");
    }

    fn number(&mut self, name: &str, digest: Digest) {
        let expected = self.take(name);
        let encoded = postcard::to_allocvec(&digest).expect("a digest encodes");
        assert_eq!(hex(&encoded), hex(&expected), "{name}, encoded");
        assert_eq!(
            postcard::from_bytes(&expected),
            Ok(digest),
            "{name}, decoded"
        );
    }
}

fn hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
}

fn counting<const N: usize>(from: u8) -> [u8; N] {
    std::array::from_fn(|n| from + n as u8)
}

const EPOCH: Epoch = Epoch(0x1122_3344_5566_7788);
const EARLIER_EPOCH: Epoch = Epoch(0x99aa_bbcc_ddee_ff00);
const PEER_EPOCH: Epoch = Epoch(0x0102_0304_0506_0708);
const RESUME: ResumeId = ResumeId(0xa1a2_a3a4_a5a6_a7a8);
const TOKEN: Token = Token([1, 2, 3, 4, 5, 6, 7, 8]);
const STORE: u8 = 0x60;

/// The key pair of the document.
fn identity() -> Identity {
    Identity::from_seed(counting(0))
}

fn peer() -> PeerId {
    identity().peer_id()
}

fn other() -> PeerId {
    Identity::from_seed(counting(0x20)).peer_id()
}

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
        limit: Seq(next + limits::DIRECT_WINDOW),
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

fn check_ids(vectors: &mut Vectors) {
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
    assert_eq!(hex(&key), hex(peer().as_bytes()), "peer-key");
    let mut texts = blocks("vector-text");
    let text = texts.remove("peer-text").expect("the text of a PeerId");
    assert_eq!(text, [peer().to_string()]);
    assert_eq!(text[0].parse(), Ok(peer()));
    assert_eq!(texts, BTreeMap::new(), "texts that no test knows");
    for (name, digest) in ["digest-1", "digest-2", "digest-3"].iter().zip(digests()) {
        vectors.number(name, digest);
    }
}

fn check_streams(vectors: &mut Vectors) {
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

fn check_small_frames(vectors: &mut Vectors) {
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
    encoded.extend_from_slice(b"\x40\x03new");
    let mut behind = PacketBuilder::new();
    assert!(behind.push(&subscribe));
    encoded.extend_from_slice(&behind.finish()[1..]);
    let expected = vectors.take("packet");
    assert_eq!(hex(&encoded), hex(&expected), "packet, encoded");
    assert_eq!(
        packet::decode(&Bytes::from(expected)),
        Ok(vec![Frame::Ping(TOKEN), subscribe])
    );
}

/// All that a change of the sign-in statement changes is here.
fn check_sign_in(vectors: &mut Vectors) {
    let (nonce, store) = (counting::<32>(0x40), StoreId(counting(STORE)));
    vectors.message(
        "hello",
        ToRelay::Hello {
            version: relay::VERSION,
            peer: peer(),
        },
    );
    vectors.message("challenge", FromRelay::Challenge { nonce, store });
    let statement = sign_in_statement(&nonce, store, &peer());
    let expected = vectors.take("sign-in-statement");
    assert_eq!(hex(&statement), hex(&expected), "sign-in-statement");
    let proof = relay::prove(&identity(), &nonce, store);
    let ToRelay::Proof { signature } = &proof else {
        panic!("a proof is a Proof");
    };
    assert_eq!(
        relay::check_proof(&peer(), &nonce, store, signature),
        Ok(())
    );
    vectors.message("proof", proof);
    vectors.message("welcome", FromRelay::Welcome { max_ttl: 2_592_000 });
}

fn check_envelopes(vectors: &mut Vectors) {
    let packet = Bytes::from_static(b"packet");
    for (name, envelope, class, ttl) in [
        ("submit", 7, Class::Keep, 2_592_001),
        ("submit-newest-only", 8, Class::NewestOnly, 60),
        ("submit-now-or-never", 9, Class::NowOrNever, 0),
    ] {
        vectors.message(
            name,
            ToRelay::Submit {
                envelope: EnvelopeId(envelope),
                to: other(),
                class,
                ttl,
                packet: packet.clone(),
            },
        );
    }
    let envelope = EnvelopeId(7);
    let accepted = FromRelay::Accepted { envelope };
    vectors.message("accepted", accepted.clone());
    vectors.message(
        "refused",
        FromRelay::Refused {
            envelope: EnvelopeId(8),
            reason: Refusal::MailboxFull,
        },
    );
    for (name, envelope) in [("deliver", Some(EnvelopeId(1_000))), ("deliver-now", None)] {
        vectors.message(
            name,
            FromRelay::Deliver {
                from: peer(),
                envelope,
                packet: packet.clone(),
            },
        );
    }
    vectors.message(
        "acknowledge",
        ToRelay::Acknowledge {
            from: peer(),
            envelopes: vec![EnvelopeId(1_000), EnvelopeId(1_001)],
        },
    );
    vectors.message("redeliver", ToRelay::Redeliver { from: peer() });
    vectors.message(
        "watch",
        ToRelay::Watch {
            peers: vec![other()],
        },
    );
    let presence = |online| FromRelay::Presence {
        peer: other(),
        online,
    };
    vectors.message("presence", presence(true));
    let refused = |reason| FromRelay::Refused { envelope, reason };
    let refusals = [
        Refusal::MailboxFull,
        Refusal::TooLarge,
        Refusal::NotAllowed,
        Refusal::Unavailable,
    ];
    vectors.messages("refused-reasons", refusals.map(refused).into());
    let goodbyes = [
        GoodbyeReason::Replaced,
        GoodbyeReason::Draining,
        GoodbyeReason::Protocol,
        GoodbyeReason::Signature,
        GoodbyeReason::Version,
        GoodbyeReason::Busy,
    ];
    let goodbye = |reason| FromRelay::Goodbye { reason };
    vectors.messages("goodbye-reasons", goodbyes.map(goodbye).into());
    vectors.messages("websocket-message", vec![accepted, presence(false)]);
}

#[test]
fn every_vector_of_the_document_is_what_the_code_says_and_understands() {
    let mut vectors = Vectors::read();
    check_ids(&mut vectors);
    check_streams(&mut vectors);
    check_small_frames(&mut vectors);
    check_sign_in(&mut vectors);
    check_envelopes(&mut vectors);
    let unknown: Vec<_> = vectors.blocks.into_keys().collect();
    assert_eq!(unknown, [""; 0], "vectors that no test knows");
}

#[test]
fn what_the_document_says_is_refused_is_refused_for_that_reason() {
    let mut refused = blocks("vector-refused");
    for (name, reason) in [
        ("refused-kind", WireError::UnknownFrame(63)),
        (
            "refused-version",
            WireError::Invalid("the packet is of another version"),
        ),
        ("refused-trailing", WireError::Length("a Close")),
        ("refused-truncated", WireError::Length("a frame")),
        ("refused-seq", WireError::Invalid("seqs begin with 1")),
        (
            "refused-ranges",
            WireError::Invalid("an Ack's ranges are not in order"),
        ),
    ] {
        let lines = refused.remove(name);
        let lines = lines.unwrap_or_else(|| panic!("the document lacks the vector {name}"));
        let decoded = packet::decode(&Bytes::from(bytes(&lines)));
        assert_eq!(decoded, Err(reason), "{name}");
    }
    assert_eq!(refused, BTreeMap::new(), "vectors that no test knows");
}

/// The value and name of each row of the table of limits.
fn limits_of_the_document() -> BTreeMap<&'static str, u128> {
    let number = |cell: &str| {
        let digits: String = cell.chars().filter(char::is_ascii_digit).collect();
        digits.parse::<u128>().expect("a number")
    };
    DOCUMENT
        .lines()
        .skip_while(|line| *line != "## 4 Limits")
        .take_while(|line| !line.starts_with("## 5"))
        .filter_map(|line| {
            let cells: Vec<_> = line.split('|').map(str::trim).collect();
            let name = cells.get(3)?.strip_prefix('`')?.strip_suffix('`')?;
            let unit = if cells[2].ends_with(" ms") { 1 } else { 1_000 };
            let time = cells[2].ends_with("s") && !cells[2].ends_with("bytes");
            Some((name, number(cells[2]) * if time { unit } else { 1 }))
        })
        .collect()
}

#[test]
fn the_limits_of_the_document_are_those_of_the_code() {
    let size = |size: usize| size as u128;
    let code = BTreeMap::from([
        ("MESSAGE_BYTES", size(limits::MESSAGE_BYTES)),
        ("SEGMENT_BYTES", size(limits::SEGMENT_BYTES)),
        ("MESSAGE_SEGMENTS", u128::from(limits::MESSAGE_SEGMENTS)),
        ("PACKET_BYTES", size(limits::PACKET_BYTES)),
        ("VOLATILE_BYTES", size(limits::VOLATILE_BYTES)),
        ("CHANNELS", size(limits::CHANNELS)),
        ("ACK_RANGES", size(limits::ACK_RANGES)),
        ("PEER_EPOCHS", size(limits::PEER_EPOCHS)),
        ("OWN_EPOCHS", size(limits::OWN_EPOCHS)),
        ("HELD_SEGMENTS", u128::from(limits::HELD_SEGMENTS)),
        ("DIRECT_WINDOW", u128::from(limits::DIRECT_WINDOW)),
        ("FIRST_FLIGHT", u128::from(limits::FIRST_FLIGHT)),
        ("RELAY_FLIGHT", size(limits::RELAY_FLIGHT)),
        ("RESUMES_OPEN", size(limits::RESUMES_OPEN)),
        ("INBOX_MESSAGES", u128::from(limits::INBOX_MESSAGES)),
        ("INBOX_BYTES", u128::from(limits::INBOX_BYTES)),
        ("LINKS", size(limits::LINKS)),
        ("MESSAGE_TTL", limits::MESSAGE_TTL.as_millis()),
        ("PROBE_FIRST", limits::PROBE_FIRST.as_millis()),
        ("PROBE_MOST_DIRECT", limits::PROBE_MOST_DIRECT.as_millis()),
        ("PROBE_MOST_RELAYED", limits::PROBE_MOST_RELAYED.as_millis()),
        ("PING_IDLE", limits::PING_IDLE.as_millis()),
        ("LINK_SILENCE", limits::LINK_SILENCE.as_millis()),
        ("CONSUMED_DELAY", limits::CONSUMED_DELAY.as_millis()),
        ("relay::MESSAGE_BYTES", size(relay::MESSAGE_BYTES)),
        ("relay::LIST_ITEMS", size(relay::LIST_ITEMS)),
    ]);
    assert_eq!(limits_of_the_document(), code);
}

#[test]
fn the_document_has_no_block_of_a_kind_that_no_test_reads() {
    let kinds: BTreeSet<_> = DOCUMENT
        .lines()
        .filter_map(|line| line.strip_prefix("```"))
        .map(|info| info.split(' ').next().unwrap_or_default())
        .collect();
    let known = ["", "text", "vector", "vector-refused", "vector-text"];
    assert_eq!(kinds, BTreeSet::from(known));
}

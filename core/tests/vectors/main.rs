//! `docs/PROTOCOL.md` against the code: each named block of bytes in it is encoded from the value it
//! describes, and decoded back; each limit it names has the value it gives. A block that no test
//! knows, or a test that finds no block, is a failure too.

mod document;
mod files;
mod frames;
mod noise;
mod peers;
mod relay;
mod requests;
mod sealing;
mod signals;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use outlive_core::wire::WireError;
use outlive_core::wire::packet;
use outlive_core::{limits, wire};

use document::{DOCUMENT, Vectors, blocks, bytes, limits_of_the_document};

#[test]
fn every_vector_of_the_document_is_what_the_code_says_and_understands() {
    let mut vectors = Vectors::read();
    frames::check_ids(&mut vectors);
    frames::check_streams(&mut vectors);
    frames::check_small_frames(&mut vectors);
    requests::check(&mut vectors);
    signals::check(&mut vectors);
    files::check(&mut vectors);
    sealing::check_keys(&mut vectors);
    sealing::check_handshake(&mut vectors);
    sealing::check_packets(&mut vectors);
    sealing::check_one_way(&mut vectors);
    sealing::check_wrapping(&mut vectors);
    relay::check_sign_in(&mut vectors);
    relay::check_envelopes(&mut vectors);
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
            "refused-end",
            WireError::Invalid("there is no seq behind its last"),
        ),
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
        ("ACK_ALL_RANGES", size(limits::ACK_ALL_RANGES)),
        ("HANDSHAKE_BYTES", size(limits::HANDSHAKE_BYTES)),
        ("FAILURE_BYTES", size(limits::FAILURE_BYTES)),
        ("SDP_BYTES", size(limits::SDP_BYTES)),
        ("CANDIDATE_BYTES", size(limits::CANDIDATE_BYTES)),
        ("FILE_BYTES", u128::from(limits::FILE_BYTES)),
        ("FILE_NAME_BYTES", size(limits::FILE_NAME_BYTES)),
        ("CANDIDATES", size(limits::CANDIDATES)),
        ("MAILBOXES", size(limits::MAILBOXES)),
        ("MAILBOX_RELAY_BYTES", size(limits::MAILBOX_RELAY_BYTES)),
        ("LEFT_MAILBOX_TIME", limits::LEFT_MAILBOX_TIME.as_millis()),
        ("MAILBOXES_AGAIN", limits::MAILBOXES_AGAIN.as_millis()),
        ("ADDRESSES", size(limits::ADDRESSES)),
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
        ("PROBE_BUSY", limits::PROBE_BUSY.as_millis()),
        ("PROBE_MOST_DIRECT", limits::PROBE_MOST_DIRECT.as_millis()),
        ("PROBE_MOST_RELAYED", limits::PROBE_MOST_RELAYED.as_millis()),
        ("PING_IDLE", limits::PING_IDLE.as_millis()),
        ("LINK_SILENCE", limits::LINK_SILENCE.as_millis()),
        ("ACK_DELAY", limits::ACK_DELAY.as_millis()),
        ("CONSUMED_DELAY", limits::CONSUMED_DELAY.as_millis()),
        ("NEGOTIATION_TIME", limits::NEGOTIATION_TIME.as_millis()),
        ("ICE_RESTART_TIME", limits::ICE_RESTART_TIME.as_millis()),
        ("STEADY_TIME", limits::STEADY_TIME.as_millis()),
        ("DIRECT_AGAIN_FIRST", limits::DIRECT_AGAIN_FIRST.as_millis()),
        ("DIRECT_AGAIN_MOST", limits::DIRECT_AGAIN_MOST.as_millis()),
        ("WITHDRAWN_TIME", limits::WITHDRAWN_TIME.as_millis()),
        ("DIAL_APART", limits::DIAL_APART.as_millis()),
        ("ADDRESSES_TTL", limits::ADDRESSES_TTL.as_millis()),
        ("PHASE_PACKETS", u128::from(limits::PHASE_PACKETS)),
        ("PHASE_TIME", limits::PHASE_TIME.as_millis()),
        ("KEY_AGE", limits::KEY_AGE.as_millis()),
        ("KEY_AGE_LATER", limits::KEY_AGE_LATER.as_millis()),
        ("KEY_LIFE", limits::KEY_LIFE.as_millis()),
        ("OLD_PHASES", size(limits::OLD_PHASES)),
        ("ASSOCIATIONS", size(limits::ASSOCIATIONS)),
        ("NUMBER_LEASE", u128::from(limits::NUMBER_LEASE)),
        ("HANDSHAKE_AGAIN", limits::HANDSHAKE_AGAIN.as_millis()),
        ("HANDSHAKE_MOST", limits::HANDSHAKE_MOST.as_millis()),
        ("KEYS_PROVEN", limits::KEYS_PROVEN.as_millis()),
        ("FORGED_PACKETS", u128::from(limits::FORGED_PACKETS)),
        ("relay::MESSAGE_BYTES", size(wire::relay::MESSAGE_BYTES)),
        ("relay::LIST_ITEMS", size(wire::relay::LIST_ITEMS)),
        ("relay::MESSAGES", size(wire::relay::MESSAGES)),
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
    let known = [
        "",
        "text",
        "vector",
        // Those of the QUIC transport are checked beside it.
        "vector-quic",
        "vector-refused",
        "vector-text",
        "vector-unopened",
    ];
    assert_eq!(kinds, BTreeSet::from(known));
}

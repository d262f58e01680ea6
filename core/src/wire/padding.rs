//! How long a packet is made, so that its length tells little of what is in it.
//!
//! Lengths are rounded up as in Padmé (Nikitin et al., "Reducing Metadata Leakage from Encrypted Files
//! and Communication with PURBs", PoPETs 2019, section 4): to as many significant bits as the length of
//! the length has. Of all lengths up to 64 KiB 129 are left, and long packets grow by 7 % at most. Short
//! ones, most of what people write to each other and of what acknowledges it, become one length.

use super::frame::PADDING;

/// Which packets are made longer, so that their length tells little.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Padding {
    /// Those that go through a relay, which can tell whose they are. A short one takes 301 bytes there, a
    /// longer one grows by 7 % at most.
    #[default]
    Relayed,
    /// None: for where each byte counts.
    Never,
}

/// Length of the shortest packets, before they are sealed.
const SHORTEST: usize = 256;

/// Bytes of a frame without a body: kind and length.
const EMPTY_FRAME: usize = 2;

/// Bodies from here on have a length of two bytes.
const LONG_BODY: usize = 128;

/// Lengthens a packet by frames of zeros, to no more than `limit`. One that has no room for a frame below
/// the limit stays as it is.
pub(super) fn pad(packet: &mut Vec<u8>, limit: usize) {
    let least = packet.len() + EMPTY_FRAME;
    if least > limit {
        return;
    }
    let padded = padme(least.max(SHORTEST)).min(limit);
    if padded - packet.len() == EMPTY_FRAME + LONG_BODY {
        // No frame has this length: 127 bytes need a byte less for their length, 128 one more.
        packet.extend([PADDING, 0]);
    }
    let body = padded - packet.len() - EMPTY_FRAME;
    packet.push(PADDING);
    if let Some(long) = body.checked_sub(1).filter(|long| *long >= LONG_BODY) {
        // A varint: seven bits in each byte, the low ones first.
        packet.extend([(long % LONG_BODY) as u8 | 0x80, (long / LONG_BODY) as u8]);
    } else {
        packet.push(body as u8);
    }
    packet.resize(padded, 0);
}

/// Rounds a length up. Not for 0 and 1, which no packet has.
const fn padme(length: usize) -> usize {
    let exponent = length.ilog2();
    let significant = exponent.ilog2() + 1;
    let mask = (1 << (exponent - significant)) - 1;
    (length + mask) & !mask
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use bytes::Bytes;

    use super::*;
    use crate::limits::PACKET_BYTES;
    use crate::wire::packet::{VERSION, decode};

    const LIMIT: usize = PACKET_BYTES - crate::seal::OVERHEAD;

    #[test]
    fn lengths_are_those_of_the_paper() {
        for (length, padded) in [
            (2, 2),
            (8, 8),
            (9, 10),
            (100, 104),
            (256, 256),
            (257, 272),
            (1_000, 1_024),
            (16_385, 17_408),
        ] {
            assert_eq!(padme(length), padded, "{length}");
        }
    }

    /// A packet of a given length, with a frame that is skipped in it.
    fn packet(length: usize) -> Vec<u8> {
        let mut packet = vec![VERSION];
        if length > 4 {
            packet.push(PADDING + 1);
            let body = u32::try_from(length - 1 - 4).unwrap();
            // Always in three bytes.
            packet.extend([
                body as u8 | 0x80,
                (body >> 7) as u8 | 0x80,
                (body >> 14) as u8,
            ]);
        }
        packet.resize(length.max(1), 0);
        packet
    }

    #[test]
    fn packets_of_every_length_can_be_read_and_have_few() {
        let mut lengths = BTreeSet::new();
        for length in (1..2).chain(5..=LIMIT) {
            let mut padded = packet(length);
            pad(&mut padded, LIMIT);
            let (now, whole) = (padded.len(), padded.starts_with(&packet(length)));
            assert!(whole && now >= length && now <= LIMIT, "{length}: {now}");
            assert!(
                now <= (length + length * 7 / 100).max(SHORTEST),
                "{length}: {now}"
            );
            let frames = decode(&Bytes::from(padded));
            assert_eq!(frames, Ok(Vec::new()), "{length}");
            if length + EMPTY_FRAME <= LIMIT {
                lengths.insert(now);
            }
        }
        assert_eq!(lengths.len(), 129);
    }
}

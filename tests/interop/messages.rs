//! What is said: messages that the foreign peers know by heart too.

use outlive_core::limits::PACKET_BYTES;

/// Messages that each end says.
pub(crate) const COUNT: usize = 1_000;

/// Bytes of the largest of them: as many as a packet may have. The smallest has one; there are more
/// small ones than large ones.
const LARGEST: usize = PACKET_BYTES;

/// Who says a message, as the number that its bytes begin from.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Whose {
    Ours = 0,
    Theirs = 101,
}

/// Message `n` of those that one end says. No two that follow each other are alike.
pub(crate) fn message(n: usize, whose: Whose) -> Vec<u8> {
    let nth = 383 * n % COUNT;
    let size = 1 + nth.pow(3) * (LARGEST - 1) / (COUNT - 1).pow(3);
    let byte = |i| ((whose as usize + 7 * n + 13 * (i % 251)) % 251) as u8;
    (0..size).map(byte).collect()
}

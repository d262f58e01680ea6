//! The two peers of the document: A, whose key section 3 gives, and B.

use outlive_core::{Identity, PeerId};

pub(crate) fn counting<const N: usize>(from: u8) -> [u8; N] {
    std::array::from_fn(|n| from + n as u8)
}

pub(crate) const SEEDS: [u8; 2] = [0, 0x20];

pub(crate) fn identities() -> [Identity; 2] {
    SEEDS.map(|from| Identity::from_seed(counting(from)))
}

pub(crate) fn a() -> PeerId {
    identities()[0].peer_id()
}

pub(crate) fn b() -> PeerId {
    identities()[1].peer_id()
}

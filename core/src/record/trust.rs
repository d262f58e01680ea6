//! What a person decided about a peer.

use serde::{Deserialize, Serialize};

use super::Record;
use crate::WallTime;

/// A decision about a peer. Whether it is blocked is a record of its own, so that unblocking finds
/// what was before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrustRecord {
    /// How far the peer is trusted.
    pub level: TrustLevel,
    /// When that was decided.
    pub since: WallTime,
}

/// How far a peer is trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum TrustLevel {
    /// It is taken for who it says it is.
    Pinned,
    /// Its safety number was compared.
    Verified,
}

impl Record for TrustRecord {
    const WHAT: &'static str = "the record of a peer's trust";
}

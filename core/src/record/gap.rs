//! Messages that will never come.

use serde::{Deserialize, Serialize};

use crate::{Epoch, Seq};

/// A run of the peer's segments on one channel that will never come: their messages expired, were
/// taken back, or are of a past that our store does not remember.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// The peer's epoch.
    pub epoch: Epoch,
    /// The first seq.
    pub first: Seq,
    /// The last seq.
    pub last: Seq,
}

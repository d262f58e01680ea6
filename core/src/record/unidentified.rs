//! How a session sends without being named to the relay.

use serde::{Deserialize, Serialize};

use super::Record;
use crate::wire::relay::{DeliveryToken, Slot};

/// The token that the peer gave out, and the slot we have in its mailbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnidentifiedRecord {
    /// What opens the peer's mailbox for us.
    pub token: DeliveryToken,
    /// Drawn once, and kept when there is another token.
    pub slot: Slot,
}

impl Record for UnidentifiedRecord {
    const WHAT: &'static str = "the record of a delivery token";
}

//! Where a peer reads what waits for it.

use serde::{Deserialize, Serialize};

use crate::StoreId;
use crate::limits::MAILBOX_RELAY_BYTES;

/// A mailbox: at which relay it is. Two addresses may lead to one relay; its store tells.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Mailbox {
    /// The name of the relay's store, as the relay has told it.
    pub store: StoreId,
    /// The address of the relay, as whoever reads there dials it.
    pub relay: String,
}

/// Whether a text may be the address of a relay that is told to others: visible ASCII, not too long, and
/// without what may be a secret (a user, a password) or tells more than where the relay is (a query, a
/// fragment). Whether anything is there is another question.
#[must_use]
pub fn is_relay_address(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'@' | b'?' | b'#');
    text.bytes().all(plain) && (1..=MAILBOX_RELAY_BYTES).contains(&text.len())
}

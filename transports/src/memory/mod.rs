//! A relay in this process, for tests and simulations of apps: no sockets, and every fault to
//! order.
//!
//! ```text
//!   RelaySender ── said ──▶ ┌ relay ─────────────────┐ ── answers ──▶ RelayReceiver
//!     (waits while full)    │ mailboxes, who is there │     (bounded: mail waits in its mailbox)
//!                           └────────────────────────┘
//! ```
//!
//! It keeps mailboxes, classes, custody, presence, takeover and its store's id as the real relay
//! does, and uses no task of its own: all that happens, happens in the call that brings it about.
//! So an app on it can run in the virtual time of `tokio::time::pause`. Nobody proves who they are:
//! within one process there is nothing to prove.

mod connection;
mod faults;
mod halves;
mod mailbox;
mod shared;
mod state;
mod trouble;

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use outlive_core::Identity;
use outlive_core::transport::{RelayConnection, RelayTransport, TransportError};
use tokio::sync::watch;

pub use self::faults::{Faults, Hold, Way};
use self::shared::Shared;
pub use self::shared::{Counts, MAILBOX_MESSAGES};
use self::state::Dialed;

/// A relay in memory, and the way to it. Clones are ways to the same relay.
///
/// ```
/// # use outlive_transports::MemoryRelay;
/// let relay = MemoryRelay::new("first");
/// let down = relay.faults().down();
/// assert_eq!(relay.counts().borrow().connected, 0);
/// drop(down);
/// ```
#[derive(Clone)]
pub struct MemoryRelay {
    address: String,
    shared: Arc<Shared>,
}

impl fmt::Debug for MemoryRelay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("MemoryRelay").field(&self.address).finish()
    }
}

impl MemoryRelay {
    /// An empty relay with the address `memory:NAME`.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self::with_mailboxes(name, MAILBOX_MESSAGES)
    }

    /// An empty relay whose mailboxes hold so many messages each. One more is refused, and the
    /// sender's receipt says so.
    #[must_use]
    pub fn with_mailboxes(name: &str, messages: usize) -> Self {
        Self {
            address: format!("memory:{name}"),
            shared: Arc::new(Shared::new(messages)),
        }
    }

    /// The switchboard of this relay's faults.
    #[must_use]
    pub fn faults(&self) -> Faults {
        Faults::new(self.shared.clone())
    }

    /// What the relay did so far, and what it holds. To wait for something to happen there.
    #[must_use]
    pub fn counts(&self) -> watch::Receiver<Counts> {
        self.shared.counts()
    }

    fn unreachable(&self, reason: &str) -> TransportError {
        TransportError::Unreachable {
            address: self.address.clone(),
            reason: reason.to_owned(),
        }
    }
}

#[async_trait]
impl RelayTransport for MemoryRelay {
    fn address(&self) -> &str {
        &self.address
    }

    async fn connect(&self, identity: &Identity) -> Result<RelayConnection, TransportError> {
        let mut dialing = self.shared.dialing();
        loop {
            dialing.borrow_and_update();
            match self.shared.lock().dial(identity.peer_id()) {
                Dialed::Signed(signed) => return Ok(halves::split(&self.shared, signed)),
                Dialed::Unreachable(reason) => return Err(self.unreachable(reason)),
                Dialed::Held => {}
            }
            if dialing.changed().await.is_err() {
                return Err(self.unreachable("the relay is gone"));
            }
        }
    }
}

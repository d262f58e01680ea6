//! What an operator may set.

use std::time::Duration;

/// Settings of a relay.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RelayConfig {
    /// Connections at once. One more hears that the relay is busy.
    pub connections: usize,
    /// Envelopes one mailbox holds. One more is refused, and the sender's receipt says so.
    pub mailbox_envelopes: u64,
    /// Bytes of packets one mailbox holds.
    pub mailbox_bytes: u64,
    /// The longest an envelope may wait.
    pub max_ttl: Duration,
    /// How long TLS and HTTP may take together, and then signing in. Longer, and idle sockets pile
    /// up.
    pub sign_in_timeout: Duration,
    /// How often a connection is pinged. Clients give the relay up after 50 s of silence.
    pub ping_every: Duration,
    /// How long a client may be silent, or not take what it is sent.
    pub silence: Duration,
    /// How long a relay that drains waits for clients to take what they are answered.
    pub drain_timeout: Duration,
    /// How often mailboxes are searched for what has expired.
    pub sweep_every: Duration,
}

impl Default for RelayConfig {
    fn default() -> Self {
        Self {
            connections: 65_536,
            mailbox_envelopes: 1_000_000,
            mailbox_bytes: 4 * 1024 * 1024 * 1024,
            max_ttl: Duration::from_secs(30 * 24 * 3_600),
            sign_in_timeout: Duration::from_secs(10),
            ping_every: Duration::from_secs(20),
            silence: Duration::from_secs(60),
            drain_timeout: Duration::from_secs(10),
            sweep_every: Duration::from_secs(10),
        }
    }
}

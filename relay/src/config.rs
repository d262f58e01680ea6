//! What an operator may set.

use std::time::Duration;

use crate::accounts::Rates;
use crate::error::RelayError;
use crate::rate::Rate;

/// Settings of a relay.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RelayConfig {
    /// Connections at once. One more is answered with 503.
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
    /// How often a connection is pinged; not zero. Clients give the relay up after 50 s of silence, and after 25
    /// if it owes them an answer.
    pub ping_every: Duration,
    /// How long a client may be silent, or not take what it is sent.
    pub silence: Duration,
    /// How long a relay that drains waits for clients to take what they are answered.
    pub drain_timeout: Duration,
    /// How often mailboxes are searched for what has expired; not zero.
    pub sweep_every: Duration,
    /// Envelopes one peer may submit, over all its connections one after the other. A peer beyond
    /// this or one of the next two is not refused anything; it is not read for a while.
    pub peer_envelopes: Option<Rate>,
    /// Bytes one peer may send.
    pub peer_bytes: Option<Rate>,
    /// Peers one peer may ask to be told of.
    pub peer_watches: Option<Rate>,
    /// How many times the rates of one peer all peers of one address have together; 0 for no limit.
    /// Anybody can be any number of peers. Beyond this none of them is read for a while. Not counted
    /// where `address_sign_ins` is none.
    pub address_peers: u64,
    /// Connections one address (of IPv6, one network of 64 bits) may open. One more is closed at
    /// once. Switch it off behind a proxy, which makes all clients look like one address.
    pub address_sign_ins: Option<Rate>,
    /// Sockets from one address that are open at once; 0 for no limit. One more is closed at once. Not
    /// counted where `address_sign_ins` is none. Well below
    /// [`connections`](Self::connections), or one address can take all of them.
    pub address_connections: usize,
    /// STUN requests one address may ask. One more is not answered.
    pub address_stun: Option<Rate>,
    /// Whether what is said of addresses holds for loopback addresses too. Not so by default: there it is a proxy on the
    /// same machine, or a test.
    pub limit_loopback: bool,
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
            peer_envelopes: Rate::new(5_000),
            peer_bytes: Rate::new(32 * 1024 * 1024),
            peer_watches: Rate::new(4_096),
            address_peers: 8,
            address_sign_ins: Rate::new(20),
            address_connections: 4_096,
            address_stun: Rate::new(10),
            limit_loopback: false,
        }
    }
}

impl RelayConfig {
    /// What one peer may do.
    pub(crate) const fn peer_rates(&self) -> Rates {
        Rates {
            envelopes: self.peer_envelopes,
            bytes: self.peer_bytes,
            watches: self.peer_watches,
        }
    }

    /// What all peers of one address may do together.
    pub(crate) fn address_rates(&self) -> Rates {
        let times = |rate: Option<Rate>| rate.and_then(|rate| rate.times(self.address_peers));
        Rates {
            envelopes: times(self.peer_envelopes),
            bytes: times(self.peer_bytes),
            watches: times(self.peer_watches),
        }
    }

    /// Refuses what nothing can be done with.
    pub(crate) fn check(&self) -> Result<(), RelayError> {
        for (setting, time) in [
            ("ping_every", self.ping_every),
            ("sweep_every", self.sweep_every),
        ] {
            if time.is_zero() {
                return Err(RelayError::ZeroTime { setting });
            }
        }
        Ok(())
    }
}

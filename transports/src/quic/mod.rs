//! QUIC to a peer itself: one UDP socket a node, one connection a link.
//!
//! ```text
//!   Quic ─ bind ─▶ Endpoint ─┬─ dial ───▶ both prove their keys ─▶ halves
//!                            └─ accept ─▶
//! ```
//!
//! TLS 1.3 with the identities' own keys says who is at the other end; what runs over a link is
//! sealed by the session besides. See `docs/PROTOCOL.md` for the bytes.

mod accepting;
mod addresses;
mod congestion;
mod endpoint;
mod errors;
mod halves;
mod socket;
mod stun;
mod tasks;
mod trust;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use outlive_core::Identity;
use outlive_core::transport::{DirectEndpoint, DirectTransport, TransportError};
use quinn::{IdleTimeout, TransportConfig, VarInt};

pub use self::congestion::Congestion;
use self::endpoint::Endpoint;

/// Bytes of one lane that a peer may send before they are read: half of what a session lets a peer run
/// ahead on a channel (512 segments of 16 KiB). Covers 160 Mbit/s over a round trip of 200 ms.
const LANE_WINDOW: u32 = 4 * 1024 * 1024;

/// Bytes of all lanes together that a peer may make us hold, in order or not, once its link is
/// accepted. Then it is asked whether it is let in; until then it is [`accepting::WINDOW_BEFORE`].
const RECEIVE_WINDOW: u32 = LANE_WINDOW * halves::LANES;

/// Bytes of all lanes together that wait here until the peer has acknowledged them. Bulk has less of
/// it, so no lane can take the room of another.
const SEND_WINDOW: u64 = RECEIVE_WINDOW as u64;

/// How long a peer may be silent before its link is gone. Longer than the wire of a mobile host is
/// usually away, so that the link goes on after it; a session does not wait for it and sends over
/// another link meanwhile.
const SILENCE: Duration = Duration::from_secs(30);

/// The shortest such time. Shorter, and a few lost packets end a link that is well.
const SILENCE_LEAST: Duration = Duration::from_secs(3);

/// Keep-alives in that time. Two may be lost, and the binding in a NAT, which may forget after half a
/// minute, is kept.
const KEEP_ALIVES: u32 = 3;

/// How long dialing may take, and how long a handshake may take that somebody began with us. Shorter,
/// and a bad mobile network never gets there; longer, and a dead address holds up the next try.
const HANDSHAKE_TIME: Duration = Duration::from_secs(10);

/// Direct links over QUIC.
///
/// ```
/// use outlive_transports::Quic;
///
/// let quic = Quic::new().bind_to(([0, 0, 0, 0], 4433).into());
/// ```
#[derive(Clone, Debug)]
pub struct Quic {
    address: Option<SocketAddr>,
    congestion: Congestion,
    silence: Duration,
    servers: Vec<String>,
    found_at: Vec<SocketAddr>,
}

impl Default for Quic {
    fn default() -> Self {
        Self {
            address: None,
            congestion: Congestion::default(),
            silence: SILENCE,
            servers: Vec::new(),
            found_at: Vec::new(),
        }
    }
}

impl Quic {
    /// Links at all addresses of this host, IPv6 and IPv4 as far as it has them, at a port that is
    /// free.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Binds the socket to this address. With `[::]` it takes IPv4 too.
    #[must_use]
    pub const fn bind_to(mut self, address: SocketAddr) -> Self {
        self.address = Some(address);
        self
    }

    /// How connections find out how fast they may send; [`Congestion::Bbr`] if not said.
    #[must_use]
    pub const fn with_congestion(mut self, congestion: Congestion) -> Self {
        self.congestion = congestion;
        self
    }

    /// Gives a link up after this time without a sign of life; 30 s if not said. Three times in it
    /// a sign is asked for. The shorter time of the two ends holds. Less than 3 s is taken for 3 s.
    #[must_use]
    pub const fn with_silence(mut self, silence: Duration) -> Self {
        self.silence = silence;
        self
    }

    /// Asks this STUN server too where the socket is seen from outside, so that peers elsewhere can
    /// be told: `stun.example:3478`, without a scheme. At most four are asked, the first that were named.
    #[must_use]
    pub fn ask_stun(mut self, server: impl Into<String>) -> Self {
        if self.servers.len() < stun::SERVERS {
            self.servers.push(server.into());
        }
        self
    }

    /// Has peers told this address, and no other unless it is named so too: where a router passes
    /// what comes on to the socket. At most 16, the first that were named; more are left out.
    #[must_use]
    pub fn found_at(mut self, address: SocketAddr) -> Self {
        if self.found_at.len() < addresses::ADDRESSES {
            self.found_at.push(address);
        }
        self
    }

    /// Of connections whose peers may make us hold so many bytes of all lanes together.
    fn transport_config(&self, window: u32) -> Result<TransportConfig, TransportError> {
        let silence = self.silence.max(SILENCE_LEAST);
        let idle = IdleTimeout::try_from(silence).map_err(|_| TransportError::Address {
            address: self.name().to_owned(),
            reason: "the time of silence is too long".to_owned(),
        })?;
        let mut config = TransportConfig::default();
        config
            .max_concurrent_uni_streams(VarInt::from_u32(halves::LANES))
            .max_concurrent_bidi_streams(VarInt::from_u32(0))
            .datagram_receive_buffer_size(None)
            .stream_receive_window(VarInt::from_u32(LANE_WINDOW))
            .receive_window(VarInt::from_u32(window))
            .send_window(SEND_WINDOW)
            .max_idle_timeout(Some(idle))
            .keep_alive_interval(Some(silence / KEEP_ALIVES))
            .congestion_controller_factory(self.congestion.factory());
        Ok(config)
    }
}

#[async_trait]
impl DirectTransport for Quic {
    fn name(&self) -> &'static str {
        "quic"
    }

    async fn bind(&self, identity: &Identity) -> Result<Arc<dyn DirectEndpoint>, TransportError> {
        Ok(Arc::new(Endpoint::open(self, identity)?))
    }
}

/// Where the other end of a connection is. A socket for IPv6 shows an IPv4 address mapped into it.
fn peer_address(connection: &quinn::Connection) -> SocketAddr {
    plain(connection.remote_address())
}

fn plain(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        IpAddr::V4(ip) => SocketAddr::new(ip.into(), address.port()),
        // As it was, with the interface that a link-local one belongs to.
        IpAddr::V6(_) => address,
    }
}

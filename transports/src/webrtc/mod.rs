//! WebRTC to a peer itself: one peer connection a link, with one data channel.
//!
//! ```text
//!   WebRtc ─ connection ─▶ Connection ── offer, answer, candidates ──▶ the session's signaling
//!                              └── ICE ─ DTLS ─ SCTP ─▶ data channel ─▶ halves
//! ```
//!
//! Who is at the other end is whoever has the certificate whose fingerprint is in the description. A
//! description is as authentic as the signaling that carried it; that of a session is sealed, so no
//! relay can put itself between. What runs over a link is sealed by the session besides.
//!
//! There are no names in multicast DNS: none of ours, so that a host without multicast works as any
//! other, and none of the peer's are looked up. A browser that hides its address behind such a name
//! is found all the same, for it sees ours and calls first.

mod candidates;
mod channel;
mod connection;
mod description;
mod errors;
mod halves;
mod role;
mod tasks;
mod told;

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use async_trait::async_trait;
use outlive_core::limits::PACKET_BYTES;
use outlive_core::transport::{NegotiatedConnection, NegotiatedTransport, TransportError};
use rtc::ice::mdns::MulticastDnsMode;
use rtc::ice::network_type::NetworkType;
use rtc::peer_connection::configuration::setting_engine::SctpMaxMessageSize;
use webrtc::peer_connection::{
    RTCConfiguration, RTCConfigurationBuilder, RTCIceServer, SettingEngine, SettingEngineBuilder,
};

use self::connection::Connection;

/// Bytes of a link that wait here for the peer to acknowledge them; while there are as many, sending
/// waits. More, and a chat line waits longer behind them; less than a peer of ours lets be on its way,
/// and the path runs dry.
const SEND_BUFFER: usize = RECEIVE_BUFFER as usize;

/// Bytes that a peer may send before they are read. Its SCTP doubles what it sends at once up to that,
/// and a burst that a UDP socket does not hold (a system gives it 208 KiB, and counts a packet of
/// 1,200 bytes as 2,304) costs seconds of recovery: with 1 MiB a link over 50 ms carried 0.1 MB/s,
/// with this it carries 1.8. A packet has to fit. What was read waits in two queues of 256 packets
/// each, until the session takes it: a peer can make us hold 32 MiB a link.
const RECEIVE_BUFFER: u32 = 96 * 1024;

/// How long a peer may be silent before its link is gone, as long as a session gives one.
const SILENCE: Duration = Duration::from_secs(10);

/// After this part of the time of silence it is told that nothing comes.
const NOTED: u32 = 3;

/// Signs of life that are asked for in the time of silence.
const KEEP_ALIVES: u32 = 10;

/// How often a pair of addresses is tried, with [`CHECKS_APART`] between. The answer to an offer may
/// take seconds over a relay, and a pair that was given up before is not tried again.
const CHECKS: u16 = 100;

/// Shorter, and the checks of many pairs are a flood; longer, and a link is up later.
const CHECKS_APART: Duration = Duration::from_millis(100);

/// How long ICE waits for a better way before it takes one through a gate: an address of one that a
/// server or the peer has seen. A way inside of a network answers in less, and was tried first. With
/// the 500 ms and 1 s that are usual two peers behind gates waited for most of the time that a link
/// took to come up. For one through a TURN server it stays at 2 s: somebody pays for that, and
/// messages have a relay meanwhile.
const BETTER_WAY: Duration = CHECKS_APART;

/// The name of the data channel, for whoever looks at a connection from outside.
const CHANNEL_LABEL: &str = "outlive";

/// Direct links over WebRTC.
///
/// ```
/// use outlive_transports::WebRtc;
///
/// let webrtc = WebRtc::new()
///     .with_stun("stun:relay.example:3478")
///     .with_turn("turn:turn.example:3478", "me", "secret");
/// ```
///
/// An outlive relay can be the STUN server; for TURN it takes another one. The scheme is a part of their
/// addresses here, unlike in `Quic::ask_stun`. One that can't be used shows when a connection is to be
/// made: each then fails, with [`TransportError::Address`], which a node logs at the level `debug`.
#[derive(Clone)]
pub struct WebRtc {
    addresses: Vec<SocketAddr>,
    servers: Vec<RTCIceServer>,
    silence: Duration,
}

impl Default for WebRtc {
    fn default() -> Self {
        Self {
            addresses: vec![
                (Ipv4Addr::UNSPECIFIED, 0).into(),
                (Ipv6Addr::UNSPECIFIED, 0).into(),
            ],
            servers: Vec::new(),
            silence: SILENCE,
        }
    }
}

impl std::fmt::Debug for WebRtc {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let servers: Vec<_> = self
            .servers
            .iter()
            .flat_map(|server| &server.urls)
            .collect();
        f.debug_struct("WebRtc")
            .field("addresses", &self.addresses)
            .field("servers", &servers)
            .field("silence", &self.silence)
            .finish()
    }
}

impl WebRtc {
    /// Links from all addresses of this host but those of its loopback, without servers.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Binds the sockets of connections to this address alone. Its port is to be 0 if there may be
    /// more than one connection.
    #[must_use]
    pub fn bind_to(mut self, address: SocketAddr) -> Self {
        self.addresses = vec![address];
        self
    }

    /// Asks this server, `stun:host:port`, where the sockets are seen from outside.
    #[must_use]
    pub fn with_stun(mut self, url: impl Into<String>) -> Self {
        self.servers.push(RTCIceServer {
            urls: vec![url.into()],
            ..RTCIceServer::default()
        });
        self
    }

    /// Goes through this server, `turn:host:port`, where there is no other way. It learns who talks
    /// to whom and how much, and nothing of what.
    #[must_use]
    pub fn with_turn(
        mut self,
        url: impl Into<String>,
        username: impl Into<String>,
        password: impl Into<String>,
    ) -> Self {
        self.servers.push(RTCIceServer {
            urls: vec![url.into()],
            username: username.into(),
            credential: password.into(),
        });
        self
    }

    /// Gives a link up after this time without a sign of life, and a connection that does not come
    /// about in it; 10 s if not said. Ten times in it a sign is asked for.
    #[must_use]
    pub const fn with_silence(mut self, silence: Duration) -> Self {
        self.silence = silence;
        self
    }

    fn configuration(&self) -> Result<RTCConfiguration, TransportError> {
        for server in &self.servers {
            server.urls().map_err(|error| TransportError::Address {
                address: server.urls.join(", "),
                reason: error.to_string(),
            })?;
        }
        Ok(RTCConfigurationBuilder::default()
            .with_ice_servers(self.servers.clone())
            .build())
    }

    fn settings(&self) -> SettingEngine {
        let noted = self.silence / NOTED;
        SettingEngineBuilder::new()
            .with_multicast_dns_mode(MulticastDnsMode::Disabled)
            // Those of TCP in a description are passed over.
            .with_network_types(vec![NetworkType::Udp4, NetworkType::Udp6])
            .with_discard_local_candidates_during_ice_restart(true)
            .with_ice_timeouts(
                Some(noted),
                Some(self.silence.saturating_sub(noted)),
                Some(self.silence / KEEP_ALIVES),
            )
            .with_ice_connection_attempts(Some(CHECKS_APART), Some(CHECKS))
            .with_srflx_acceptance_min_wait(Some(BETTER_WAY))
            .with_prflx_acceptance_min_wait(Some(BETTER_WAY))
            .with_sctp_max_message_size(SctpMaxMessageSize::Bounded(PACKET_BYTES as u32))
            .with_sctp_max_receive_buffer_size(RECEIVE_BUFFER)
            .build()
    }
}

#[async_trait]
impl NegotiatedTransport for WebRtc {
    fn name(&self) -> &'static str {
        "webrtc"
    }

    async fn connection(&self) -> Result<Box<dyn NegotiatedConnection>, TransportError> {
        Ok(Box::new(Connection::open(self.clone()).await?))
    }
}

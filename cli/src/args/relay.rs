//! How a relay is to serve.

use std::net::SocketAddr;
use std::path::PathBuf;

use outlive_relay::{Rate, RelayConfig};

#[derive(Debug, clap::Args)]
pub(crate) struct Relay {
    /// The address to listen on; port 0 takes a free one.
    #[arg(long, value_name = "ADDR", value_parser = address)]
    pub(crate) listen: SocketAddr,
    /// The directory that holds the mailboxes.
    #[arg(long, value_name = "DIR")]
    pub(crate) data: PathBuf,
    /// The certificate to show, with its chain behind it. Without it clients come over ws://, or
    /// through a proxy that ends TLS. SIGHUP has it and its key read again.
    #[arg(long, value_name = "PEM", requires = "tls_key")]
    pub(crate) tls_cert: Option<PathBuf>,
    /// The key of the certificate, not encrypted.
    #[arg(long, value_name = "PEM", requires = "tls_cert")]
    pub(crate) tls_key: Option<PathBuf>,
    /// Answer STUN requests over UDP at this address too, so that peers behind NATs find direct ways
    /// to each other; port 3478 is the usual one.
    #[arg(long, value_name = "ADDR", value_parser = address)]
    pub(crate) stun: Option<SocketAddr>,
    /// Answer `GET /metrics` over plain HTTP at this address too, as a Prometheus reads it. There is no sign-in
    /// there: let it be a private one.
    #[arg(long, value_name = "ADDR", value_parser = address)]
    pub(crate) metrics: Option<SocketAddr>,
    /// STUN requests a second that one address may ask; further ones are not answered.
    #[arg(long, value_name = "N", default_value_t = each(RelayConfig::default().address_stun))]
    pub(crate) address_stun: u64,
    /// Envelopes one mailbox holds before senders are refused.
    #[arg(long, value_name = "N", default_value_t = RelayConfig::default().mailbox_envelopes)]
    pub(crate) mailbox_envelopes: u64,
    /// Bytes one mailbox holds before senders are refused.
    #[arg(long, value_name = "N", default_value_t = RelayConfig::default().mailbox_bytes)]
    pub(crate) mailbox_bytes: u64,
    /// The longest an envelope may wait, in seconds.
    #[arg(long, value_name = "SECS", default_value_t = RelayConfig::default().max_ttl.as_secs())]
    pub(crate) max_ttl: u64,
    /// Connections at once.
    #[arg(long, value_name = "N", default_value_t = RelayConfig::default().connections)]
    pub(crate) connections: usize,
    /// Envelopes a second that one peer may submit; at once, what comes together in 20 s. Beyond
    /// that it has to wait. This and the following: 0 for no limit.
    #[arg(long, value_name = "N", default_value_t = each(RelayConfig::default().peer_envelopes))]
    pub(crate) peer_envelopes: u64,
    /// Bytes a second that one peer may send.
    #[arg(long, value_name = "N", default_value_t = each(RelayConfig::default().peer_bytes))]
    pub(crate) peer_bytes: u64,
    /// Peers a second that one peer may ask to be told of.
    #[arg(long, value_name = "N", default_value_t = each(RelayConfig::default().peer_watches))]
    pub(crate) peer_watches: u64,
    /// How many times the limits of one peer all peers of one address have together. Loopback is
    /// never limited.
    #[arg(long, value_name = "N", default_value_t = RelayConfig::default().address_peers)]
    pub(crate) address_peers: u64,
    /// Connections a second that one address may open; further ones are closed at once. Use 0
    /// behind a proxy on another machine. Loopback is never limited.
    #[arg(long, value_name = "N", default_value_t = each(RelayConfig::default().address_sign_ins))]
    pub(crate) address_sign_ins: u64,
    /// Connections of one address at once; further ones are closed at once. Loopback is never limited.
    #[arg(long, value_name = "N", default_value_t = RelayConfig::default().address_connections)]
    pub(crate) address_connections: usize,
}

fn each(rate: Option<Rate>) -> u64 {
    rate.map_or(0, Rate::per_second)
}

fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        "write an address and a port, as 127.0.0.1:4400, 0.0.0.0:4400 or [::]:4400".to_owned()
    })
}

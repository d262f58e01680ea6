//! Where peers may reach a socket.

use std::io;
use std::net::SocketAddr;

use tracing::warn;

use super::plain;

/// Addresses that are told, and addresses of a peer that are dialed. The rest is left out: a host
/// with more has most of them for containers.
pub(super) const ADDRESSES: usize = 16;

/// Of the same host so many are dialed: at its own port, and as a few servers see it. A peer may name
/// somebody else's, to whom we would send as often as the peer tells us of it.
const PORTS: usize = 4;

/// The addresses that a socket bound to `local` has on the interfaces of this host.
pub(super) fn of_interfaces(local: SocketAddr) -> Vec<SocketAddr> {
    if !local.ip().is_unspecified() {
        return vec![local];
    }
    let found: io::Result<Vec<if_addrs::Interface>> = if_addrs::get_if_addrs();
    let interfaces = found.unwrap_or_else(|error| {
        warn!(%error, "the addresses of this host can't be read; peers are told none of them");
        Vec::new()
    });
    interfaces
        .iter()
        // One that is down keeps its address, at which nobody is found.
        .filter(|interface| interface.is_oper_up())
        .filter(|interface| !interface.is_loopback() && !interface.is_link_local())
        .map(|interface| SocketAddr::new(interface.ip(), local.port()))
        .filter(|address| address.is_ipv4() || local.is_ipv6())
        .take(ADDRESSES)
        .collect()
}

/// Those of a peer's addresses that are dialed from a socket bound to `local`, each once: at most
/// [`ADDRESSES`], and [`PORTS`] of a host.
pub(super) fn to_dial(addresses: &[SocketAddr], local: SocketAddr) -> Vec<SocketAddr> {
    let mut dialed: Vec<SocketAddr> = Vec::new();
    for address in addresses.iter().copied().map(plain) {
        let host = dialed.iter().filter(|other| other.ip() == address.ip());
        let room = dialed.len() < ADDRESSES && host.count() < PORTS;
        if room && !dialed.contains(&address) && can_be_dialed(address, local) {
            dialed.push(address);
        }
    }
    dialed
}

/// Whether anybody can be at this address at all, and a socket bound to `local` can get there.
pub(super) fn can_be_dialed(address: SocketAddr, local: SocketAddr) -> bool {
    let ip = address.ip();
    let nobody = ip.is_unspecified()
        || ip.is_multicast()
        || ip == std::net::Ipv4Addr::BROADCAST
        || address.port() == 0;
    !nobody && (address.is_ipv4() || local.is_ipv6())
}

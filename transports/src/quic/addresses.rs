//! Where peers may reach a socket.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};

use tracing::warn;

use super::plain;
use crate::address::{in_turns, is_of_somebody};

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
    let found = interfaces
        .iter()
        // One that is down keeps its address, at which nobody is found.
        .filter(|interface| interface.is_oper_up())
        .filter(|interface| !interface.is_loopback() && !interface.is_link_local())
        .map(if_addrs::Interface::ip)
        .filter(|ip| ip.is_ipv4() || local.is_ipv6());
    by_use(found.collect(), &ways_out())
        .into_iter()
        .map(|ip| SocketAddr::new(ip, local.port()))
        .take(ADDRESSES)
        .collect()
}

/// The addresses that packets to somewhere far away would have, over IPv6 and over IPv4. None is sent.
fn ways_out() -> Vec<IpAddr> {
    let ways = [("[::]:0", "[2001:db8::1]:9"), ("0.0.0.0:0", "192.0.2.1:9")];
    let way = |(any, far): (&str, &str)| {
        let socket = UdpSocket::bind(any).ok()?;
        socket.connect(far).ok()?;
        Some(socket.local_addr().ok()?.ip())
    };
    ways.into_iter().filter_map(way).collect()
}

/// Those of most use first: by which the host reaches others, and then of both families in turns. What is
/// left out behind them are a host's many networks for containers.
fn by_use(found: Vec<IpAddr>, ways_out: &[IpAddr]) -> Vec<IpAddr> {
    let (mut ordered, others): (Vec<_>, Vec<_>) =
        found.into_iter().partition(|ip| ways_out.contains(ip));
    let (v4, v6): (Vec<_>, Vec<_>) = others.into_iter().partition(IpAddr::is_ipv4);
    ordered.extend(in_turns(v6, v4));
    ordered
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
    is_of_somebody(address) && (address.is_ipv4() || local.is_ipv6())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_are_networks_for_containers() {
        let container = |n: u8| IpAddr::from([172, 17, n, 1]);
        let way_out = IpAddr::from([192, 0, 2, 7]);
        let v6: IpAddr = "2001:db8::7".parse().expect("an address");
        let found = (0..20).map(container).chain([way_out, v6]);
        let ordered = by_use(found.collect(), &[way_out]);
        assert_eq!(ordered[..4], [way_out, v6, container(0), container(1)]);
        assert_eq!(ordered.len(), 22);
    }
}

//! Addresses, as sockets see them.

use std::io::ErrorKind;
use std::net::{IpAddr, UdpSocket};
#[cfg(any(feature = "quic", feature = "webrtc"))]
use std::net::{Ipv4Addr, SocketAddr};

/// Whether it can be the address of anybody, and of one alone.
#[cfg(any(feature = "quic", feature = "webrtc"))]
pub(crate) fn is_of_somebody(address: SocketAddr) -> bool {
    let ip = address.ip().to_canonical();
    let several = ip.is_multicast() || ip == Ipv4Addr::BROADCAST;
    !several && !ip.is_unspecified() && address.port() != 0
}

/// All of them, of both in turns, beginning with the first.
#[cfg(any(feature = "quic", feature = "websocket"))]
pub(crate) fn in_turns<T>(one: Vec<T>, other: Vec<T>) -> Vec<T> {
    let mut turns = Vec::with_capacity(one.len() + other.len());
    let (mut one, mut other) = (one.into_iter(), other.into_iter());
    loop {
        let pair = [one.next(), other.next()];
        if pair.iter().all(Option::is_none) {
            return turns;
        }
        turns.extend(pair.into_iter().flatten());
    }
}

/// Whether this host has lost an address that it had. Nothing can be bound to one that is not its own;
/// whatever else may be the matter says nothing about that.
pub(crate) fn is_gone(address: IpAddr) -> bool {
    let bound = UdpSocket::bind((address, 0));
    bound.is_err_and(|error| error.kind() == ErrorKind::AddrNotAvailable)
}

#[test]
fn an_address_of_somebody_else_is_gone_and_one_of_ours_is_not() {
    assert!(is_gone(IpAddr::from([192, 0, 2, 77])));
    assert!(!is_gone(IpAddr::from([127, 0, 0, 1])));
}

//! The node's UDP socket.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use socket2::{Domain, Protocol, Socket, Type};
use tracing::warn;

/// Bytes the system is asked to hold for the socket, in each direction. It may grant less; then more
/// is lost and sent again at high rates.
const SYSTEM_BUFFER: usize = 2 * 1024 * 1024;

/// Opens the socket: at `address` if one was asked for, else at all of the host's, IPv6 and IPv4.
/// Where there is no IPv6, that is IPv4 alone.
pub(super) fn open(address: Option<SocketAddr>) -> io::Result<UdpSocket> {
    if let Some(address) = address {
        return bound(address);
    }
    bound((Ipv6Addr::UNSPECIFIED, 0).into()).or_else(|error| {
        warn!(%error, "there is no IPv6 here; direct links use IPv4 alone");
        bound((Ipv4Addr::UNSPECIFIED, 0).into())
    })
}

fn bound(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::DGRAM,
        Some(Protocol::UDP),
    )?;
    if address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) {
        socket.set_only_v6(false)?;
    }
    // Less than asked for is no reason not to start.
    let _ = socket.set_recv_buffer_size(SYSTEM_BUFFER);
    let _ = socket.set_send_buffer_size(SYSTEM_BUFFER);
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

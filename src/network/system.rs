//! Watches this host's network, where the system tells of changes: on Linux, by netlink.
//!
//! The kernel says that something about links, addresses or routes has changed, and what has is looked
//! up: much of what it says is of no concern to anybody (a lifetime that was extended, a statistic).

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{AsyncSocket, AsyncSocketExt, SocketAddr as Groups, TokioSocket};
use tracing::{debug, warn};

use super::NetworkMonitor;

/// The kernel's `RTMGRP_*`: links, and the addresses and routes of IPv4 and of IPv6.
const GROUPS: u32 = 0x1 | 0x10 | 0x40 | 0x100 | 0x400;

/// A change comes as several messages: so long after the first of them it is looked what has become of
/// it all. Longer, and everybody waits; shorter, and a host that moves is looked at half-way.
const SETTLE: Duration = Duration::from_millis(20);

/// After a failure of the socket, which means that messages were lost, or worse.
const AGAIN: Duration = Duration::from_secs(1);

/// What can be reached, and from where, as far as that makes a difference to a socket.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    /// Addresses of interfaces that are up; none of loopback.
    addresses: BTreeSet<IpAddr>,
    /// From where the rest of the world would be reached, over IPv4 and over IPv6.
    from: [Option<IpAddr>; 2],
}

impl Seen {
    fn now() -> io::Result<Self> {
        let interfaces = if_addrs::get_if_addrs()?;
        let up = interfaces
            .iter()
            .filter(|interface| interface.is_oper_up() && !interface.is_loopback());
        Ok(Self {
            addresses: up.map(if_addrs::Interface::ip).collect(),
            from: [
                way_out(
                    Ipv4Addr::UNSPECIFIED.into(),
                    Ipv4Addr::new(192, 0, 2, 1).into(),
                ),
                way_out(
                    Ipv6Addr::UNSPECIFIED.into(),
                    Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into(),
                ),
            ],
        })
    }
}

/// The address that a packet to somewhere far away would have. None is sent.
fn way_out(any: IpAddr, far: IpAddr) -> Option<IpAddr> {
    let socket = UdpSocket::bind(SocketAddr::new(any, 0)).ok()?;
    socket.connect(SocketAddr::new(far, 9)).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

/// Tells the monitor of each change. Returns only if the system does not let itself be watched.
/// Cancellation-safe.
pub(super) async fn watch(monitor: &NetworkMonitor) -> io::Result<()> {
    let socket = listen()?;
    let mut seen = Seen::now()?;
    loop {
        if let Err(error) = socket.recv_from_full().await {
            // Its queue ran over, most likely: the kernel says so once, and goes on.
            debug!(%error, "changes of the network were missed");
            tokio::time::sleep(AGAIN).await;
        }
        tokio::time::sleep(SETTLE).await;
        drain(&socket);
        let now = match Seen::now() {
            Ok(now) => now,
            Err(error) => {
                warn!(%error, "the network can't be looked at");
                continue;
            }
        };
        if now == seen {
            continue;
        }
        debug!(?now, "the network has changed");
        if now.addresses.is_empty() {
            monitor.down();
        } else {
            monitor.up();
        }
        seen = now;
    }
}

fn listen() -> io::Result<TokioSocket> {
    let mut socket = TokioSocket::new(NETLINK_ROUTE)?;
    socket.socket_mut().bind(&Groups::new(0, GROUPS))?;
    Ok(socket)
}

/// What it says is not read: it is looked up.
fn drain(socket: &TokioSocket) {
    while socket.socket_ref().recv_from_full().is_ok() {}
}

//! The way to a relay's host: over whichever of its addresses leads there.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::http::Uri;

use crate::address::in_turns;

/// How long an address has for itself before the next is tried beside it (RFC 8305, section 5, recommends this
/// time). Many hosts have an address of IPv6 from which nothing leads on, and not one that fails.
const APART: Duration = Duration::from_millis(250);

/// Addresses of a host that are tried.
const ADDRESSES: usize = 16;

/// Connects to the host of a WebSocket address. What is flushed there leaves at once, without Nagle's
/// algorithm. Goes on as long as the system does: limit its time. Cancellation-safe.
pub(super) async fn connect(address: &Uri) -> io::Result<TcpStream> {
    let host = address.host().unwrap_or_default();
    let port = match (address.port_u16(), address.scheme_str()) {
        (Some(port), _) => port,
        (None, Some("wss")) => 443,
        (None, _) => 80,
    };
    // A literal of IPv6 stands in brackets in an address.
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let found = tokio::net::lookup_host((host, port)).await?;
    let stream = first_of(by_turns(found.collect())).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// The families take turns, beginning with that of the first address, which the system prefers.
fn by_turns(found: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let Some(first) = found.first().copied() else {
        return found;
    };
    let (preferred, other): (Vec<_>, Vec<_>) =
        (found.into_iter()).partition(|address| address.is_ipv4() == first.is_ipv4());
    in_turns(preferred, other)
}

/// Connects to the first that answers ([RFC 8305]).
///
/// [RFC 8305]: https://www.rfc-editor.org/rfc/rfc8305
async fn first_of(addresses: Vec<SocketAddr>) -> io::Result<TcpStream> {
    let mut untried = addresses.into_iter().take(ADDRESSES);
    let mut attempts = FuturesUnordered::new();
    let mut failure = None;
    loop {
        // One that fails makes room for the next at once.
        let tries = untried.next();
        let more = tries.is_some();
        attempts.extend(tries.map(TcpStream::connect));
        tokio::select! {
            Some(attempt) = attempts.next() => match attempt {
                Ok(stream) => return Ok(stream),
                Err(error) => {
                    // The preferred address is tried first, and mostly the first to fail.
                    failure.get_or_insert(error);
                }
            },
            () = tokio::time::sleep(APART), if more => {}
            else => {
                let nowhere = || io::Error::new(ErrorKind::NotFound, "its name has no address");
                return Err(failure.unwrap_or_else(nowhere));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use socket2::{Domain, Socket, Type};
    use tokio::net::TcpListener;

    use super::*;

    /// A port at which nobody answers: its queue is full, and what comes is dropped.
    fn black_hole() -> (SocketAddr, Vec<Socket>) {
        let socket = || Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        let listener = socket();
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        listener.bind(&any.into()).expect("a free port");
        listener.listen(0).expect("a listener");
        let address = listener.local_addr().expect("its address");
        let mut held = vec![listener];
        // How many fit is for the system to say.
        for _ in 0..4 {
            let waits = socket();
            waits.set_nonblocking(true).expect("a socket");
            // None of them is done at once.
            let _ = waits.connect(&address);
            held.push(waits);
        }
        (address.as_socket().expect("of IP"), held)
    }

    #[tokio::test]
    async fn addresses_from_which_nothing_leads_on_hold_nobody_up() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
        let listener = listener.expect("a free port");
        let works = listener.local_addr().expect("its address");
        let ((dead, _held), closed) = (black_hole(), SocketAddr::from(([127, 0, 0, 1], 1)));
        let connecting = first_of(vec![dead, dead, closed, works]);
        let connected = tokio::time::timeout(APART * 8, connecting).await;
        let connected = connected.expect("sooner than a dead one is given up");
        let reached = connected.expect("a way").peer_addr();
        assert_eq!(reached.expect("an address"), works);
    }

    #[tokio::test]
    async fn what_is_said_is_why_the_first_address_failed() {
        let closed = SocketAddr::from(([127, 0, 0, 1], 1));
        let error = first_of(vec![closed, closed]).await.expect_err("nobody");
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
        let error = first_of(Vec::new()).await.expect_err("nobody");
        assert_eq!(error.kind(), ErrorKind::NotFound);
    }

    #[test]
    fn the_families_take_turns_beginning_with_the_preferred_one() {
        let v4 = |n| SocketAddr::from((Ipv4Addr::new(192, 0, 2, n), 443));
        let v6 = |n| SocketAddr::from((Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, n), 443));
        let found = vec![v6(1), v6(2), v6(3), v4(1)];
        assert_eq!(by_turns(found), [v6(1), v4(1), v6(2), v6(3)]);
    }
}

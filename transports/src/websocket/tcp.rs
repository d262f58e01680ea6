//! The way to a relay's host: over IPv6 or IPv4, whichever leads there.

use std::error::Error;
use std::time::Duration;

use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::http::Uri;
use tokio_tungstenite::tungstenite::http::uri::{InvalidUriParts, Scheme};
use tower_service::Service;

/// How long the addresses of the family that is preferred are tried alone: many hosts have an address of
/// IPv6 from which nothing leads on (RFC 8305, section 5, recommends this time).
const ALONE: Duration = Duration::from_millis(250);

/// How long the addresses of one family may take, in equal parts. It leaves time for TLS and sign-in at
/// the last of them.
const FAMILY: Duration = Duration::from_secs(6);

/// The server of a WebSocket address, as HTTP names it: with the port that is meant where none is said.
pub(super) fn server(address: &Uri) -> Result<Uri, InvalidUriParts> {
    let mut parts = address.clone().into_parts();
    parts.scheme = match address.scheme_str() {
        Some("wss") => Some(Scheme::HTTPS),
        _ => Some(Scheme::HTTP),
    };
    Uri::from_parts(parts)
}

/// What connects to it. What is flushed there leaves at once, without Nagle's algorithm.
pub(super) fn connector() -> HttpConnector {
    prepared(HttpConnector::new())
}

fn prepared<R>(mut connector: HttpConnector<R>) -> HttpConnector<R> {
    connector.enforce_http(false);
    connector.set_nodelay(true);
    connector.set_happy_eyeballs_timeout(Some(ALONE));
    connector.set_connect_timeout(Some(FAMILY));
    connector
}

/// Connects to a server, or says why not.
pub(super) async fn connect<C>(mut connector: C, server: Uri) -> Result<TcpStream, String>
where
    C: Service<Uri, Response = TokioIo<TcpStream>, Error: Error>,
{
    let connected = connector.call(server).await;
    connected.map(TokioIo::into_inner).map_err(|error| {
        // The first cause is what the system said.
        let mut cause: &dyn Error = &error;
        while let Some(source) = cause.source() {
            cause = source;
        }
        cause.to_string()
    })
}

#[cfg(test)]
mod tests {
    use std::future::{Ready, ready};
    use std::io;
    use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
    use std::task::{Context, Poll};

    use hyper_util::client::legacy::connect::dns::Name;
    use socket2::{Domain, Socket, Type};
    use tokio::net::TcpListener;

    use super::*;

    /// A name service that knows the addresses of one host.
    #[derive(Clone)]
    struct Knows(Vec<SocketAddr>);

    impl Service<Name> for Knows {
        type Response = std::vec::IntoIter<SocketAddr>;
        type Error = io::Error;
        type Future = Ready<io::Result<Self::Response>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, _: Name) -> Self::Future {
            ready(Ok(self.0.clone().into_iter()))
        }
    }

    /// A port at which nobody answers: its queue is full, and what comes is dropped. None where there is
    /// no IPv6.
    fn black_hole(ip: Ipv6Addr, port: u16) -> io::Result<Vec<Socket>> {
        let address = SocketAddr::from((ip, port)).into();
        let socket = || Socket::new(Domain::IPV6, Type::STREAM, None);
        let listener = socket()?;
        listener.bind(&address)?;
        listener.listen(0)?;
        let mut held = vec![listener];
        // How many fit is for the system to say.
        for _ in 0..4 {
            let waits = socket()?;
            waits.set_nonblocking(true)?;
            // None of them is done at once.
            let _ = waits.connect(&address);
            held.push(waits);
        }
        Ok(held)
    }

    #[tokio::test]
    async fn an_address_from_which_nothing_leads_on_holds_nobody_up() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
        let listener = listener.expect("a free port");
        let works = listener.local_addr().expect("its address");
        let _held = match black_hole(Ipv6Addr::LOCALHOST, works.port()) {
            Ok(held) => held,
            Err(error) => return eprintln!("skipped: there is no IPv6 here: {error}"),
        };
        let dead = (Ipv6Addr::LOCALHOST, works.port()).into();
        let connector = prepared(HttpConnector::new_with_resolver(Knows(vec![dead, works])));
        let server = server(&"ws://relay.example".parse().expect("an address"));
        let connecting = connect(connector, server.expect("a server"));
        let connected = tokio::time::timeout(FAMILY / 2, connecting).await;
        let connected = connected.expect("sooner than one gives up");
        let reached = connected.expect("a way").peer_addr();
        assert_eq!(reached.expect("an address"), works);
    }

    #[test]
    fn a_port_that_is_not_said_is_that_of_the_scheme() {
        for (address, server_is) in [
            ("wss://relay.example", "https://relay.example/"),
            ("ws://relay.example/v1", "http://relay.example/v1"),
            ("wss://[::1]:4400", "https://[::1]:4400/"),
        ] {
            let address = address.parse().expect("an address");
            assert_eq!(server(&address).expect("a server").to_string(), server_is);
        }
    }
}

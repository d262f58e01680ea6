//! The handshakes that others begin with us, and the links that came of them.
//!
//! Anybody can send a first packet, in somebody else's name too. So what is begun is bounded, of each
//! source and in all, and when there is much of it, who begins has first to show that it is where it
//! says.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::pin::pin;
use std::sync::{Mutex, PoisonError};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use outlive_core::transport::{DirectLink, TransportError};
use quinn::{Connecting, Connection, Incoming, VarInt};
use tokio::sync::Notify;
use tracing::debug;

use super::{HANDSHAKE_TIME, RECEIVE_WINDOW, errors, halves, trust};

/// Handshakes under way that others began. What comes beyond is refused; the peer tries again, or
/// stays on the relay meanwhile.
const HANDSHAKES: usize = 128;

/// Handshakes under way from which on an address has to prove itself, at the cost of a round trip.
const HANDSHAKES_UNPROVEN: usize = 32;

/// The same, of one source. Fewer, and peers behind one gate that all come at once have to try again.
const HANDSHAKES_OF_SOURCE: usize = 16;

/// Of one source from which on it has to prove itself. Few, for first packets that somebody sends in
/// its name keep it out.
const HANDSHAKES_OF_SOURCE_UNPROVEN: usize = 4;

/// Bytes that whoever dials may make us hold before its link is accepted. With less, bulk that fills
/// the path of a new connection leaves no room for what somebody waits for.
pub(super) const WINDOW_BEFORE: u32 = 512 * 1024;

/// First packets that wait for this task.
pub(super) const FIRST_PACKETS: usize = 256;

/// Bytes that come behind a first packet and wait with it.
pub(super) const FIRST_BYTES: u64 = 16 * 1024;

/// The same, of all of them.
pub(super) const FIRST_BYTES_ALL: u64 = 1024 * 1024;

/// Links that wait for `accept`. One more is closed.
const LINKS: usize = 64;

/// Links that were made and wait for whoever accepts them.
#[derive(Default)]
pub(super) struct Accepted {
    waiting: Mutex<Waiting>,
    changed: Notify,
}

/// A link, and the connection that it was made of.
struct Made {
    link: DirectLink,
    connection: Connection,
}

#[derive(Default)]
struct Waiting {
    links: VecDeque<Made>,
    closed: bool,
}

impl Accepted {
    fn with<T>(&self, change: impl FnOnce(&mut Waiting) -> T) -> T {
        change(&mut self.waiting.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The next link. Cancellation-safe.
    pub(super) async fn next(&self) -> Result<DirectLink, TransportError> {
        loop {
            let mut changed = pin!(self.changed.notified());
            changed.as_mut().enable();
            let link = self.with(|waiting| match waiting.links.pop_front() {
                Some(made) => Some(Ok(made)),
                None if waiting.closed => Some(Err(errors::closed_here())),
                None => None,
            });
            match link {
                Some(Ok(Made { link, connection })) => {
                    connection.set_receive_window(VarInt::from_u32(RECEIVE_WINDOW));
                    return Ok(link);
                }
                Some(Err(error)) => return Err(error),
                None => changed.await,
            }
        }
    }

    fn put(&self, made: Made) {
        let refused = self.with(|waiting| {
            if waiting.links.len() < LINKS {
                waiting.links.push_back(made);
                None
            } else {
                Some(made)
            }
        });
        if let Some(made) = refused {
            debug!(peer = ?made.link.peer, "nobody accepts links; one more is closed");
        }
        self.changed.notify_waiters();
    }

    pub(super) fn close(&self) {
        let left = self.with(|waiting| {
            waiting.closed = true;
            std::mem::take(&mut waiting.links)
        });
        drop(left);
        self.changed.notify_waiters();
    }
}

/// Who begins a handshake, as far as an address tells: in IPv6 a whole network of 64 bits, of which
/// anybody has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Source(IpAddr);

impl Source {
    fn of(address: SocketAddr) -> Self {
        const NETWORK: Ipv6Addr = Ipv6Addr::new(0xffff, 0xffff, 0xffff, 0xffff, 0, 0, 0, 0);
        Self(match address.ip().to_canonical() {
            IpAddr::V4(ip) => ip.into(),
            IpAddr::V6(ip) => (ip & NETWORK).into(),
        })
    }
}

/// The sources of the handshakes under way, one for each.
#[derive(Default)]
struct UnderWay(Vec<Source>);

impl UnderWay {
    fn of(&self, source: Source) -> usize {
        self.0.iter().filter(|other| **other == source).count()
    }

    fn ended(&mut self, source: Source) {
        if let Some(at) = self.0.iter().position(|other| *other == source) {
            self.0.swap_remove(at);
        }
    }
}

/// Answers whoever dials, until the endpoint is closed.
pub(super) async fn run(endpoint: quinn::Endpoint, accepted: std::sync::Arc<Accepted>) {
    let mut handshakes = FuturesUnordered::new();
    let mut under_way = UnderWay::default();
    loop {
        tokio::select! {
            incoming = endpoint.accept() => match incoming {
                Some(incoming) => {
                    let source = Source::of(incoming.remote_address());
                    if let Some(connecting) = begun(incoming, source, &under_way) {
                        under_way.0.push(source);
                        handshakes.push(async move { (source, handshake(connecting).await) });
                    }
                }
                None => break,
            },
            Some((source, made)) = handshakes.next() => {
                under_way.ended(source);
                match made {
                    Ok(made) => accepted.put(made),
                    Err(error) => debug!(%error, "a handshake failed"),
                }
            }
        }
    }
    accepted.close();
}

/// Goes on with a handshake if there is room.
fn begun(incoming: Incoming, source: Source, under_way: &UnderWay) -> Option<Connecting> {
    let (all, of_source) = (under_way.0.len(), under_way.of(source));
    if all >= HANDSHAKES || of_source >= HANDSHAKES_OF_SOURCE {
        incoming.refuse();
        return None;
    }
    let many = all >= HANDSHAKES_UNPROVEN || of_source >= HANDSHAKES_OF_SOURCE_UNPROVEN;
    if many && incoming.may_retry() {
        // It fails only where it can't be asked for again.
        let _ = incoming.retry();
        return None;
    }
    incoming.accept().ok()
}

async fn handshake(connecting: Connecting) -> Result<Made, TransportError> {
    let address = super::plain(connecting.remote_address());
    let made = async {
        let connection = connecting.await;
        let connection = connection.map_err(|error| errors::handshake(address, &error))?;
        let peer = trust::peer_of(&connection)?;
        let link = halves::accepted(connection.clone(), peer).await?;
        Ok(Made { link, connection })
    };
    let made = tokio::time::timeout(HANDSHAKE_TIME, made).await;
    made.unwrap_or_else(|_| Err(errors::silent(address)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_one_host_may_have_are_one_source() {
        let source = |ip: &str| Source::of(SocketAddr::new(ip.parse().unwrap(), 1));
        assert_eq!(source("192.0.2.1"), source("::ffff:192.0.2.1"));
        assert_ne!(source("192.0.2.1"), source("192.0.2.2"));
        assert_eq!(source("2001:db8::1"), source("2001:db8::ffff:2:3:4"));
        assert_ne!(source("2001:db8::1"), source("2001:db8:0:1::1"));
    }
}

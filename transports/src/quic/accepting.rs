//! The handshakes that others begin with us, and the links that came of them.
//!
//! Anybody can send a first packet, in somebody else's name too. So what is begun is bounded, and
//! when there is much of it, who begins has first to show that it is where it says.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::{Mutex, PoisonError};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use outlive_core::transport::{DirectLink, TransportError};
use quinn::{Connecting, Incoming};
use tokio::sync::Notify;
use tracing::debug;

use super::{HANDSHAKE_TIME, errors, halves, trust};

/// Handshakes under way that others began. What comes beyond is refused; the peer tries again, or
/// stays on the relay meanwhile.
const HANDSHAKES: usize = 128;

/// Handshakes under way from which on an address has to prove itself, at the cost of a round trip.
const HANDSHAKES_UNPROVEN: usize = 32;

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

#[derive(Default)]
struct Waiting {
    links: VecDeque<DirectLink>,
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
                Some(link) => Some(Ok(link)),
                None if waiting.closed => Some(Err(errors::closed_here())),
                None => None,
            });
            match link {
                Some(link) => return link,
                None => changed.await,
            }
        }
    }

    fn put(&self, link: DirectLink) {
        let refused = self.with(|waiting| {
            if waiting.links.len() < LINKS {
                waiting.links.push_back(link);
                None
            } else {
                Some(link)
            }
        });
        if let Some(link) = refused {
            debug!(peer = ?link.peer, "nobody accepts links; one more is closed");
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

/// Answers whoever dials, until the endpoint is closed.
pub(super) async fn run(endpoint: quinn::Endpoint, accepted: std::sync::Arc<Accepted>) {
    let mut handshakes = FuturesUnordered::new();
    loop {
        tokio::select! {
            incoming = endpoint.accept() => match incoming {
                Some(incoming) => {
                    if let Some(connecting) = begun(incoming, handshakes.len()) {
                        handshakes.push(handshake(connecting));
                    }
                }
                None => break,
            },
            Some(link) = handshakes.next() => match link {
                Ok(link) => accepted.put(link),
                Err(error) => debug!(%error, "a handshake failed"),
            },
        }
    }
    accepted.close();
}

/// Goes on with a handshake if there is room.
fn begun(incoming: Incoming, under_way: usize) -> Option<Connecting> {
    if under_way >= HANDSHAKES {
        incoming.refuse();
        return None;
    }
    if under_way >= HANDSHAKES_UNPROVEN && incoming.may_retry() {
        // It fails only where it can't be asked for again.
        let _ = incoming.retry();
        return None;
    }
    incoming.accept().ok()
}

async fn handshake(connecting: Connecting) -> Result<DirectLink, TransportError> {
    let address = super::plain(connecting.remote_address());
    let link = async {
        let connection = connecting.await;
        let connection = connection.map_err(|error| errors::handshake(address, &error))?;
        let peer = trust::peer_of(&connection)?;
        halves::accepted(connection, peer).await
    };
    let link = tokio::time::timeout(HANDSHAKE_TIME, link).await;
    link.unwrap_or_else(|_| Err(errors::silent(address)))
}

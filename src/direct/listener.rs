//! Keeps the node's socket for direct links: takes the links that peers dial, knows where the socket
//! may be reached, moves it when the network changes, and opens another when it fails.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use outlive_core::Identity;
use outlive_core::transport::{DirectEndpoint, DirectLink, DirectTransport, TransportError};
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{debug, warn};

use super::{Asked, Endpoint};
use crate::node::Inner;

/// How often it is looked where the socket may be reached, if nothing else says that it has moved. The
/// packets to STUN servers also keep the binding in a NAT, while there is no link that would: many
/// forget one after half a minute, and what peers were told would not be true any more. Longer, and a
/// peer that dials finds a closed gate; shorter, and a phone is woken for nothing.
const LOOK_AGAIN: Duration = Duration::from_secs(25);

/// How long to wait until a socket that failed is opened anew, at first: some systems take the sockets
/// of an app that sleeps.
const REOPEN: Duration = Duration::from_secs(1);

/// The longest that it is waited for, when it fails again and again.
const REOPEN_MOST: Duration = Duration::from_secs(60);

/// The one who keeps the socket.
pub(crate) struct Listener {
    transport: Box<dyn DirectTransport>,
    socket: watch::Sender<Arc<dyn DirectEndpoint>>,
    addresses: watch::Sender<Vec<SocketAddr>>,
}

impl Listener {
    /// Opens the socket.
    pub(crate) async fn open(
        transport: Box<dyn DirectTransport>,
        identity: &Identity,
    ) -> Result<(Self, Endpoint), TransportError> {
        let (socket, current) = watch::channel(transport.bind(identity).await?);
        let (addresses, known) = watch::channel(Vec::new());
        let endpoint = Endpoint {
            transport: transport.name(),
            socket: current,
            addresses: known,
        };
        let listener = Self {
            transport,
            socket,
            addresses,
        };
        Ok((listener, endpoint))
    }

    /// Until the node ends. Then the socket and all its links are closed.
    pub(crate) async fn run(self, inner: Arc<Inner>) {
        tokio::select! {
            () = inner.links_cancel.cancelled() => {}
            () = self.keep(&inner) => {}
        }
        self.current().close().await;
    }

    fn current(&self) -> Arc<dyn DirectEndpoint> {
        self.socket.borrow().clone()
    }

    /// Serves the socket, and opens another when it fails.
    async fn keep(&self, inner: &Arc<Inner>) {
        let mut wait = REOPEN;
        loop {
            let (socket, since) = (self.current(), Instant::now());
            let error = tokio::select! {
                error = accept(&*socket, inner) => error,
                () = self.look(&*socket, inner) => return,
            };
            warn!(%error, "the socket for direct links failed, and is opened anew");
            self.moved_to(Vec::new());
            socket.close().await;
            if since.elapsed() >= REOPEN_MOST {
                wait = REOPEN;
            }
            loop {
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(REOPEN_MOST);
                match self.transport.bind(&inner.identity).await {
                    Ok(socket) => break drop(self.socket.send_replace(socket)),
                    Err(error) => debug!(%error, "no socket for direct links yet"),
                }
            }
        }
    }

    fn moved_to(&self, addresses: Vec<SocketAddr>) {
        self.addresses.send_if_modified(|known| {
            let moved = *known != addresses;
            *known = addresses;
            moved
        });
    }

    /// Until there is no network any more to hear of.
    async fn look(&self, socket: &dyn DirectEndpoint, inner: &Arc<Inner>) {
        let mut network = inner.network.watch();
        let mut look_at = Instant::now();
        // At most every other look, or with a network that changes all the time none would end.
        let mut cut_short = false;
        loop {
            let looking = async {
                tokio::time::sleep_until(look_at).await;
                socket.addresses().await
            };
            tokio::select! {
                addresses = looking => {
                    self.moved_to(addresses);
                    cut_short = false;
                    look_at = Instant::now() + LOOK_AGAIN;
                }
                // Also while it is looked: what servers say takes a while, and is of the network before.
                changed = network.changed(), if !cut_short => {
                    if changed.is_err() {
                        // The monitor lives as long as the node.
                        return;
                    }
                    cut_short = look_at <= Instant::now();
                    look_at = Instant::now();
                    if !network.borrow_and_update().up {
                        continue;
                    }
                    if let Err(error) = socket.network_changed().await {
                        debug!(%error, "the socket stays where it is");
                    }
                }
            }
        }
    }
}

/// Passes on links that peers dial, until there can be no more.
async fn accept(socket: &dyn DirectEndpoint, inner: &Arc<Inner>) -> TransportError {
    loop {
        match socket.accept().await {
            Ok(link) => pass(inner, link).await,
            Err(error) => return error,
        }
    }
}

/// A peer that the app has to do with may have a link to its session.
async fn pass(inner: &Arc<Inner>, link: DirectLink) {
    let peer = link.peer;
    let admitted = inner.admits_link(peer).await.unwrap_or(false);
    if !admitted {
        return debug!(peer = %peer.short(), "a link of a peer that is not let in");
    }
    if let Ok(Some(upgrade)) = inner.upgrade(peer) {
        // Full: others of this peer wait already, and this one is dropped.
        let _ = upgrade.try_send(Asked::Accepted(link));
    }
}

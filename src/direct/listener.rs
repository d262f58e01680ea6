//! Keeps the node's socket for direct links: takes the links that peers dial, knows where the socket
//! may be reached, and moves it when the network changes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use outlive_core::transport::{DirectEndpoint, DirectLink};
use tokio::sync::watch;
use tracing::{debug, warn};

use super::{Asked, Endpoint};
use crate::node::Inner;

/// How often it is looked where the socket may be reached, if nothing else says that it has moved. The
/// packets to STUN servers also keep the binding in a NAT, while there is no link that would: many
/// forget one after half a minute, and what peers were told would not be true any more. Longer, and a
/// peer that dials finds a closed gate; shorter, and a phone is woken for nothing.
const LOOK_AGAIN: Duration = Duration::from_secs(25);

/// The one who keeps the socket.
pub(crate) struct Listener {
    socket: Arc<dyn DirectEndpoint>,
    addresses: watch::Sender<Vec<SocketAddr>>,
}

impl Listener {
    pub(crate) fn new(
        transport: &'static str,
        socket: Arc<dyn DirectEndpoint>,
    ) -> (Self, Endpoint) {
        let (addresses, known) = watch::channel(Vec::new());
        let endpoint = Endpoint {
            transport,
            socket: socket.clone(),
            addresses: known,
        };
        (Self { socket, addresses }, endpoint)
    }

    /// Until the node ends. Then the socket and all its links are closed.
    pub(crate) async fn run(self, inner: Arc<Inner>) {
        tokio::select! {
            () = inner.ways.cancelled() => {}
            () = self.accept(&inner) => {}
            () = self.look(&inner) => {}
        }
        self.socket.close().await;
    }

    async fn accept(&self, inner: &Arc<Inner>) {
        loop {
            match self.socket.accept().await {
                Ok(link) => pass(inner, link).await,
                Err(error) => {
                    warn!(%error, "direct links are not accepted any more");
                    return;
                }
            }
        }
    }

    async fn look(&self, inner: &Arc<Inner>) {
        let mut network = inner.network.watch();
        loop {
            let addresses = self.socket.addresses().await;
            self.addresses.send_if_modified(|known| {
                let moved = *known != addresses;
                *known = addresses;
                moved
            });
            tokio::select! {
                () = tokio::time::sleep(LOOK_AGAIN) => {}
                changed = network.changed() => {
                    // The monitor lives as long as the node.
                    if changed.is_err() || !network.borrow_and_update().up {
                        continue;
                    }
                    if let Err(error) = self.socket.network_changed().await {
                        debug!(%error, "the socket stays where it is");
                    }
                }
            }
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

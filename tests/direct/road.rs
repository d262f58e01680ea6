//! A road for datagrams to a node's socket, which a test can close: what is on it then is lost, and
//! nobody is told.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use outlive::Identity;
use outlive_core::transport::{DirectEndpoint, DirectLink, DirectTransport, TransportError};
use outlive_transports::Quic;
use tokio::net::UdpSocket;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Whether the road is open. Roads end with their last clone.
#[derive(Clone)]
pub(crate) struct Road {
    open: watch::Sender<bool>,
    /// Whether the socket of the one who lives here has failed.
    failed: watch::Sender<bool>,
    dials: Arc<AtomicUsize>,
}

impl Road {
    pub(crate) fn new() -> Self {
        Self {
            open: watch::Sender::new(true),
            failed: watch::Sender::new(false),
            dials: Arc::default(),
        }
    }

    pub(crate) fn close(&self) {
        self.open.send_replace(false);
    }

    pub(crate) fn open(&self) {
        self.open.send_replace(true);
    }

    /// The socket there is now takes nothing any more.
    pub(crate) fn fail(&self) {
        self.failed.send_replace(true);
    }

    /// How often the one who lives here has dialed others.
    pub(crate) fn dials(&self) -> usize {
        self.dials.load(Ordering::SeqCst)
    }

    /// Leads to `target` from the address that this returns.
    async fn to(&self, target: SocketAddr) -> std::io::Result<(SocketAddr, JoinSet<()>)> {
        let front = Arc::new(UdpSocket::bind(("127.0.0.1", 0)).await?);
        let address = front.local_addr()?;
        let mut walking = JoinSet::new();
        walking.spawn(forth(front, target, self.open.subscribe()));
        Ok((address, walking))
    }
}

async fn forth(front: Arc<UdpSocket>, target: SocketAddr, open: watch::Receiver<bool>) {
    let mut backs: HashMap<SocketAddr, Arc<UdpSocket>> = HashMap::new();
    let mut walking = JoinSet::new();
    let mut buffer = vec![0; 65_536];
    // A datagram that bounces is an error of the socket, and no reason to stop.
    loop {
        let Ok((length, from)) = front.recv_from(&mut buffer).await else {
            continue;
        };
        if !*open.borrow() {
            continue;
        }
        let socket = match backs.entry(from) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(unknown) => {
                let Ok(socket) = UdpSocket::bind(("127.0.0.1", 0)).await else {
                    continue;
                };
                let socket = unknown.insert(Arc::new(socket));
                walking.spawn(back(socket.clone(), front.clone(), from, open.clone()));
                socket
            }
        };
        let _ = socket.send_to(&buffer[..length], target).await;
    }
}

async fn back(
    socket: Arc<UdpSocket>,
    front: Arc<UdpSocket>,
    to: SocketAddr,
    open: watch::Receiver<bool>,
) {
    let mut buffer = vec![0; 65_536];
    loop {
        let Ok((length, _)) = socket.recv_from(&mut buffer).await else {
            continue;
        };
        if *open.borrow() {
            let _ = front.send_to(&buffer[..length], to).await;
        }
    }
}

/// QUIC to a socket that is reached over a road alone.
pub(crate) struct OverRoad {
    quic: Quic,
    road: Road,
}

impl OverRoad {
    pub(crate) const fn new(quic: Quic, road: Road) -> Self {
        Self { quic, road }
    }
}

#[async_trait]
impl DirectTransport for OverRoad {
    fn name(&self) -> &'static str {
        self.quic.name()
    }

    async fn bind(&self, identity: &Identity) -> Result<Arc<dyn DirectEndpoint>, TransportError> {
        let socket = self.quic.bind(identity).await?;
        let own = socket.addresses().await;
        let (address, walking) = self.road.to(own[0]).await.expect("a road");
        Ok(Arc::new(AtRoad {
            socket,
            address,
            road: self.road.clone(),
            _walking: walking,
        }))
    }
}

struct AtRoad {
    socket: Arc<dyn DirectEndpoint>,
    address: SocketAddr,
    road: Road,
    _walking: JoinSet<()>,
}

#[async_trait]
impl DirectEndpoint for AtRoad {
    async fn addresses(&self) -> Vec<SocketAddr> {
        vec![self.address]
    }

    async fn dial(
        &self,
        peer: outlive::PeerId,
        addresses: &[SocketAddr],
    ) -> Result<DirectLink, TransportError> {
        self.road.dials.fetch_add(1, Ordering::SeqCst);
        self.socket.dial(peer, addresses).await
    }

    async fn accept(&self) -> Result<DirectLink, TransportError> {
        let mut failed = self.road.failed.subscribe();
        let failed = async move { drop(failed.wait_for(|failed| *failed).await) };
        tokio::select! {
            accepted = self.socket.accept() => accepted,
            () = failed => {
                self.road.failed.send_replace(false);
                Err(TransportError::Broken("the socket failed".to_owned()))
            }
        }
    }

    async fn network_changed(&self) -> Result<(), TransportError> {
        self.socket.network_changed().await
    }

    async fn close(&self) {
        self.socket.close().await;
    }
}

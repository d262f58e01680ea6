//! A road for datagrams, which can be closed: what is on it then is lost, and nobody is told.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Result;
use tokio::net::UdpSocket;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Bytes of the largest datagram.
const DATAGRAM: usize = 65_536;

/// Leads from an address of its own to another.
pub(super) struct Road {
    front: Arc<UdpSocket>,
    target: SocketAddr,
}

impl Road {
    pub(super) async fn to(target: SocketAddr) -> Result<(Self, SocketAddr)> {
        let front = Arc::new(UdpSocket::bind(("127.0.0.1", 0)).await?);
        let address = front.local_addr()?;
        Ok((Self { front, target }, address))
    }

    /// Passes datagrams on in both directions for ever, as long as `is_open` says so of what is seen.
    pub(super) async fn run<T: Send + Sync + 'static>(
        self,
        seen: watch::Receiver<T>,
        is_open: impl Fn(&T) -> bool + Clone + Send + 'static,
    ) {
        let mut backs: HashMap<SocketAddr, Arc<UdpSocket>> = HashMap::new();
        let mut walking = JoinSet::new();
        let mut datagram = vec![0; DATAGRAM];
        loop {
            // One that bounced is an error of the socket, and no reason to stop.
            let Ok((length, from)) = self.front.recv_from(&mut datagram).await else {
                continue;
            };
            let socket = match backs.entry(from) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(unknown) => {
                    let Ok(socket) = UdpSocket::bind(("127.0.0.1", 0)).await else {
                        continue;
                    };
                    let socket = unknown.insert(Arc::new(socket));
                    let (seen, is_open) = (seen.clone(), is_open.clone());
                    let open = move || is_open(&seen.borrow());
                    walking.spawn(back(socket.clone(), self.front.clone(), from, open));
                    socket
                }
            };
            let open = is_open(&seen.borrow());
            if let (true, Some(datagram)) = (open, datagram.get(..length)) {
                // A full socket loses it, as roads do.
                let _ = socket.try_send_to(datagram, self.target);
            }
        }
    }
}

async fn back(
    socket: Arc<UdpSocket>,
    front: Arc<UdpSocket>,
    to: SocketAddr,
    open: impl Fn() -> bool,
) {
    let mut datagram = vec![0; DATAGRAM];
    loop {
        let Ok((length, _)) = socket.recv_from(&mut datagram).await else {
            continue;
        };
        if let (true, Some(datagram)) = (open(), datagram.get(..length)) {
            let _ = front.try_send_to(datagram, to);
        }
    }
}

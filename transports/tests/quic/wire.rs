//! A wire between two nodes that a test can hold: what comes in meanwhile waits, and nothing is lost.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use tokio::net::UdpSocket;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

pub(crate) struct Wire {
    /// Where the one who dials sends to.
    pub(crate) address: SocketAddr,
    held: watch::Sender<bool>,
    /// The first byte of each packet that came back.
    pub(crate) back: mpsc::UnboundedReceiver<u8>,
    _tasks: JoinSet<()>,
}

impl Wire {
    pub(crate) async fn to(node: SocketAddr) -> Self {
        Self::from(Ipv4Addr::LOCALHOST, node).await
    }

    /// One over which the node sees whoever dials at this source.
    pub(crate) async fn from(source: Ipv4Addr, node: SocketAddr) -> Self {
        let near = Arc::new(UdpSocket::bind("127.0.0.1:0").await.expect("a socket"));
        let far = Arc::new(UdpSocket::bind((source, 0)).await.expect("a socket"));
        far.connect(node).await.expect("loopback");
        let (held, mut holds) = watch::channel(false);
        let (dialer, mut dialers) = watch::channel(None);
        let (put, mut take) = mpsc::unbounded_channel::<Vec<u8>>();
        let (seen, back) = mpsc::unbounded_channel();
        let address = near.local_addr().expect("bound");
        let mut tasks = JoinSet::new();
        let socket = near.clone();
        tasks.spawn(async move {
            let mut buffer = vec![0; 65_536];
            while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
                dialer.send_replace(Some(from));
                let _ = put.send(buffer[..length].to_vec());
            }
        });
        let socket = far.clone();
        tasks.spawn(async move {
            while let Some(packet) = take.recv().await {
                let _ = holds.wait_for(|held| !held).await;
                let _ = socket.send(&packet).await;
            }
        });
        tasks.spawn(async move {
            let mut buffer = vec![0; 65_536];
            while let Ok(length) = far.recv(&mut buffer).await {
                let _ = seen.send(buffer[0]);
                let dialer = *dialers.wait_for(Option::is_some).await.expect("it dialed");
                let _ = near
                    .send_to(&buffer[..length], dialer.expect("it dialed"))
                    .await;
            }
        });
        Self {
            address,
            held,
            back,
            _tasks: tasks,
        }
    }

    pub(crate) fn hold(&self, held: bool) {
        self.held.send_replace(held);
    }
}

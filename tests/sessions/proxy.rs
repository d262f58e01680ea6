//! A TCP proxy before a relay, whose connections can die without either end noticing.

use std::net::SocketAddr;

use outlive_relay::Relay;
use outlive_transports::WebSocketRelay;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::world::soon;

pub(crate) struct Proxy {
    address: SocketAddr,
    dead: watch::Sender<CancellationToken>,
    swallowed: watch::Sender<usize>,
    serving: tokio::task::JoinHandle<()>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Proxy {
    pub(crate) async fn before(relay: &Relay) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0))
            .await
            .expect("a free port");
        let address = listener.local_addr().expect("an address");
        let target = relay.local_addr();
        let dead = watch::Sender::new(CancellationToken::new());
        let swallowed = watch::Sender::new(0);
        let (current, swallowing) = (dead.subscribe(), swallowed.clone());
        let serving = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let dead = current.borrow().clone();
                connections.spawn(pass(client, target, dead, swallowing.clone()));
            }
        });
        Self {
            address,
            dead,
            swallowed,
            serving,
        }
    }

    pub(crate) fn way(&self) -> WebSocketRelay {
        WebSocketRelay::new(&format!("ws://{}", self.address)).expect("a good address")
    }

    /// From now on the present connections lead nowhere: what either end writes is swallowed, and
    /// neither hears when the other closes. Later connections live.
    pub(crate) fn half_dead(&self) {
        self.dead.send_replace(CancellationToken::new()).cancel();
    }

    /// Waits until so many bytes of the relay were swallowed.
    pub(crate) async fn swallowed(&self, bytes: usize) {
        let mut swallowed = self.swallowed.subscribe();
        let reached = swallowed.wait_for(|&count| count >= bytes);
        soon("the relay to write into nothing", reached)
            .await
            .expect("the proxy lives");
    }
}

async fn pass(
    mut client: TcpStream,
    target: SocketAddr,
    dead: CancellationToken,
    swallowed: watch::Sender<usize>,
) {
    let Ok(mut server) = TcpStream::connect(target).await else {
        return;
    };
    tokio::select! {
        _ = tokio::io::copy_bidirectional(&mut client, &mut server) => return,
        () = dead.cancelled() => {}
    }
    let (mut from_client, mut from_server) = (vec![0; 16 * 1024], vec![0; 16 * 1024]);
    let (mut client_open, mut server_open) = (true, true);
    while client_open || server_open {
        tokio::select! {
            read = client.read(&mut from_client), if client_open => {
                client_open = read.is_ok_and(|bytes| bytes > 0);
            }
            read = server.read(&mut from_server), if server_open => {
                let bytes = read.unwrap_or(0);
                server_open = bytes > 0;
                swallowed.send_modify(|count| *count += bytes);
            }
        }
    }
}

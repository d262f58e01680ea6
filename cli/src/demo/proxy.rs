//! A TCP proxy whose connections can be cut.

use std::net::SocketAddr;

use anyhow::Result;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Passes connections on until they are cut.
pub(super) struct Proxy {
    listener: TcpListener,
    target: SocketAddr,
}

impl Proxy {
    pub(super) async fn bind(target: SocketAddr) -> Result<(Self, SocketAddr)> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        Ok((Self { listener, target }, address))
    }

    /// Serves for ever; `cuts` says when everything that is connected is to be cut, and is told how
    /// many connections that were.
    pub(super) async fn run(
        self,
        mut cuts: tokio::sync::mpsc::Receiver<tokio::sync::oneshot::Sender<u64>>,
    ) {
        let mut connections = JoinSet::new();
        let mut cut = CancellationToken::new();
        loop {
            tokio::select! {
                Ok((socket, _)) = self.listener.accept() => {
                    connections.spawn(pass(socket, self.target, cut.clone()));
                }
                Some(reply) = cuts.recv() => {
                    cut.cancel();
                    cut = CancellationToken::new();
                    let mut ended = 0;
                    while let Some(result) = connections.join_next().await {
                        ended += u64::from(matches!(result, Ok(true)));
                    }
                    // Whoever asked may be gone.
                    let _ = reply.send(ended);
                }
                Some(_) = connections.join_next() => {}
            }
        }
    }
}

/// Returns whether the connection carried something and was cut.
async fn pass(mut socket: TcpStream, target: SocketAddr, cut: CancellationToken) -> bool {
    let Ok(mut onward) = TcpStream::connect(target).await else {
        return false;
    };
    let _ = (socket.set_nodelay(true), onward.set_nodelay(true));
    tokio::select! {
        _ = tokio::io::copy_bidirectional(&mut socket, &mut onward) => false,
        () = cut.cancelled() => true,
    }
}

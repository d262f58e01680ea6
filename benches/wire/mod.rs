//! A wire that can be cut: a TCP proxy on loopback.

use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

/// Passes connections on until they are cut.
pub(crate) struct Wire {
    pub(crate) address: SocketAddr,
    cuts: watch::Sender<()>,
    serving: JoinHandle<()>,
}

impl Wire {
    pub(crate) async fn to(target: SocketAddr) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let cuts = watch::Sender::new(());
        let serving = tokio::spawn(serve(listener, target, cuts.clone()));
        Ok(Self {
            address,
            cuts,
            serving,
        })
    }

    /// Ends all connections there are.
    pub(crate) fn cut(&self) {
        self.cuts.send_replace(());
    }

    pub(crate) async fn end(self) {
        self.serving.abort();
        // It was told to end, and that is how it ends.
        let _ = self.serving.await;
    }
}

async fn serve(listener: TcpListener, target: SocketAddr, cuts: watch::Sender<()>) {
    let mut passing = JoinSet::new();
    loop {
        tokio::select! {
            Ok((near, _)) = listener.accept() => {
                passing.spawn(pass(near, target, cuts.subscribe()));
            }
            Some(_) = passing.join_next() => {}
        }
    }
}

async fn pass(mut near: TcpStream, target: SocketAddr, mut cut: watch::Receiver<()>) {
    let Ok(mut far) = TcpStream::connect(target).await else {
        return;
    };
    // Without it packets wait; they pass anyway.
    let _ = (near.set_nodelay(true), far.set_nodelay(true));
    tokio::select! {
        _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
        _ = cut.changed() => {}
    }
}

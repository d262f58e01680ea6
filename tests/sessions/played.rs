//! A relay that the test plays itself: it hears what a node says, and tells it what it likes.

use async_trait::async_trait;
use bytes::Bytes;
use outlive::{Identity, Node, PeerId, RelayTransport, TransportError};
use outlive_core::transport::{Incoming, Outgoing, RelayConnection, RelayReceiver, RelaySender};
use outlive_core::{EnvelopeId, StoreId};
use outlive_storage::MemoryStore;
use tokio::sync::{mpsc, watch};

use crate::world::soon;

/// The way to it.
pub(crate) struct Played {
    dialed: mpsc::UnboundedSender<Line>,
}

/// The relay's end of a connection. Dropped, the connection is broken.
pub(crate) struct Line {
    said: mpsc::UnboundedReceiver<Outgoing>,
    telling: mpsc::Sender<Incoming>,
    hearing: watch::Sender<bool>,
}

/// A node, and the connections it makes, in their order.
pub(crate) async fn node(n: u8) -> (Node, mpsc::UnboundedReceiver<Line>) {
    node_over(n, MemoryStore::new()).await
}

pub(crate) async fn node_over(n: u8, store: MemoryStore) -> (Node, mpsc::UnboundedReceiver<Line>) {
    let (dialed, lines) = mpsc::unbounded_channel();
    let node = Node::builder()
        .identity(Identity::from_seed([n; 32]))
        .store(store)
        .transport(Played { dialed })
        .start()
        .await
        .expect("a node");
    (node, lines)
}

pub(crate) async fn next(lines: &mut mpsc::UnboundedReceiver<Line>) -> Line {
    soon("a connection", lines.recv()).await.expect("it dials")
}

impl Line {
    /// Reads nothing from now on, or reads again.
    pub(crate) fn hears(&self, hears: bool) {
        self.hearing.send_replace(hears);
    }

    /// The next thing the node says.
    pub(crate) async fn said(&mut self) -> Outgoing {
        let said = soon("a word of the node", self.said.recv()).await;
        said.expect("the connection lives")
    }

    /// Tells the node something. Returns when there is room for the next.
    pub(crate) async fn tell(&self, what: Incoming) {
        let told = soon("the node to listen", self.telling.send(what)).await;
        told.expect("the connection lives");
    }

    /// Delivers a packet out of the node's mailbox.
    pub(crate) async fn deliver(&self, from: PeerId, number: u64, packet: &Bytes) {
        let envelope = Some(EnvelopeId(number));
        let (from, packet) = (from.into(), packet.clone());
        self.tell(Incoming::Deliver {
            from,
            envelope,
            packet,
        })
        .await;
    }
}

#[async_trait]
impl RelayTransport for Played {
    fn address(&self) -> &str {
        "played"
    }

    async fn connect(&self, _: &Identity) -> Result<RelayConnection, TransportError> {
        let (saying, said) = mpsc::unbounded_channel();
        let (telling, told) = mpsc::channel(1);
        let (hearing, heard) = watch::channel(true);
        let line = Line {
            said,
            telling,
            hearing,
        };
        self.dialed.send(line).map_err(|_| broken())?;
        Ok(RelayConnection {
            store: StoreId([7; 16]),
            sender: Box::new(Mouth { saying, heard }),
            receiver: Box::new(Ear { told }),
        })
    }

    async fn connect_unidentified(&self) -> Result<RelayConnection, TransportError> {
        Err(broken())
    }
}

struct Mouth {
    saying: mpsc::UnboundedSender<Outgoing>,
    heard: watch::Receiver<bool>,
}

struct Ear {
    told: mpsc::Receiver<Incoming>,
}

#[async_trait]
impl RelaySender for Mouth {
    async fn send(&mut self, items: Vec<Outgoing>) -> Result<(), TransportError> {
        let heard = self.heard.wait_for(|hears| *hears).await;
        heard.map_err(|_| broken())?;
        for item in items {
            self.saying.send(item).map_err(|_| broken())?;
        }
        Ok(())
    }

    async fn close(&mut self) {}
}

#[async_trait]
impl RelayReceiver for Ear {
    async fn receive(&mut self) -> Result<Incoming, TransportError> {
        self.told.recv().await.ok_or_else(broken)
    }
}

fn broken() -> TransportError {
    TransportError::Broken("the test ended it".to_owned())
}

//! Nodes that read at different relays.

use std::sync::{Arc, Mutex};

use outlive::{Identity, Node, RelayState, RelayTransport, Session};
use outlive_relay::Relay;
use outlive_storage::MemoryStore;
use outlive_transports::{MemoryRelay, WebSocketRelay};

use crate::world::{CHAT, comes_true, id, soon, take, until, url, way};

/// A node that reads at a relay, and reaches all others. With what it was asked to reach.
pub(crate) struct Far {
    pub(crate) node: Node,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Far {
    pub(crate) async fn start(n: u8, store: &MemoryStore, relay: &Relay) -> Self {
        Self::at(n, store, way(relay)).await
    }

    pub(crate) async fn at(n: u8, store: &MemoryStore, relay: WebSocketRelay) -> Self {
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let notes = asked.clone();
        let node = Node::builder()
            .identity(Identity::from_seed([n; 32]))
            .store(store.clone())
            .transport(relay)
            .foreign_relays(move |address| {
                notes.lock().expect("no panic").push(address.to_owned());
                let relay = WebSocketRelay::new(address).ok()?;
                Some(Arc::new(relay) as Arc<dyn RelayTransport>)
            })
            .start();
        let node = node.await.expect("a node");
        Self { node, asked }
    }

    pub(crate) async fn session(&self, n: u8) -> Session {
        self.node.session(id(n)).await.expect("a session")
    }

    pub(crate) async fn connected(&self) {
        let relays = self.node.relays().into_iter();
        for (address, mut state) in relays {
            let up = state.wait_for(|state| *state == RelayState::Connected);
            soon(&format!("a connection to {address}"), up)
                .await
                .expect("it lives");
        }
    }

    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("no panic").clone()
    }

    pub(crate) async fn stop(self) {
        self.node.shutdown().await.expect("a good end");
    }
}

pub(crate) async fn say(session: &Session, text: &'static str) {
    let receipt = session.send(CHAT, text).await.expect("queued");
    soon(text, receipt.delivered()).await.expect("delivered");
}

pub(crate) async fn hear(session: &Session, text: &str) {
    let mut inbox = session.inbox(CHAT).expect("nobody has it");
    assert_eq!(take(&mut inbox).await, text);
}

pub(crate) async fn learns(session: &Session, relay: &Relay) {
    comes_true("the peer's mailbox is known", async || {
        session.mailboxes().await.expect("read") == [url(relay)]
    })
    .await;
}

/// Two that know where the other reads. With their stores.
pub(crate) async fn acquainted(one: &Relay, two: &Relay) -> [MemoryStore; 2] {
    let stores = [(); 2].map(|()| MemoryStore::new());
    let a = Far::start(1, &stores[0], one).await;
    let b = Far::start(2, &stores[1], two).await;
    let (to_b, to_a) = (a.session(2).await, b.session(1).await);
    to_b.mailboxes_at([url(two)]).await.expect("kept");
    say(&to_b, "hello").await;
    hear(&to_a, "hello").await;
    say(&to_a, "good day").await;
    hear(&to_b, "good day").await;
    learns(&to_a, one).await;
    learns(&to_b, two).await;
    for session in [&to_a, &to_b] {
        until(session, "nothing is outstanding", |state| {
            !state.outstanding
        })
        .await;
    }
    drop((to_a, to_b));
    a.stop().await;
    b.stop().await;
    stores.map(|store| store.faults().crash())
}

pub(crate) async fn say_and_leave(session: &Session, text: &'static str) {
    let receipt = session.send(CHAT, text).await.expect("queued");
    soon(text, receipt.custody()).await.expect("it is kept");
}

/// A node that reads at the first of these relays in memory, and reaches the others. With what it was asked to
/// reach.
pub(crate) async fn among(n: u8, relays: &[&MemoryRelay]) -> (Node, Arc<Mutex<Vec<String>>>) {
    among_over(n, MemoryStore::new(), relays).await
}

pub(crate) async fn among_over(
    n: u8,
    store: MemoryStore,
    relays: &[&MemoryRelay],
) -> (Node, Arc<Mutex<Vec<String>>>) {
    let asked = Arc::<Mutex<Vec<String>>>::default();
    let notes = asked.clone();
    let others: Vec<MemoryRelay> = relays.iter().map(|relay| (*relay).clone()).collect();
    let node = Node::builder()
        .identity(Identity::from_seed([n; 32]))
        .store(store)
        .transport(relays[0].clone())
        .foreign_relays(move |address| {
            notes.lock().expect("no panic").push(address.to_owned());
            let relay = others.iter().find(|relay| relay.address() == address)?;
            Some(Arc::new(relay.clone()) as Arc<dyn RelayTransport>)
        })
        .start();
    (node.await.expect("a node"), asked)
}

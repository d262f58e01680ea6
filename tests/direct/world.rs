//! Two nodes on loopback with a relay between them, and roads for their direct links.

use std::sync::Arc;

use outlive::limits::InboxLimits;
use outlive::{ChannelId, Connectivity, Identity, Inbox, Node, PeerId, Session, SessionState};
use outlive_relay::Relay;
use outlive_storage::MemoryStore;
// What is looked for and negotiated over real sockets takes its time.
pub(crate) use outlive_testing::eventually as soon;
use outlive_transports::{Quic, WebRtc, WebSocketRelay};

use crate::road::{OverRoad, Road};

pub(crate) const CHAT: ChannelId = ChannelId::MESSAGES;

pub(crate) fn id(n: u8) -> PeerId {
    Identity::from_seed([n; 32]).peer_id()
}

pub(crate) async fn relay_over(store: MemoryStore) -> Relay {
    Relay::builder()
        .store(Arc::new(store))
        .bind(([127, 0, 0, 1], 0).into())
        .await
        .expect("a free port")
}

pub(crate) fn quic() -> Quic {
    Quic::new().bind_to(([127, 0, 0, 1], 0).into())
}

pub(crate) fn webrtc() -> WebRtc {
    WebRtc::new().bind_to(([127, 0, 0, 1], 0).into())
}

/// What sessions have beside their relay.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ways {
    Dialed,
    Negotiated,
    Both,
}

/// A peer that holds its session.
pub(crate) struct Peer {
    pub(crate) node: Node,
    pub(crate) session: Session,
    pub(crate) inbox: Inbox,
    store: MemoryStore,
    /// What leads to it.
    pub(crate) road: Road,
}

impl Peer {
    async fn start(n: u8, store: MemoryStore, relay: &Relay, ways: Ways) -> Self {
        let way = WebSocketRelay::new(&format!("ws://{}", relay.local_addr()));
        let road = Road::new();
        if ways == Ways::Both {
            road.close();
        }
        let mut node = Node::builder()
            .identity(Identity::from_seed([n; 32]))
            .store(store.clone())
            .inbox_limits(InboxLimits {
                bytes: 4 << 20,
                ..InboxLimits::default()
            })
            .transport(way.expect("an address"));
        if ways != Ways::Negotiated {
            node = node.direct(OverRoad::new(quic(), road.clone()));
        }
        if ways != Ways::Dialed {
            node = node.negotiated(webrtc());
        }
        let node = node.start().await.expect("a node");
        let session = node.session(id(3 - n)).await.expect("a session");
        Self {
            inbox: session.inbox(CHAT).expect("its inbox"),
            node,
            session,
            store,
            road,
        }
    }

    async fn stop(self) {
        drop((self.session, self.inbox));
        let stopped = soon("the node to stop", self.node.shutdown()).await;
        stopped.expect("it stops");
    }
}

/// Two peers, and their relay unless it is gone.
pub(crate) struct World {
    pub(crate) relay: Option<Relay>,
    relay_store: MemoryStore,
    ways: Ways,
    pub(crate) peers: Vec<Peer>,
    sent: [u32; 2],
    taken: [u32; 2],
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::having(Ways::Dialed).await
    }

    /// With links that are negotiated, and none to dial.
    pub(crate) async fn negotiating() -> Self {
        Self::having(Ways::Negotiated).await
    }

    /// With both, and roads that are closed.
    pub(crate) async fn with_both() -> Self {
        Self::having(Ways::Both).await
    }

    async fn having(ways: Ways) -> Self {
        let relay_store = MemoryStore::new();
        let relay = relay_over(relay_store.clone()).await;
        let peers = vec![
            Peer::start(1, MemoryStore::new(), &relay, ways).await,
            Peer::start(2, MemoryStore::new(), &relay, ways).await,
        ];
        Self {
            relay: Some(relay),
            relay_store,
            ways,
            peers,
            sent: [0; 2],
            taken: [0; 2],
        }
    }

    pub(crate) async fn stop_relay(&mut self) {
        if let Some(relay) = self.relay.take() {
            let stopped = soon("the relay to stop", relay.shutdown()).await;
            stopped.expect("it stops");
        }
    }

    /// Starts the relay again, at another address, which the peers learn of.
    pub(crate) async fn start_relay(&mut self) {
        let store = self.relay_store.faults().crash();
        let relay = relay_over(store).await;
        for peer in &self.peers {
            let way = WebSocketRelay::new(&format!("ws://{}", relay.local_addr()));
            peer.node.use_relay(Arc::new(way.expect("an address")));
        }
        self.relay = Some(relay);
    }

    /// Ends the process of a peer, and starts it again on its store.
    pub(crate) async fn restart(&mut self, who: usize) {
        let peer = self.peers.remove(who);
        let store = peer.store.clone();
        peer.stop().await;
        let store = store.faults().crash();
        let relay = self.relay.as_ref().expect("a relay");
        let n = u8::try_from(who + 1).expect("one of two");
        let peer = Peer::start(n, store, relay, self.ways).await;
        self.peers.insert(who, peer);
    }

    pub(crate) fn close_roads(&self) {
        for peer in &self.peers {
            peer.road.close();
        }
    }

    pub(crate) fn open_roads(&self) {
        for peer in &self.peers {
            peer.road.open();
        }
    }

    pub(crate) async fn allow_direct(&self, allowed: bool) {
        for peer in &self.peers {
            let done = soon("the word", peer.session.allow_direct(allowed)).await;
            done.expect("it is so");
        }
    }

    /// Sends a message from each and takes it at the other: none is lost, doubled, or out of order.
    pub(crate) async fn talk(&mut self) {
        for who in 0..2 {
            self.send(who).await;
        }
        for who in 0..2 {
            self.take(who).await;
        }
    }

    pub(crate) async fn send(&mut self, who: usize) {
        let text = self.sent[who].to_string();
        self.sent[who] += 1;
        let sent = self.peers[who].session.send(CHAT, text).await;
        drop(sent.expect("room in the outbox"));
    }

    /// Takes the next message that came to one of them.
    pub(crate) async fn take(&mut self, who: usize) {
        let next = soon("a message", self.peers[who].inbox.next()).await;
        let delivery = next.expect("the session lives");
        let text = String::from_utf8_lossy(delivery.payload()).into_owned();
        assert_eq!(text, self.taken[who].to_string(), "at peer {who}");
        assert!(!delivery.redelivered(), "{text} came twice");
        self.taken[who] += 1;
        delivery.commit().await.expect("a commit");
    }

    pub(crate) async fn until(
        &self,
        who: usize,
        what: &str,
        is: impl FnMut(&SessionState) -> bool,
    ) -> SessionState {
        let mut state = self.peers[who].session.state();
        let state = soon(what, state.wait_for(is)).await;
        state.expect("the session lives").clone()
    }

    /// Until one direct link carries the messages of both.
    pub(crate) async fn until_direct(&self) {
        for who in 0..2 {
            self.until(who, "one direct link that carries", |state| {
                direct_links(state) == 1 && carried_by(state) == Some("quic")
            })
            .await;
        }
    }

    /// Until such a link carries the messages of both.
    pub(crate) async fn until_carried_by(&self, transport: &'static str) {
        for who in 0..2 {
            self.until(who, transport, |state| carried_by(state) == Some(transport))
                .await;
        }
    }

    pub(crate) async fn until_relayed(&self) {
        for who in 0..2 {
            self.until(who, "the relay alone", |state| {
                state.connectivity() == Connectivity::Relayed
            })
            .await;
        }
    }

    pub(crate) async fn end(mut self) {
        for peer in self.peers.drain(..) {
            peer.stop().await;
        }
        self.stop_relay().await;
    }
}

pub(crate) fn direct_links(state: &SessionState) -> usize {
    let direct = state.links.iter().filter(|link| link.transport != "relay");
    direct.count()
}

/// What makes the link that carries.
pub(crate) fn carried_by(state: &SessionState) -> Option<&'static str> {
    state.carrier().map(|link| link.transport)
}

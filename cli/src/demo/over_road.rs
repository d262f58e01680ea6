//! WebRTC whose sockets are reached over roads alone: each candidate that a peer is told is where a
//! road begins.

use std::net::SocketAddr;

use async_trait::async_trait;
use outlive_core::Negotiation;
use outlive_core::transport::{
    NegotiatedConnection, NegotiatedEvent, NegotiatedTransport, TransportError,
};
use outlive_transports::WebRtc;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::road::Road;

/// Where the roads of a peer are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Roads {
    pub(super) open: bool,
    /// How often the peer has moved. Roads to where it was before lead nowhere.
    pub(super) moved: u64,
}

pub(super) struct OverRoad {
    webrtc: WebRtc,
    roads: watch::Receiver<Roads>,
}

impl OverRoad {
    pub(super) fn new(roads: watch::Receiver<Roads>) -> Self {
        let webrtc = WebRtc::new().bind_to(([127, 0, 0, 1], 0).into());
        Self { webrtc, roads }
    }
}

#[async_trait]
impl NegotiatedTransport for OverRoad {
    fn name(&self) -> &'static str {
        self.webrtc.name()
    }

    async fn connection(&self) -> Result<Box<dyn NegotiatedConnection>, TransportError> {
        Ok(Box::new(AtRoad {
            connection: self.webrtc.connection().await?,
            roads: self.roads.clone(),
            built: JoinSet::new(),
        }))
    }
}

struct AtRoad {
    connection: Box<dyn NegotiatedConnection>,
    roads: watch::Receiver<Roads>,
    built: JoinSet<()>,
}

impl AtRoad {
    /// Builds a road to where a candidate leads, and returns one that leads there by it. The fifth
    /// and sixth words of a candidate are its address and its port.
    async fn road_to(&mut self, candidate: &str) -> Option<String> {
        let mut words: Vec<_> = candidate.split(' ').map(str::to_owned).collect();
        let target = SocketAddr::new(words.get(4)?.parse().ok()?, words.get(5)?.parse().ok()?);
        let (road, address) = Road::to(target).await.ok()?;
        let built = self.roads.borrow().moved;
        let is_open = move |roads: &Roads| roads.open && roads.moved == built;
        self.built.spawn(road.run(self.roads.clone(), is_open));
        *words.get_mut(4)? = address.ip().to_string();
        *words.get_mut(5)? = address.port().to_string();
        Some(words.join(" "))
    }
}

#[async_trait]
impl NegotiatedConnection for AtRoad {
    async fn offer(
        &mut self,
        negotiation: Negotiation,
        restart: bool,
    ) -> Result<String, TransportError> {
        self.connection.offer(negotiation, restart).await
    }

    async fn rollback(&mut self) -> Result<(), TransportError> {
        self.connection.rollback().await
    }

    async fn apply_offer(
        &mut self,
        negotiation: Negotiation,
        sdp: String,
    ) -> Result<String, TransportError> {
        self.connection.apply_offer(negotiation, sdp).await
    }

    async fn apply_answer(&mut self, sdp: String) -> Result<(), TransportError> {
        self.connection.apply_answer(sdp).await
    }

    async fn add_candidate(&mut self, candidate: String) -> Result<(), TransportError> {
        self.connection.add_candidate(candidate).await
    }

    async fn event(&mut self) -> NegotiatedEvent {
        match self.connection.event().await {
            NegotiatedEvent::Found {
                negotiation,
                candidate,
            } => NegotiatedEvent::Found {
                negotiation,
                // Building a road does not wait for anybody, so nothing is lost half-way.
                candidate: self.road_to(&candidate).await.unwrap_or(candidate),
            },
            other => other,
        }
    }

    async fn close(&mut self) {
        self.connection.close().await;
    }
}

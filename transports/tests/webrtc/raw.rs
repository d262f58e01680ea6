//! A peer that is not outlive: bare `webrtc`, which makes as many channels as it likes.

use std::sync::Arc;

use async_trait::async_trait;
use outlive_core::transport::{
    NegotiatedConnection, NegotiatedEvent, NegotiatedLink, NegotiatedTransport,
};
use outlive_core::{Negotiation, Round};
use tokio::sync::{mpsc, watch};
use webrtc::data_channel::{DataChannel, DataChannelEvent};
use webrtc::peer_connection::{
    PeerConnection, PeerConnectionBuilder, PeerConnectionEventHandler, RTCIceGatheringState,
    RTCSessionDescription,
};

use crate::pair::loopback;

pub(crate) const FIRST: Negotiation = Negotiation {
    round: Round(1),
    run: 1,
};

pub(crate) struct Raw {
    pub(crate) peer: Box<dyn PeerConnection>,
    /// Those that we have made.
    pub(crate) channels: mpsc::UnboundedReceiver<Arc<dyn DataChannel>>,
}

struct Handler {
    gathered: watch::Sender<bool>,
    channels: mpsc::UnboundedSender<Arc<dyn DataChannel>>,
}

#[async_trait]
impl PeerConnectionEventHandler for Handler {
    async fn on_ice_gathering_state_change(&self, state: RTCIceGatheringState) {
        self.gathered
            .send_replace(state == RTCIceGatheringState::Complete);
    }

    async fn on_data_channel(&self, channel: Arc<dyn DataChannel>) {
        let _ = self.channels.send(channel);
    }
}

impl Raw {
    /// Answers an offer, with all its candidates.
    async fn answering(offer: String) -> (Self, String) {
        let (gathered, mut all) = watch::channel(false);
        let (made, channels) = mpsc::unbounded_channel();
        let handler = Handler {
            gathered,
            channels: made,
        };
        let build = PeerConnectionBuilder::new()
            .with_handler(Arc::new(handler))
            .with_udp_addrs(vec!["127.0.0.1:0"])
            .build();
        let peer = Box::pin(build).await.expect("a connection");
        let offer = RTCSessionDescription::offer(offer).expect("an offer");
        peer.set_remote_description(offer).await.expect("taken");
        let answer = peer.create_answer(None).await.expect("an answer");
        peer.set_local_description(answer).await.expect("set");
        all.wait_for(|all| *all).await.expect("it gathers");
        let answer = peer.local_description().await.expect("set").sdp;
        let peer = Box::new(peer);
        (Self { peer, channels }, answer)
    }
}

/// A connection of ours that has offered, its link, and who has answered.
pub(crate) async fn called() -> (Box<dyn NegotiatedConnection>, NegotiatedLink, Raw) {
    let mut ours = loopback().connection().await.expect("a connection");
    let offer = ours.offer(FIRST, false).await.expect("an offer");
    let (raw, answer) = Raw::answering(offer).await;
    ours.apply_answer(answer).await.expect("it can be used");
    loop {
        match ours.event().await {
            NegotiatedEvent::Up { link, .. } => return (ours, link, raw),
            NegotiatedEvent::Failed { error, .. } => panic!("{error}"),
            _ => {}
        }
    }
}

/// Waits until a channel of a raw peer is open, at both ends.
pub(crate) async fn open(channel: &dyn DataChannel) {
    loop {
        match channel.poll().await {
            Some(DataChannelEvent::OnOpen) => return,
            Some(_) => {}
            None => panic!("it was closed"),
        }
    }
}

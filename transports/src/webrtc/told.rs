//! What a connection tells of itself. It is told on the connection's own task, which must never wait
//! for whoever listens.

use std::sync::Arc;

use async_trait::async_trait;
use outlive_core::limits::CANDIDATES;
use tokio::sync::{mpsc, watch};
use webrtc::data_channel::DataChannel;
use webrtc::peer_connection::{
    PeerConnectionEventHandler, RTCIceGatheringState, RTCPeerConnectionIceEvent,
    RTCPeerConnectionState,
};

use super::candidates::is_of_nobody;

/// Data channels that the peer has made, and that wait to be heard of: the link's, one beside it, and
/// one that is too many. What comes after that one is let go of; it ends the connection.
const CHANNELS: usize = 3;

/// What was told and not heard yet.
pub(super) struct Told {
    /// Our own candidates; empty: there are no more. As many as are said to a peer, and one word
    /// more; of others the peer does not learn.
    pub(super) candidates: mpsc::Receiver<String>,
    /// The data channels that the peer has made, in their order.
    pub(super) channels: mpsc::Receiver<Arc<dyn DataChannel>>,
    /// How the connection is now. What it was before is of no use to anybody.
    pub(super) state: watch::Receiver<RTCPeerConnectionState>,
}

/// Who tells it.
pub(super) struct Teller {
    candidates: mpsc::Sender<String>,
    channels: mpsc::Sender<Arc<dyn DataChannel>>,
    state: watch::Sender<RTCPeerConnectionState>,
}

impl Teller {
    pub(super) fn new() -> (Self, Told) {
        let (found, candidates) = mpsc::channel(CANDIDATES + 1);
        let (made, channels) = mpsc::channel(CHANNELS);
        let (changed, state) = watch::channel(RTCPeerConnectionState::New);
        let teller = Self {
            candidates: found,
            channels: made,
            state: changed,
        };
        (
            teller,
            Told {
                candidates,
                channels,
                state,
            },
        )
    }
}

#[async_trait]
impl PeerConnectionEventHandler for Teller {
    async fn on_ice_candidate(&self, event: RTCPeerConnectionIceEvent) {
        if let Ok(init) = event.candidate.to_json()
            && !is_of_nobody(&init.candidate)
        {
            // Full: there are more than are said.
            let _ = self.candidates.try_send(init.candidate);
        }
    }

    async fn on_ice_gathering_state_change(&self, state: RTCIceGatheringState) {
        if state == RTCIceGatheringState::Complete {
            // A peer that does not hear it waits a little longer before it gives up.
            let _ = self.candidates.try_send(String::new());
        }
    }

    async fn on_data_channel(&self, channel: Arc<dyn DataChannel>) {
        // Full: one that ends the connection was told already.
        let _ = self.channels.try_send(channel);
    }

    async fn on_connection_state_change(&self, state: RTCPeerConnectionState) {
        self.state.send_replace(state);
    }
}

//! One connection, from its first description to its end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use outlive_core::Negotiation;
use outlive_core::limits::SDP_BYTES;
use outlive_core::transport::{
    NegotiatedConnection, NegotiatedEvent, NegotiatedLink, TransportError,
};
use rtc::peer_connection::configuration::RTCOfferOptions;
use rtc::peer_connection::transport::RTCIceCandidatePair;
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::debug;
use webrtc::data_channel::{DataChannel, DataChannelEvent, RTCDataChannelMessage};
use webrtc::error::Error;
use webrtc::peer_connection::{
    PeerConnection, PeerConnectionBuilder, RTCIceCandidateInit, RTCIceCandidateType,
    RTCPeerConnectionState, RTCSessionDescription,
};

use crate::address::is_gone;

use super::candidates::{Candidates, is_other_than_udp};
use super::description::check_credentials;
use super::halves::{Receiver, Sender};
use super::role::Role;
use super::tasks::Tasks;
use super::told::{Teller, Told};
use super::{CHANNEL_LABEL, SEND_BUFFER, WebRtc, channel, errors};

/// How long saying goodbye may take. Then the connection ends without.
const GOODBYE: Duration = Duration::from_secs(1);

/// How far a connection is.
enum Stage {
    /// Its data channel is not open yet, or the peer, who makes it, has not done so.
    Opening(Option<Arc<dyn DataChannel>>),
    /// It has just been opened, and maybe something was said on it already.
    Opened(Arc<dyn DataChannel>, Option<RTCDataChannelMessage>),
    /// Its link was handed out.
    Up,
    /// It has failed, and that was told.
    Over,
}

pub(super) struct Connection {
    config: WebRtc,
    peer: Arc<dyn PeerConnection>,
    tasks: Tasks,
    told: Told,
    stage: Stage,
    /// The data channel that the peer has made beside the link's. A browser that takes its offer back
    /// keeps the channel that it made for it.
    beside: Option<Arc<dyn DataChannel>>,
    /// Rings when the link's sending half is gone.
    let_go: CancellationToken,
    /// The last description that was made here.
    negotiation: Option<Negotiation>,
    /// The peer has described itself.
    described: bool,
    /// Of its last description.
    candidates: Candidates,
    role: Role,
    /// Ends the tasks with the connection.
    _cut: DropGuard,
}

/// What the next thing to happen is.
enum Happened {
    Ended,
    LetGo,
    Found(String),
    Made(Arc<dyn DataChannel>),
    Channel(Option<DataChannelEvent>),
    State(RTCPeerConnectionState),
}

impl Connection {
    /// Cancellation-safe: dropped half-way, nothing remains.
    pub(super) async fn open(config: WebRtc) -> Result<Self, TransportError> {
        let tasks = Tasks::new();
        let cut = tasks.cut_on_drop();
        let (teller, told) = Teller::new();
        let build = PeerConnectionBuilder::new()
            .with_configuration(config.configuration()?)
            .with_setting_engine(config.settings())
            .with_runtime(Arc::new(tasks.clone()))
            .with_handler(Arc::new(teller))
            .with_udp_addrs(config.addresses.clone())
            .with_data_channel_send_buffer_limit(SEND_BUFFER)
            .build();
        // It is large.
        let peer = Box::pin(build).await;
        let peer = peer.map_err(|error| errors::opening(&error))?;
        Ok(Self {
            config,
            peer: Arc::new(peer),
            tasks,
            told,
            stage: Stage::Opening(None),
            beside: None,
            let_go: CancellationToken::new(),
            negotiation: None,
            described: false,
            candidates: Candidates::default(),
            role: Role::default(),
            _cut: cut,
        })
    }

    /// Sets a local description: the one that `make` makes.
    async fn describe<F>(
        &mut self,
        negotiation: Negotiation,
        make: impl FnOnce(Arc<dyn PeerConnection>) -> F,
    ) -> Result<String, TransportError>
    where
        F: Future<Output = Result<RTCSessionDescription, Error>> + Send + 'static,
    {
        // Of what was found for the one before nobody wants to know.
        while self.told.candidates.try_recv().is_ok() {}
        self.negotiation = Some(negotiation);
        let (peer, made) = (self.peer.clone(), make(self.peer.clone()));
        let set = async move {
            let made = made.await?;
            let sdp = made.sdp.clone();
            peer.set_local_description(made).await?;
            Ok(sdp)
        };
        self.described_by(set).await
    }

    /// Sets the peer's description.
    async fn hear(
        &mut self,
        sdp: String,
        read: impl FnOnce(String) -> Result<RTCSessionDescription, Error> + Send + 'static,
    ) -> Result<(), TransportError> {
        if sdp.len() > SDP_BYTES {
            return Err(TransportError::Description(format!(
                "it has {} bytes, and may have {SDP_BYTES}",
                sdp.len()
            )));
        }
        check_credentials(&sdp)?;
        let (candidates, sdp) = Candidates::of(&sdp);
        let peer = self.peer.clone();
        let set = async move { peer.set_remote_description(read(sdp)?).await };
        self.described_by(set).await?;
        self.described = true;
        self.candidates = candidates;
        Ok(())
    }

    async fn described_by<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> Result<T, TransportError> {
        match self.tasks.shielded(work).await {
            Some(done) => done.map_err(|error| errors::description(&error)),
            None => Err(TransportError::Description("it can't be read".to_owned())),
        }
    }

    /// The way that was found, if there is one.
    async fn way(&self) -> Option<RTCIceCandidatePair> {
        let ice = self.peer.sctp().await?.transport().ice_transport();
        ice.get_selected_candidate_pair().await.ok().flatten()
    }

    /// Where the peer is, as far as that is known.
    async fn peer_address(&self) -> Option<SocketAddr> {
        let pair = self.way().await?;
        let remote = pair.remote();
        Some(SocketAddr::new(remote.address.parse().ok()?, remote.port))
    }

    /// What follows from it for whoever uses the connection, if anything.
    fn step(&mut self, happened: Happened) -> Option<NegotiatedEvent> {
        match happened {
            Happened::Ended => Some(self.broken("it ended at this end")),
            Happened::LetGo => Some(self.broken("its link was let go of")),
            Happened::Found(candidate) => {
                let negotiation = self.negotiation?;
                Some(NegotiatedEvent::Found {
                    negotiation,
                    candidate,
                })
            }
            Happened::Made(channel) => self.made(channel),
            Happened::Channel(event) => self.channel_said(event.as_ref()),
            Happened::State(state) => self.state_is(state),
        }
    }

    /// `webrtc` keeps 16 MiB of what is said on a channel that nobody has, as long as the connection
    /// lives. So one is had, and one more is a reason to go.
    fn made(&mut self, channel: Arc<dyn DataChannel>) -> Option<NegotiatedEvent> {
        match (&self.stage, &self.beside) {
            (Stage::Opening(None), _) => {
                self.stage = Stage::Opening(Some(channel));
                None
            }
            (_, None) => {
                self.beside = Some(channel);
                None
            }
            (_, Some(_)) => {
                let why = "it makes one data channel after another".to_owned();
                Some(self.failed(TransportError::Protocol(why)))
            }
        }
    }

    fn channel_said(&mut self, event: Option<&DataChannelEvent>) -> Option<NegotiatedEvent> {
        match event {
            Some(DataChannelEvent::OnOpen) => {
                self.opened(None);
                None
            }
            // A peer that talks at once may be heard before it is told that the channel is open.
            Some(DataChannelEvent::OnMessage(message)) => {
                self.opened(Some(message.clone()));
                None
            }
            Some(DataChannelEvent::OnClosing | DataChannelEvent::OnClose) | None => {
                Some(self.failed(errors::closed()))
            }
            Some(_) => None,
        }
    }

    fn opened(&mut self, said: Option<RTCDataChannelMessage>) {
        if let Stage::Opening(Some(channel)) = &self.stage {
            self.stage = Stage::Opened(channel.clone(), said);
        }
    }

    fn state_is(&mut self, state: RTCPeerConnectionState) -> Option<NegotiatedEvent> {
        let negotiation = self.negotiation?;
        let up = matches!(self.stage, Stage::Up);
        match state {
            RTCPeerConnectionState::Connected if up => Some(NegotiatedEvent::Back { negotiation }),
            RTCPeerConnectionState::Disconnected if up => {
                Some(NegotiatedEvent::Silent { negotiation })
            }
            RTCPeerConnectionState::Failed => Some(NegotiatedEvent::Down { negotiation }),
            RTCPeerConnectionState::Closed if up => Some(self.failed(TransportError::Finished)),
            RTCPeerConnectionState::Closed => Some(self.broken("the peer gave it up")),
            // What it is between two of these.
            _ => None,
        }
    }

    fn broken(&mut self, why: &str) -> NegotiatedEvent {
        self.failed(TransportError::Broken(why.to_owned()))
    }

    fn failed(&mut self, error: TransportError) -> NegotiatedEvent {
        self.stage = Stage::Over;
        NegotiatedEvent::Failed {
            negotiation: self.negotiation,
            error,
        }
    }
}

async fn opening(stage: &Stage) -> Option<DataChannelEvent> {
    match stage {
        Stage::Opening(Some(channel)) => channel.poll().await,
        // There is none, or whoever has the link hears it.
        Stage::Opening(None) | Stage::Opened(..) | Stage::Up | Stage::Over => {
            std::future::pending().await
        }
    }
}

#[async_trait]
impl NegotiatedConnection for Connection {
    async fn offer(
        &mut self,
        negotiation: Negotiation,
        restart: bool,
    ) -> Result<String, TransportError> {
        if !restart {
            // Who makes the first offer makes the channel. One that both make, without a word about
            // it, loses what is sent before the other end has opened it.
            let channel = self.peer.create_data_channel(CHANNEL_LABEL, None).await;
            let channel = channel.map_err(|error| errors::description(&error))?;
            self.stage = Stage::Opening(Some(channel));
        }
        let make = |peer: Arc<dyn PeerConnection>| async move {
            let options = RTCOfferOptions {
                ice_restart: restart,
            };
            peer.create_offer(Some(options)).await
        };
        self.describe(negotiation, make).await
    }

    async fn rollback(&mut self) -> Result<(), TransportError> {
        if !self.described {
            // Nothing came of it but candidates, which would not be told again.
            let again = Self::open(self.config.clone()).await?;
            self.close().await;
            *self = again;
            return Ok(());
        }
        let peer = self.peer.clone();
        let set = async move {
            let rollback = RTCSessionDescription::rollback(None)?;
            peer.set_local_description(rollback).await
        };
        self.described_by(set).await
    }

    async fn apply_offer(
        &mut self,
        negotiation: Negotiation,
        sdp: String,
    ) -> Result<String, TransportError> {
        self.hear(sdp, RTCSessionDescription::offer).await?;
        let make = |peer: Arc<dyn PeerConnection>| async move { peer.create_answer(None).await };
        let answer = self.describe(negotiation, make).await?;
        Ok(self.role.tell(answer))
    }

    async fn apply_answer(&mut self, sdp: String) -> Result<(), TransportError> {
        let role = Role::of_answer(&sdp);
        let first = !self.described;
        self.hear(sdp, RTCSessionDescription::answer).await?;
        if first {
            self.role = role;
        }
        Ok(())
    }

    async fn add_candidate(&mut self, candidate: String) -> Result<(), TransportError> {
        self.candidates.take(&candidate)?;
        let peer = self.peer.clone();
        let add = async move {
            if is_other_than_udp(&candidate) {
                let why = "only candidates of UDP can be used".to_owned();
                return Err(TransportError::Candidate(why));
            }
            let init = RTCIceCandidateInit {
                candidate,
                ..RTCIceCandidateInit::default()
            };
            let added = peer.add_ice_candidate(init).await;
            added.map_err(|error| errors::candidate(&error))
        };
        match self.tasks.shielded(add).await {
            Some(added) => added,
            None => Err(TransportError::Candidate("it can't be read".to_owned())),
        }
    }

    async fn event(&mut self) -> NegotiatedEvent {
        loop {
            if let Stage::Opened(channel, said) = &self.stage
                && let Some(negotiation) = self.negotiation
            {
                let (channel, said) = (channel.clone(), said.clone());
                if let Err(error) = channel::reliable(&*channel).await {
                    return self.failed(error);
                }
                let address = self.peer_address().await;
                self.stage = Stage::Up;
                self.tasks.settle();
                let let_go = self.let_go.clone().drop_guard();
                let sender = Sender::new(channel.clone(), self.tasks.clone(), let_go);
                let receiver = Receiver::new(channel, self.tasks.clone(), said);
                let link = NegotiatedLink {
                    address,
                    sender: Box::new(sender),
                    receiver: Box::new(receiver),
                };
                return NegotiatedEvent::Up { negotiation, link };
            }
            if let Stage::Over = self.stage {
                return std::future::pending().await;
            }
            let happened = tokio::select! {
                biased;
                () = self.tasks.ended() => Happened::Ended,
                () = self.let_go.cancelled() => Happened::LetGo,
                Some(candidate) = self.told.candidates.recv() => Happened::Found(candidate),
                Some(channel) = self.told.channels.recv() => Happened::Made(channel),
                event = opening(&self.stage) => Happened::Channel(event),
                Ok(()) = self.told.state.changed() => {
                    Happened::State(*self.told.state.borrow_and_update())
                }
                () = channel::passed_over(self.beside.as_deref()) => continue,
            };
            if let Some(event) = self.step(happened) {
                return event;
            }
        }
    }

    async fn is_stranded(&mut self) -> bool {
        let Some(way) = self.way().await else {
            return false;
        };
        let local = way.local();
        // Any other is the address of a gate or of a server.
        let ours = local.typ == RTCIceCandidateType::Host;
        ours && local.address.parse().is_ok_and(is_gone)
    }

    async fn close(&mut self) {
        self.tasks.settle();
        let goodbye = tokio::time::timeout(GOODBYE, self.peer.close());
        if let Ok(Err(error)) = goodbye.await {
            debug!(%error, "no goodbye was said");
        }
        self.tasks.cut();
        self.tasks.gone().await;
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use outlive_core::Round;

    use super::*;

    /// `webrtc` hands over what came with the word that a channel is open before that word.
    #[tokio::test]
    async fn what_is_said_before_the_channel_is_known_to_be_open_is_not_lost() {
        let loopback = WebRtc::new().bind_to(([127, 0, 0, 1], 0).into());
        let mut connection = Connection::open(loopback).await.unwrap();
        let first = Negotiation {
            round: Round(1),
            run: 1,
        };
        connection.offer(first, false).await.unwrap();

        let said = DataChannelEvent::OnMessage(RTCDataChannelMessage {
            is_string: false,
            data: BytesMut::from(&b"at once"[..]),
        });
        assert!(connection.step(Happened::Channel(Some(said))).is_none());
        let NegotiatedEvent::Up { mut link, .. } = connection.event().await else {
            panic!("it is open");
        };
        assert!(connection.tasks.are_settled());
        assert_eq!(link.receiver.receive().await.unwrap(), "at once");
        connection.close().await;
    }

    /// What has to be said at the end may take longer than a nap.
    #[tokio::test]
    async fn a_connection_that_never_came_about_takes_its_time_to_say_goodbye() {
        let loopback = WebRtc::new().bind_to(([127, 0, 0, 1], 0).into());
        let mut connection = Connection::open(loopback).await.unwrap();
        assert!(!connection.tasks.are_settled());
        connection.close().await;
        assert!(connection.tasks.are_settled());
    }
}

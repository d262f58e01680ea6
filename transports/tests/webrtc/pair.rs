//! Two peers whose negotiators make real connections, and whose signals are passed on in memory.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;
use outlive_core::negotiator::{Negotiator, Output, Status};
use outlive_core::transport::{
    Lane, NegotiatedConnection, NegotiatedEvent, NegotiatedLink, NegotiatedTransport,
    TransportError,
};
use outlive_core::wire::signal::Signal;
use outlive_core::{Entropy, Identity, Now, Round};
use outlive_transports::WebRtc;

pub(crate) fn loopback() -> WebRtc {
    WebRtc::new().bind_to(([127, 0, 0, 1], 0).into())
}

pub(crate) struct Side {
    transport: WebRtc,
    start: Instant,
    pub(crate) negotiator: Negotiator,
    pub(crate) connection: Option<Box<dyn NegotiatedConnection>>,
    /// Links that came up, the newest last.
    pub(crate) links: Vec<NegotiatedLink>,
    /// What became of the connection, in words.
    pub(crate) story: Vec<String>,
    /// What the connection did not take.
    pub(crate) refused: Vec<TransportError>,
}

impl Side {
    fn new(me: u8, peer: u8, transport: WebRtc) -> Self {
        let id = |n| Identity::from_seed([n; 32]).peer_id();
        Self {
            transport,
            start: Instant::now(),
            negotiator: Negotiator::new(
                id(me),
                id(peer),
                Round::at_start(1),
                Entropy::from_seed([me; 32]),
            ),
            connection: None,
            links: Vec::new(),
            story: Vec::new(),
            refused: Vec::new(),
        }
    }

    pub(crate) fn now(&self) -> Now {
        Now {
            elapsed: self.start.elapsed(),
            ..Now::default()
        }
    }

    pub(crate) fn want(&mut self) {
        let now = self.now();
        self.negotiator.want(now);
    }

    pub(crate) fn restart(&mut self) {
        let now = self.now();
        self.negotiator.restart(now);
    }

    async fn connection(&mut self) -> &mut dyn NegotiatedConnection {
        if self.connection.is_none() {
            self.connection = Some(self.transport.connection().await.expect("a connection"));
        }
        self.connection.as_deref_mut().expect("a connection")
    }

    /// Does all that the negotiator wants, and returns what it says.
    pub(crate) async fn settle(&mut self) -> Vec<Signal> {
        let mut said = Vec::new();
        while let Some(output) = self.negotiator.poll() {
            match output {
                Output::Reset => self.close().await,
                Output::CreateOffer {
                    negotiation,
                    restart,
                } => {
                    let sdp = self.connection().await.offer(negotiation, restart).await;
                    let now = self.now();
                    self.negotiator
                        .described(negotiation, sdp.expect("an offer"), now);
                }
                Output::Rollback => self
                    .connection()
                    .await
                    .rollback()
                    .await
                    .expect("rolled back"),
                Output::ApplyOffer { negotiation, sdp } => {
                    let answer = self.connection().await.apply_offer(negotiation, sdp).await;
                    let now = self.now();
                    match answer {
                        Ok(sdp) => self.negotiator.described(negotiation, sdp, now),
                        Err(error) => {
                            self.refused.push(error);
                            self.negotiator.failed(negotiation, now);
                        }
                    }
                }
                Output::ApplyAnswer { negotiation, sdp } => {
                    if let Err(error) = self.connection().await.apply_answer(sdp).await {
                        self.refused.push(error);
                        let now = self.now();
                        self.negotiator.failed(negotiation, now);
                    }
                }
                Output::AddCandidate { candidate, .. } => {
                    if let Err(error) = self.connection().await.add_candidate(candidate).await {
                        self.refused.push(error);
                    }
                }
                Output::Send { signal, .. } => said.push(signal),
                Output::Cancel { .. } => {}
            }
        }
        said
    }

    /// What becomes of the connection. Cancellation-safe.
    async fn event(&mut self) -> NegotiatedEvent {
        match &mut self.connection {
            Some(connection) => connection.event().await,
            None => std::future::pending().await,
        }
    }

    fn heed(&mut self, event: NegotiatedEvent) {
        let now = self.now();
        match event {
            NegotiatedEvent::Found {
                negotiation,
                candidate,
            } => self.negotiator.found(negotiation, candidate),
            NegotiatedEvent::Up { negotiation, link } => {
                self.story.push("up".to_owned());
                self.links.push(link);
                self.negotiator.up(negotiation, now);
            }
            NegotiatedEvent::Silent { .. } => self.story.push("silent".to_owned()),
            NegotiatedEvent::Back { negotiation } => {
                self.story.push("back".to_owned());
                self.negotiator.up(negotiation, now);
            }
            NegotiatedEvent::Down { negotiation } => {
                self.story.push("down".to_owned());
                self.negotiator.down(negotiation, now);
            }
            NegotiatedEvent::Failed { negotiation, error } => {
                self.story.push(error.to_string());
                if let Some(negotiation) = negotiation {
                    self.negotiator.failed(negotiation, now);
                }
            }
        }
    }

    pub(crate) async fn close(&mut self) {
        if let Some(mut connection) = self.connection.take() {
            connection.close().await;
        }
    }

    pub(crate) fn is_up(&self) -> bool {
        matches!(self.negotiator.status(), Status::Up(_)) && !self.links.is_empty()
    }

    pub(crate) fn link(&mut self) -> &mut NegotiatedLink {
        self.links.last_mut().expect("a link")
    }
}

/// What a signal becomes on its way.
pub(crate) type Way = Box<dyn FnMut(Signal) -> Vec<Signal> + Send>;

pub(crate) struct Pair {
    pub(crate) a: Side,
    pub(crate) b: Side,
    pub(crate) to_a: VecDeque<Signal>,
    pub(crate) to_b: VecDeque<Signal>,
    /// What becomes of each signal of a or b.
    pub(crate) way: Way,
}

impl Pair {
    pub(crate) fn new() -> Self {
        Self::of(loopback(), loopback())
    }

    pub(crate) fn of(a: WebRtc, b: WebRtc) -> Self {
        Self {
            a: Side::new(1, 2, a),
            b: Side::new(2, 1, b),
            to_a: VecDeque::new(),
            to_b: VecDeque::new(),
            way: Box::new(|signal| vec![signal]),
        }
    }

    /// Both do what they want to, and hear what the other says, until they have nothing to say.
    pub(crate) async fn settle(&mut self) {
        loop {
            for signal in self.a.settle().await {
                self.to_b.extend((self.way)(signal));
            }
            for signal in self.b.settle().await {
                self.to_a.extend((self.way)(signal));
            }
            if let Some(signal) = self.to_b.pop_front() {
                let now = self.b.now();
                self.b.negotiator.receive(signal, now);
            } else if let Some(signal) = self.to_a.pop_front() {
                let now = self.a.now();
                self.a.negotiator.receive(signal, now);
            } else {
                return;
            }
        }
    }

    /// Goes on until it is so.
    pub(crate) async fn until(&mut self, so: impl Fn(&Self) -> bool) {
        let patience = Duration::from_secs(60);
        let reached = tokio::time::timeout(patience, async {
            loop {
                self.settle().await;
                if so(self) {
                    return;
                }
                let deadline = [&self.a, &self.b]
                    .into_iter()
                    .filter_map(|side| Some(side.start + side.negotiator.deadline()?))
                    .min();
                let deadline = deadline.unwrap_or_else(|| Instant::now() + patience);
                tokio::select! {
                    event = self.a.event() => self.a.heed(event),
                    event = self.b.event() => self.b.heed(event),
                    () = tokio::time::sleep_until(deadline.into()) => {
                        for side in [&mut self.a, &mut self.b] {
                            let now = side.now();
                            side.negotiator.tick(now);
                        }
                    }
                }
            }
        });
        if reached.await.is_err() {
            panic!("it never came: {:?} / {:?}", self.a.story, self.b.story);
        }
    }

    pub(crate) async fn up() -> Self {
        let mut pair = Self::new();
        pair.come_up().await;
        pair
    }

    pub(crate) async fn come_up(&mut self) {
        self.a.want();
        self.until(|pair| pair.a.is_up() && pair.b.is_up()).await;
    }

    pub(crate) async fn close(&mut self) {
        self.a.close().await;
        self.b.close().await;
    }
}

pub(crate) fn packet(n: u8, bytes: usize) -> Bytes {
    Bytes::from(vec![n; bytes])
}

pub(crate) async fn say(link: &mut NegotiatedLink, packet: Bytes) {
    let sent = link.sender.send(Lane::Interactive, vec![packet]).await;
    sent.expect("sent");
}

pub(crate) async fn hear(link: &mut NegotiatedLink) -> Bytes {
    link.receiver.receive().await.expect("a packet")
}

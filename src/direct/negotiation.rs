//! A session's way to a link by negotiation: does what the negotiator says, on one connection at a
//! time.
//!
//! Such a link is sought where QUIC does not come to one, and stays as a second way when it does
//! later on: the engine sends over it when the other is slow or gone. It is closed with the session,
//! when the peer closes it, and where direct links are forbidden.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use outlive_core::engine::Ticket;
use outlive_core::negotiator::{Negotiator, Output, Status};
use outlive_core::transport::{
    DirectLink, NegotiatedConnection, NegotiatedEvent, NegotiatedLink, TransportError,
};
use outlive_core::wire::signal::Signal;
use outlive_core::{Entropy, Negotiation, Now, PeerId};
use tokio::sync::{Notify, mpsc};
use tracing::debug;

use super::link::{self, Carried, Kind};
use super::signals;
use crate::node::Inner;
use crate::state::LinkInfo;
use crate::task::Input;

/// How long the other kind of direct links has until this one is tried for. A dial that gets through
/// takes a round trip or two after the addresses were told.
const HEAD_START: Duration = Duration::from_secs(3);

/// How long a link may take to show that it still leads to the peer when the network has changed.
/// The engine asks for that at once. Shorter, and links over long ways are restarted for nothing;
/// longer, and the relay carries for longer.
const PROOF: Duration = Duration::from_millis(500);

/// Behind the links of QUIC, which are faster on every path.
const RANK: u8 = 1;

/// What is wanted of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    /// There must be none.
    Forbidden,
    /// There may be one, if the peer wants it.
    Allowed,
    /// There is to be one, unless something better comes about soon.
    Wanted,
}

pub(super) struct Negotiating {
    inner: Arc<Inner>,
    peer: PeerId,
    inputs: mpsc::Sender<Input>,
    /// Rings when a link has ended.
    bell: Arc<Notify>,
    negotiator: Negotiator,
    connection: Option<Box<dyn NegotiatedConnection>>,
    link: Option<Carried>,
    /// What was said and can be taken back: a description, and candidates, of the last negotiation.
    said: Vec<(Negotiation, Ticket)>,
    /// When the head start of others is over, once a link was wanted.
    start_at: Option<Duration>,
    /// Since when none is wanted.
    unwanted: Option<Duration>,
    /// Why the link may lead nowhere, while that is not decided.
    doubt: Option<Doubt>,
}

/// A link that may lead nowhere any more.
struct Doubt {
    why: Why,
    /// Packets that had come over it before.
    heard: u64,
    /// Until when it may show that it still does.
    until: Duration,
}

/// Why that may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    /// The network has changed.
    Changed,
    /// Nothing comes over the connection of this negotiation.
    Silent(Negotiation),
}

impl Negotiating {
    pub(super) fn new(
        inner: Arc<Inner>,
        peer: PeerId,
        inputs: mpsc::Sender<Input>,
        bell: Arc<Notify>,
        entropy: Entropy,
    ) -> Self {
        let me = inner.identity.peer_id();
        let negotiator = Negotiator::new(me, peer, inner.last_round(), entropy);
        Self {
            inner,
            peer,
            inputs,
            bell,
            negotiator,
            connection: None,
            link: None,
            said: Vec::new(),
            start_at: None,
            unwanted: None,
            doubt: None,
        }
    }

    /// What is wanted from now on. Without a transport there can be none, and a peer that offers one
    /// is told so.
    pub(super) fn wish(&mut self, wish: Wish, now: Now) {
        let wish = match self.inner.negotiated {
            Some(_) => wish,
            None => Wish::Forbidden,
        };
        if wish != Wish::Wanted {
            self.unwanted.get_or_insert(now.elapsed);
        }
        match wish {
            Wish::Forbidden => self.negotiator.forbid(),
            Wish::Allowed => self.negotiator.allow(),
            Wish::Wanted => {
                // A peer that is away for a moment, because its way to the relay broke, is not new.
                let unwanted = self.unwanted.take();
                if unwanted.is_some_and(|since| now.elapsed.saturating_sub(since) >= HEAD_START) {
                    self.start_at = None;
                }
                let alone = self.inner.direct.is_none();
                let head_start = if alone { Duration::ZERO } else { HEAD_START };
                let at = *self.start_at.get_or_insert(now.elapsed + head_start);
                if now.elapsed >= at {
                    self.negotiator.want(now);
                }
            }
        }
    }

    /// The peer is there again.
    pub(super) fn wake(&mut self, now: Now) {
        self.negotiator.wake(now);
    }

    /// The way to the peer may have changed.
    pub(super) async fn network_changed(&mut self, now: Now) {
        if matches!(self.negotiator.status(), Status::Up(_)) && self.link.is_some() {
            let stranded = match &mut self.connection {
                Some(connection) => connection.is_stranded().await,
                None => false,
            };
            let proof = if stranded { Duration::ZERO } else { PROOF };
            self.doubt(Why::Changed, now.elapsed + proof);
        } else {
            self.negotiator.restart(now);
        }
    }

    fn doubt(&mut self, why: Why, until: Duration) {
        let heard = self.heard();
        self.doubt = Some(Doubt { why, heard, until });
    }

    /// Packets that came over the link.
    fn heard(&self) -> u64 {
        let heard = self.link.as_ref().map(|link| &link.heard);
        heard.map_or(0, |heard| heard.load(Ordering::Relaxed))
    }

    /// Restarts ICE, if the link leads nowhere any more. That begins with new sockets, and costs a link
    /// that still carries some round trips, or the link itself where there is no other one for the
    /// signals: so it has to be both that nothing comes, and that the session has another link.
    pub(super) fn restart(&mut self, links: &[LinkInfo], now: Now) {
        let Some(doubt) = &self.doubt else { return };
        let (why, until) = (doubt.why, doubt.until);
        if self.heard() != doubt.heard {
            self.doubt = None;
        } else if now.elapsed >= until
            && links.iter().any(|link| link.transport != self.transport())
        {
            self.doubt = None;
            match why {
                Why::Changed => self.negotiator.restart(now),
                Why::Silent(negotiation) => self.negotiator.silent(negotiation, now),
            }
        }
    }

    pub(super) fn receive(&mut self, signal: Signal, now: Now) {
        self.negotiator.receive(signal, now);
    }

    pub(super) fn deadline(&self, now: Now) -> Option<Duration> {
        let doubted = self.doubt.as_ref().map(|doubt| doubt.until);
        let ahead = [self.start_at, doubted].map(|at| at.filter(|at| *at > now.elapsed));
        [self.negotiator.deadline()]
            .into_iter()
            .chain(ahead)
            .flatten()
            .min()
    }

    pub(super) fn tick(&mut self, now: Now) {
        self.negotiator.tick(now);
    }

    /// Does all that the negotiator wants done.
    pub(super) async fn settle(&mut self) {
        while let Some(output) = self.negotiator.poll() {
            match output {
                Output::Reset => self.reset().await,
                Output::CreateOffer {
                    negotiation,
                    restart,
                } => {
                    let made = match self.connection().await {
                        Ok(connection) => connection.offer(negotiation, restart).await,
                        Err(error) => Err(error),
                    };
                    self.described(negotiation, made);
                }
                Output::Rollback => {
                    // If it can't, the next description does not work either.
                    if let Some(connection) = &mut self.connection
                        && let Err(error) = connection.rollback().await
                    {
                        debug!(%error, "an offer was not taken back");
                    }
                }
                Output::ApplyOffer { negotiation, sdp } => {
                    if self.link.is_some() {
                        // The peer has left the way there was. The session's task may have ended.
                        let _ = self.inputs.send(Input::NetworkChanged).await;
                    }
                    let made = match self.connection().await {
                        Ok(connection) => connection.apply_offer(negotiation, sdp).await,
                        Err(error) => Err(error),
                    };
                    self.described(negotiation, made);
                }
                Output::ApplyAnswer { negotiation, sdp } => {
                    if let Some(connection) = &mut self.connection
                        && let Err(error) = connection.apply_answer(sdp).await
                    {
                        self.failed(negotiation, &error);
                    }
                }
                Output::AddCandidate { candidate, .. } => {
                    if let Some(connection) = &mut self.connection
                        && let Err(error) = connection.add_candidate(candidate).await
                    {
                        debug!(%error, "a candidate is passed over");
                    }
                }
                Output::Send { signal, ttl } => self.say(&signal, ttl).await,
                Output::Cancel { negotiation } => self.take_back(negotiation).await,
            }
        }
    }

    /// What becomes of the connection; nothing, while there is none. Cancellation-safe.
    pub(super) async fn event(&mut self) -> NegotiatedEvent {
        match &mut self.connection {
            Some(connection) => connection.event().await,
            None => std::future::pending().await,
        }
    }

    /// Returns whether the peer has let the link go. Then no other is sought before it is wished again.
    pub(super) fn heed(&mut self, event: NegotiatedEvent, now: Now) -> bool {
        match event {
            NegotiatedEvent::Found {
                negotiation,
                candidate,
            } => self.negotiator.found(negotiation, candidate),
            NegotiatedEvent::Up { negotiation, link } => {
                self.bind(link);
                self.negotiator.up(negotiation, now);
            }
            // The engine notices sooner than this, and sends over another link meanwhile.
            NegotiatedEvent::Silent { negotiation } => {
                self.doubt(Why::Silent(negotiation), now.elapsed);
            }
            NegotiatedEvent::Back { negotiation } => {
                self.doubt = None;
                self.negotiator.up(negotiation, now);
            }
            NegotiatedEvent::Down { negotiation } => self.negotiator.down(negotiation, now),
            NegotiatedEvent::Failed { negotiation, error } => {
                let parted = matches!(error, TransportError::Finished)
                    || self.link.as_ref().is_some_and(Carried::is_parted);
                if parted {
                    self.wish(Wish::Allowed, now);
                }
                match negotiation {
                    Some(negotiation) => self.failed(negotiation, &error),
                    None => self.connection = None,
                }
                return parted;
            }
        }
        false
    }

    /// Ends what there is, and says goodbye.
    pub(super) async fn close(&mut self) {
        self.let_link_go().await;
        if let Some(mut connection) = self.connection.take() {
            connection.close().await;
        }
    }

    /// What its links are called.
    fn transport(&self) -> &'static str {
        let transport = self.inner.negotiated.as_ref();
        transport.map_or("negotiated", |transport| transport.name())
    }

    async fn connection(&mut self) -> Result<&mut dyn NegotiatedConnection, TransportError> {
        let connection = match (&mut self.connection, &self.inner.negotiated) {
            (Some(connection), _) => connection,
            (none, Some(transport)) => none.insert(transport.connection().await?),
            (None, None) => {
                let why = "there is no transport for it".to_owned();
                return Err(TransportError::Description(why));
            }
        };
        Ok(&mut **connection)
    }

    fn described(&mut self, negotiation: Negotiation, made: Result<String, TransportError>) {
        match made {
            Ok(sdp) => {
                let now = self.inner.clock.now();
                self.negotiator.described(negotiation, sdp, now);
            }
            Err(error) => self.failed(negotiation, &error),
        }
    }

    fn failed(&mut self, negotiation: Negotiation, error: &TransportError) {
        debug!(peer = %self.peer.short(), %negotiation, %error, "a connection failed");
        self.negotiator.failed(negotiation, self.inner.clock.now());
    }

    fn bind(&mut self, link: NegotiatedLink) {
        let unknown = || SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
        let link = DirectLink {
            peer: self.peer,
            address: link.address.unwrap_or_else(unknown),
            sender: link.sender,
            receiver: link.receiver,
        };
        let kind = Kind {
            transport: self.transport(),
            rank: RANK,
        };
        self.link = Some(link::carry(
            &self.inner,
            self.inputs.clone(),
            kind,
            link,
            self.bell.clone(),
        ));
    }

    async fn let_link_go(&mut self) {
        if let Some(link) = self.link.take() {
            link.retire.cancel();
            link.ended.cancelled().await;
        }
    }

    /// Lets go of the connection. The next one does not wait until this one has said goodbye.
    async fn reset(&mut self) {
        self.let_link_go().await;
        if let Some(mut connection) = self.connection.take() {
            let goodbye = async move { connection.close().await };
            self.inner.tasks.spawn(goodbye);
        }
    }

    async fn say(&mut self, signal: &Signal, ttl: Duration) {
        match signals::say(&self.inputs, signal, ttl).await {
            Ok(ticket) => {
                if let Some(negotiation) = signal.negotiation() {
                    // Of an older one there is nothing left to take back.
                    self.said.retain(|(of, _)| *of == negotiation);
                    self.said.push((negotiation, ticket));
                }
            }
            Err(error) => debug!(peer = %self.peer.short(), %error, "a signal was not sent"),
        }
    }

    async fn take_back(&mut self, negotiation: Negotiation) {
        let said = std::mem::take(&mut self.said).into_iter();
        let of_it = said.filter(|(of, _)| *of == negotiation);
        // If that fails, the session's task has ended, and this one with it.
        let _ = signals::take_back(&self.inputs, of_it.map(|(_, ticket)| ticket)).await;
    }
}

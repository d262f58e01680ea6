//! A session's way to a direct link: one task beside the session's, as long as that is awake.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::future::BoxFuture;
use outlive_core::engine::Ticket;
use outlive_core::negotiator::{DialedBy, LinkSeen, Rendezvous, RendezvousOutput, extra_links};
use outlive_core::record::Key;
use outlive_core::transport::{DirectLink, NegotiatedEvent, TransportError};
use outlive_core::wire::signal::Signal;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::link::{self, Carried, Kind};
use super::negotiation::{Negotiating, Wish};
use super::signals::{self, Taken};
use super::{Asked, Endpoint};
use crate::alarm::Alarm;
use crate::entropy::fresh_entropy;
use crate::error::Error;
use crate::hub::Hub;
use crate::node::Inner;
use crate::route::Route;
use crate::state::SessionState;
use crate::task::{Input, STORE_RETRY, pending_or};

/// How often it is looked whether a link too many can go, while there is one.
const EXTRA_AGAIN: Duration = Duration::from_millis(500);

/// Before all others that go to the peer itself.
const RANK: u8 = 0;

/// A link, as this end sees it.
struct Up {
    link: Carried,
    dialed_by: DialedBy,
    /// Packets that had come over it when the last of the links came up.
    heard_before: u64,
}

pub(crate) struct Upgrade {
    inner: Arc<Inner>,
    hub: Arc<Hub>,
    endpoint: Option<Endpoint>,
    inputs: mpsc::Sender<Input>,
    asked: mpsc::Receiver<Asked>,
    allowed: bool,
    /// When that is read from the store again, if it could not be.
    read_again: Option<Instant>,
    links: Vec<Up>,
    /// Rings when a link has ended.
    bell: Arc<Notify>,
    dialing: Option<BoxFuture<'static, Result<DirectLink, TransportError>>>,
    /// The peer let the last link go, and nothing was said since: it has no use for another, and
    /// would be woken for one that it lets go again.
    parted: bool,
    /// Rings when something is said.
    talk: watch::Receiver<()>,
    /// Whether the peer was there when that was last looked at.
    online: bool,
    /// The last word of where we are: the next takes its place.
    said: Option<Ticket>,
    /// Signals could not be read or sent: when that is tried again.
    failed: bool,
}

impl Upgrade {
    pub(crate) fn new(
        inner: Arc<Inner>,
        hub: Arc<Hub>,
        endpoint: Option<Endpoint>,
        inputs: mpsc::Sender<Input>,
        asked: mpsc::Receiver<Asked>,
    ) -> Self {
        Self {
            inner,
            talk: hub.talk.subscribe(),
            hub,
            endpoint,
            inputs,
            asked,
            allowed: false,
            read_again: None,
            links: Vec::new(),
            bell: Arc::default(),
            dialing: None,
            parted: false,
            online: false,
            said: None,
            failed: false,
        }
    }

    /// Until the session's task has ended.
    pub(crate) async fn run(mut self, ended: CancellationToken) {
        let (Ok(rendezvous), Ok(negotiating)) = (fresh_entropy(), fresh_entropy()) else {
            return warn!("no direct links: the system gave no randomness");
        };
        let rendezvous = Rendezvous::new(self.inner.last_round(), rendezvous);
        let mut negotiating = Negotiating::new(
            self.inner.clone(),
            self.hub.peer,
            self.inputs.clone(),
            self.bell.clone(),
            negotiating,
        );
        tokio::select! {
            () = ended.cancelled() => {}
            () = self.seek(rendezvous, &mut negotiating) => {}
        }
        for up in &self.links {
            up.link.retire.cancel();
        }
        negotiating.close().await;
    }

    async fn seek(&mut self, mut rendezvous: Rendezvous, negotiating: &mut Negotiating) {
        self.read_allowed().await;
        let (_none, nowhere) = watch::channel(Vec::new());
        let mut addresses = match &self.endpoint {
            Some(endpoint) => endpoint.addresses.clone(),
            None => nowhere,
        };
        let mut network = self.inner.network.watch();
        let mut found_at = self.hub.found_at.subscribe();
        let mut doubt = self.hub.doubt.subscribe();
        rendezvous.located(addresses.borrow_and_update().clone(), self.now());
        rendezvous.given(found_at.borrow_and_update().clone(), self.now());
        let (mut alarm, mut retry) = (Alarm::default(), Alarm::default());
        loop {
            // Before those that have ended meanwhile are gone, or it would wait for a dial that is over.
            if !self.links.is_empty() {
                rendezvous.linked(self.now());
            }
            self.note_ended();
            let linked = !self.links.is_empty();
            let present = self.hub.state.borrow().clone();
            self.wish(&mut rendezvous, negotiating, &present);
            // What becomes of it that there is none depends on what is wished.
            match (linked, self.parted) {
                (true, _) => {}
                (false, true) if !present.outstanding => rendezvous.parted(self.now()),
                (false, _) => rendezvous.unlinked(self.now()),
            }
            negotiating.restart(&present.links, self.now());
            rendezvous.doubt(*doubt.borrow_and_update(), self.now());
            negotiating.settle().await;
            self.settle(&mut rendezvous).await;
            let extra = self.links.len() > 1;
            if extra {
                self.let_extra_go();
            }
            let deadlines = [rendezvous.deadline(), negotiating.deadline(self.now())];
            let deadline = deadlines.into_iter().flatten().min();
            let deadline = deadline.map(|at| self.inner.clock.at(at));
            tokio::select! {
                asked = self.asked.recv() => match asked {
                    Some(Asked::Accepted(link)) => self.bind(link, DialedBy::Peer),
                    Some(Asked::Allow(allowed, reply)) => {
                        self.allow(allowed, &mut rendezvous, negotiating).await;
                        // The caller may have gone away.
                        let _ = reply.send(());
                    }
                    None => return,
                },
                dialed = pending_or(&mut self.dialing) => match dialed {
                    Ok(link) => self.bind(link, DialedBy::Us),
                    Err(error) => {
                        debug!(peer = %self.hub.peer.short(), %error, "not dialed");
                        rendezvous.dial_failed(self.now());
                    }
                },
                () = self.hub.signaled.notified() => self.take_signals(&mut rendezvous, negotiating).await,
                () = tokio::time::sleep(STORE_RETRY), if self.failed => {
                    self.take_signals(&mut rendezvous, negotiating).await;
                }
                () = retry.at(self.read_again) => self.read_allowed().await,
                () = self.hub.moved.notified() => {}
                changed = addresses.changed() => {
                    if changed.is_err() { return }
                    // What changed the addresses comes before them.
                    if network.has_changed().is_ok_and(|changed| changed) && network.borrow().up {
                        rendezvous.wake(self.now());
                    }
                    rendezvous.located(addresses.borrow_and_update().clone(), self.now());
                }
                changed = doubt.changed() => if changed.is_err() { return },
                changed = found_at.changed() => {
                    if changed.is_err() { return }
                    rendezvous.given(found_at.borrow_and_update().clone(), self.now());
                }
                changed = network.changed() => {
                    if changed.is_err() { return }
                    if network.borrow_and_update().up {
                        self.parted = false;
                        rendezvous.wake(self.now());
                        negotiating.network_changed(self.now()).await;
                        // The session's task may have ended, and this one with it.
                        let _ = self.inputs.send(Input::NetworkChanged).await;
                    }
                }
                () = self.bell.notified() => {}
                () = self.hub.held.notified() => self.parted = false,
                changed = self.talk.changed(), if self.parted => {
                    if changed.is_err() { return }
                    self.parted = false;
                    rendezvous.wake(self.now());
                }
                () = tokio::time::sleep(EXTRA_AGAIN), if extra => {}
                event = negotiating.event() => {
                    if let NegotiatedEvent::Up { .. } = &event {
                        self.parted = false;
                    }
                    if negotiating.heed(event, self.now()) {
                        self.part();
                    }
                }
                () = alarm.at(deadline) => {
                    rendezvous.tick(self.now());
                    negotiating.tick(self.now());
                }
            }
        }
    }

    /// Reads whether there may be direct links. There are none until that is known.
    async fn read_allowed(&mut self) {
        let key = Key::RelayOnly(self.hub.peer).to_bytes();
        self.read_again = match self.inner.store.get(key).await {
            Ok(found) => {
                self.allowed = found.is_none();
                None
            }
            Err(error) => {
                warn!(peer = %self.hub.peer.short(), %error, "no direct links: it can't be read whether they may be");
                Some(Instant::now() + STORE_RETRY)
            }
        };
    }

    fn now(&self) -> outlive_core::Now {
        self.inner.clock.now()
    }

    /// A direct link is wanted while the app holds the session and the peer is there, but for one that
    /// has no use for it; it is none of a stranger's business where we are.
    fn wish(
        &mut self,
        rendezvous: &mut Rendezvous,
        negotiating: &mut Negotiating,
        present: &SessionState,
    ) {
        let now = self.now();
        let online = present.peer_online == Some(true);
        if online && !self.online {
            self.parted = false;
            negotiating.wake(now);
            if self.links.is_empty() {
                rendezvous.wake(now);
            }
        }
        self.online = online;
        let wish = if !self.allowed || self.inner.admission.is_stranger(self.hub.peer) {
            Wish::Forbidden
        } else if online && self.hub.is_held() && !self.parted {
            Wish::Wanted
        } else {
            Wish::Allowed
        };
        // Where the app says that the peer is, it may be though no relay says that it is there. Then
        // it may have no other way to us either.
        let told = self.hub.is_held() && !self.hub.found_at.borrow().is_empty();
        let told = told && !(self.parted && online);
        match wish {
            _ if self.endpoint.is_none() => rendezvous.forbid(),
            Wish::Forbidden => rendezvous.forbid(),
            Wish::Allowed if !told => rendezvous.allow(),
            Wish::Allowed | Wish::Wanted => rendezvous.want(now),
        }
        // What is dialed goes first: what is negotiated is for where no such link carries. One that
        // has fallen silent is not waited for until it is given up.
        let dialed = self.endpoint.as_ref().is_some_and(|endpoint| {
            let carrier = present.carrier();
            carrier.is_some_and(|link| link.transport == endpoint.transport)
        });
        let negotiated = match wish {
            Wish::Wanted if dialed => Wish::Allowed,
            wish => wish,
        };
        negotiating.wish(negotiated, now);
    }

    /// Does what the rendezvous wants done.
    async fn settle(&mut self, rendezvous: &mut Rendezvous) {
        while let Some(output) = rendezvous.poll() {
            match output {
                RendezvousOutput::Send { signal, ttl } => self.say(&signal, ttl).await,
                RendezvousOutput::Dial(addresses) => {
                    let Some(endpoint) = &self.endpoint else {
                        continue;
                    };
                    let (peer, socket) = (self.hub.peer, endpoint.socket.borrow().clone());
                    let dial = async move { socket.dial(peer, &addresses).await };
                    self.dialing = Some(Box::pin(dial));
                }
            }
        }
    }

    async fn allow(
        &mut self,
        allowed: bool,
        rendezvous: &mut Rendezvous,
        negotiating: &mut Negotiating,
    ) {
        self.allowed = allowed;
        self.read_again = None;
        self.parted = false;
        if !allowed {
            self.dialing = None;
            for Up { link, .. } in self.links.drain(..) {
                link.retire.cancel();
                link.ended.cancelled().await;
            }
            rendezvous.forbid();
            self.settle(rendezvous).await;
            negotiating.wish(Wish::Forbidden, self.now());
            negotiating.settle().await;
        }
    }

    fn bind(&mut self, link: DirectLink, dialed_by: DialedBy) {
        let stranger = self.inner.admission.is_stranger(self.hub.peer);
        let Some(endpoint) = self.endpoint.as_ref().filter(|_| self.allowed && !stranger) else {
            return;
        };
        for up in &mut self.links {
            up.heard_before = up.link.heard.load(Ordering::Relaxed);
        }
        let link = link::carry(
            &self.inner,
            self.inputs.clone(),
            Kind {
                transport: endpoint.transport,
                rank: RANK,
            },
            link,
            self.bell.clone(),
        );
        self.links.push(Up {
            link,
            dialed_by,
            heard_before: 0,
        });
        self.parted = false;
    }

    fn note_ended(&mut self) {
        let before = self.links.len();
        let mut parted = true;
        self.links.retain(|Up { link, .. }| {
            let ended = link.ended.is_cancelled();
            parted &= !ended || link.is_parted();
            !ended
        });
        if parted && self.links.len() < before {
            self.part();
        }
    }

    /// The peer let a link go.
    fn part(&mut self) {
        if self.links.is_empty() {
            self.parted = true;
            self.talk.mark_unchanged();
        }
    }

    fn let_extra_go(&mut self) {
        let seen: Vec<_> = self
            .links
            .iter()
            .map(|up| LinkSeen {
                dialed_by: up.dialed_by,
                heard: up.link.heard.load(Ordering::Relaxed) > up.heard_before,
            })
            .collect();
        let me = self.inner.identity.peer_id();
        for at in extra_links(me, self.hub.peer, &seen).into_iter().rev() {
            self.links.remove(at).link.retire.cancel();
        }
    }

    /// Sends a signal in place of the one before, if that is still here.
    async fn say(&mut self, signal: &Signal, ttl: Duration) {
        if let Err(error) = self.try_say(signal, ttl).await {
            debug!(peer = %self.hub.peer.short(), %error, "a signal was not sent");
        }
    }

    async fn try_say(&mut self, signal: &Signal, ttl: Duration) -> Result<(), Error> {
        if let Some(ticket) = self.said.take() {
            signals::take_back(&self.inputs, [ticket]).await?;
        }
        self.said = Some(signals::say(&self.inputs, signal, ttl).await?);
        Ok(())
    }

    async fn take_signals(&mut self, rendezvous: &mut Rendezvous, negotiating: &mut Negotiating) {
        let now = self.now();
        // The session is held for as long as that takes, and no longer.
        let route = Route::new(self.inner.clone(), self.hub.hold());
        let taken = signals::take(route, |signal| match signal {
            Signal::Addresses(addresses) => rendezvous.receive(addresses, now),
            other => negotiating.receive(other, now),
        })
        .await;
        self.failed = taken.is_err();
        match taken {
            // The links have their turn first.
            Ok(Taken::Some) => self.hub.signaled.notify_one(),
            Ok(Taken::All | Taken::None) => {}
            Err(error) => {
                debug!(peer = %self.hub.peer.short(), %error, "signals can't be taken");
            }
        }
    }
}

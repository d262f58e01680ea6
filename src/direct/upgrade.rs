//! A session's way to a direct link: one task beside the session's, as long as that is awake.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::future::BoxFuture;
use outlive_core::engine::{SendOptions, Ticket};
use outlive_core::negotiator::{DialedBy, LinkSeen, Rendezvous, RendezvousOutput, extra_links};
use outlive_core::record::Key;
use outlive_core::transport::{DirectLink, TransportError};
use outlive_core::wire::signal::Signal;
use outlive_core::{ChannelId, Entropy};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::link::{self, Carried};
use super::{Asked, Endpoint};
use crate::error::Error;
use crate::hub::Hub;
use crate::inbox::Inbox;
use crate::node::Inner;
use crate::session::Route;
use crate::task::{Command, Input, STORE_RETRY, pending_or};

/// How often it is looked whether a link too many can go, while there is one.
const EXTRA_AGAIN: Duration = Duration::from_millis(500);

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
    endpoint: Endpoint,
    inputs: mpsc::Sender<Input>,
    asked: mpsc::Receiver<Asked>,
    allowed: bool,
    links: Vec<Up>,
    /// Rings when a link has ended.
    bell: Arc<Notify>,
    dialing: Option<BoxFuture<'static, Result<DirectLink, TransportError>>>,
    /// The last word of where we are: the next takes its place.
    said: Option<Ticket>,
    /// Signals could not be read or sent: when that is tried again.
    failed: bool,
}

impl Upgrade {
    pub(crate) fn new(
        inner: Arc<Inner>,
        hub: Arc<Hub>,
        endpoint: Endpoint,
        inputs: mpsc::Sender<Input>,
        asked: mpsc::Receiver<Asked>,
    ) -> Self {
        Self {
            inner,
            hub,
            endpoint,
            inputs,
            asked,
            allowed: false,
            links: Vec::new(),
            bell: Arc::default(),
            dialing: None,
            said: None,
            failed: false,
        }
    }

    /// Until the session's task has ended.
    pub(crate) async fn run(mut self, ended: CancellationToken) {
        tokio::select! {
            () = ended.cancelled() => {}
            () = self.seek() => {}
        }
        for up in self.links {
            up.link.retire.cancel();
        }
    }

    async fn seek(&mut self) {
        let key = Key::RelayOnly(self.hub.peer).to_bytes();
        self.allowed = match self.inner.store.get(key).await {
            Ok(found) => found.is_none(),
            Err(error) => {
                warn!(peer = %self.hub.peer.short(), %error, "no direct links: it can't be read whether they may be");
                false
            }
        };
        let mut seed = [0; 32];
        if getrandom::fill(&mut seed).is_err() {
            return warn!("no direct links: the system gave no randomness");
        }
        let mut rendezvous = Rendezvous::new(self.inner.start, Entropy::from_seed(seed));
        let mut state = self.hub.state.subscribe();
        let mut addresses = self.endpoint.addresses.clone();
        let mut network = self.inner.network.watch();
        rendezvous.located(addresses.borrow_and_update().clone(), self.now());
        let mut linked = false;
        loop {
            self.note_ended();
            match (linked, self.links.is_empty()) {
                (false, false) => rendezvous.linked(self.now()),
                (true, true) => rendezvous.unlinked(self.now()),
                (false, true) | (true, false) => {}
            }
            linked = !self.links.is_empty();
            let online = state.borrow_and_update().peer_online == Some(true);
            self.wish(&mut rendezvous, online);
            while let Some(output) = rendezvous.poll() {
                match output {
                    RendezvousOutput::Send { signal, ttl } => self.say(&signal, ttl).await,
                    RendezvousOutput::Dial(addresses) => {
                        let (socket, peer) = (self.endpoint.socket.clone(), self.hub.peer);
                        let dial = async move { socket.dial(peer, &addresses).await };
                        self.dialing = Some(Box::pin(dial));
                    }
                }
            }
            let extra = self.links.len() > 1;
            if extra {
                self.let_extra_go();
            }
            let deadline = rendezvous.deadline().map(|at| self.inner.clock.at(at));
            tokio::select! {
                asked = self.asked.recv() => match asked {
                    Some(Asked::Accepted(link)) => self.bind(link, DialedBy::Peer),
                    Some(Asked::Allow(allowed, reply)) => self.allow(allowed, reply).await,
                    None => return,
                },
                dialed = pending_or(&mut self.dialing) => match dialed {
                    Ok(link) => self.bind(link, DialedBy::Us),
                    Err(error) => {
                        debug!(peer = %self.hub.peer.short(), %error, "not dialed");
                        rendezvous.dial_failed(self.now());
                    }
                },
                () = self.hub.signaled.notified() => self.take_signals(&mut rendezvous).await,
                () = tokio::time::sleep(STORE_RETRY), if self.failed => {
                    self.take_signals(&mut rendezvous).await;
                }
                changed = state.changed() => if changed.is_err() { return },
                changed = addresses.changed() => {
                    if changed.is_err() { return }
                    rendezvous.located(addresses.borrow_and_update().clone(), self.now());
                }
                changed = network.changed() => {
                    if changed.is_err() { return }
                    if network.borrow_and_update().up {
                        rendezvous.wake(self.now());
                        // The session's task may have ended, and this one with it.
                        let _ = self.inputs.send(Input::NetworkChanged).await;
                    }
                }
                () = self.bell.notified() => {}
                () = self.hub.held.notified() => {}
                () = tokio::time::sleep(EXTRA_AGAIN), if extra => {}
                () = sleep_until(deadline) => rendezvous.tick(self.now()),
            }
        }
    }

    fn now(&self) -> outlive_core::Now {
        self.inner.clock.now()
    }

    /// A direct link is wanted while the app holds the session and the peer is there; it is none of
    /// a stranger's business where we are.
    fn wish(&self, rendezvous: &mut Rendezvous, online: bool) {
        if !self.allowed || self.inner.admission.is_stranger(self.hub.peer) {
            rendezvous.forbid();
        } else if online && self.hub.is_held() {
            rendezvous.want(self.now());
        } else {
            rendezvous.allow();
        }
    }

    async fn allow(&mut self, allowed: bool, reply: oneshot::Sender<()>) {
        self.allowed = allowed;
        if !allowed {
            self.dialing = None;
            for Up { link, .. } in self.links.drain(..) {
                link.retire.cancel();
                link.ended.cancelled().await;
            }
        }
        // The caller may have gone away.
        let _ = reply.send(());
    }

    fn bind(&mut self, link: DirectLink, dialed_by: DialedBy) {
        let stranger = self.inner.admission.is_stranger(self.hub.peer);
        if !self.allowed || stranger {
            return;
        }
        for up in &mut self.links {
            up.heard_before = up.link.heard.load(Ordering::Relaxed);
        }
        let link = link::carry(
            &self.inner,
            self.inputs.clone(),
            self.endpoint.transport,
            link,
            self.bell.clone(),
        );
        self.links.push(Up {
            link,
            dialed_by,
            heard_before: 0,
        });
    }

    fn note_ended(&mut self) {
        self.links.retain(|up| !up.link.ended.is_cancelled());
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
            let (reply, cancelled) = oneshot::channel();
            command(&self.inputs, Command::Cancel { ticket, reply }).await?;
            // What has left already is overtaken by what follows it.
            let _ = cancelled.await;
        }
        let (reply, queued) = oneshot::channel();
        let send = Command::Send {
            channel: ChannelId::SIGNALING,
            payload: signal.to_bytes(),
            options: SendOptions {
                ttl: Some(ttl),
                once: None,
            },
            wait: false,
            reply,
        };
        command(&self.inputs, send).await?;
        let receipt = queued.await.map_err(|_| Error::Shutdown)??;
        self.said = Some(receipt.ticket);
        Ok(())
    }

    async fn take_signals(&mut self, rendezvous: &mut Rendezvous) {
        let now = self.now();
        // The session is held for as long as that takes, and no longer.
        let route = Route::new(self.inner.clone(), self.hub.hold());
        let taken = take(route, |signal| {
            if let Signal::Addresses(addresses) = signal {
                rendezvous.receive(addresses, now);
            }
        })
        .await;
        self.failed = taken.is_err();
        if let Err(error) = taken {
            debug!(peer = %self.hub.peer.short(), %error, "signals can't be taken");
        }
    }
}

/// To this very task of a session: once that has gone to sleep, nothing of this wakes it.
async fn command(inputs: &mpsc::Sender<Input>, command: Command) -> Result<(), Error> {
    let sent = inputs.send(Input::Command(command)).await;
    sent.map_err(|_| Error::Shutdown)
}

/// Hands over the signals that came, and has them leave the inbox.
async fn take(route: Route, mut each: impl FnMut(Signal)) -> Result<(), Error> {
    let hub = Arc::clone(route.hub());
    if !hub.take_inbox(ChannelId::SIGNALING) {
        return Ok(());
    }
    let mut inbox = Inbox::new(hub.clone(), route, ChannelId::SIGNALING);
    while let Some(delivery) = inbox.try_next().await? {
        match Signal::decode(delivery.payload()) {
            Ok(Some(signal)) => each(signal),
            Ok(None) => {}
            Err(error) => warn!(peer = %hub.peer.short(), %error, "a malformed signal"),
        }
        delivery.commit().await?;
    }
    Ok(())
}

/// For a node without direct links: signals leave the inbox unheard.
pub(crate) fn let_signals_go(route: Route) {
    let inner = route.inner().clone();
    inner.tasks.spawn(async move {
        let hub = Arc::clone(route.hub());
        tokio::select! {
            () = hub.ended.cancelled() => {}
            taken = take(route, drop) => if let Err(error) = taken {
                debug!(peer = %hub.peer.short(), %error, "signals can't be taken");
            },
        }
    });
}

async fn sleep_until(at: Option<tokio::time::Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

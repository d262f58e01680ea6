//! The node: the local peer, its store, its relays, and the sessions that are awake.

mod admission;
mod builder;
mod delivery_token;
mod events;
mod inner;
mod listing;
mod owner;
mod queued;
mod strangers;
mod tasks;
mod waiting;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use outlive_core::PeerId;
use outlive_core::transport::RelayTransport;
use tokio::sync::watch;
use tokio_util::sync::DropGuard;

pub(crate) use self::admission::Allowance;
pub use self::builder::NodeBuilder;
pub use self::events::NodeEvents;
pub(crate) use self::inner::Inner;
use self::inner::Relay;
pub use self::listing::{SessionInfo, list_sessions};
pub use self::owner::store_owner;
pub use self::queued::{Queued, queued_for};
pub use self::strangers::Strangers;
use crate::error::Error;
use crate::event::SessionEvent;
use crate::event_queue::event_queue;
use crate::lock::lock;
use crate::relay::{Attach, RelayState, RelayTask, RelayUse};
use crate::request::{HandlerError, Place, Request, RequestHandler};
use crate::session::Session;
use crate::state::SessionState;
use crate::subscription::Subscription;

/// How long the sessions of a node that stops may take to write and to say what is under way, before
/// their links are closed.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// The local peer: its sessions, its store, its relays. Cheap to clone. When the last clone is
/// gone the node stops, and lets go of its store some time after; [`shutdown`](Self::shutdown) waits until
/// it has: call it before the same store is opened again.
///
/// It lives on the tokio runtime that it was [started](NodeBuilder::start) on: all of its tasks run there,
/// those of its sessions too, and when that runtime is gone the node has been shut down. It may be used from
/// other runtimes, and what is not `async` from threads that have none.
#[derive(Clone)]
pub struct Node {
    inner: Arc<Inner>,
    _guard: Arc<[DropGuard; 2]>,
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node")
            .field("peer", &self.peer_id())
            .finish_non_exhaustive()
    }
}

impl Node {
    /// What a node is made of.
    #[must_use]
    pub fn builder() -> NodeBuilder {
        NodeBuilder::default()
    }

    pub(crate) fn inner(&self) -> &Inner {
        &self.inner
    }

    /// Who this node is.
    #[must_use]
    pub fn peer_id(&self) -> PeerId {
        self.inner.identity.peer_id()
    }

    /// The session with a peer: the same one for ever, whatever links come and go. Opens it if it
    /// is new, and accepts the peer if it was a stranger. Any number of handles may be held. While it is
    /// being [closed](Session::close), waits for that, and opens it again.
    ///
    /// Dropped half-way, the peer may be accepted and its session opened already: call it again for the
    /// handle.
    ///
    /// # Errors
    /// [`Error::Oneself`], [`Error::Blocked`], a failure of the store, or [`Error::Shutdown`].
    pub async fn session(&self, peer: PeerId) -> Result<Session, Error> {
        if peer == self.peer_id() {
            return Err(Error::Oneself(peer));
        }
        loop {
            // Opened first: whoever is about to take the peer for a stranger sees that it is none.
            let session = Session::new(self.inner.open(peer)?);
            self.inner
                .admission
                .accept(&*self.inner.store, peer)
                .await?;
            match session.wake().await {
                // That was the one before, which somebody else was closing.
                Err(Error::Closed) => {}
                woken => return woken.map(|()| session),
            }
        }
    }

    /// A peer whose session has messages in an inbox that came, or waited from before this start, since
    /// this peer was returned last; or a stranger that has sent more than a stranger may leave here. For
    /// apps that take messages from whoever sends them: a peer is returned once for however many messages,
    /// may have none left, and comes again when its session is loaded while some wait. One that is blocked
    /// is not returned; it may be blocked afterwards. To open its session accepts a stranger.
    /// Cancellation-safe.
    ///
    /// ```no_run
    /// # use outlive::{ChannelId, Error, Node};
    /// # async fn run(node: Node) -> Result<(), Error> {
    /// loop {
    ///     let session = match node.session(node.next_arrival().await?).await {
    ///         Err(Error::Blocked(_)) => continue,
    ///         session => session?,
    ///     };
    ///     // One task for each peer: it has the inbox until it ends.
    ///     let Ok(mut inbox) = session.inbox(ChannelId::MESSAGES) else { continue };
    ///     tokio::spawn(async move {
    ///         while let Ok(delivery) = inbox.next().await {
    ///             println!("{}: {:?}", session.peer(), delivery.payload());
    ///             delivery.commit().await?;
    ///         }
    ///         Ok::<_, Error>(())
    ///     });
    /// }
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Shutdown`].
    pub async fn next_arrival(&self) -> Result<PeerId, Error> {
        loop {
            let first = {
                let mut arrivals = lock(&self.inner.arrivals);
                let first = arrivals.pop_first();
                if !arrivals.is_empty() {
                    // Of two that wait one may have been woken for both.
                    self.inner.arrived.notify_one();
                }
                first
            };
            if let Some(peer) = first {
                // Asked for only now: it may have been blocked since its message came.
                if self.inner.admission.is_blocked(peer) {
                    continue;
                }
                return Ok(peer);
            }
            tokio::select! {
                () = self.inner.arrived.notified() => {}
                () = self.inner.cancel.cancelled() => return Err(Error::Shutdown),
            }
        }
    }

    /// Has `handler` answer the requests of every peer whose session has no handler of its own,
    /// until the registration is dropped. What is said of
    /// [`Session::on_request`](crate::Session::on_request) holds here too; over all sessions up to
    /// [`NODE_HANDLERS`](crate::NODE_HANDLERS) are at work at once. Requests that wait from before a
    /// restart are found and answered, whether or not anybody opens their session. Those of strangers
    /// are answered too, as far as they fit into what a stranger may make us keep: open its session,
    /// or trust it, to have a peer ask for more.
    ///
    /// # Errors
    /// [`Error::HandlerTaken`] while another one is registered on this node, or
    /// [`Error::Shutdown`].
    pub fn on_request<F, A>(&self, handler: F) -> Result<RequestHandler, Error>
    where
        F: FnMut(Request) -> A + Send + 'static,
        A: Future<Output = Result<Bytes, HandlerError>> + Send + 'static,
    {
        if self.inner.cancel.is_cancelled() {
            return Err(Error::Shutdown);
        }
        let place = Place::Node(self.inner.clone());
        let registered = RequestHandler::register(place, handler).ok_or(Error::HandlerTaken)?;
        self.inner.serve_requests();
        Ok(registered)
    }

    /// Has `callback` entered for every event of every session that has a task, with the session's peer
    /// and its state as of it: of those that are opened, woken, or made by a stranger later too. None is
    /// kept awake by it. The events of one session come in their order. That it falls asleep is none: its
    /// links go without a word, and there is a [`SessionEvent::LinkUp`] when it is awake again. Nor is that it
    /// is [closed](Session::close).
    ///
    /// Goes on until the [`Subscription`] is dropped or the node was shut down, whatever sessions are
    /// closed meanwhile. It runs on the task of the session, one run at a time, and must not block: every
    /// session to which something happens waits for it. One that panics is ended, and an error is logged.
    /// Dropping the [`Subscription`] waits for a run of it. A callback that owns a clone of the node keeps the
    /// node running.
    ///
    /// ```
    /// # use outlive::{Node, SessionEvent, Subscription};
    /// # fn register(node: &Node) -> Subscription {
    /// node.on_event(|peer, event, state| {
    ///     if let SessionEvent::LinkUp { .. } = event {
    ///         println!("{peer} is {:?}", state.connectivity());
    ///     }
    /// })
    /// # }
    /// ```
    pub fn on_event(
        &self,
        callback: impl FnMut(PeerId, &SessionEvent, &SessionState) + Send + 'static,
    ) -> Subscription {
        self.inner.registry.add(callback, None)
    }

    /// The events of all sessions as a stream of bounded length, as [`on_event`](Self::on_event) has them:
    /// when `capacity` of them wait, the newest are left out until some were taken, of whichever session
    /// they are ([`NodeEvents::missed`]). A `capacity` of 0 is taken for 1, and one beyond 65,536 for that.
    #[must_use]
    pub fn events(&self, capacity: usize) -> NodeEvents {
        let (sender, receiver) = event_queue(capacity);
        let subscription = self.on_event(move |peer, event, state| {
            sender.put((peer, event.clone(), state.clone()));
        });
        NodeEvents {
            receiver,
            _subscription: subscription,
        }
    }

    /// Up to `limit` of the sessions on disk, from behind `after` on, in the order of their ids.
    /// Cancellation-safe: it only reads.
    ///
    /// # Errors
    /// [`Error::Store`] or [`Error::Record`].
    pub async fn sessions(
        &self,
        after: Option<PeerId>,
        limit: usize,
    ) -> Result<Vec<SessionInfo>, Error> {
        list_sessions(&*self.inner.store, after, limit).await
    }

    /// What is queued for a peer; nothing, if there is no session with it. It is counted on disk, which
    /// takes as long as [`queued_for`] says. Cancellation-safe: it only reads.
    ///
    /// # Errors
    /// [`Error::Store`] or [`Error::Record`].
    pub async fn queued(&self, peer: PeerId) -> Result<Queued, Error> {
        queued_for(&*self.inner.store, peer).await
    }

    /// Uses one more relay from now on, behind those in use. Returns at once; the relay is dialed
    /// until it is removed.
    ///
    /// One whose [address](RelayTransport::address) is in use already, in the same words, stays as it
    /// is, and `transport` is dropped: over two connections this node would sign itself out in turns.
    /// To reach the same address in another way, [remove](Self::remove_relay) it first. One that is
    /// [closed](RelayState::Closed) is not in use.
    pub fn use_relay(&self, transport: Arc<dyn RelayTransport>) {
        self.dial(transport, |relays, address| {
            relays.retain(|relay| {
                relay.address != address || *relay.state.borrow() != RelayState::Closed
            });
            relays.iter().all(|relay| relay.address != address)
        });
    }

    /// Uses this relay instead of all others: their connections are closed, and nothing more is
    /// sent to them. Sessions, subscriptions and receipts are not touched. It is dialed anew even if it
    /// is in use already. With [foreign relays](NodeBuilder::foreign_relays) the others are read on for as long
    /// as something may wait there; peers are told of this one, and only what is for those that have never said
    /// where they read is left at the others too.
    pub fn switch_relay(&self, transport: Arc<dyn RelayTransport>) {
        self.dial(transport, |relays, _| {
            for relay in relays.drain(..) {
                relay.cancel.cancel();
            }
            true
        });
    }

    /// Dials a relay if there is room for it among those in use.
    fn dial(
        &self,
        transport: Arc<dyn RelayTransport>,
        make_room: impl FnOnce(&mut Vec<Relay>, &str) -> bool,
    ) {
        if self.inner.cancel.is_cancelled() {
            return;
        }
        let cancel = self.inner.links_cancel.child_token();
        let address = transport.address().to_owned();
        let (attach, awake): (_, Vec<_>) = {
            let awake = lock(&self.inner.awake);
            let mut relays = lock(&self.inner.relays);
            if !make_room(&mut relays, &address) {
                return;
            }
            let used = RelayUse {
                address: address.clone(),
                home: true,
            };
            let (attach, state) = RelayTask::start(&self.inner, transport, used, cancel.clone());
            relays.push(Relay {
                address,
                attach: attach.clone(),
                state,
                cancel,
            });
            let awake = awake.iter();
            let awake = awake.map(|(peer, of)| (*peer, of.inputs.clone()));
            (attach, awake.collect())
        };
        self.inner.relays_changed();
        self.inner.tasks.spawn(async move {
            for (peer, inputs) in awake {
                if attach.send(Attach { peer, inputs }).await.is_err() {
                    return;
                }
            }
        });
    }

    /// Stops using the relays with this address. Returns whether there was one. As for what may wait there,
    /// see [`switch_relay`](Self::switch_relay).
    pub fn remove_relay(&self, address: &str) -> bool {
        let mut relays = lock(&self.inner.relays);
        let before = relays.len();
        relays.retain(|relay| {
            if relay.address == address {
                relay.cancel.cancel();
            }
            relay.address != address
        });
        let removed = relays.len() < before;
        drop(relays);
        self.inner.relays_changed();
        removed
    }

    /// The relays in use, and how each of them is.
    #[must_use]
    pub fn relays(&self) -> Vec<(String, watch::Receiver<RelayState>)> {
        lock(&self.inner.relays)
            .iter()
            .map(|r| (r.address.clone(), r.state.clone()))
            .collect()
    }

    /// The relays that are used though they are not this node's, and how each of them is: those at which
    /// peers read, and those that it has left ([`NodeBuilder::foreign_relays`]).
    #[must_use]
    pub fn relays_elsewhere(&self) -> Vec<(String, watch::Receiver<RelayState>)> {
        self.inner.elsewhere()
    }

    /// A session as it is now, if it has a task at the moment. It is not woken.
    #[must_use]
    pub fn state(&self, peer: PeerId) -> Option<SessionState> {
        // The others do not wait for who borrows the state of this one.
        let hub = lock(&self.inner.awake).get(&peer)?.hub.clone();
        let state = hub.state.borrow().clone();
        Some(state)
    }

    /// Where peers may reach this node for links of its own socket, as far as that is known; nowhere
    /// as long as it is not, and `None` if there are no such links here. What peers are told anyhow;
    /// for an app that has another way to tell it, see [`Session::found_at`].
    #[must_use]
    pub fn addresses(&self) -> Option<watch::Receiver<Vec<SocketAddr>>> {
        let direct = self.inner.direct.as_ref();
        direct.map(|endpoint| endpoint.addresses.clone())
    }

    /// How many sessions have a task at the moment.
    #[must_use]
    pub fn sessions_awake(&self) -> usize {
        lock(&self.inner.awake).len()
    }

    /// Stops the node: writes what is under way, has it said as far as links take it at once, closes
    /// connections and the store, and returns when every task has ended.
    ///
    /// Dropped half-way, the sessions end all the same, and the rest of it when the last clone of the
    /// node is gone; but nobody hears when, nor whether the store was closed well. Any number of clones may
    /// be shut down, at once or later: all hear the same.
    ///
    /// # Errors
    /// [`Error::Store`] if the last flush failed, or the store was being closed already, by the app or by a
    /// call that was dropped half-way.
    pub async fn shutdown(self) -> Result<(), Error> {
        self.inner.cancel.cancel();
        // Whoever was about to open a session has started its task by now, or sees that the node ends.
        drop(lock(&self.inner.awake));
        // A store or a link that hangs holds up the words of the others no longer than this.
        let _ = tokio::time::timeout(LAST_WORDS, self.inner.sessions.ended()).await;
        self.inner.links_cancel.cancel();
        self.inner.sessions.ended().await;
        self.inner.tasks.ended().await;
        // One closes the store, whoever else waits for it.
        let close = || self.inner.store.close();
        let closed = self.inner.closed.get_or_init(close).await;
        Ok(closed.clone()?)
    }
}

//! The node: the local peer, its store, its relays, and the sessions that are awake.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use bytes::Bytes;
use outlive_core::record::{Key, Record, Session as SessionRecord};
use outlive_core::store::{Batch, ReadLimit, Store, StoreError};
use outlive_core::transport::RelayTransport;
use outlive_core::{Generation, Identity, PeerId};
use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use crate::clock::Clock;
use crate::error::Error;
use crate::hub::Hub;
use crate::network::NetworkMonitor;
use crate::relay::{ATTACHING, Attach, RelayState, RelayTask};
use crate::session::{Route, Session};
use crate::task::{Command, INPUTS, Input, Task};

/// Where the number of the last start is kept.
const STARTS_KEY: &[u8] = b"n/starts";

/// Sessions woken in one step when a relay comes up.
const WAKE_AT_ONCE: usize = 256;

/// Who may open a session with us.
#[derive(Clone, Default)]
pub enum Strangers {
    /// Anyone.
    #[default]
    Accept,
    /// Only peers the app has opened a session with.
    KnownOnly,
    /// Whom this function accepts. It is asked for each packet until it says yes, and must not
    /// block.
    Ask(Arc<dyn Fn(PeerId) -> bool + Send + Sync>),
}

impl fmt::Debug for Strangers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Accept => "Accept",
            Self::KnownOnly => "KnownOnly",
            Self::Ask(_) => "Ask(..)",
        })
    }
}

struct Awake {
    inputs: mpsc::Sender<Input>,
    hub: Weak<Hub>,
}

struct Relay {
    address: String,
    attach: mpsc::Sender<Attach>,
    state: watch::Receiver<RelayState>,
    cancel: CancellationToken,
}

/// What all parts of a node share.
pub(crate) struct Inner {
    pub(crate) identity: Identity,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) clock: Clock,
    pub(crate) start: u32,
    pub(crate) network: NetworkMonitor,
    pub(crate) cancel: CancellationToken,
    strangers: Strangers,
    generations: AtomicU64,
    ranks: AtomicU32,
    awake: Mutex<HashMap<PeerId, Awake>>,
    hubs: Mutex<HashMap<PeerId, Weak<Hub>>>,
    opened: Mutex<BTreeSet<PeerId>>,
    relays: Mutex<Vec<Relay>>,
    arrivals: Mutex<BTreeSet<PeerId>>,
    arrived: Notify,
    pub(crate) tasks: TaskTracker,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Inner {
    /// A generation higher than all before, for a link that is about to be bound.
    pub(crate) fn next_generation(&self) -> Generation {
        let count = self.generations.fetch_add(1, Ordering::Relaxed);
        Generation::nth(self.start, u32::try_from(count).unwrap_or(u32::MAX))
    }

    /// A message waits in an inbox of the session with this peer.
    pub(crate) fn message_arrived(&self, peer: PeerId) {
        lock(&self.arrivals).insert(peer);
        self.arrived.notify_one();
    }

    pub(crate) fn hub(&self, peer: PeerId) -> Arc<Hub> {
        let mut hubs = lock(&self.hubs);
        if let Some(hub) = hubs.get(&peer).and_then(Weak::upgrade) {
            return hub;
        }
        if hubs.len() > 1_024 && hubs.len().is_power_of_two() {
            hubs.retain(|_, hub| hub.strong_count() > 0);
        }
        let hub = Arc::new(Hub::new(peer));
        hubs.insert(peer, Arc::downgrade(&hub));
        hub
    }

    /// The way to a session's task, which is started if it is not there.
    pub(crate) fn inputs(self: &Arc<Self>, peer: PeerId) -> Result<mpsc::Sender<Input>, Error> {
        let mut awake = lock(&self.awake);
        if self.cancel.is_cancelled() {
            return Err(Error::Shutdown);
        }
        if let Some(of) = awake.get(&peer)
            && !of.inputs.is_closed()
        {
            return Ok(of.inputs.clone());
        }
        let (inputs, receiver) = mpsc::channel(INPUTS);
        let hub = self.hub(peer);
        awake.insert(
            peer,
            Awake {
                inputs: inputs.clone(),
                hub: Arc::downgrade(&hub),
            },
        );
        drop(awake);
        let relays: Vec<_> = lock(&self.relays)
            .iter()
            .map(|r| r.attach.clone())
            .collect();
        let task = Task::new(self.clone(), hub, receiver, self.cancel.child_token());
        let attached = inputs.clone();
        let span = tracing::info_span!("session", peer = %peer.short());
        self.tasks.spawn(
            async move {
                let attach = async {
                    for relay in relays {
                        // A relay that was removed meanwhile binds no link.
                        let _ = relay
                            .send(Attach {
                                peer,
                                inputs: attached.clone(),
                            })
                            .await;
                    }
                    drop(attached);
                };
                tokio::join!(attach, task.run());
            }
            .instrument(span),
        );
        Ok(inputs)
    }

    /// Ends a session's task if nothing is on its way to it. Returns whether it ends.
    pub(crate) fn retire(&self, peer: PeerId, inputs: &mut mpsc::Receiver<Input>) -> bool {
        let mut awake = lock(&self.awake);
        let asked_for = awake.get(&peer).is_some_and(|of| of.hub.strong_count() > 1);
        if asked_for || !inputs.is_empty() {
            return false;
        }
        inputs.close();
        awake.remove(&peer);
        true
    }

    pub(crate) fn forget(&self, peer: PeerId) {
        lock(&self.awake).remove(&peer);
        lock(&self.hubs).remove(&peer);
    }

    /// Whether a peer may have a session with us.
    pub(crate) async fn admits(&self, peer: PeerId) -> bool {
        let ask = match &self.strangers {
            Strangers::Accept => return true,
            Strangers::KnownOnly => None,
            Strangers::Ask(ask) => Some(ask),
        };
        if lock(&self.opened).contains(&peer) {
            return true;
        }
        let known = self.store.get(Key::Session(peer).to_bytes()).await;
        matches!(known, Ok(Some(_))) || ask.is_some_and(|ask| ask(peer))
    }

    /// Wakes the sessions that have something outstanding, a few at a time.
    pub(crate) fn wake_sessions_with_work(self: &Arc<Self>) {
        let inner = self.clone();
        self.tasks.spawn(async move {
            let mut range = Key::work();
            let limit = ReadLimit {
                records: WAKE_AT_ONCE,
                bytes: usize::MAX,
            };
            while let Ok(rows) = inner.store.range(range.clone(), limit).await {
                let Some((last, _)) = rows.last() else { return };
                range.start = [last, &[0][..]].concat().into();
                for (key, _) in &rows {
                    let Ok(Key::Work(peer)) = Key::from_bytes(key) else {
                        continue;
                    };
                    let Ok(inputs) = inner.inputs(peer) else {
                        return;
                    };
                    // A session that is busy is awake.
                    let _ = inputs.send(Input::Command(Command::Wake)).await;
                }
            }
        });
    }
}

/// The local peer: its sessions, its store, its relays. Cheap to clone. When the last clone is
/// gone the node stops; [`shutdown`](Self::shutdown) waits until it has.
#[derive(Clone)]
pub struct Node {
    inner: Arc<Inner>,
    _guard: Arc<DropGuard>,
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node")
            .field("peer", &self.peer_id())
            .finish_non_exhaustive()
    }
}

/// Collects what a node needs.
#[derive(Default)]
pub struct NodeBuilder {
    identity: Option<Identity>,
    store: Option<Arc<dyn Store>>,
    relays: Vec<Arc<dyn RelayTransport>>,
    strangers: Strangers,
    network: NetworkMonitor,
}

impl fmt::Debug for NodeBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeBuilder")
            .field("relays", &self.relays.len())
            .finish_non_exhaustive()
    }
}

impl NodeBuilder {
    /// Who the node is. Required.
    #[must_use]
    pub fn identity(mut self, identity: Identity) -> Self {
        self.identity = Some(identity);
        self
    }

    /// Where its sessions live. Required.
    #[must_use]
    pub fn store(mut self, store: impl Store) -> Self {
        self.store = Some(Arc::new(store));
        self
    }

    /// A relay to use. The first one is preferred; the others are used when it brings no progress.
    #[must_use]
    pub fn transport(mut self, relay: impl RelayTransport) -> Self {
        self.relays.push(Arc::new(relay));
        self
    }

    /// Who may open a session with us; anyone, if not said.
    #[must_use]
    pub fn strangers(mut self, strangers: Strangers) -> Self {
        self.strangers = strangers;
        self
    }

    /// What the operating system says of the network.
    #[must_use]
    pub fn network(mut self, network: NetworkMonitor) -> Self {
        self.network = network;
        self
    }

    /// Starts the node: counts the start in the store, and dials the relays.
    ///
    /// # Errors
    /// [`Error::NoIdentity`], [`Error::NoStore`], or a failure of the store.
    pub async fn start(self) -> Result<Node, Error> {
        let identity = self.identity.ok_or(Error::NoIdentity)?;
        let store = self.store.ok_or(Error::NoStore)?;
        let start = count_start(&*store).await?;
        let cancel = CancellationToken::new();
        let inner = Arc::new(Inner {
            identity,
            store,
            clock: Clock::new(),
            start,
            network: self.network,
            cancel: cancel.clone(),
            strangers: self.strangers,
            generations: AtomicU64::new(1),
            ranks: AtomicU32::new(0),
            awake: Mutex::default(),
            hubs: Mutex::default(),
            opened: Mutex::default(),
            relays: Mutex::default(),
            arrivals: Mutex::default(),
            arrived: Notify::new(),
            tasks: TaskTracker::new(),
        });
        let node = Node {
            inner,
            _guard: Arc::new(cancel.drop_guard()),
        };
        for relay in self.relays {
            node.use_relay(relay);
        }
        Ok(node)
    }
}

/// The number of this start, durable before anything is bound (I8).
async fn count_start(store: &dyn Store) -> Result<u32, Error> {
    let key = Bytes::from_static(STARTS_KEY);
    let last = match store.get(key.clone()).await? {
        None => 0,
        Some(value) => {
            let bytes = <[u8; 4]>::try_from(&value[..]).map_err(|_| StoreError::Damaged {
                what: "the number of starts".to_owned(),
            })?;
            u32::from_be_bytes(bytes)
        }
    };
    let start = last.saturating_add(1);
    let mut batch = Batch::new();
    batch.put(key, Bytes::copy_from_slice(&start.to_be_bytes()));
    store.commit(batch).await?;
    Ok(start)
}

/// A peer we have a session with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionInfo {
    /// The peer.
    pub peer: PeerId,
    /// The session as it is on disk.
    pub record: SessionRecord,
}

impl Node {
    /// What a node is made of.
    #[must_use]
    pub fn builder() -> NodeBuilder {
        NodeBuilder::default()
    }

    /// Who this node is.
    #[must_use]
    pub fn peer_id(&self) -> PeerId {
        self.inner.identity.peer_id()
    }

    /// The session with a peer: the same one for ever, whatever links come and go. Opens it if it
    /// is new. Any number of handles may be held.
    ///
    /// # Errors
    /// [`Error::Oneself`], or [`Error::Shutdown`].
    pub async fn session(&self, peer: PeerId) -> Result<Session, Error> {
        if peer == self.peer_id() {
            return Err(Error::Oneself(peer));
        }
        lock(&self.inner.opened).insert(peer);
        let session = Session::new(self.inner.hub(peer), Route::new(self.inner.clone(), peer));
        session.wake().await?;
        Ok(session)
    }

    /// A peer whose session has messages in an inbox that came, or were loaded, since this peer was
    /// returned last. For apps that take messages from whoever sends them. Cancellation-safe.
    ///
    /// # Errors
    /// [`Error::Shutdown`].
    pub async fn next_arrival(&self) -> Result<PeerId, Error> {
        loop {
            let first = lock(&self.inner.arrivals).pop_first();
            if let Some(peer) = first {
                return Ok(peer);
            }
            tokio::select! {
                () = self.inner.arrived.notified() => {}
                () = self.inner.cancel.cancelled() => return Err(Error::Shutdown),
            }
        }
    }

    /// Up to `limit` of the sessions on disk, from behind `after` on, in the order of their ids.
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

    /// Uses one more relay from now on, behind those in use. Returns at once; the relay is dialed
    /// until it is removed.
    pub fn use_relay(&self, transport: Arc<dyn RelayTransport>) {
        let (attach, attaching) = mpsc::channel(ATTACHING);
        let (state, states) = watch::channel(RelayState::Connecting);
        let cancel = self.inner.cancel.child_token();
        let rank = self.inner.ranks.fetch_add(1, Ordering::Relaxed);
        let task = RelayTask {
            inner: self.inner.clone(),
            transport: transport.clone(),
            rank: u8::try_from(rank).unwrap_or(u8::MAX),
            attaching,
            state,
            cancel: cancel.clone(),
        };
        let address = transport.address().to_owned();
        let span = tracing::info_span!("relay", relay = %address);
        let awake: Vec<_> = {
            let awake = lock(&self.inner.awake);
            lock(&self.inner.relays).push(Relay {
                address,
                attach: attach.clone(),
                state: states,
                cancel,
            });
            awake
                .iter()
                .map(|(peer, of)| (*peer, of.inputs.clone()))
                .collect()
        };
        self.inner.tasks.spawn(task.run().instrument(span));
        self.inner.tasks.spawn(async move {
            for (peer, inputs) in awake {
                if attach.send(Attach { peer, inputs }).await.is_err() {
                    return;
                }
            }
        });
    }

    /// Uses this relay instead of all others: their connections are closed, and nothing more is
    /// sent to them. Sessions, subscriptions and receipts are not touched.
    pub fn switch_relay(&self, transport: Arc<dyn RelayTransport>) {
        let old = std::mem::take(&mut *lock(&self.inner.relays));
        for relay in old {
            relay.cancel.cancel();
        }
        self.use_relay(transport);
    }

    /// Stops using the relays with this address. Returns whether there was one.
    pub fn remove_relay(&self, address: &str) -> bool {
        let mut relays = lock(&self.inner.relays);
        let before = relays.len();
        relays.retain(|relay| {
            if relay.address == address {
                relay.cancel.cancel();
            }
            relay.address != address
        });
        relays.len() < before
    }

    /// The relays in use, and how each of them is.
    #[must_use]
    pub fn relays(&self) -> Vec<(String, watch::Receiver<RelayState>)> {
        lock(&self.inner.relays)
            .iter()
            .map(|r| (r.address.clone(), r.state.clone()))
            .collect()
    }

    /// How many sessions have a task at the moment.
    #[must_use]
    pub fn sessions_awake(&self) -> usize {
        lock(&self.inner.awake).len()
    }

    /// Stops the node: writes what is under way, closes connections and the store, and returns
    /// when every task has ended.
    ///
    /// # Errors
    /// [`Error::Store`] if the last flush failed.
    pub async fn shutdown(self) -> Result<(), Error> {
        self.inner.cancel.cancel();
        self.inner.tasks.close();
        self.inner.tasks.wait().await;
        Ok(self.inner.store.close().await?)
    }
}

/// Up to `limit` of the sessions in a store, from behind `after` on. For tools that look into a
/// store without starting a node.
///
/// # Errors
/// [`Error::Store`] or [`Error::Record`].
pub async fn list_sessions(
    store: &dyn Store,
    after: Option<PeerId>,
    limit: usize,
) -> Result<Vec<SessionInfo>, Error> {
    let mut range = Key::sessions();
    if let Some(peer) = after {
        range.start = [&Key::Session(peer).to_bytes(), &[0][..]].concat().into();
    }
    let limit = ReadLimit {
        records: limit,
        bytes: usize::MAX,
    };
    let mut sessions = Vec::new();
    for (key, value) in store.range(range, limit).await? {
        if let Ok(Key::Session(peer)) = Key::from_bytes(&key) {
            sessions.push(SessionInfo {
                peer,
                record: SessionRecord::from_bytes(&value)?,
            });
        }
    }
    Ok(sessions)
}

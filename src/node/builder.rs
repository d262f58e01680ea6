//! Making a node.

use std::fmt;
use std::sync::atomic::{AtomicU32, AtomicU64};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use outlive_core::limits::InboxLimits;
use outlive_core::store::{Batch, Store, StoreError};
use outlive_core::transport::{DirectTransport, NegotiatedTransport, RelayTransport};
use outlive_core::{Identity, Padding};
use tokio::runtime::Handle;
use tokio::sync::{Notify, OnceCell, Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::Node;
use super::admission::Admission;
use super::delivery_token::load_token;
use super::events::LastEvent;
use super::inner::Inner;
use super::owner::refuse_other;
use super::strangers::Strangers;
use super::tasks::Tasks;
use crate::clock::Clock;
use crate::direct::{Endpoint, Listener};
use crate::entropy::random;
use crate::error::Error;
use crate::mailboxes::{ForeignRelays, Keeper, Mailboxes};
use crate::network::NetworkMonitor;
use crate::request::{HANDLED_BYTES, HandlerPlace, NODE_HANDLERS};

/// Where the number of the last start is kept.
const STARTS_KEY: &[u8] = b"n/starts";

/// Collects what a node needs.
#[derive(Default)]
pub struct NodeBuilder {
    identity: Option<Identity>,
    store: Option<Arc<dyn Store>>,
    relays: Vec<Arc<dyn RelayTransport>>,
    direct: Option<Box<dyn DirectTransport>>,
    negotiated: Option<Box<dyn NegotiatedTransport>>,
    strangers: Strangers,
    inbox_limits: InboxLimits,
    padding: Padding,
    network: NetworkMonitor,
    foreign: Option<ForeignRelays>,
}

impl fmt::Debug for NodeBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeBuilder")
            .field("relays", &self.relays.len())
            .finish_non_exhaustive()
    }
}

impl NodeBuilder {
    /// Who the node is. Required. A store is that of the identity that was started on it first, for ever.
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
    /// One with the address of another is left out, as by [`Node::use_relay`].
    #[must_use]
    pub fn transport(mut self, relay: impl RelayTransport) -> Self {
        self.relays.push(Arc::new(relay));
        self
    }

    /// How relays are reached that are not this node's, so that peers may use others than it does: `relays`
    /// makes a transport for an address, or says with `None` that there are to be no connections to it. If
    /// not said, all peers have to use the same relays.
    ///
    /// Peers then tell each other where they read, inside their sessions. What is sent to one is left at its
    /// relay, to which this node signs in for as long as it has a session awake with a peer that reads there;
    /// what comes back comes to this node's own relays. Where a peer reads of which nothing was heard yet, the
    /// app may know: [`Session::mailboxes_at`](crate::Session::mailboxes_at). Nothing is dialed on the word of
    /// a stranger. A relay that this node has used and [uses no more](Node::switch_relay) is read for 30 days
    /// on, as long as something may wait there; of these at most the last 16.
    ///
    /// `relays` is called on tasks of sessions, for the same address again whenever it is needed, and must not
    /// block.
    ///
    /// A peer can name any address. Who runs the relay there learns the address of this host, and whom it
    /// writes to: say `None` to what is not to be dialed, a relay without TLS, or hosts of a network of one's
    /// own. Where [`Session::allow_direct`](crate::Session::allow_direct) forbids the peer to learn where this
    /// host is, only relays are dialed that the app has named.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use outlive::{Node, RelayTransport};
    /// # use outlive_transports::WebSocketRelay;
    /// let builder = Node::builder().foreign_relays(|address| {
    ///     let relay = address.starts_with("wss://").then(|| WebSocketRelay::new(address));
    ///     relay?.ok().map(|relay| Arc::new(relay) as Arc<dyn RelayTransport>)
    /// });
    /// ```
    #[must_use]
    pub fn foreign_relays(
        mut self,
        relays: impl Fn(&str) -> Option<Arc<dyn RelayTransport>> + Send + Sync + 'static,
    ) -> Self {
        self.foreign = Some(Box::new(relays));
        self
    }

    /// How sessions come to links that go to the peer itself, beside those through relays; none, if
    /// not said. The peer of a session that the app holds is then told the addresses of this host,
    /// unless [`Session::allow_direct`](crate::Session::allow_direct) forbids it. If there can't be
    /// a socket, the node starts all the same, without direct links.
    #[must_use]
    pub fn direct(mut self, transport: impl DirectTransport) -> Self {
        self.direct = Some(Box::new(transport));
        self
    }

    /// How sessions come to links that are negotiated with the peer, where it can't be dialed: those
    /// that browsers make too, and that get through where QUIC does not. None, if not said. If there
    /// is a transport for links that are [dialed](Self::direct), it has a head start of a few
    /// seconds, and nothing is offered while such a link is up. What the peer learns is the same,
    /// and [`Session::allow_direct`](crate::Session::allow_direct) forbids both.
    #[must_use]
    pub fn negotiated(mut self, transport: impl NegotiatedTransport) -> Self {
        self.negotiated = Some(Box::new(transport));
        self
    }

    /// Who may open a session with us; anyone, if not said.
    #[must_use]
    pub fn strangers(mut self, strangers: Strangers) -> Self {
        self.strangers = strangers;
        self
    }

    /// What the inbox of each channel takes before it is full; 65,536 messages or 256 MiB, if not
    /// said. What finds no room waits at its sender or in the mailbox, and holds up no other
    /// channel. A full inbox asks for more when half of it is free again, so let it hold at least
    /// twice what the app keeps uncommitted at a time.
    #[must_use]
    pub const fn inbox_limits(mut self, limits: InboxLimits) -> Self {
        self.inbox_limits = limits;
        self
    }

    /// Which packets are made longer, so that their length tells little of what is in them: those that go
    /// through a relay, if not said. It is for what this node sends; its peers take either.
    #[must_use]
    pub const fn padding(mut self, padding: Padding) -> Self {
        self.padding = padding;
        self
    }

    /// What the operating system says of the network, as the app tells it or as it is found out.
    #[must_use]
    pub fn network(mut self, network: NetworkMonitor) -> Self {
        self.network = network;
        self
    }

    /// Starts the node: counts the start in the store, writes down whose it is, and dials the relays.
    /// Dropped half-way, there is no node; at most that was done. A store is for one node at a time:
    /// of two that start at once on the same new one, none is refused. The node lives on the tokio runtime
    /// that this is called on, which has to have its timers and its I/O enabled.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    ///
    /// # Errors
    /// [`Error::NoIdentity`], [`Error::NoStore`], [`Error::OtherIdentity`] if the store is somebody
    /// else's, [`Error::Entropy`], or [`Error::Store`]: also if what the node itself keeps there is
    /// damaged, or the store is encrypted and was not unlocked.
    pub async fn start(self) -> Result<Node, Error> {
        let identity = self.identity.ok_or(Error::NoIdentity)?;
        let store = self.store.ok_or(Error::NoStore)?;
        let mut owned = refuse_other(&*store, identity.peer_id()).await?;
        let admission = Admission::load(self.strangers, &*store).await?;
        let clock = Clock::load(&*store).await?;
        let stands = clock.put(&mut owned);
        let start = count_start(&*store, owned).await?;
        clock.written(&stands);
        let token = load_token(&*store).await?;
        let keeper = match &self.foreign {
            Some(_) => Some(Keeper::load(&*store).await?),
            None => None,
        };
        let run = u64::from_le_bytes(random()?);
        let (cancel, links_cancel) = (CancellationToken::new(), CancellationToken::new());
        let (listener, direct) = match self.direct {
            Some(transport) => listen(transport, &identity).await.unzip(),
            None => (None, None),
        };
        let runtime = Handle::current();
        let inner = Arc::new(Inner {
            identity,
            store,
            clock,
            token: watch::Sender::new(token),
            token_turn: Semaphore::new(1),
            start,
            network: self.network,
            cancel: cancel.clone(),
            links_cancel: links_cancel.clone(),
            admission,
            inbox_limits: self.inbox_limits,
            padding: self.padding,
            handler: HandlerPlace::default(),
            handlers: Arc::new(Semaphore::new(NODE_HANDLERS)),
            handled_bytes: Arc::new(Semaphore::new(HANDLED_BYTES)),
            run,
            requests: AtomicU64::new(1),
            generations: AtomicU64::new(1),
            ranks: AtomicU32::new(0),
            registry: Arc::default(),
            awake: Mutex::default(),
            asleep: Mutex::default(),
            relays: Mutex::default(),
            mailboxes: Mailboxes::new(self.foreign),
            direct,
            negotiated: self.negotiated,
            waking: Mutex::default(),
            arrivals: Mutex::default(),
            arrived: Notify::new(),
            sessions: Tasks::on(runtime.clone()),
            tasks: Tasks::on(runtime),
            closed: OnceCell::new(),
        });
        // When the runtime is gone, nobody does what is asked of the node any more, and nothing happens in
        // its sessions.
        inner.tasks.spawn({
            let (links_cancel, ends) = (links_cancel.clone(), cancel.clone().drop_guard());
            let (sessions, last) = (inner.sessions.clone(), LastEvent(inner.registry.clone()));
            async move {
                links_cancel.cancelled().await;
                drop(ends);
                sessions.ended().await;
                drop(last);
            }
        });
        if let Some(listener) = listener {
            inner.tasks.spawn(listener.run(inner.clone()));
        }
        #[cfg(feature = "network")]
        inner.tasks.spawn({
            let inner = inner.clone();
            async move {
                tokio::select! {
                    () = inner.links_cancel.cancelled() => {}
                    () = inner.network.find_out() => {}
                }
            }
        });
        let node = Node {
            inner,
            _guard: Arc::new([cancel.drop_guard(), links_cancel.drop_guard()]),
        };
        if let Some(keeper) = &keeper {
            keeper.remember(&node.inner);
        }
        node.inner.tasks.spawn({
            let inner = node.inner.clone();
            async move {
                tokio::select! {
                    () = inner.clock.keep(&*inner.store) => {}
                    () = inner.cancel.cancelled() => {}
                }
            }
        });
        node.inner.tasks.spawn({
            let inner = node.inner.clone();
            async move {
                tokio::select! {
                    () = inner.announce_waiting() => {}
                    () = inner.cancel.cancelled() => {}
                }
            }
        });
        for relay in self.relays {
            node.use_relay(relay);
        }
        if let Some(keeper) = keeper {
            let inner = node.inner.clone();
            node.inner.tasks.spawn(keeper.run(inner));
        }
        Ok(node)
    }
}

/// The socket for direct links. A host that has none is no reason not to start.
async fn listen(
    transport: Box<dyn DirectTransport>,
    identity: &Identity,
) -> Option<(Listener, Endpoint)> {
    let name = transport.name();
    match Listener::open(transport, identity).await {
        Ok(open) => Some(open),
        Err(error) => {
            warn!(transport = name, %error, "no direct links");
            None
        }
    }
}

/// The number of this start, durable before anything is bound (I8); written with `beside`.
async fn count_start(store: &dyn Store, beside: Batch) -> Result<u32, Error> {
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
    let mut batch = beside;
    batch.put(key, Bytes::copy_from_slice(&start.to_be_bytes()));
    store.commit(batch).await?;
    Ok(start)
}

//! What all parts of a node share, and the sessions that are awake.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use outlive_core::limits::InboxLimits;
use outlive_core::record::Key;
use outlive_core::store::{ReadLimit, Store, StoreError};
use outlive_core::transport::{DeliveryToken, NegotiatedTransport};
use outlive_core::{ChannelId, Generation, Identity, Padding, PeerId, RequestId, Round};
use tokio::sync::{Notify, OnceCell, Semaphore, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, warn};

use super::admission::Admission;
use super::tasks::Tasks;
use crate::clock::Clock;
use crate::direct::{ASKED, Asked, Endpoint, Upgrade};
use crate::error::Error;
use crate::hub::{Hub, Remembered};
use crate::lock::lock;
use crate::mailboxes::Mailboxes;
use crate::network::NetworkMonitor;
use crate::relay::{Attach, ELSEWHERE_RANK, RelayState};
use crate::request::{self, HandlerPlace};
use crate::route::Route;
use crate::subscription::Registry;
use crate::task::{Command, INPUTS, Input, STORE_RETRY, Task};

/// Sessions woken in one step when a relay comes up.
const WAKE_AT_ONCE: usize = 256;

/// A session that has a task.
pub(super) struct Awake {
    pub(super) inputs: mpsc::Sender<Input>,
    /// The way to its upgrade, if there can be direct links.
    upgrade: Option<mpsc::Sender<Asked>>,
    pub(super) hub: Arc<Hub>,
}

pub(super) struct Relay {
    pub(super) address: String,
    pub(super) attach: mpsc::Sender<Attach>,
    pub(super) state: watch::Receiver<RelayState>,
    pub(super) cancel: CancellationToken,
}

/// What all parts of a node share.
pub(crate) struct Inner {
    pub(crate) identity: Identity,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) clock: Clock,
    /// What opens our mailbox for others, if it was ever asked for.
    pub(crate) token: watch::Sender<Option<DeliveryToken>>,
    /// Whose turn it is to draw one.
    pub(super) token_turn: Semaphore,
    pub(crate) start: u32,
    pub(crate) network: NetworkMonitor,
    /// Ends the sessions, and with them whatever is asked of the node.
    pub(crate) cancel: CancellationToken,
    /// Ends the links and what makes them: after the sessions, so that these have their last words said.
    pub(crate) links_cancel: CancellationToken,
    pub(crate) admission: Admission,
    pub(crate) inbox_limits: InboxLimits,
    pub(crate) padding: Padding,
    /// The handler of requests that no session has one of its own for.
    pub(crate) handler: HandlerPlace,
    /// Places for handlers at work.
    pub(crate) handlers: Arc<Semaphore>,
    /// Bytes for the requests they have in hand.
    pub(crate) handled_bytes: Arc<Semaphore>,
    /// A random number of this start.
    pub(super) run: u64,
    pub(super) requests: AtomicU64,
    pub(super) generations: AtomicU64,
    pub(super) ranks: AtomicU32,
    /// The callbacks that hear of all sessions.
    pub(super) registry: Arc<Registry>,
    pub(super) awake: Mutex<HashMap<PeerId, Awake>>,
    /// What is known of sessions that sleep: an entry for each of them of which there is something, until
    /// it is opened again.
    pub(super) asleep: Mutex<HashMap<PeerId, Remembered>>,
    pub(super) relays: Mutex<Vec<Relay>>,
    /// Where mail is read, ours and that of peers.
    pub(crate) mailboxes: Mailboxes,
    /// The socket for direct links, if there are to be any.
    pub(crate) direct: Option<Endpoint>,
    /// What makes direct links by negotiation, if there are to be any.
    pub(crate) negotiated: Option<Box<dyn NegotiatedTransport>>,
    pub(super) waking: Mutex<Waking>,
    pub(super) arrivals: Mutex<BTreeSet<PeerId>>,
    pub(super) arrived: Notify,
    /// The tasks of sessions and of their direct links.
    pub(crate) sessions: Tasks,
    /// All others.
    pub(crate) tasks: Tasks,
    /// How the store was closed.
    pub(super) closed: OnceCell<Result<(), StoreError>>,
}

impl Inner {
    /// A generation higher than all before, for a link that is about to be bound.
    pub(crate) fn next_generation(&self) -> Generation {
        let count = self.generations.fetch_add(1, Ordering::Relaxed);
        Generation::nth(self.start, u32::try_from(count).unwrap_or(u32::MAX))
    }

    /// A number higher than all before, for a request that is about to be sent.
    pub(crate) fn next_request(&self) -> RequestId {
        let count = self.requests.fetch_add(1, Ordering::Relaxed);
        RequestId::new(self.start, self.run, count)
    }

    /// Has requests that wait be looked at: there is a handler for them now.
    pub(crate) fn serve_requests(self: &Arc<Self>) {
        for of in lock(&self.awake).values() {
            if of.hub.requests.is_waiting() {
                request::poke(Route::new(self.clone(), of.hub.hold()));
            }
        }
        self.wake_sessions_with_work();
    }

    /// A message waits in an inbox of the session with this peer.
    pub(crate) fn message_arrived(&self, peer: PeerId) {
        lock(&self.arrivals).insert(peer);
        self.arrived.notify_one();
    }

    /// The session with a peer, for the app to hold. Its task is started if it is not there.
    pub(crate) fn open(self: &Arc<Self>, peer: PeerId) -> Result<Route, Error> {
        let mut awake = lock(&self.awake);
        let hold = self.awake(&mut awake, peer)?.hub.hold();
        Ok(Route::new(self.clone(), hold))
    }

    /// The way to a session's task, which is started if it is not there.
    pub(crate) fn inputs(self: &Arc<Self>, peer: PeerId) -> Result<mpsc::Sender<Input>, Error> {
        let mut awake = lock(&self.awake);
        Ok(self.awake(&mut awake, peer)?.inputs.clone())
    }

    /// The way to what makes a session's direct links, if there can be any. The session's task is
    /// started if it is not there.
    pub(crate) fn upgrade(
        self: &Arc<Self>,
        peer: PeerId,
    ) -> Result<Option<mpsc::Sender<Asked>>, Error> {
        let mut awake = lock(&self.awake);
        Ok(self.awake(&mut awake, peer)?.upgrade.clone())
    }

    fn awake<'a>(
        self: &Arc<Self>,
        awake: &'a mut HashMap<PeerId, Awake>,
        peer: PeerId,
    ) -> Result<&'a Awake, Error> {
        if self.cancel.is_cancelled() {
            return Err(Error::Shutdown);
        }
        if self.admission.is_blocked(peer) {
            return Err(Error::Blocked(peer));
        }
        let of = match awake.entry(peer) {
            Entry::Vacant(vacant) => {
                let remembered = lock(&self.asleep).remove(&peer).unwrap_or_default();
                let (of_node, ended) = (self.registry.clone(), self.cancel.child_token());
                let hub = Hub::new(peer, of_node, ended, remembered);
                vacant.insert(self.start(Arc::new(hub)))
            }
            Entry::Occupied(occupied) => {
                let of = occupied.into_mut();
                if of.inputs.is_closed() {
                    // A panic has ended the task; who holds the session keeps it.
                    *of = self.start(of.hub.clone());
                }
                of
            }
        };
        Ok(of)
    }

    fn start(self: &Arc<Self>, hub: Arc<Hub>) -> Awake {
        let peer = hub.peer;
        let (inputs, receiver) = mpsc::channel(INPUTS);
        let relays: Vec<_> = lock(&self.relays)
            .iter()
            .map(|r| r.attach.clone())
            .collect();
        let task = Task::new(
            self.clone(),
            hub.clone(),
            receiver,
            self.cancel.child_token(),
        );
        let ended = CancellationToken::new();
        let upgrade = self
            .makes_direct_links()
            .then(|| self.start_upgrade(&hub, &inputs, ended.clone()));
        let ended = ended.drop_guard();
        let attached = inputs.clone();
        let span = tracing::info_span!("session", peer = %peer.short());
        self.sessions.spawn(
            async move {
                let _ended = ended;
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
        Awake {
            inputs,
            upgrade,
            hub,
        }
    }

    /// The addresses of the relays in use, the best first.
    pub(crate) fn relay_addresses(&self) -> Vec<String> {
        let relays = lock(&self.relays);
        let used = relays
            .iter()
            .filter(|relay| *relay.state.borrow() != RelayState::Closed);
        used.map(|relay| relay.address.clone()).collect()
    }

    /// An order among links of a kind, behind those that are there.
    pub(crate) fn next_rank(&self) -> u8 {
        let rank = self.ranks.fetch_add(1, Ordering::Relaxed);
        u8::try_from(rank).map_or(ELSEWHERE_RANK - 1, |rank| rank.min(ELSEWHERE_RANK - 1))
    }

    /// The round before the first of a session that is loaded now (I8).
    pub(crate) fn last_round(&self) -> Round {
        Round::since_start(self.start, self.clock.now().elapsed)
    }

    /// Whether there can be direct links at all.
    pub(crate) const fn makes_direct_links(&self) -> bool {
        self.direct.is_some() || self.negotiated.is_some()
    }

    fn start_upgrade(
        self: &Arc<Self>,
        hub: &Arc<Hub>,
        inputs: &mpsc::Sender<Input>,
        ended: CancellationToken,
    ) -> mpsc::Sender<Asked> {
        let (asked, asking) = mpsc::channel(ASKED);
        let endpoint = self.direct.clone();
        let upgrade = Upgrade::new(self.clone(), hub.clone(), endpoint, inputs.clone(), asking);
        let span = tracing::info_span!("upgrade", peer = %hub.peer.short());
        self.tasks.spawn(upgrade.run(ended).instrument(span));
        asked
    }

    /// Ends a session's task if nobody holds it and nothing is on its way to it. Returns whether it
    /// ends.
    pub(crate) fn retire(
        &self,
        hub: &Hub,
        inputs: &mut mpsc::Receiver<Input>,
        remembered: Remembered,
    ) -> bool {
        let mut awake = lock(&self.awake);
        if hub.is_held() || !inputs.is_empty() {
            return false;
        }
        inputs.close();
        self.remove(&mut awake, hub, remembered);
        true
    }

    /// The session ends, whoever holds it. Whoever hands something of it out notes that first, and then
    /// looks whether it has ended: so what is handed out is remembered, as far as the inbox `holds` it.
    pub(crate) fn end(
        &self,
        hub: &Hub,
        inputs: &mut mpsc::Receiver<Input>,
        holds: impl Fn(ChannelId) -> bool,
    ) {
        let mut awake = lock(&self.awake);
        inputs.close();
        hub.ended.cancel();
        self.remove(&mut awake, hub, hub.remembered(holds));
    }

    fn remove(&self, awake: &mut HashMap<PeerId, Awake>, hub: &Hub, remembered: Remembered) {
        awake.remove(&hub.peer);
        if !remembered.is_empty() {
            lock(&self.asleep).insert(hub.peer, remembered);
        }
    }

    /// The way to a session's task if it is there.
    pub(crate) fn inputs_if_awake(&self, peer: PeerId) -> Option<mpsc::Sender<Input>> {
        lock(&self.awake).get(&peer).map(|of| of.inputs.clone())
    }

    /// Whether a peer that has dialed us may have a link. It is no stranger, for strangers are told
    /// nothing of where we are: who comes by itself takes no place among them, and no app is asked.
    pub(crate) async fn admits_link(&self, peer: PeerId) -> Result<bool, StoreError> {
        let awake = lock(&self.awake).contains_key(&peer);
        self.admission.knows(&*self.store, peer, awake).await
    }

    /// Whether a peer that has sent something may have a session with us.
    pub(crate) async fn admits(&self, peer: PeerId) -> Result<bool, StoreError> {
        if peer == self.identity.peer_id() {
            // The word of a relay that lies: nobody has a session with oneself.
            return Ok(false);
        }
        let awake = || lock(&self.awake).contains_key(&peer);
        self.admission.admits(&*self.store, peer, awake).await
    }

    /// Wakes the sessions that have something outstanding, a few at a time. If that is under way, it
    /// is done once more afterwards.
    pub(crate) fn wake_sessions_with_work(self: &Arc<Self>) {
        let mut waking = lock(&self.waking);
        let before = std::mem::replace(&mut *waking, Waking::Again);
        if before != Waking::No {
            return;
        }
        *waking = Waking::Once;
        drop(waking);
        let inner = self.clone();
        self.tasks.spawn(async move {
            loop {
                tokio::select! {
                    () = inner.wake_all() => {}
                    () = inner.cancel.cancelled() => return,
                }
                let mut waking = lock(&inner.waking);
                if *waking == Waking::Once {
                    *waking = Waking::No;
                    return;
                }
                *waking = Waking::Once;
            }
        });
    }

    async fn wake_all(self: &Arc<Self>) {
        let mut range = Key::work();
        let limit = ReadLimit {
            records: WAKE_AT_ONCE,
            bytes: usize::MAX,
        };
        loop {
            let rows = match self.store.range(range.clone(), limit).await {
                Ok(rows) => rows,
                Err(error) => {
                    warn!(%error, "sessions with work can't be read");
                    tokio::time::sleep(STORE_RETRY).await;
                    continue;
                }
            };
            let Some((last, _)) = rows.last() else { return };
            range.start = [last, &[0][..]].concat().into();
            for (key, _) in &rows {
                let Ok(Key::Work(peer)) = Key::from_bytes(key) else {
                    continue;
                };
                let inputs = match self.inputs(peer) {
                    Ok(inputs) => inputs,
                    Err(Error::Blocked(_)) => continue,
                    Err(_) => return,
                };
                // A session that just went to sleep has no work left.
                let (reply, _) = oneshot::channel();
                let _ = inputs.send(Input::Command(Command::Wake { reply })).await;
            }
        }
    }
}

/// Whether sessions with work are being woken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Waking {
    #[default]
    No,
    /// They are.
    Once,
    /// They are, and have to be once more.
    Again,
}

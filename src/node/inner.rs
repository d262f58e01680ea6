//! What all parts of a node share, and the sessions that are awake.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use outlive_core::record::Key;
use outlive_core::store::{ReadLimit, Store};
use outlive_core::{Generation, Identity, PeerId};
use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use super::strangers::Strangers;
use crate::clock::Clock;
use crate::error::Error;
use crate::hub::Hub;
use crate::network::NetworkMonitor;
use crate::relay::{Attach, RelayState};
use crate::task::{Command, INPUTS, Input, Task};

/// Sessions woken in one step when a relay comes up.
const WAKE_AT_ONCE: usize = 256;

pub(super) struct Awake {
    pub(super) inputs: mpsc::Sender<Input>,
    hub: Weak<Hub>,
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
    pub(crate) start: u32,
    pub(crate) network: NetworkMonitor,
    pub(crate) cancel: CancellationToken,
    pub(super) strangers: Strangers,
    pub(super) generations: AtomicU64,
    pub(super) ranks: AtomicU32,
    pub(super) awake: Mutex<HashMap<PeerId, Awake>>,
    pub(super) hubs: Mutex<HashMap<PeerId, Weak<Hub>>>,
    pub(super) opened: Mutex<BTreeSet<PeerId>>,
    pub(super) relays: Mutex<Vec<Relay>>,
    pub(super) arrivals: Mutex<BTreeSet<PeerId>>,
    pub(super) arrived: Notify,
    pub(crate) tasks: TaskTracker,
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
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
        let hub = Arc::new(Hub::new(peer, self.cancel.child_token()));
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

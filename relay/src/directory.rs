//! Who is signed in, and who wants to know of whom.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use outlive_core::PeerId;
use outlive_core::wire::relay::FromRelay;
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

/// Messages on their way to a connection that matter only now. More are left out.
pub(crate) const NOW: usize = 256;

/// Peers one connection may watch. Further ones are left out.
const WATCHED: usize = 16_384;

/// Senders whose new mail a connection has not looked at yet, and the bell for them.
#[derive(Debug, Default)]
pub(crate) struct Bell {
    senders: Mutex<BTreeSet<PeerId>>,
    notify: Notify,
}

impl Bell {
    fn ring(&self, sender: PeerId) {
        lock(&self.senders).insert(sender);
        self.notify.notify_one();
    }

    /// Waits for new mail. Cancellation-safe: a ring is never lost.
    pub(crate) async fn rung(&self) -> BTreeSet<PeerId> {
        loop {
            let senders = std::mem::take(&mut *lock(&self.senders));
            if !senders.is_empty() {
                return senders;
            }
            self.notify.notified().await;
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Clone)]
struct Entry {
    number: u64,
    bell: Arc<Bell>,
    now: mpsc::Sender<FromRelay>,
    replaced: CancellationToken,
}

#[derive(Default)]
struct State {
    last: u64,
    signed_in: HashMap<PeerId, Entry>,
    watchers: HashMap<PeerId, HashSet<PeerId>>,
}

/// Who is signed in.
#[derive(Default)]
pub(crate) struct Directory {
    state: Mutex<State>,
}

/// A connection's place in the directory.
pub(crate) struct Presence {
    pub(crate) number: u64,
    pub(crate) bell: Arc<Bell>,
    pub(crate) now: mpsc::Receiver<FromRelay>,
    /// Cancelled when a newer connection of the same peer took over.
    pub(crate) replaced: CancellationToken,
}

impl Directory {
    /// A peer has signed in. An older connection of the same peer is told to end.
    pub(crate) fn enter(&self, peer: PeerId) -> Presence {
        let (sender, now) = mpsc::channel(NOW);
        let mut state = lock(&self.state);
        state.last = state.last.wrapping_add(1);
        let entry = Entry {
            number: state.last,
            bell: Arc::default(),
            now: sender,
            replaced: CancellationToken::new(),
        };
        let presence = Presence {
            number: entry.number,
            bell: entry.bell.clone(),
            now,
            replaced: entry.replaced.clone(),
        };
        match state.signed_in.insert(peer, entry) {
            Some(old) => old.replaced.cancel(),
            None => state.announce(peer, true),
        }
        presence
    }

    /// A connection has ended. Nothing happens if a newer one took its place.
    pub(crate) fn leave(&self, peer: PeerId, number: u64, watched: &BTreeSet<PeerId>) {
        let mut state = lock(&self.state);
        if state
            .signed_in
            .get(&peer)
            .is_none_or(|entry| entry.number != number)
        {
            return;
        }
        state.signed_in.remove(&peer);
        for other in watched {
            if let Some(watchers) = state.watchers.get_mut(other) {
                watchers.remove(&peer);
                if watchers.is_empty() {
                    state.watchers.remove(other);
                }
            }
        }
        state.announce(peer, false);
    }

    /// New mail for a recipient.
    pub(crate) fn wake(&self, recipient: &PeerId, sender: PeerId) {
        let bell = lock(&self.state)
            .signed_in
            .get(recipient)
            .map(|entry| entry.bell.clone());
        if let Some(bell) = bell {
            bell.ring(sender);
        }
    }

    /// Passes on what matters only now, if the peer is there and takes it.
    pub(crate) fn pass(&self, to: &PeerId, message: FromRelay) {
        if let Some(entry) = lock(&self.state).signed_in.get(to) {
            // Full: it matters only now, and now there is no room.
            let _ = entry.now.try_send(message);
        }
    }

    /// Tells `peer` of these from now on, and how they are at the moment.
    pub(crate) fn watch(&self, peer: PeerId, others: Vec<PeerId>, watched: &mut BTreeSet<PeerId>) {
        let mut state = lock(&self.state);
        for other in others {
            if watched.len() >= WATCHED {
                return;
            }
            watched.insert(other);
            state.watchers.entry(other).or_default().insert(peer);
            let online = state.signed_in.contains_key(&other);
            state.tell(peer, other, online);
        }
    }
}

impl State {
    fn announce(&self, peer: PeerId, online: bool) {
        for watcher in self.watchers.get(&peer).into_iter().flatten() {
            self.tell(*watcher, peer, online);
        }
    }

    fn tell(&self, watcher: PeerId, peer: PeerId, online: bool) {
        if let Some(entry) = self.signed_in.get(&watcher) {
            // Full: presence is a hint.
            let _ = entry.now.try_send(FromRelay::Presence { peer, online });
        }
    }
}

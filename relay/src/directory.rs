//! Who is signed in, and who wants to know of whom.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use outlive_core::PeerId;
use outlive_core::wire::relay::{FromRelay, Sender};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use crate::lock::lock;

/// Messages on their way to a connection that matter only now. More are left out.
const NOW: usize = 256;

/// Bytes of packets in them. Whoever takes nothing costs no more.
const NOW_BYTES: usize = 512 * 1024;

/// Peers one connection may watch, at some 300 bytes each. Further ones are left out.
const WATCHED: usize = 4_096;

/// Senders whose new mail a connection has not looked at yet, and the bell for them. There are no
/// more of them than the mailbox's quota lets in.
#[derive(Debug, Default)]
pub(crate) struct Bell {
    senders: Mutex<BTreeSet<Sender>>,
    notify: Notify,
}

impl Bell {
    fn ring(&self, sender: Sender) {
        lock(&self.senders).insert(sender);
        self.notify.notify_one();
    }

    /// Waits for new mail. Cancellation-safe: a ring is never lost.
    pub(crate) async fn rung(&self) -> BTreeSet<Sender> {
        loop {
            let senders = std::mem::take(&mut *lock(&self.senders));
            if !senders.is_empty() {
                return senders;
            }
            self.notify.notified().await;
        }
    }
}

/// What matters only now, and the room it takes until it is dropped.
pub(crate) struct Now {
    pub(crate) message: FromRelay,
    pub(crate) room: Option<OwnedSemaphorePermit>,
}

struct Entry {
    number: u64,
    bell: Arc<Bell>,
    now: mpsc::Sender<Now>,
    room: Arc<Semaphore>,
    replaced: CancellationToken,
    let_go: CancellationToken,
    watched: BTreeSet<PeerId>,
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

/// A connection's place in the directory. It leaves when this is dropped.
pub(crate) struct Presence {
    directory: Arc<Directory>,
    peer: PeerId,
    number: u64,
    pub(crate) bell: Arc<Bell>,
    pub(crate) now: mpsc::Receiver<Now>,
    /// Cancelled when a newer connection of the same peer took over.
    pub(crate) replaced: CancellationToken,
    /// Cancelled when something it said is to be said again, over another connection.
    pub(crate) let_go: CancellationToken,
}

impl Presence {
    /// Tells this connection of these from now on, and how they are at the moment.
    pub(crate) fn watch(&self, others: Vec<PeerId>) {
        lock(&self.directory.state).watch(self.peer, self.number, others);
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        lock(&self.directory.state).leave(self.peer, self.number);
    }
}

impl Directory {
    /// A peer has signed in. An older connection of the same peer is told to end; what it watched
    /// is watched no more.
    pub(crate) fn enter(self: &Arc<Self>, peer: PeerId) -> Presence {
        let (sender, now) = mpsc::channel(NOW);
        let mut state = lock(&self.state);
        state.last = state.last.wrapping_add(1);
        let entry = Entry {
            number: state.last,
            bell: Arc::default(),
            now: sender,
            room: Arc::new(Semaphore::new(NOW_BYTES)),
            replaced: CancellationToken::new(),
            let_go: CancellationToken::new(),
            watched: BTreeSet::new(),
        };
        let presence = Presence {
            directory: self.clone(),
            peer,
            number: entry.number,
            bell: entry.bell.clone(),
            now,
            replaced: entry.replaced.clone(),
            let_go: entry.let_go.clone(),
        };
        match state.signed_in.insert(peer, entry) {
            Some(old) => {
                state.unwatch(&peer, &old.watched);
                old.replaced.cancel();
            }
            None => state.announce(peer, true),
        }
        presence
    }

    /// Ends the connection of a peer, if there is one.
    pub(crate) fn let_go(&self, peer: &PeerId) {
        if let Some(entry) = lock(&self.state).signed_in.get(peer) {
            entry.let_go.cancel();
        }
    }

    /// New mail for a recipient.
    pub(crate) fn wake(&self, recipient: &PeerId, sender: Sender) {
        let bell = lock(&self.state)
            .signed_in
            .get(recipient)
            .map(|entry| entry.bell.clone());
        if let Some(bell) = bell {
            bell.ring(sender);
        }
    }

    /// Passes on a packet that matters only now, if the peer is there and takes it.
    pub(crate) fn pass(&self, from: Sender, to: &PeerId, packet: Bytes) {
        if let Some(entry) = lock(&self.state).signed_in.get(to)
            && let Ok(bytes) = u32::try_from(packet.len())
            && let Ok(room) = entry.room.clone().try_acquire_many_owned(bytes)
        {
            let message = FromRelay::Deliver {
                from,
                envelope: None,
                packet,
            };
            let room = Some(room);
            // Full: it matters only now, and now there is no room.
            let _ = entry.now.try_send(Now { message, room });
        }
    }
}

impl State {
    /// Nothing happens if a newer connection took this one's place.
    fn leave(&mut self, peer: PeerId, number: u64) {
        let Some(entry) = self.signed_in.remove(&peer) else {
            return;
        };
        if entry.number != number {
            self.signed_in.insert(peer, entry);
            return;
        }
        self.unwatch(&peer, &entry.watched);
        self.announce(peer, false);
    }

    fn watch(&mut self, peer: PeerId, number: u64, others: Vec<PeerId>) {
        for other in others {
            let online = self.signed_in.contains_key(&other);
            let Some(entry) = self.signed_in.get_mut(&peer) else {
                return;
            };
            if entry.number != number {
                return;
            }
            // Answered even beyond the limit: a client may ask only to see whether we are there.
            if entry.watched.len() < WATCHED && entry.watched.insert(other) {
                self.watchers.entry(other).or_default().insert(peer);
            }
            self.tell(peer, other, online);
        }
    }

    fn unwatch(&mut self, peer: &PeerId, watched: &BTreeSet<PeerId>) {
        for other in watched {
            if let Some(watchers) = self.watchers.get_mut(other) {
                watchers.remove(peer);
                if watchers.is_empty() {
                    self.watchers.remove(other);
                }
            }
        }
    }

    fn announce(&self, peer: PeerId, online: bool) {
        for watcher in self.watchers.get(&peer).into_iter().flatten() {
            self.tell(*watcher, peer, online);
        }
    }

    fn tell(&self, watcher: PeerId, peer: PeerId, online: bool) {
        if let Some(entry) = self.signed_in.get(&watcher) {
            // Full: presence is a hint.
            let _ = entry.now.try_send(Now {
                message: FromRelay::Presence { peer, online },
                room: None,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use outlive_core::Identity;

    use super::*;

    fn peer(n: u64) -> PeerId {
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&n.to_be_bytes());
        Identity::from_seed(seed).peer_id()
    }

    fn watching(directory: &Directory) -> usize {
        let state = lock(&directory.state);
        state.watchers.values().map(HashSet::len).sum()
    }

    #[test]
    fn a_takeover_leaves_nothing_of_what_the_older_connection_watched() {
        let directory = Arc::new(Directory::default());
        let mut older = directory.enter(peer(0));
        for n in 1..10 {
            older.watch(vec![peer(n)]);
            let newer = directory.enter(peer(0));
            // It may have taken one more message before it heard of the end.
            older.watch(vec![peer(n + 100)]);
            assert_eq!(watching(&directory), 0);
            older = newer;
        }
        older.watch(vec![peer(1), peer(2)]);
        assert_eq!(watching(&directory), 2);
        drop(older);
        let state = lock(&directory.state);
        assert!(state.watchers.is_empty() && state.signed_in.is_empty());
    }

    #[test]
    fn a_connection_watches_no_more_peers_than_the_limit() {
        let directory = Arc::new(Directory::default());
        let presence = directory.enter(peer(0));
        let most = WATCHED as u64;
        presence.watch((1..=most + 5).map(peer).collect());
        assert_eq!(watching(&directory), WATCHED);
    }

    #[test]
    fn what_matters_now_takes_no_more_room_than_the_limit() {
        let directory = Arc::new(Directory::default());
        let mut presence = directory.enter(peer(0));
        let mut come = |count: usize, size: usize| {
            for _ in 0..count {
                directory.pass(peer(1).into(), &peer(0), Bytes::from(vec![0; size]));
            }
            std::iter::from_fn(|| presence.now.try_recv().ok()).count()
        };
        assert_eq!(come(100, NOW_BYTES / 8), 8);
        // What was taken made room.
        assert_eq!(come(100, NOW_BYTES / 4), 4);
        assert_eq!(come(NOW * 2, 0), NOW);
        assert_eq!(come(1, NOW_BYTES + 1), 0);
    }

    #[test]
    fn an_older_connection_that_ends_late_takes_nobody_offline() {
        let directory = Arc::new(Directory::default());
        let mut watcher = directory.enter(peer(9));
        watcher.watch(vec![peer(0)]);
        let older = directory.enter(peer(0));
        let newer = directory.enter(peer(0));
        drop(older);
        let told = |watcher: &mut Presence| match watcher.now.try_recv() {
            Ok(Now {
                message: FromRelay::Presence { online, .. },
                ..
            }) => Some(online),
            _ => None,
        };
        assert_eq!(told(&mut watcher), Some(false));
        assert_eq!(told(&mut watcher), Some(true));
        assert_eq!(told(&mut watcher), None);
        drop(newer);
        assert_eq!(told(&mut watcher), Some(false));
    }
}

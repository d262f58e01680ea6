//! The door: which peers may have a session with this node, and how much a stranger may leave
//! behind it.
//!
//! What was decided is in the store; what has to be known at once, who is blocked and who is a
//! stranger, is here too, both bounded. A peer is a *stranger* while it has opened its session by
//! itself and the app has neither opened it too nor said that it trusts the peer.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, MutexGuard};

use bytes::Bytes;
use outlive_core::PeerId;
use outlive_core::limits::{BLOCKED_PEERS, STRANGER_BYTES, STRANGERS};
use outlive_core::record::{Key, Session as SessionRecord};
use outlive_core::store::{Batch, ReadLimit, Store, StoreError};
use tokio::sync::Semaphore;
use tracing::error;

use super::strangers::Strangers;
use crate::error::Error;
use crate::lock::lock;
use crate::trust::{Decision, Trust};

/// Peers read at once when a node starts.
const PAGE: usize = 1_024;

pub(crate) struct Admission {
    policy: Strangers,
    peers: Mutex<Peers>,
    /// Lets one decision after the other be written, so that what is here is what is in the store.
    turn: Semaphore,
}

#[derive(Default)]
struct Peers {
    blocked: BTreeSet<PeerId>,
    strangers: BTreeSet<PeerId>,
}

impl Admission {
    /// What was decided before this start.
    pub(crate) async fn load(policy: Strangers, store: &dyn Store) -> Result<Self, StoreError> {
        let peers = Peers {
            blocked: peers_in(store, Key::all_blocked()).await?,
            strangers: peers_in(store, Key::strangers()).await?,
        };
        Ok(Self {
            policy,
            peers: Mutex::new(peers),
            turn: Semaphore::new(1),
        })
    }

    fn peers(&self) -> MutexGuard<'_, Peers> {
        lock(&self.peers)
    }

    pub(crate) fn is_blocked(&self, peer: PeerId) -> bool {
        self.peers().blocked.contains(&peer)
    }

    pub(crate) fn is_stranger(&self, peer: PeerId) -> bool {
        self.peers().strangers.contains(&peer)
    }

    pub(crate) fn strangers(&self) -> Vec<PeerId> {
        self.peers().strangers.iter().copied().collect()
    }

    /// What a peer may make us keep.
    pub(crate) fn allowance(&self, peer: PeerId, session: &SessionRecord) -> Allowance {
        if self.is_stranger(peer) {
            Allowance::Left {
                bytes: STRANGER_BYTES.saturating_sub(session.kept_bytes()),
                held_back: false,
            }
        } else {
            Allowance::Unlimited
        }
    }

    /// Whether a peer that has sent something may have a session with us. If it has one that is
    /// awake, that may not be on disk yet.
    pub(super) async fn admits(
        &self,
        store: &dyn Store,
        peer: PeerId,
        awake: impl Fn() -> bool,
    ) -> Result<bool, StoreError> {
        if PeerId::from_bytes(*peer.as_bytes()).is_err() {
            // The word of a relay that lies. What is kept of such a peer is not found again after a
            // restart, so it would neither count nor go.
            return Ok(false);
        }
        let stranger = {
            let peers = self.peers();
            if peers.blocked.contains(&peer) {
                return Ok(false);
            }
            peers.strangers.contains(&peer)
        };
        if !stranger && (awake() || is_known(store, peer).await?) {
            return Ok(true);
        }
        match &self.policy {
            Strangers::Accept if stranger => Ok(true),
            Strangers::Accept => self.take_in(store, peer, awake).await,
            Strangers::KnownOnly => Ok(false),
            Strangers::Ask(ask) => {
                // What a panic left half done is the policy's alone. It ends nothing here: whoever asks
                // serves other peers too.
                let asked = catch_unwind(AssertUnwindSafe(|| ask(peer)));
                let accepted = asked.unwrap_or_else(|_| {
                    error!(peer = %peer.short(), "the policy for strangers panicked, which lets nobody in");
                    false
                });
                if accepted && stranger {
                    self.accept(store, peer).await?;
                }
                Ok(accepted)
            }
        }
    }

    /// Whether the app has to do with a peer: there is a session with it, and it is neither blocked
    /// nor a stranger. Nobody is let in by asking.
    pub(super) async fn knows(
        &self,
        store: &dyn Store,
        peer: PeerId,
        awake: bool,
    ) -> Result<bool, StoreError> {
        if self.is_blocked(peer) || self.is_stranger(peer) {
            return Ok(false);
        }
        Ok(awake || is_known(store, peer).await?)
    }

    /// Lets one more stranger in if there is room for one.
    async fn take_in(
        &self,
        store: &dyn Store,
        peer: PeerId,
        awake: impl Fn() -> bool,
    ) -> Result<bool, StoreError> {
        let _turn = self.turn().await?;
        // What was decided while others had their turn.
        if self.is_blocked(peer) {
            return Ok(false);
        }
        if self.is_stranger(peer) || awake() || is_known(store, peer).await? {
            return Ok(true);
        }
        if self.peers().strangers.len() >= STRANGERS {
            return Ok(false);
        }
        let mut batch = Batch::new();
        batch.put(Key::Stranger(peer).to_bytes(), Bytes::new());
        store.commit(batch).await?;
        self.peers().strangers.insert(peer);
        Ok(true)
    }

    /// The app accepts a peer: it is a stranger no more. It may be about to become one, if its session
    /// was not awake before.
    pub(super) async fn accept(&self, store: &dyn Store, peer: PeerId) -> Result<(), StoreError> {
        let _turn = self.turn().await?;
        if !self.is_stranger(peer) {
            return Ok(());
        }
        let mut batch = Batch::new();
        batch.delete(Key::Stranger(peer).to_bytes());
        store.commit(batch).await?;
        self.peers().strangers.remove(&peer);
        Ok(())
    }

    /// Writes what was decided about a peer, and goes by it once it is durable.
    pub(crate) async fn decide(
        &self,
        store: &dyn Store,
        peer: PeerId,
        decision: Decision,
    ) -> Result<(), Error> {
        let _turn = self.turn().await?;
        let blocks = matches!(decision, Decision::Trust(Trust::Blocked, _));
        match decision {
            Decision::Trust(Trust::Blocked, _) => {
                if !self.is_blocked(peer) && self.peers().blocked.len() >= BLOCKED_PEERS {
                    return Err(Error::TooManyBlocked);
                }
            }
            Decision::Trust(Trust::Unknown | Trust::Pinned | Trust::Verified, _) => {
                if self.is_blocked(peer) {
                    return Err(Error::Blocked(peer));
                }
            }
            Decision::Unblock => {}
        }
        store.commit(decision.batch(peer)).await?;
        let mut peers = self.peers();
        if blocks {
            peers.blocked.insert(peer);
        } else {
            peers.blocked.remove(&peer);
        }
        if decision.accepts() || blocks {
            peers.strangers.remove(&peer);
        }
        Ok(())
    }

    async fn turn(&self) -> Result<tokio::sync::SemaphorePermit<'_>, StoreError> {
        self.turn.acquire().await.map_err(|_| StoreError::Closed)
    }
}

/// Whether there is a session with this peer, or a decision about it.
async fn is_known(store: &dyn Store, peer: PeerId) -> Result<bool, StoreError> {
    for key in [Key::Session(peer), Key::Trust(peer)] {
        if store.get(key.to_bytes()).await?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The peers that the keys in a range name.
async fn peers_in(
    store: &dyn Store,
    mut range: std::ops::Range<Bytes>,
) -> Result<BTreeSet<PeerId>, StoreError> {
    let limit = ReadLimit {
        records: PAGE,
        bytes: usize::MAX,
    };
    let mut peers = BTreeSet::new();
    loop {
        let rows = store.range(range.clone(), limit).await?;
        let Some((last, _)) = rows.last() else {
            return Ok(peers);
        };
        range.start = [last, &[0][..]].concat().into();
        peers.extend(
            rows.iter()
                .filter_map(|(key, _)| match Key::from_bytes(key) {
                    Ok(Key::Blocked(peer) | Key::Stranger(peer)) => Some(peer),
                    _ => None,
                }),
        );
    }
}

/// What a peer may still make us keep. A stranger's is used up by the packets it sends, and filled
/// again by what the app commits only when its session is loaded anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Allowance {
    /// It is no stranger.
    Unlimited,
    /// A stranger's.
    Left {
        /// Bytes left.
        bytes: u64,
        /// Whether it sent more than that.
        held_back: bool,
    },
}

impl Allowance {
    /// Whether another packet is taken. One that is not stays in the mailbox.
    pub(crate) const fn takes_more(&mut self) -> bool {
        match self {
            Self::Left {
                bytes: 0,
                held_back,
            } => {
                *held_back = true;
                false
            }
            Self::Unlimited | Self::Left { .. } => true,
        }
    }

    /// A packet of this length was taken that is from the peer itself.
    pub(crate) const fn took(&mut self, length: usize) {
        if let Self::Left { bytes, .. } = self {
            *bytes = bytes.saturating_sub(length as u64);
        }
    }

    /// The peer is no stranger any more. Returns whether anything was held back.
    pub(crate) fn lift(&mut self) -> bool {
        let was = std::mem::replace(self, Self::Unlimited);
        matches!(
            was,
            Self::Left {
                held_back: true,
                ..
            }
        )
    }
}

#[cfg(test)]
mod tests {
    use outlive_core::Identity;
    use outlive_storage::MemoryStore;

    use super::*;

    fn peer(n: usize) -> PeerId {
        let mut seed = [7; 32];
        seed[..8].copy_from_slice(&n.to_le_bytes());
        Identity::from_seed(seed).peer_id()
    }

    async fn admission(policy: Strangers, store: &MemoryStore) -> Admission {
        Admission::load(policy, store).await.unwrap()
    }

    #[tokio::test]
    async fn strangers_are_let_in_until_their_places_are_taken() {
        let store = MemoryStore::new();
        let door = admission(Strangers::Accept, &store).await;
        for n in 0..STRANGERS {
            assert!(door.admits(&store, peer(n), || false).await.unwrap(), "{n}");
        }
        assert!(
            !door
                .admits(&store, peer(STRANGERS), || false)
                .await
                .unwrap()
        );
        assert!(
            door.admits(&store, peer(0), || false).await.unwrap(),
            "it has a place"
        );
        // A restart gives no new places.
        let door = admission(Strangers::Accept, &store).await;
        assert!(
            !door
                .admits(&store, peer(STRANGERS), || false)
                .await
                .unwrap()
        );
        door.accept(&store, peer(0)).await.unwrap();
        assert!(
            door.admits(&store, peer(STRANGERS), || false)
                .await
                .unwrap()
        );
        assert!(
            !door
                .admits(&store, peer(STRANGERS + 1), || false)
                .await
                .unwrap()
        );
        let blocked = Decision::Trust(Trust::Blocked, Default::default());
        door.decide(&store, peer(1), blocked).await.unwrap();
        assert!(
            door.admits(&store, peer(STRANGERS + 1), || false)
                .await
                .unwrap()
        );
    }

    #[tokio::test]
    async fn who_is_no_key_is_not_let_in() {
        let no_key = (0..=u8::MAX)
            .map(|n| [n; 32])
            .find(|bytes| PeerId::from_bytes(*bytes).is_err());
        let nobody = no_key.and_then(|bytes| postcard::from_bytes::<PeerId>(&bytes).ok());
        let nobody = nobody.expect("as a relay names a sender");
        let store = MemoryStore::new();
        let door = admission(Strangers::Accept, &store).await;
        assert!(!door.admits(&store, nobody, || false).await.unwrap());
        assert!(!door.is_stranger(nobody), "it takes a place");
        let rows = store.range(
            Key::strangers(),
            ReadLimit {
                records: 1,
                bytes: 1,
            },
        );
        assert_eq!(rows.await.unwrap(), []);
    }

    #[tokio::test]
    async fn a_store_that_fails_refuses_nobody() {
        let store = MemoryStore::new();
        let door = admission(Strangers::KnownOnly, &store).await;
        store.faults().fail_reads(1, &StoreError::Full);
        assert!(door.admits(&store, peer(1), || false).await.is_err());
        let door = admission(Strangers::Accept, &store).await;
        store.faults().fail_commits(1, &StoreError::Full);
        assert!(door.admits(&store, peer(1), || false).await.is_err());
        assert!(!door.is_stranger(peer(1)));
    }

    #[tokio::test]
    async fn a_failed_write_blocks_nobody() {
        let store = MemoryStore::new();
        let door = admission(Strangers::Accept, &store).await;
        store.faults().fail_commits(1, &StoreError::Full);
        let blocked = Decision::Trust(Trust::Blocked, Default::default());
        assert!(door.decide(&store, peer(1), blocked).await.is_err());
        assert!(!door.is_blocked(peer(1)));
    }

    #[test]
    fn a_stranger_s_packets_are_taken_up_to_its_allowance() {
        let mut allowance = Allowance::Left {
            bytes: 100,
            held_back: false,
        };
        for what in ["the first", "the one that reaches the bound"] {
            assert!(allowance.takes_more(), "{what}");
            allowance.took(60);
        }
        assert!(!allowance.takes_more());
        assert!(allowance.lift(), "something was held back");
        allowance.took(usize::MAX);
        assert!(allowance.takes_more());
        assert!(!allowance.lift());
    }
}

//! What a person decides about a peer, and two people comparing their safety number.
//!
//! A peer's id is its key, so nothing on the way can pass one peer off as another. What is left to
//! people is whether an id belongs to whom they mean:
//!
//! ```text
//!   Unknown ── set_trust ──▶ Pinned ── verify ──▶ Verified
//!      └───────── block ───────▶ Blocked ── unblock ──▶ what it was before
//! ```

use outlive_core::record::{Key, Record, TrustLevel, TrustRecord};
use outlive_core::store::{Batch, Store};
use outlive_core::{PeerId, SafetyNumber, WallTime};
use tokio::sync::oneshot;

use crate::error::Error;
use crate::node::{Inner, Node};
use crate::session::Session;
use crate::task::{Command, Input};

/// How far a peer is trusted. It does not change by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Trust {
    /// Nothing was decided.
    #[default]
    Unknown,
    /// It is taken for who it says it is.
    Pinned,
    /// Two people compared its safety number.
    Verified,
    /// It has no session with us: what it sends is refused, for as long as this lasts, and nothing is
    /// sent to it.
    Blocked,
}

/// A decision about one peer, as it is written down.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Decision {
    Trust(Trust, WallTime),
    Unblock,
}

impl Decision {
    pub(crate) fn batch(self, peer: PeerId) -> Batch {
        let mut batch = Batch::new();
        let mut trust = |level, since| {
            let record = TrustRecord { level, since };
            batch.put(Key::Trust(peer).to_bytes(), record.to_bytes());
        };
        match self {
            Self::Trust(Trust::Unknown, _) => batch.delete(Key::Trust(peer).to_bytes()),
            Self::Trust(Trust::Pinned, at) => trust(TrustLevel::Pinned, at),
            Self::Trust(Trust::Verified, at) => trust(TrustLevel::Verified, at),
            Self::Trust(Trust::Blocked, _) => {
                batch.put(Key::Blocked(peer).to_bytes(), Default::default());
                batch.delete(Key::Stranger(peer).to_bytes());
                return batch;
            }
            Self::Unblock => {}
        }
        batch.delete(Key::Blocked(peer).to_bytes());
        if self.accepts() {
            batch.delete(Key::Stranger(peer).to_bytes());
        }
        batch
    }

    /// Whether a peer that was a stranger is none after it.
    pub(crate) const fn accepts(self) -> bool {
        matches!(self, Self::Trust(Trust::Pinned | Trust::Verified, _))
    }
}

/// What was decided about a peer.
pub(crate) async fn trust_of(store: &dyn Store, peer: PeerId) -> Result<Trust, Error> {
    if store.get(Key::Blocked(peer).to_bytes()).await?.is_some() {
        return Ok(Trust::Blocked);
    }
    let Some(record) = store.get(Key::Trust(peer).to_bytes()).await? else {
        return Ok(Trust::Unknown);
    };
    Ok(match TrustRecord::from_bytes(&record)?.level {
        TrustLevel::Pinned => Trust::Pinned,
        TrustLevel::Verified => Trust::Verified,
    })
}

impl Inner {
    async fn decide(&self, peer: PeerId, decision: Decision) -> Result<(), Error> {
        if peer == self.identity.peer_id() {
            return Err(Error::Oneself(peer));
        }
        self.admission.decide(&*self.store, peer, decision).await?;
        if let Some(inputs) = self.inputs_if_awake(peer) {
            let (reply, told) = oneshot::channel();
            let command = Command::Trust { reply };
            // A session that just ended has nobody to tell.
            if inputs.send(Input::Command(command)).await.is_ok() {
                let _ = told.await;
            }
        }
        Ok(())
    }
}

impl Node {
    /// What was decided about a peer. Cancellation-safe: it only reads.
    ///
    /// # Errors
    /// [`Error::Store`] or [`Error::Record`].
    pub async fn trust(&self, peer: PeerId) -> Result<Trust, Error> {
        trust_of(&*self.inner().store, peer).await
    }

    /// Decides about a peer. Returns once that is durable and its session goes by it. Of a blocked peer
    /// nothing is decided before it is [unblocked](Self::unblock).
    ///
    /// Dropped half-way, it may or may not be decided, or be on disk and hold from the next start on:
    /// call it again.
    ///
    /// # Errors
    /// [`Error::Oneself`], [`Error::Blocked`], [`Error::TooManyBlocked`], or a failure of the store.
    pub async fn set_trust(&self, peer: PeerId, trust: Trust) -> Result<(), Error> {
        let now = self.inner().clock.now().wall;
        let decision = Decision::Trust(trust, now);
        self.inner().decide(peer, decision).await
    }

    /// Blocks a peer: its session is closed and can't be opened, what it sends is refused, and nothing
    /// is sent to it. What waits for it stays on disk. Survives restarts. Dropped half-way as
    /// [`set_trust`](Self::set_trust).
    ///
    /// Nothing of what it sends is kept here or in our mailbox, but its sender has it still: what is sent
    /// meanwhile comes once the peer is unblocked and its session opened, if its time is not over by
    /// then. The peer hears that it is not accepted, and can see at our relay when we are there.
    ///
    /// # Errors
    /// As [`set_trust`](Self::set_trust), but for [`Error::Blocked`]: a peer that is blocked stays so.
    pub async fn block(&self, peer: PeerId) -> Result<(), Error> {
        self.set_trust(peer, Trust::Blocked).await
    }

    /// Unblocks a peer. It is trusted as it was before; its session has to be opened anew, and brings
    /// what the peer sent meanwhile and still has. Dropped half-way as [`set_trust`](Self::set_trust).
    ///
    /// # Errors
    /// [`Error::Oneself`], or a failure of the store.
    pub async fn unblock(&self, peer: PeerId) -> Result<(), Error> {
        self.inner().decide(peer, Decision::Unblock).await
    }

    /// The number to compare with a peer. Hashes for about a millisecond.
    #[must_use]
    pub fn safety_number(&self, peer: PeerId) -> SafetyNumber {
        SafetyNumber::of(self.peer_id(), peer)
    }

    /// The peers that opened a session by themselves and wait to be accepted: by
    /// [`session`](Self::session), [`set_trust`](Self::set_trust) or [`block`](Self::block).
    #[must_use]
    pub fn strangers(&self) -> Vec<PeerId> {
        self.inner().admission.strangers()
    }
}

impl Session {
    /// The number to compare with the peer. Hashes for about a millisecond.
    #[must_use]
    pub fn safety_number(&self) -> SafetyNumber {
        let own = self.route().inner().identity.peer_id();
        SafetyNumber::of(own, self.peer())
    }

    /// Marks the peer as verified, given the number that its person sees on the other device. Dropped
    /// half-way as [`Node::set_trust`].
    ///
    /// # Errors
    /// [`Error::SafetyNumber`] if it is another, and [`Error::Blocked`] if the peer is blocked, and then
    /// nothing changes; else as [`Node::set_trust`].
    pub async fn verify(&self, theirs: &SafetyNumber) -> Result<(), Error> {
        if *theirs != self.safety_number() {
            return Err(Error::SafetyNumber);
        }
        let inner = self.route().inner();
        let decision = Decision::Trust(Trust::Verified, inner.clock.now().wall);
        inner.decide(self.peer(), decision).await
    }
}

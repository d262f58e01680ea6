//! The sessions in a store.

use outlive_core::PeerId;
use outlive_core::record::{Key, Record, Session as SessionRecord};
use outlive_core::seal::Keys;
use outlive_core::store::{ReadLimit, Store, refuse_locked};

use crate::error::Error;
use crate::trust::{Trust, trust_of};

/// A peer we have a session with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionInfo {
    /// The peer.
    pub peer: PeerId,
    /// The session as it is on disk, but for its keys: they are not for looking at.
    pub record: SessionRecord,
    /// What was decided about the peer.
    pub trust: Trust,
}

/// Up to `limit` of the sessions in a store, from behind `after` on. For tools that look into a
/// store without starting a node. Cancellation-safe: it only reads.
///
/// # Errors
/// [`Error::Store`], also if the store is encrypted and was not unlocked, or [`Error::Record`].
pub async fn list_sessions(
    store: &dyn Store,
    after: Option<PeerId>,
    limit: usize,
) -> Result<Vec<SessionInfo>, Error> {
    refuse_locked(store).await?;
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
            let record = SessionRecord::from_bytes(&value)?;
            sessions.push(SessionInfo {
                peer,
                record: SessionRecord {
                    keys: Keys::default(),
                    ..record
                },
                trust: trust_of(store, peer).await?,
            });
        }
    }
    Ok(sessions)
}

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
    let mut sessions = Vec::new();
    // What is no session of anybody does not end a page: whoever asks takes an empty one for the end.
    while sessions.len() < limit {
        let limit = ReadLimit {
            records: limit.saturating_sub(sessions.len()),
            bytes: usize::MAX,
        };
        let rows = store.range(range.clone(), limit).await?;
        let Some((last, _)) = rows.last() else {
            break;
        };
        range.start = [last, &[0][..]].concat().into();
        for (key, value) in rows {
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
    }
    Ok(sessions)
}

#[cfg(test)]
mod tests {
    use outlive_core::store::Batch;
    use outlive_core::{Epoch, Identity};
    use outlive_storage::MemoryStore;

    use super::*;

    #[tokio::test]
    async fn a_page_does_not_end_at_what_is_no_session_of_anybody() {
        let store = MemoryStore::new();
        let record = SessionRecord::new(Epoch(1)).to_bytes();
        let mut batch = Batch::new();
        let nobody = (0..=u8::MAX)
            .filter(|n| PeerId::from_bytes([*n; 32]).is_err())
            .filter_map(|n| postcard::from_bytes(&[n; 32]).ok());
        let peers = (0..20).map(|n| Identity::from_seed([n; 32]).peer_id());
        for peer in nobody.chain(peers.clone()) {
            batch.put(Key::Session(peer).to_bytes(), record.clone());
        }
        store.commit(batch).await.unwrap();
        let mut listed = Vec::new();
        loop {
            let page = list_sessions(&store, listed.last().copied(), 3)
                .await
                .unwrap();
            assert!(page.len() <= 3);
            let Some(_) = page.last() else { break };
            listed.extend(page.into_iter().map(|session| session.peer));
        }
        let mut peers: Vec<_> = peers.collect();
        peers.sort_unstable();
        assert_eq!(listed, peers);
    }
}

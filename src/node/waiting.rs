//! What waited for the app before this start.

use bytes::Bytes;
use outlive_core::record::{Key, Record, Session as SessionRecord};
use outlive_core::store::{ReadLimit, StoreError};
use outlive_core::{ChannelId, PeerId, Position};
use tracing::warn;

use super::Inner;
use crate::task::STORE_RETRY;

/// The first of what is left.
const ONE: ReadLimit = ReadLimit {
    records: 1,
    bytes: usize::MAX,
};

/// Sessions read at once.
const PAGE: ReadLimit = ReadLimit {
    records: 256,
    bytes: 1 << 20,
};

impl Inner {
    /// Tells the app of the peers whose messages wait from before the start.
    pub(super) async fn announce_waiting(&self) {
        loop {
            let announced = match self.announce_from_inboxes().await {
                // One message can't be read. It is for who takes it to see, and hides no other.
                Err(StoreError::Damaged { .. }) => self.announce_from_sessions().await,
                announced => announced,
            };
            let Err(error) = announced else { return };
            warn!(%error, "what waited before the start can't be read");
            if let StoreError::Damaged { .. } = error {
                // It stays so, and would be announced again and again up to there.
                return;
            }
            tokio::time::sleep(STORE_RETRY).await;
        }
    }

    /// Reads one message of each peer, however many wait and however many sessions there are.
    async fn announce_from_inboxes(&self) -> Result<(), StoreError> {
        let mut left = Key::inboxes();
        while let Some((key, _)) = self.store.range(left.clone(), ONE).await?.pop() {
            left.start = match Key::from_bytes(&key) {
                Ok(Key::Inbox(peer, channel, _)) if channel.is_for_apps() => {
                    self.message_arrived(peer);
                    behind(peer, ChannelId(u16::MAX))
                }
                Ok(Key::Inbox(peer, channel, _)) => behind(peer, channel),
                // Nothing of ours.
                _ => [&key, &[0][..]].concat().into(),
            };
        }
        Ok(())
    }

    /// Reads every session, and no message.
    async fn announce_from_sessions(&self) -> Result<(), StoreError> {
        let mut left = Key::sessions();
        loop {
            let rows = self.store.range(left.clone(), PAGE).await?;
            let Some((last, _)) = rows.last() else {
                return Ok(());
            };
            left.start = [last, &[0][..]].concat().into();
            for (key, record) in rows {
                let (Ok(Key::Session(peer)), Ok(session)) =
                    (Key::from_bytes(&key), SessionRecord::from_bytes(&record))
                else {
                    continue;
                };
                let mut inboxes = session.inboxes.iter();
                if inboxes.any(|(channel, inbox)| channel.is_for_apps() && inbox.messages > 0) {
                    self.message_arrived(peer);
                }
            }
        }
    }
}

/// Behind all that waits in a channel.
fn behind(peer: PeerId, channel: ChannelId) -> Bytes {
    let last = Key::Inbox(peer, channel, Position(u64::MAX)).to_bytes();
    [&last, &[0][..]].concat().into()
}

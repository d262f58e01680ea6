//! What waited for the app before this start.

use bytes::Bytes;
use outlive_core::record::Key;
use outlive_core::store::{ReadLimit, StoreError};
use outlive_core::{ChannelId, PeerId, Position};

use super::Inner;

/// The first of what is left.
const ONE: ReadLimit = ReadLimit {
    records: 1,
    bytes: usize::MAX,
};

/// Whether what waits in an inbox waits for the app, and not for the library.
const fn is_the_apps(channel: ChannelId) -> bool {
    channel.0 == ChannelId::FILES.0 || channel.is_for_apps()
}

impl Inner {
    /// Tells the app of the peers whose messages wait from before the start. Reads one key of each.
    pub(super) async fn announce_waiting(&self) -> Result<(), StoreError> {
        let mut left = Key::inboxes();
        while let Some((key, _)) = self.store.range(left.clone(), ONE).await?.pop() {
            left.start = match Key::from_bytes(&key) {
                Ok(Key::Inbox(peer, channel, _)) if is_the_apps(channel) => {
                    if !self.admission.is_blocked(peer) {
                        self.message_arrived(peer);
                    }
                    behind(peer, ChannelId(u16::MAX))
                }
                Ok(Key::Inbox(peer, channel, _)) => behind(peer, channel),
                // Nothing of ours.
                _ => [&key, &[0][..]].concat().into(),
            };
        }
        Ok(())
    }
}

/// Behind all that waits in a channel.
fn behind(peer: PeerId, channel: ChannelId) -> Bytes {
    let last = Key::Inbox(peer, channel, Position(u64::MAX)).to_bytes();
    [&last, &[0][..]].concat().into()
}

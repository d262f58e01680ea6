//! What is queued for a peer, as a person counts it: messages, and bytes of files.
//!
//! The record of a session counts segments, those of messages that have ended among them, until the
//! peer has passed them. So the outbox itself is looked at here.

use anyhow::Result;
use outlive::record::{Key, OutboxRecord, OutboxState, Record, RecordError, SendingFileRecord};
use outlive::{ChannelId, PeerId, Position, SENDING_FILES, SessionInfo, Store, StoreError, limits};
use outlive_core::store::ReadLimit;
use outlive_core::wire::file::FileMessage;

/// Read at once.
const PAGE: ReadLimit = ReadLimit {
    records: 1_024,
    bytes: 1024 * 1024,
};

/// Bytes of a session's outbox that are looked at. What lies behind them is not counted: whoever asks
/// is not to wait for gigabytes to be read.
const LOOKED_AT: usize = 64 * 1024 * 1024;

#[derive(Default)]
pub(crate) struct Queue {
    pub(crate) messages: u64,
    pub(crate) bytes: u64,
    pub(crate) files: u64,
    /// Bytes of them that the peer has not acknowledged.
    pub(crate) file_bytes: u64,
    /// There is more, which was not counted.
    pub(crate) more: bool,
}

impl Queue {
    /// What is queued in a session; `None` where what is on disk of that can't be read.
    pub(crate) async fn of(store: &dyn Store, info: &SessionInfo) -> Result<Option<Self>> {
        match Self::count(store, info).await {
            Ok(queue) => Ok(Some(queue)),
            // Other sessions are none the worse for it.
            Err(error) if is_unreadable(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn count(store: &dyn Store, info: &SessionInfo) -> Result<Self> {
        let mut queue = Self::default();
        let mut looked_at = 0_usize;
        for (&channel, out) in &info.record.out {
            // What the library says for itself is no message of anybody's.
            let own = matches!(channel, ChannelId::SIGNALING | ChannelId::FILE_REPLIES);
            if own || out.low >= out.next {
                continue;
            }
            if channel == ChannelId::FILES {
                queue.files = files(store, info.peer).await?;
            }
            let mut range = Key::outbox(info.peer, channel, out.low, out.next);
            loop {
                let rows = store.range(range.clone(), PAGE).await?;
                let Some((last, _)) = rows.last() else { break };
                range.start = [last, &[0][..]].concat().into();
                for (key, value) in rows {
                    looked_at = looked_at.saturating_add(value.len());
                    let Ok(Key::Outbox(_, _, at)) = Key::from_bytes(&key) else {
                        continue;
                    };
                    queue.add(&OutboxRecord::from_bytes(&value)?, channel, at, out.low);
                }
                if looked_at >= LOOKED_AT {
                    queue.more = true;
                    return Ok(queue);
                }
            }
        }
        Ok(queue)
    }

    fn add(&mut self, record: &OutboxRecord, channel: ChannelId, at: Position, low: Position) {
        // That one comes, say, or that one is known to have come.
        let tells_of_a_file =
            || channel == ChannelId::FILES && FileMessage::decode(&record.payload).is_ok();
        match record.state {
            OutboxState::Live if !tells_of_a_file() => {
                self.messages += u64::from(record.is_last());
                self.bytes = self.bytes.saturating_add(record.payload.len() as u64);
            }
            OutboxState::External(part) => {
                // It stands for all its segments, some of which may be acknowledged.
                let left = at.next().since(low).min(u64::from(record.count));
                let there = u64::from(record.count).saturating_sub(left);
                let there = there.saturating_mul(limits::SEGMENT_BYTES as u64);
                let whole = part.length.saturating_add(record.payload.len() as u64);
                let left = whole.saturating_sub(there).min(part.length);
                self.file_bytes = self.file_bytes.saturating_add(left);
            }
            OutboxState::Live | OutboxState::Tombstone => {}
        }
    }
}

/// Whether the bytes on disk are the reason, and not that the disk or the store is out of reach.
fn is_unreadable(error: &anyhow::Error) -> bool {
    let damaged = |error| matches!(error, &StoreError::Damaged { .. });
    error.is::<RecordError>() || error.downcast_ref().is_some_and(damaged)
}

/// How many files are on their way to a peer.
async fn files(store: &dyn Store, peer: PeerId) -> Result<u64> {
    let limit = ReadLimit {
        records: SENDING_FILES,
        bytes: usize::MAX,
    };
    let mut going = 0;
    for (_, row) in store.range(Key::sending_files(peer), limit).await? {
        let file = SendingFileRecord::from_bytes(&row)?;
        // Of one that was given up the peer may have to be told yet.
        going += u64::from(file.state.stopped().is_none());
    }
    Ok(going)
}

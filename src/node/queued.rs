//! What is queued for a peer, as a person counts it: messages, and bytes of files.
//!
//! The record of a session counts segments, those of messages that have ended among them, until the
//! peer has passed them. So the outbox itself is looked at here.

use outlive_core::record::{
    Key, OutboxRecord, OutboxState, Record, SendingFileRecord, Session as SessionRecord,
};
use outlive_core::store::{ReadLimit, Store, refuse_locked};
use outlive_core::wire::file::FileMessage;
use outlive_core::{ChannelId, PeerId, Position, limits};

use crate::error::Error;
use crate::files::SENDING_FILES;

/// Read at once.
const PAGE: ReadLimit = ReadLimit {
    records: 1_024,
    bytes: 1024 * 1024,
};

/// Bytes of a session's outbox that are looked at. What lies behind them is not counted: whoever asks
/// is not to wait for gigabytes to be read.
const LOOKED_AT: usize = 64 * 1024 * 1024;

/// What is queued for a peer: what it has not acknowledged, and has not ended otherwise. Requests and
/// their answers are messages too; what the library says for itself, about links and files, is not counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Queued {
    /// Messages, as the app sent them.
    pub messages: u64,
    /// Bytes of their segments that the peer has not acknowledged.
    pub bytes: u64,
    /// Files on their way.
    pub files: u64,
    /// Bytes of them that the peer has not acknowledged.
    pub file_bytes: u64,
    /// There may be more, which was not counted.
    pub more: bool,
}

/// What is queued for a peer, nothing if there is no session with it. For tools that look into a store
/// without starting a node; with one, [`Node::queued`](crate::Node::queued) says the same.
///
/// It is counted anew each time: the outbox is read from the disk, with the payloads of its messages, about a
/// mebibyte at a time, until 64 MiB were looked at. What lies behind these is left out, and
/// [`more`](Queued::more) says so. Of files no content is read. What is sent or acknowledged meanwhile may be
/// counted or not. Cancellation-safe: it only reads.
///
/// # Errors
/// [`Error::Store`], also if the store is encrypted and was not unlocked, or [`Error::Record`].
pub async fn queued_for(store: &dyn Store, peer: PeerId) -> Result<Queued, Error> {
    refuse_locked(store).await?;
    let mut queued = Queued::default();
    let Some(session) = store.get(Key::Session(peer).to_bytes()).await? else {
        return Ok(queued);
    };
    let mut looked_at = 0_usize;
    for (channel, out) in SessionRecord::from_bytes(&session)?.out {
        // What the library says for itself is no message of anybody's.
        let own = matches!(channel, ChannelId::SIGNALING | ChannelId::FILE_REPLIES);
        if own || out.low >= out.next {
            continue;
        }
        if channel == ChannelId::FILES {
            queued.files = files(store, peer).await?;
        }
        let mut range = Key::outbox(peer, channel, out.low, out.next);
        loop {
            let rows = store.range(range.clone(), PAGE).await?;
            let Some((last, _)) = rows.last() else { break };
            range.start = [last, &[0][..]].concat().into();
            for (key, value) in rows {
                looked_at = looked_at.saturating_add(value.len());
                let Ok(Key::Outbox(_, _, at)) = Key::from_bytes(&key) else {
                    continue;
                };
                queued.add(&OutboxRecord::from_bytes(&value)?, channel, at, out.low);
            }
            if looked_at >= LOOKED_AT {
                queued.more = true;
                return Ok(queued);
            }
        }
    }
    Ok(queued)
}

impl Queued {
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

/// How many files are on their way to a peer.
async fn files(store: &dyn Store, peer: PeerId) -> Result<u64, Error> {
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

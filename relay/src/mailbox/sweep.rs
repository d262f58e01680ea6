//! Removing what has expired.

use outlive_core::store::ReadLimit;
use tracing::warn;

use super::{Step, Writer, now};
use crate::records;

/// Envelopes of peers, and as many in slots, removed in one step because their time is over. If
/// there are more, the next step follows when the requests that wait have had their turn.
pub(super) const SWEEP: usize = 1_024;

impl Writer {
    /// Removes a bounded part of what has expired. Says whether there may be more of it; not if the
    /// store failed, which needs time.
    pub(super) async fn sweep(&mut self) -> bool {
        let limit = ReadLimit {
            records: SWEEP,
            bytes: usize::MAX,
        };
        let mut rows = Vec::new();
        let mut more = false;
        for range in records::expired(now()) {
            match self.store.range(range, limit).await {
                Ok(found) => {
                    more |= found.len() >= SWEEP;
                    rows.extend(found);
                }
                Err(error) => {
                    warn!(%error, "the store can't be searched for what has expired");
                    return false;
                }
            }
        }
        let mut step = Step::default();
        for (key, _) in rows {
            if let Some((recipient, sender, number)) = records::expiring(&key)
                && let Err(error) = self.remove(&mut step, recipient, sender, number).await
            {
                // It stays, and the rest goes.
                step.unread = Some(error);
                continue;
            }
            step.batch.delete(key);
        }
        // If nothing could be read, the next sweep would find the same.
        let some_go = !step.batch.is_empty();
        self.commit(step).await && more && some_go
    }
}

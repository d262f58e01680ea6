//! Removing what has expired.

use bytes::Bytes;
use outlive_core::store::ReadLimit;
use tracing::warn;

use super::{Step, Writer};
use crate::records;

/// Envelopes of peers, and as many in slots, removed in one step because their time is over. If
/// there are more, the next step follows when the requests that wait have had their turn.
pub(super) const SWEEP: usize = 1_024;

impl Writer {
    /// Removes a bounded part of what has expired. Says whether there may be more of it; not if the
    /// store failed, which needs time.
    pub(super) async fn sweep(&mut self) -> bool {
        let more = self.sweep_on().await;
        if !more {
            self.swept = <[Bytes; 2]>::default();
        }
        more
    }

    /// Goes on where the last part ended, so that what can't be removed holds up nothing behind it.
    async fn sweep_on(&mut self) -> bool {
        let limit = ReadLimit {
            records: SWEEP,
            bytes: usize::MAX,
        };
        let mut rows = Vec::new();
        let mut more = false;
        for (range, swept) in records::expired(self.clock.now().0)
            .into_iter()
            .zip(&mut self.swept)
        {
            // A sweep that goes on may have come beyond the end since a store was restored.
            let start = range.start.max(swept.clone()).min(range.end.clone());
            match self.store.range(start..range.end, limit).await {
                Ok(found) => {
                    more |= found.len() >= SWEEP;
                    if let Some((last, _)) = found.last() {
                        *swept = [last, &[0][..]].concat().into();
                    }
                    rows.extend(found);
                }
                Err(error) => {
                    warn!(%error, "the store can't be searched for what has expired");
                    return false;
                }
            }
        }
        let mut step = Step::default();
        if self.health.failure().is_some() {
            // Nobody may come to a relay that is told to be failing, and show that it is not.
            self.renumber(&mut step);
        }
        self.remove_expired(&mut step, rows).await;
        let clock = self.clock.unwritten();
        if let Some(record) = &clock {
            let key = Bytes::from_static(records::CLOCK);
            step.batch.put(key, records::to_value(record));
        }
        let written = self.commit(step).await;
        if let Some(record) = clock.filter(|_| written) {
            self.clock.written(&record);
        }
        written && more
    }

    /// Before a mailbox refuses because it is full: what has expired counts until it is removed. Once a
    /// step, and no more than a sweep takes, from the oldest on. Says whether anything was looked at.
    pub(super) async fn sweep_early(&mut self, step: &mut Step) -> bool {
        if std::mem::replace(&mut step.swept_early, true) {
            return false;
        }
        let limit = ReadLimit {
            records: SWEEP,
            bytes: usize::MAX,
        };
        let mut rows = Vec::new();
        for range in records::expired(self.clock.now().0) {
            match self.store.range(range, limit).await {
                Ok(found) => rows.extend(found),
                Err(error) => step.unread = Some(error),
            }
        }
        let found = !rows.is_empty();
        self.remove_expired(step, rows).await;
        found
    }

    async fn remove_expired(&mut self, step: &mut Step, rows: Vec<(Bytes, Bytes)>) {
        for (key, _) in rows {
            if let Some((recipient, sender, number)) = records::expiring(&key)
                && let Err(error) = self.remove(step, recipient, sender, number).await
            {
                // It stays, and the rest goes.
                step.unread = Some(error);
                continue;
            }
            step.batch.delete(key);
        }
    }
}

//! The one place where the runtime asks what time it is.

use std::time::Duration;

use bytes::Bytes;
use outlive_core::Now;
use outlive_core::record::{ClockRecord, Record};
use outlive_core::store::{Batch, Store};
use outlive_storage::StoreClock;
use tokio::time::Instant;
use tracing::debug;

use crate::error::Error;
use crate::task::STORE_RETRY;

/// Where it is kept where the store's own clock stood.
const CLOCK_KEY: &[u8] = b"n/clock";

/// A clock that counts from the node's start, beside the store's own.
#[derive(Debug)]
pub(crate) struct Clock {
    start: Instant,
    store: StoreClock,
}

impl Clock {
    pub(crate) async fn load(store: &dyn Store) -> Result<Self, Error> {
        let value = store.get(Bytes::from_static(CLOCK_KEY)).await?;
        let record = value.as_deref().map(ClockRecord::from_bytes).transpose();
        Ok(Self {
            start: Instant::now(),
            store: StoreClock::resume(record?),
        })
    }

    pub(crate) fn now(&self) -> Now {
        let (store, wall) = self.store.now();
        Now {
            elapsed: self.start.elapsed(),
            store,
            wall,
        }
    }

    /// The moment at which `elapsed` has passed.
    pub(crate) fn at(&self, elapsed: Duration) -> Instant {
        self.start + elapsed
    }

    /// Has the batch write down where the store's clock stands.
    pub(crate) fn put(&self, batch: &mut Batch) -> ClockRecord {
        let record = self.store.record();
        put(batch, &record);
        record
    }

    /// That is in the store.
    pub(crate) fn written(&self, record: &ClockRecord) {
        self.store.written(record);
    }

    /// Writes that down again whenever the wall clock was set.
    pub(crate) async fn keep(&self, store: &dyn Store) {
        loop {
            self.store.outdated().await;
            let Some(record) = self.store.unwritten() else {
                continue;
            };
            let mut batch = Batch::new();
            put(&mut batch, &record);
            match store.commit(batch).await {
                Ok(()) => self.written(&record),
                Err(error) => {
                    debug!(%error, "where the store's clock stands can't be written");
                    tokio::time::sleep(STORE_RETRY).await;
                }
            }
        }
    }
}

fn put(batch: &mut Batch, record: &ClockRecord) {
    batch.put(Bytes::from_static(CLOCK_KEY), record.to_bytes());
}

#[cfg(test)]
mod tests {
    use outlive_core::WallTime;
    use outlive_core::store::StoreError;
    use outlive_storage::MemoryStore;

    use super::*;

    const HOUR: Duration = Duration::from_secs(3_600);

    #[tokio::test(start_paused = true)]
    async fn it_is_written_down_when_the_wall_clock_was_set_also_by_a_store_that_fails_first() {
        let store = MemoryStore::new();
        let clock = Clock::load(&store).await.unwrap();
        let mut before = clock.store.record();
        before.machine.wall = WallTime(0).plus(HOUR);
        clock.store.written(&before);
        store.faults().fail_commits(1, &StoreError::Full);
        let tells = async {
            while store.faults().counts().commits == 0 {
                let _ = clock.now();
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        };
        tokio::select! {
            () = clock.keep(&store) => {}
            () = tells => {}
        }
        assert!(clock.store.unwritten().is_none());
        let value = store.get(Bytes::from_static(CLOCK_KEY)).await.unwrap();
        let record = ClockRecord::from_bytes(&value.unwrap()).unwrap();
        let (now, written) = (clock.store.record(), record.machine.wall);
        assert!(written.until(now.machine.wall) < HOUR && now.machine.wall >= written);
    }
}

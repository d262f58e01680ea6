//! A store that counts what is read from it, and lets commits through one by one when it is told
//! to.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use outlive::{Store, StoreError};
use outlive_core::store::{Batch, ReadLimit};
use outlive_storage::MemoryStore;
use tokio::sync::{Semaphore, watch};

use crate::world::soon;

/// A memory store under watch. Clones are handles to the same one.
#[derive(Clone)]
pub(crate) struct Watched {
    inner: MemoryStore,
    shared: Arc<Shared>,
}

struct Shared {
    gets: AtomicUsize,
    ranges: AtomicUsize,
    records: AtomicUsize,
    gets_held: watch::Sender<bool>,
    gated: AtomicBool,
    gate: Semaphore,
    /// Commits that wait at the gate.
    waiting: watch::Sender<usize>,
    /// Commits that were let through.
    passed: watch::Sender<usize>,
}

/// What was read so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reads {
    /// Single records asked for.
    pub(crate) gets: usize,
    /// Ranges asked for.
    pub(crate) ranges: usize,
    /// Records that came back from ranges.
    pub(crate) records: usize,
}

impl Watched {
    pub(crate) fn over(inner: MemoryStore) -> Self {
        Self {
            inner,
            shared: Arc::new(Shared {
                gets: AtomicUsize::new(0),
                ranges: AtomicUsize::new(0),
                records: AtomicUsize::new(0),
                gets_held: watch::Sender::new(false),
                gated: AtomicBool::new(false),
                gate: Semaphore::new(0),
                waiting: watch::Sender::new(0),
                passed: watch::Sender::new(0),
            }),
        }
    }

    pub(crate) fn reads(&self) -> Reads {
        let of = |count: &AtomicUsize| count.load(Ordering::SeqCst);
        Reads {
            gets: of(&self.shared.gets),
            ranges: of(&self.shared.ranges),
            records: of(&self.shared.records),
        }
    }

    /// Whether reads of single records wait.
    pub(crate) fn hold_gets(&self, held: bool) {
        self.shared.gets_held.send_replace(held);
    }

    /// From now on a commit waits until it is let through.
    pub(crate) fn gate(&self) {
        self.shared.gated.store(true, Ordering::SeqCst);
    }

    pub(crate) fn let_through(&self, commits: usize) {
        self.shared.gate.add_permits(commits);
    }

    /// Lets one commit through, and waits until it has passed.
    pub(crate) async fn let_one_through(&self) {
        let mut passed = self.shared.passed.subscribe();
        let before = *passed.borrow();
        self.let_through(1);
        soon("a commit to pass", passed.wait_for(|&count| count > before))
            .await
            .expect("the store lives");
    }

    /// Waits until so many commits wait at the gate.
    pub(crate) async fn at_the_gate(&self, commits: usize) {
        let mut waiting = self.shared.waiting.subscribe();
        soon(
            "commits at the gate",
            waiting.wait_for(|&count| count == commits),
        )
        .await
        .expect("the store lives");
    }
}

#[async_trait]
impl Store for Watched {
    async fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        if self.shared.gated.load(Ordering::SeqCst) {
            self.shared.waiting.send_modify(|count| *count += 1);
            self.shared
                .gate
                .acquire()
                .await
                .expect("the gate stays")
                .forget();
            self.shared.waiting.send_modify(|count| *count -= 1);
            self.shared.passed.send_modify(|count| *count += 1);
        }
        self.inner.commit(batch).await
    }

    async fn get(&self, key: Bytes) -> Result<Option<Bytes>, StoreError> {
        self.shared.gets.fetch_add(1, Ordering::SeqCst);
        let mut held = self.shared.gets_held.subscribe();
        let let_go = held.wait_for(|held| !held).await;
        drop(let_go.expect("the store lives"));
        // Others go on meanwhile.
        tokio::task::yield_now().await;
        self.inner.get(key).await
    }

    async fn range(
        &self,
        range: Range<Bytes>,
        limit: ReadLimit,
    ) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        self.shared.ranges.fetch_add(1, Ordering::SeqCst);
        let rows = self.inner.range(range, limit).await?;
        self.shared.records.fetch_add(rows.len(), Ordering::SeqCst);
        Ok(rows)
    }

    async fn close(&self) -> Result<(), StoreError> {
        self.inner.close().await
    }
}

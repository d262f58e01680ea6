//! What the handles of a memory store share. Every step is taken under the lock and none waits.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use outlive_core::store::{Batch, StoreError};
use tokio::sync::oneshot;

use super::{Counts, Flush};

/// Commits that may wait to be released or flushed; one more fails with [`StoreError::Full`].
const MAX_WAITING: usize = 1 << 16;

pub(super) type Records = BTreeMap<Bytes, Bytes>;
type Outcome = Result<(), StoreError>;

#[derive(Debug)]
pub(super) struct Shared {
    state: Mutex<State>,
}

impl Shared {
    pub(super) const fn new(records: Records, flush: Flush) -> Self {
        Self {
            state: Mutex::new(State::new(records, flush)),
        }
    }

    // Nothing panics under this lock; the state behind it is whole at any time.
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug)]
struct Waiting {
    batch: Batch,
    answer: oneshot::Sender<Outcome>,
}

#[derive(Debug)]
pub(super) struct State {
    flush: Flush,
    /// What reads see.
    live: Records,
    /// What a crash leaves. `None` while it is the same as `live`.
    durable: Option<Records>,
    /// Commits that are not visible yet, because the store is held.
    held: VecDeque<Waiting>,
    /// Commits that are visible and not durable.
    unflushed: VecDeque<Waiting>,
    holds: usize,
    fail_commits: VecDeque<StoreError>,
    /// By a key that a commit writes.
    fail_writes: Vec<(Bytes, StoreError)>,
    fail_reads: VecDeque<StoreError>,
    closed: bool,
    pub(super) counts: Counts,
}

impl State {
    const fn new(live: Records, flush: Flush) -> Self {
        Self {
            flush,
            live,
            durable: None,
            held: VecDeque::new(),
            unflushed: VecDeque::new(),
            holds: 0,
            fail_commits: VecDeque::new(),
            fail_writes: Vec::new(),
            fail_reads: VecDeque::new(),
            closed: false,
            counts: Counts {
                commits: 0,
                flushes: 0,
                waiting: 0,
            },
        }
    }

    pub(super) const fn flush_mode(&self) -> Flush {
        self.flush
    }

    /// Takes a batch in; the receiver tells when it is durable.
    pub(super) fn commit(
        &mut self,
        batch: Batch,
    ) -> Result<oneshot::Receiver<Outcome>, StoreError> {
        if self.closed {
            return Err(StoreError::Closed);
        }
        if self.waiting() >= MAX_WAITING {
            return Err(StoreError::Full);
        }
        let (answer, answered) = oneshot::channel();
        self.held.push_back(Waiting { batch, answer });
        self.proceed();
        Ok(answered)
    }

    /// What reads see, unless a read is to fail.
    pub(super) fn readable(&mut self) -> Result<&Records, StoreError> {
        if self.closed {
            return Err(StoreError::Closed);
        }
        self.fail_reads.pop_front().map_or(Ok(&self.live), Err)
    }

    /// Makes all visible commits durable and answers them. How many there were.
    pub(super) fn flush(&mut self) -> usize {
        if self.unflushed.is_empty() {
            return 0;
        }
        self.durable = None;
        self.counts.flushes = self.counts.flushes.saturating_add(1);
        let flushed = self.unflushed.len();
        for waiting in self.unflushed.drain(..) {
            self.counts.commits = self.counts.commits.saturating_add(1);
            // Nobody listens if the commit was dropped half-way.
            let _ = waiting.answer.send(Ok(()));
        }
        flushed
    }

    /// Makes everything durable, what is held back too, and ends.
    pub(super) fn close(&mut self) -> Outcome {
        if self.closed {
            return Err(StoreError::Closed);
        }
        self.holds = 0;
        self.proceed();
        self.flush();
        self.closed = true;
        Ok(())
    }

    /// Ends with what is durable.
    pub(super) fn crash(&mut self) -> Records {
        self.closed = true;
        // Dropped answers tell the commits that wait that the store is closed.
        self.held.clear();
        self.unflushed.clear();
        if let Some(durable) = self.durable.take() {
            self.live = durable;
        }
        self.live.clone()
    }

    pub(super) fn durable(&self) -> Records {
        self.durable.as_ref().unwrap_or(&self.live).clone()
    }

    pub(super) const fn hold(&mut self) {
        self.holds = self.holds.saturating_add(1);
    }

    pub(super) fn release(&mut self) {
        self.holds = self.holds.saturating_sub(1);
        self.proceed();
    }

    pub(super) fn fail_commits(&mut self, count: usize, error: &StoreError) {
        self.fail_commits
            .extend(std::iter::repeat_n(error.clone(), count));
    }

    pub(super) fn fail_write(&mut self, key: Bytes, error: StoreError) {
        self.fail_writes.push((key, error));
    }

    /// Why a commit of this batch is to fail, if it is.
    fn failure(&mut self, batch: &Batch) -> Option<StoreError> {
        let mut failing = self.fail_writes.iter();
        if let Some(at) = failing.position(|(key, _)| writes(batch, key)) {
            return Some(self.fail_writes.remove(at).1);
        }
        self.fail_commits.pop_front()
    }

    pub(super) fn fail_reads(&mut self, count: usize, error: &StoreError) {
        self.fail_reads
            .extend(std::iter::repeat_n(error.clone(), count));
    }

    pub(super) fn waiting(&self) -> usize {
        self.held.len().saturating_add(self.unflushed.len())
    }

    pub(super) fn writes(&self, key: &[u8]) -> bool {
        let mut waiting = self.held.iter().chain(&self.unflushed);
        waiting.any(|waiting| writes(&waiting.batch, key))
    }

    /// Lets held commits go on, unless they are still held.
    fn proceed(&mut self) {
        if self.holds > 0 {
            return;
        }
        while let Some(waiting) = self.held.pop_front() {
            if let Some(error) = self.failure(&waiting.batch) {
                // As in flush.
                let _ = waiting.answer.send(Err(error));
                continue;
            }
            if self.flush == Flush::OnDemand && self.durable.is_none() {
                self.durable = Some(self.live.clone());
            }
            for (key, value) in waiting.batch.ops() {
                match value {
                    Some(value) => self.live.insert(key.clone(), value.clone()),
                    None => self.live.remove(key),
                };
            }
            self.unflushed.push_back(waiting);
            if self.flush == Flush::EachCommit {
                self.flush();
            }
        }
    }
}

/// Whether a batch writes or deletes this key.
fn writes(batch: &Batch, key: &[u8]) -> bool {
    batch.ops().iter().any(|(written, _)| written == key)
}

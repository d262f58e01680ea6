//! Requests of ours that wait for their answer.

use std::collections::BTreeMap;
use std::sync::Mutex;

use bytes::Bytes;
use outlive_core::RequestId;
use tokio::sync::{Semaphore, SemaphorePermit, oneshot};

use crate::lock::lock;

/// Requests of one session that may wait for their answer. One more waits until another has been
/// answered, has expired or was given up.
pub const PENDING_REQUESTS: usize = 4_096;

/// What came back: the answer, or why there is none in the words of the peer's handler.
pub(crate) type Answer = Result<Bytes, String>;

/// The requests of one session that wait.
#[derive(Debug)]
pub(crate) struct Pending {
    /// Held while a request gets its number and its place in the queue, so that both grow together.
    order: Mutex<()>,
    waiting: Mutex<BTreeMap<RequestId, oneshot::Sender<Answer>>>,
    room: Semaphore,
}

impl Default for Pending {
    fn default() -> Self {
        Self {
            order: Mutex::default(),
            waiting: Mutex::default(),
            room: Semaphore::new(PENDING_REQUESTS),
        }
    }
}

/// A request that waits. Dropped, it is forgotten, and its answer is nobody's.
pub(super) struct Asked<'a> {
    pending: &'a Pending,
    id: RequestId,
    pub(super) answer: oneshot::Receiver<Answer>,
    _room: SemaphorePermit<'a>,
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        lock(&self.pending.waiting).remove(&self.id);
    }
}

impl Pending {
    /// Waits until one more request may wait. Cancellation-safe.
    pub(super) async fn room(&self) -> Option<SemaphorePermit<'_>> {
        self.room.acquire().await.ok()
    }

    /// Has a request wait under a new number, and hands it to `send` before any later one.
    pub(super) fn ask<'a>(
        &'a self,
        room: SemaphorePermit<'a>,
        number: impl FnOnce() -> RequestId,
        send: impl FnOnce(RequestId),
    ) -> Asked<'a> {
        let _order = lock(&self.order);
        let id = number();
        let (sender, answer) = oneshot::channel();
        lock(&self.waiting).insert(id, sender);
        let asked = Asked {
            pending: self,
            id,
            answer,
            _room: room,
        };
        send(id);
        asked
    }

    /// Whether somebody waits for this answer.
    pub(super) fn awaits(&self, id: RequestId) -> bool {
        lock(&self.waiting).contains_key(&id)
    }

    /// Gives an answer to whoever waits for it. Returns whether somebody did.
    pub(super) fn resolve(&self, id: RequestId, answer: Answer) -> bool {
        let waiting = lock(&self.waiting).remove(&id);
        waiting.is_some_and(|waiting| waiting.send(answer).is_ok())
    }

    /// How many requests wait.
    pub(crate) fn len(&self) -> usize {
        lock(&self.waiting).len()
    }
}

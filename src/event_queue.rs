//! Events on their way from the task of a session to whoever takes them as a stream. Never waits: what
//! finds no room is left out, and counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use tokio::sync::mpsc;

/// Events that wait in one stream at most.
const EVENTS: usize = 65_536;

/// A queue for up to `capacity` events.
pub(crate) fn event_queue<T>(capacity: usize) -> (EventSender<T>, EventReceiver<T>) {
    let (sender, receiver) = mpsc::channel(capacity.clamp(1, EVENTS));
    let missed = Arc::new(AtomicU64::new(0));
    let counted = missed.clone();
    (
        EventSender { sender, missed },
        EventReceiver {
            receiver,
            missed: counted,
        },
    )
}

#[derive(Debug)]
pub(crate) struct EventSender<T> {
    sender: mpsc::Sender<T>,
    missed: Arc<AtomicU64>,
}

impl<T> EventSender<T> {
    pub(crate) fn put(&self, event: T) {
        // The state of a session, which is always present, tells what was missed.
        if self.sender.try_send(event).is_err() {
            self.missed.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[derive(Debug)]
pub(crate) struct EventReceiver<T> {
    receiver: mpsc::Receiver<T>,
    missed: Arc<AtomicU64>,
}

impl<T> EventReceiver<T> {
    /// Cancellation-safe.
    pub(crate) async fn next(&mut self) -> Option<T> {
        self.receiver.recv().await
    }

    pub(crate) fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<T>> {
        self.receiver.poll_recv(context)
    }

    pub(crate) fn missed(&self) -> u64 {
        self.missed.load(Ordering::Relaxed)
    }
}

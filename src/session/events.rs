//! What happens to a session, as a stream.

use tokio::sync::mpsc;

use crate::event::SessionEvent;
use crate::state::SessionState;
use crate::subscription::Subscription;

/// Events that wait in one stream at most.
const EVENTS: usize = 65_536;

/// Where the events of a stream wait, up to `capacity` of them.
pub(crate) fn event_queue<T>(capacity: usize) -> (mpsc::Sender<T>, mpsc::Receiver<T>) {
    mpsc::channel(capacity.clamp(1, EVENTS))
}

/// A session's events, as a stream.
#[derive(Debug)]
pub struct Events {
    pub(super) receiver: mpsc::Receiver<(SessionEvent, SessionState)>,
    pub(super) _subscription: Subscription,
}

impl Events {
    /// The next event, with the state as of it; `None` once the session was closed, its peer blocked, or
    /// the node shut down.
    /// Cancellation-safe.
    pub async fn next(&mut self) -> Option<(SessionEvent, SessionState)> {
        self.receiver.recv().await
    }
}

impl futures_util::Stream for Events {
    type Item = (SessionEvent, SessionState);

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        self.receiver.poll_recv(context)
    }
}

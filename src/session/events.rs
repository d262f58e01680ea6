//! What happens to a session, as a stream.

use crate::event::SessionEvent;
use crate::event_queue::EventReceiver;
use crate::state::SessionState;
use crate::subscription::Subscription;

/// A session's events, as a stream.
#[derive(Debug)]
pub struct Events {
    pub(super) receiver: EventReceiver<(SessionEvent, SessionState)>,
    pub(super) _subscription: Subscription,
}

impl Events {
    /// The next event, with the state as of it; `None` once the session was closed, its peer blocked, or
    /// the node shut down.
    /// Cancellation-safe.
    pub async fn next(&mut self) -> Option<(SessionEvent, SessionState)> {
        self.receiver.next().await
    }

    /// How many events found no room and were left out since the stream was made. What they led to, the
    /// state tells.
    #[must_use]
    pub fn missed(&self) -> u64 {
        self.receiver.missed()
    }
}

impl futures_util::Stream for Events {
    type Item = (SessionEvent, SessionState);

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        self.receiver.poll_next(context)
    }
}

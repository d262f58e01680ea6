//! What happens to the sessions of a node, as a stream, and what ends it.

use std::sync::Arc;

use outlive_core::PeerId;

use crate::event::SessionEvent;
use crate::event_queue::EventReceiver;
use crate::state::SessionState;
use crate::subscription::{Registry, Subscription};

/// The events of all sessions of a node, as a stream.
#[derive(Debug)]
pub struct NodeEvents {
    pub(super) receiver: EventReceiver<(PeerId, SessionEvent, SessionState)>,
    pub(super) _subscription: Subscription,
}

impl NodeEvents {
    /// The next event of any session, with its peer and its state as of it; `None` once the node was shut
    /// down. Cancellation-safe.
    pub async fn next(&mut self) -> Option<(PeerId, SessionEvent, SessionState)> {
        self.receiver.next().await
    }

    /// How many events found no room and were left out since the stream was made. What they led to, the
    /// states of the sessions tell.
    #[must_use]
    pub fn missed(&self) -> u64 {
        self.receiver.missed()
    }
}

impl futures_util::Stream for NodeEvents {
    type Item = (PeerId, SessionEvent, SessionState);

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        self.receiver.poll_next(context)
    }
}

/// Ends the callbacks of a node when it is dropped: by the task that has waited for the last session, or
/// with that task, when the runtime is gone.
pub(super) struct LastEvent(pub(super) Arc<Registry>);

impl Drop for LastEvent {
    fn drop(&mut self) {
        self.0.end();
    }
}

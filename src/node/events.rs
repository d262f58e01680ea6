//! What happens to the sessions of a node, as a stream, and what ends it.

use std::sync::Arc;

use outlive_core::PeerId;
use tokio::sync::mpsc;

use crate::event::SessionEvent;
use crate::state::SessionState;
use crate::subscription::{Registry, Subscription};

/// The events of all sessions of a node, as a stream.
#[derive(Debug)]
pub struct NodeEvents {
    pub(super) receiver: mpsc::Receiver<(PeerId, SessionEvent, SessionState)>,
    pub(super) _subscription: Subscription,
}

impl NodeEvents {
    /// The next event of any session, with its peer and its state as of it; `None` once the node was shut
    /// down. Cancellation-safe.
    pub async fn next(&mut self) -> Option<(PeerId, SessionEvent, SessionState)> {
        self.receiver.recv().await
    }
}

impl futures_util::Stream for NodeEvents {
    type Item = (PeerId, SessionEvent, SessionState);

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        self.receiver.poll_recv(context)
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

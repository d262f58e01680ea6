//! What the ways to a relay in memory share, and what can be seen of it.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::state::State;

/// Messages one mailbox holds unless it was said otherwise. One more is refused.
pub const MAILBOX_MESSAGES: usize = 65_536;

/// What a [`MemoryRelay`](super::MemoryRelay) did since it was made, and what it holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Connections at present.
    pub connected: usize,
    /// Connections ever.
    pub sign_ins: u64,
    /// Envelopes of class keep that were taken.
    pub taken: u64,
    /// Envelopes that were refused.
    pub refused: u64,
    /// Deliveries out of mailboxes, repeated ones too.
    pub delivered: u64,
    /// Envelopes of class keep that wait in mailboxes.
    pub waiting: usize,
}

pub(super) struct Shared {
    state: Mutex<State>,
    counts: watch::Receiver<Counts>,
    dialing: watch::Receiver<()>,
}

impl Shared {
    pub(super) fn new(messages: usize) -> Self {
        let (told, counts) = watch::channel(Counts::default());
        let (redial, dialing) = watch::channel(());
        Self {
            state: Mutex::new(State::new(messages, told, redial)),
            counts,
            dialing,
        }
    }

    // Nothing panics under this lock; the state behind it is whole at any time.
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn counts(&self) -> watch::Receiver<Counts> {
        self.counts.clone()
    }

    /// Changes when held attempts to connect may go on.
    pub(super) fn dialing(&self) -> watch::Receiver<()> {
        self.dialing.clone()
    }
}

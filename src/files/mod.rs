//! Files: sent from where they lie, and put together in the directory that the receiver chose.
//!
//! ```text
//!   file ─ hash ─▶ send_file ─▶ outbox: where each part lies ─ read as links take it ═▶ inbox
//!    ▲                │                                                             content │ │
//!    └── content ◀────┘        SendingFile ◀── replies ◀═ Done, Stop ═ FileInbox ◀──────────│─┘
//!                                                                       └▶ NAME.part ◀──────┘
//!                                                                             └─ hash ─▶ NAME
//! ```
//!
//! The messages are those of [`wire::file`](outlive_core::wire::file): durable ones, on
//! [`ChannelId::FILES`](crate::ChannelId::FILES), so that nothing that happens to links or processes
//! touches a transfer. What the receiver says comes on a channel of its own, which is read by
//! [`replies`] and nobody else.

mod arriving;
mod content;
mod dealing;
mod disk;
mod error;
mod inbox;
mod name;
mod offer;
mod received;
mod receiving;
mod replies;
mod sending;
mod step;
mod whole;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use outlive_core::TransferId;
use outlive_core::wire::file::StopReason;
use tokio::sync::{Semaphore, watch};

pub(crate) use self::arriving::{Arriving, Course, commit, divert};
pub(crate) use self::content::{Content, read};
pub use self::error::FileError;
pub use self::inbox::{FileEvent, FileInbox};
pub use self::offer::FileOffer;
pub use self::received::ReceivedFile;
pub(crate) use self::replies::read_replies;
pub use self::sending::{SENDING_FILES, SendingFile};
pub(crate) use self::sending::{list, offer};
use crate::lock::lock;

/// How far a file got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileProgress {
    /// Bytes of it that are durable at the receiver.
    pub done: u64,
    /// Bytes of the whole.
    pub size: u64,
}

/// How a transfer ended.
pub(crate) type Outcome = Result<(), StopReason>;

/// The transfers of one session that somebody here waits for.
#[derive(Debug)]
pub(crate) struct Files {
    /// As many as there are handles: what nobody holds any more goes when the next is made.
    sending: Mutex<BTreeMap<TransferId, watch::Sender<Option<Outcome>>>>,
    /// The file whose parts come: one at a time, for one follows the other.
    arriving: Mutex<Option<Arc<Arriving>>>,
    /// Whose turn it is to accept a file, or to look whether one was.
    accepting: Semaphore,
}

impl Default for Files {
    fn default() -> Self {
        Self {
            sending: Mutex::default(),
            arriving: Mutex::default(),
            accepting: Semaphore::new(1),
        }
    }
}

impl Files {
    fn sending(&self) -> MutexGuard<'_, BTreeMap<TransferId, watch::Sender<Option<Outcome>>>> {
        lock(&self.sending)
    }

    /// The file whose parts come, if it is accepted and not whole.
    pub(crate) fn arriving(&self) -> Option<Arc<Arriving>> {
        lock(&self.arriving).clone()
    }

    /// Nobody takes the parts that come any more: they wait in the inbox.
    fn let_go(&self) {
        if let Some(arriving) = self.arriving() {
            arriving.let_go();
        }
    }

    /// Nothing more is placed in the file whose parts came before.
    fn set_arriving(&self, arriving: Arriving) {
        let mut place = lock(&self.arriving);
        if let Some(before) = place.replace(Arc::new(arriving)) {
            before.let_go();
        }
    }

    /// Tells when a transfer has ended.
    pub(crate) fn watch(&self, transfer: TransferId) -> watch::Receiver<Option<Outcome>> {
        let mut sending = self.sending();
        sending.retain(|_, watched| watched.receiver_count() > 0);
        sending.entry(transfer).or_default().subscribe()
    }

    pub(crate) fn ended(&self, transfer: TransferId, outcome: Outcome) {
        if let Some(watched) = self.sending().remove(&transfer) {
            watched.send_replace(Some(outcome));
        }
    }
}

//! What is shared between a session's handles and its task, whichever of them is there.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use outlive_core::{ChannelId, PeerId, Position};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::event::SessionEvent;
use crate::files::Files;
use crate::inboxes::Inboxes;
use crate::lock::lock;
use crate::receipt::Progress;
use crate::request::Requests;
use crate::state::SessionState;
use crate::subscription::Registry;
use crate::traffic::Counters;

/// The meeting point of one session.
#[derive(Debug)]
pub(crate) struct Hub {
    pub(crate) peer: PeerId,
    pub(crate) registry: Arc<Registry>,
    /// The callbacks of the node, which hear of all sessions.
    of_node: Arc<Registry>,
    pub(crate) state: watch::Sender<SessionState>,
    pub(crate) progress: Progress,
    pub(crate) traffic: Counters,
    pub(crate) requests: Requests,
    pub(crate) files: Files,
    pub(crate) inboxes: Inboxes,
    /// Cancelled when the session was closed or the node shut down.
    pub(crate) ended: CancellationToken,
    /// Whether the task was asked to close the session. It does, unless a panic ends it first.
    closing: AtomicBool,
    /// Rings when nothing of the app's holds the session any more.
    pub(crate) let_go: Notify,
    /// Rings when the app has opened the session.
    pub(crate) held: Notify,
    /// Rings when signals came.
    pub(crate) signaled: Notify,
    /// Rings when something has changed that the way to the peer depends on: its links, whether it is
    /// there, and what was decided about it.
    pub(crate) moved: Notify,
    /// Whether a direct link may be dead.
    pub(crate) doubt: watch::Sender<bool>,
    /// Rings when something of the apps' is sent or has come.
    pub(crate) talk: watch::Sender<()>,
    /// Lets one word of the app's on whether there may be direct links be gone by after the other.
    pub(crate) exposing: tokio::sync::Mutex<()>,
    /// Where the app says that the peer can be reached.
    pub(crate) found_at: watch::Sender<Vec<SocketAddr>>,
    holds: AtomicUsize,
    listening: Mutex<BTreeSet<ChannelId>>,
    /// Shares of a link that the app has given to channels.
    weights: Mutex<BTreeMap<ChannelId, u8>>,
}

/// What is known of a session that sleeps and is not in its store.
#[derive(Debug, Default)]
pub(crate) struct Remembered {
    /// One past the last message that was in the app's hands, by channel.
    handed: Vec<(ChannelId, Position)>,
    /// The volatile channels that the peer listens to.
    peer_listens: BTreeSet<ChannelId>,
}

impl Remembered {
    /// Whether there is nothing to remember.
    pub(crate) fn is_empty(&self) -> bool {
        self.handed.is_empty() && self.peer_listens.is_empty()
    }
}

/// What an app holds a session by, in every handle, receipt, inbox and delivery. The session's task
/// ends only when the last is gone.
pub(crate) struct Hold {
    hub: Arc<Hub>,
}

impl Clone for Hold {
    fn clone(&self) -> Self {
        self.hub.hold()
    }
}

impl Deref for Hold {
    type Target = Arc<Hub>;

    fn deref(&self) -> &Arc<Hub> {
        &self.hub
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        if self.hub.holds.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.hub.let_go.notify_one();
        }
    }
}

impl Hub {
    /// `remembered` is what [`remembered`](Self::remembered) said when the session last went to sleep.
    pub(crate) fn new(
        peer: PeerId,
        of_node: Arc<Registry>,
        ended: CancellationToken,
        remembered: Remembered,
    ) -> Self {
        let Remembered {
            handed,
            peer_listens,
        } = remembered;
        Self {
            peer,
            ended,
            registry: Arc::default(),
            of_node,
            state: watch::Sender::new(SessionState {
                peer_listens,
                ..SessionState::default()
            }),
            progress: Progress::default(),
            traffic: Counters::default(),
            requests: Requests::default(),
            files: Files::default(),
            inboxes: Inboxes::new(handed),
            closing: AtomicBool::new(false),
            let_go: Notify::new(),
            held: Notify::new(),
            signaled: Notify::new(),
            moved: Notify::new(),
            doubt: watch::Sender::new(false),
            talk: watch::Sender::default(),
            exposing: tokio::sync::Mutex::default(),
            found_at: watch::Sender::new(Vec::new()),
            holds: AtomicUsize::new(0),
            listening: Mutex::default(),
            weights: Mutex::default(),
        }
    }

    /// Holds the session awake. Whoever does this for the first time has to see to it that the task
    /// does not go to sleep meanwhile.
    pub(crate) fn hold(self: &Arc<Self>) -> Hold {
        self.holds.fetch_add(1, Ordering::SeqCst);
        Hold { hub: self.clone() }
    }

    /// Whether anything of the app's holds the session.
    pub(crate) fn is_held(&self) -> bool {
        self.holds.load(Ordering::SeqCst) > 0
    }

    /// Whoever asks the task for anything from now on does so behind the close.
    pub(crate) fn mark_closing(&self) {
        self.closing.store(true, Ordering::SeqCst);
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::SeqCst)
    }

    /// Changes what the way to the peer depends on, if `change` says so.
    pub(crate) fn change(&self, change: impl FnOnce(&mut SessionState) -> bool) {
        if self.state.send_if_modified(change) {
            self.moved.notify_one();
        }
    }

    /// Tells what happened, with the state as it is now.
    pub(crate) fn tell(&self, event: &SessionEvent) {
        if self.registry.len() > 0 || self.of_node.len() > 0 {
            let state = self.state.borrow().clone();
            self.registry.emit(self.peer, event, &state);
            self.of_node.emit(self.peer, event, &state);
        }
    }

    /// Something was sent on a channel, or has come. Signals are no talk: they make links, and keep none.
    pub(crate) fn talked(&self, channel: ChannelId) {
        if channel != ChannelId::SIGNALING {
            self.talk.send_replace(());
        }
    }

    /// What the next to open the session has to know: up to where messages were in the app's hands, on
    /// the channels that still hold some, and what the peer listens to.
    pub(crate) fn remembered(&self, holds: impl Fn(ChannelId) -> bool) -> Remembered {
        let handed = self.inboxes.handed().into_iter();
        Remembered {
            handed: handed.filter(|(channel, _)| holds(*channel)).collect(),
            peer_listens: self.peer_listens(),
        }
    }

    /// The volatile channels the app listens to, for a task that starts later.
    pub(crate) fn listening(&self) -> Vec<ChannelId> {
        lock(&self.listening).iter().copied().collect()
    }

    /// The shares that channels have, for a task that starts later or an engine that is loaded again.
    pub(crate) fn weights(&self) -> BTreeMap<ChannelId, u8> {
        lock(&self.weights).clone()
    }

    pub(crate) fn weigh(&self, channel: ChannelId, weight: u8) {
        lock(&self.weights).insert(channel, weight);
    }

    /// The volatile channels that the peer listens to, which it says once for each link; for an engine that is loaded again.
    pub(crate) fn peer_listens(&self) -> BTreeSet<ChannelId> {
        self.state.borrow().peer_listens.clone()
    }

    pub(crate) fn peer_listens_to(&self, channels: &BTreeSet<ChannelId>) {
        self.state.send_if_modified(|state| {
            let changed = state.peer_listens != *channels;
            state.peer_listens.clone_from(channels);
            changed
        });
    }

    pub(crate) fn listen(&self, channel: ChannelId, on: bool) {
        let mut listening = lock(&self.listening);
        if on {
            listening.insert(channel);
        } else {
            listening.remove(&channel);
        }
    }
}

//! One connection, as the relay sees it.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use outlive_core::PeerId;
use outlive_core::transport::{Incoming, Outgoing, TransportError};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::mailbox::Windows;

/// Items a peer has said and the relay has not heard. While there are as many, `send` waits.
pub(super) const SAID: usize = 256;

/// Items the relay has said and the peer has not taken. While there are as many, the relay hears
/// nothing from this peer, mail stays in its mailbox, and what matters only now is left out.
pub(super) const ANSWERS: usize = 256;

/// Peers one connection may watch. Further ones are left out.
pub(super) const WATCHED: usize = 16_384;

/// What the two halves of a connection wait for.
#[derive(Debug, Default)]
pub(super) struct Line {
    /// There may be room for more to be said.
    pub(super) room: Notify,
    /// There may be something to hear.
    pub(super) arrived: Notify,
}

/// A connection from its sign-in until its halves are dropped.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) peer: PeerId,
    pub(super) line: Arc<Line>,
    pub(super) said: VecDeque<Outgoing>,
    pub(super) answers: VecDeque<Incoming>,
    /// Deliveries that are delayed. Bounded by the windows: they are unacknowledged.
    pub(super) late: VecDeque<Incoming>,
    pub(super) windows: Windows,
    pub(super) watched: BTreeSet<PeerId>,
    /// Since when it leads nowhere, unnoticed by either end.
    pub(super) dead_since: Option<Instant>,
    /// Why it ended.
    pub(super) ended: Option<TransportError>,
}

impl Connection {
    pub(super) fn new(peer: PeerId) -> Self {
        Self {
            peer,
            line: Arc::default(),
            said: VecDeque::new(),
            answers: VecDeque::new(),
            late: VecDeque::new(),
            windows: Windows::new(),
            watched: BTreeSet::new(),
            dead_since: None,
            ended: None,
        }
    }

    /// Whether the relay may say more.
    pub(super) fn has_room(&self) -> bool {
        self.ended.is_none() && self.answers.len() < ANSWERS
    }

    /// The relay says something. On a dead connection it is lost.
    pub(super) fn answer(&mut self, incoming: Incoming) {
        if self.dead_since.is_none() {
            self.answers.push_back(incoming);
            self.line.arrived.notify_one();
        }
    }

    /// The relay says something that matters only now: left out where there is no room.
    pub(super) fn mention(&mut self, incoming: Incoming) {
        if self.has_room() {
            self.answer(incoming);
        }
    }

    /// Ends it in good order: what was answered is still heard.
    pub(super) fn end(&mut self, why: TransportError) {
        self.said.clear();
        self.late.clear();
        self.ended.get_or_insert(why);
        self.line.room.notify_one();
        self.line.arrived.notify_one();
    }

    /// Ends it at once: what is on its way is lost with it.
    pub(super) fn cut(&mut self, why: TransportError) {
        self.answers.clear();
        self.end(why);
    }
}

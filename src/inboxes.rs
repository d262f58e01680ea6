//! Messages between a session's inboxes and the app: how far each inbox goes, and which of its messages
//! the app has in hand, is done with, or gets again (I2).
//!
//! The task tells what comes and leaves, who consumes an inbox what is taken out of it. All of it outlives
//! the engine and the task. Nothing is called while it is locked.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use outlive_core::record::InboxRecord;
use outlive_core::{ChannelId, Position};
use tokio::sync::watch;

use crate::lock::lock;

/// The inboxes of one session.
#[derive(Debug)]
pub(crate) struct Inboxes {
    messages: Mutex<Messages>,
    /// Rings when a message came, or comes again.
    arrived: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct Messages {
    channels: BTreeMap<ChannelId, Channel>,
    /// Those in the app's hands, for an engine that is loaded again, be it by another task: without
    /// their payloads, as many as the engine knows of.
    in_hand: BTreeMap<(ChannelId, Position), InboxRecord>,
    /// Those that are to leave the inbox with a write that nobody has answered yet, or that failed.
    leaving: BTreeSet<(ChannelId, Position)>,
}

#[derive(Debug, Default)]
struct Channel {
    point: InboxPoint,
    /// Messages whose commit failed: whoever consumes the channel gets them again. There are no more than
    /// the app had in hand.
    uncommitted: BTreeSet<Position>,
}

/// The inbox of one channel.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct InboxPoint {
    /// One past the last message.
    pub(crate) end: Position,
    /// One past the last message that was in the app's hands in this process.
    pub(crate) handed: Position,
    /// The same, as of when the session was last opened.
    handed_before: Position,
    taken: bool,
}

impl Inboxes {
    /// `handed` is what [`handed`](Self::handed) said when the session last went to sleep.
    pub(crate) fn new(handed: Vec<(ChannelId, Position)>) -> Self {
        let channels = handed.into_iter().map(|(channel, handed)| {
            let point = InboxPoint {
                handed,
                handed_before: handed,
                ..InboxPoint::default()
            };
            let uncommitted = BTreeSet::new();
            (channel, Channel { point, uncommitted })
        });
        let messages = Messages {
            channels: channels.collect(),
            ..Messages::default()
        };
        Self {
            messages: Mutex::new(messages),
            arrived: watch::Sender::default(),
        }
    }

    /// Messages lie in an inbox up to `end`.
    pub(crate) fn grew(&self, channel: ChannelId, end: Position) {
        let mut messages = lock(&self.messages);
        let point = &mut messages.channels.entry(channel).or_default().point;
        point.end = point.end.max(end);
        drop(messages);
        self.arrived.send_replace(());
    }

    pub(crate) fn arrivals(&self) -> watch::Receiver<()> {
        self.arrived.subscribe()
    }

    pub(crate) fn point(&self, channel: ChannelId) -> InboxPoint {
        let messages = lock(&self.messages);
        let of = messages.channels.get(&channel);
        of.map(|of| of.point).unwrap_or_default()
    }

    /// Takes the inbox of a channel for one consumer. Returns false if it has one.
    pub(crate) fn take(&self, channel: ChannelId) -> bool {
        let mut messages = lock(&self.messages);
        let point = &mut messages.channels.entry(channel).or_default().point;
        !std::mem::replace(&mut point.taken, true)
    }

    pub(crate) fn leave(&self, channel: ChannelId) {
        if let Some(of) = lock(&self.messages).channels.get_mut(&channel) {
            // The next consumer begins at the beginning.
            of.uncommitted.clear();
            of.point.taken = false;
        }
    }

    /// A message was to be committed, and the store failed. That is over: it comes again.
    pub(crate) fn not_committed(&self, channel: ChannelId, position: Position) {
        let mut messages = lock(&self.messages);
        let taken = messages.channels.get_mut(&channel);
        let Some(of) = taken.filter(|of| of.point.taken) else {
            return;
        };
        of.uncommitted.insert(position);
        drop(messages);
        self.arrived.send_replace(());
    }

    /// The first of these that is not handed out again yet.
    pub(crate) fn next_uncommitted(&self, channel: ChannelId) -> Option<Position> {
        let messages = lock(&self.messages);
        messages
            .channels
            .get(&channel)?
            .uncommitted
            .first()
            .copied()
    }

    /// It is being handed out again, or it is gone.
    pub(crate) fn forget_uncommitted(&self, channel: ChannelId, position: Position) {
        if let Some(of) = lock(&self.messages).channels.get_mut(&channel) {
            of.uncommitted.remove(&position);
        }
    }

    /// Notes that a message is in the app's hands.
    pub(crate) fn note_handed(&self, channel: ChannelId, position: Position) {
        let mut messages = lock(&self.messages);
        let point = &mut messages.channels.entry(channel).or_default().point;
        point.handed = point.handed.max(position.next());
    }

    /// One past the last message that was in the app's hands, by channel.
    pub(crate) fn handed(&self) -> Vec<(ChannelId, Position)> {
        let messages = lock(&self.messages);
        let handed = messages.channels.iter();
        handed
            .map(|(channel, of)| (*channel, of.point.handed))
            .filter(|(_, handed)| *handed > Position(0))
            .collect()
    }

    /// Whether a message was in the app's hands before this session was last opened.
    pub(crate) fn was_handed(&self, channel: ChannelId, position: Position) -> bool {
        position < self.point(channel).handed_before
    }

    /// The session's task knows of a message in the app's hands.
    pub(crate) fn put_in_hand(&self, of: (ChannelId, Position), record: InboxRecord) {
        lock(&self.messages).in_hand.insert(of, record);
    }

    pub(crate) fn is_in_hand(&self, of: (ChannelId, Position)) -> bool {
        lock(&self.messages).in_hand.contains_key(&of)
    }

    pub(crate) fn in_hand(&self) -> BTreeMap<(ChannelId, Position), InboxRecord> {
        lock(&self.messages).in_hand.clone()
    }

    /// It is to leave the inbox. Until the store shows that, whoever loads the session finds it here.
    pub(crate) fn begin_leaving(&self, of: (ChannelId, Position)) {
        let mut messages = lock(&self.messages);
        messages.in_hand.remove(&of);
        messages.leaving.insert(of);
    }

    /// It has left the inbox, or is in the app's hands or to come again.
    pub(crate) fn end_leaving(&self, of: (ChannelId, Position)) {
        lock(&self.messages).leaving.remove(&of);
    }

    pub(crate) fn leaving(&self) -> BTreeSet<(ChannelId, Position)> {
        lock(&self.messages).leaving.clone()
    }
}

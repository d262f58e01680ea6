//! The inbox of a channel: messages that are durable here and wait for the app.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use outlive_core::record::{Gap, InboxBody, InboxRecord, Key, Record, SegmentRecord};
use outlive_core::store::{ReadLimit, StoreError};
use outlive_core::{ChannelId, Epoch, MessageId, PeerId, Position, Seq, WallTime};
use tokio::sync::oneshot;

use crate::error::Error;
use crate::hub::Hub;
use crate::route::Route;
use crate::task::{Command, Input};

/// Messages read ahead.
const AHEAD: ReadLimit = ReadLimit {
    records: 64,
    bytes: 256 * 1024,
};

/// Segments of one message read at once.
const SEGMENTS: ReadLimit = ReadLimit {
    records: 1_024,
    bytes: usize::MAX,
};

/// The messages of one channel, in order, for one consumer. What is not committed comes again after
/// a restart, or when the inbox is taken anew, marked as redelivered; what could not be committed,
/// because the store failed, comes again when that is over.
pub struct Inbox {
    hub: Arc<Hub>,
    route: Route,
    channel: ChannelId,
    /// Where reading goes on.
    cursor: Position,
    ahead: VecDeque<(Position, InboxRecord)>,
    /// The answer about the first of them, if it was handed out before and was asked for.
    handing: Option<oneshot::Receiver<Result<bool, Error>>>,
}

impl fmt::Debug for Inbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inbox")
            .field("peer", &self.hub.peer)
            .field("channel", &self.channel)
            .finish()
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        self.hub.leave_inbox(self.channel);
    }
}

impl Inbox {
    pub(crate) const fn route(&self) -> &Route {
        &self.route
    }

    pub(crate) const fn new(hub: Arc<Hub>, route: Route, channel: ChannelId) -> Self {
        Self {
            hub,
            route,
            channel,
            cursor: Position(0),
            ahead: VecDeque::new(),
            handing: None,
        }
    }

    /// The next message. Waits until there is one. Cancellation-safe.
    ///
    /// # Errors
    /// [`Error::Store`], [`Error::Record`], [`Error::Shutdown`], [`Error::Closed`] or
    /// [`Error::Blocked`]. Of a message that is damaged, [`Error::Record`] or [`StoreError::Damaged`]
    /// tells once: the next call goes on behind it. It stays where it is; its sender hears of it what it
    /// hears of those behind it.
    pub async fn next(&mut self) -> Result<Delivery, Error> {
        let mut arrivals = self.hub.arrivals();
        loop {
            arrivals.borrow_and_update();
            if let Some(delivery) = self.try_next().await? {
                return Ok(delivery);
            }
            tokio::select! {
                changed = arrivals.changed() => changed.map_err(|_| Error::Shutdown)?,
                () = self.route.ended() => return Err(self.route.gone()),
            }
        }
    }

    /// The next message if one is here. Cancellation-safe.
    ///
    /// # Errors
    /// As [`next`](Self::next).
    pub async fn try_next(&mut self) -> Result<Option<Delivery>, Error> {
        let next = self.look().await;
        // The store is closed with its node.
        next.map_err(|error| self.route.or_gone(error))
    }

    async fn look(&mut self) -> Result<Option<Delivery>, Error> {
        loop {
            self.turn_back().await?;
            if self.ahead.is_empty() {
                self.read_ahead().await?;
            }
            let Some((position, record)) = self.ahead.front().cloned() else {
                return Ok(None);
            };
            let payload = match payload(&self.route, self.channel, &record).await {
                Ok(payload) => payload,
                // Its segments leave with it.
                Err(_) if self.is_gone(position).await? => {
                    self.pass();
                    continue;
                }
                Err(error) => {
                    if error.is_damage() {
                        self.pass();
                    }
                    return Err(error);
                }
            };
            let handed = self.hub.inbox(self.channel).handed;
            let before = position < handed || record.start != self.route.inner().start;
            let attempt = record.attempt(before);
            let here = if attempt > 1 {
                match self.hand_again(position, &record, attempt).await {
                    Ok(here) => here,
                    Err(error) => {
                        self.handing = None;
                        return Err(error);
                    }
                }
            } else {
                self.hand(position, &record).await?;
                true
            };
            self.pass();
            // Who had it in hand before may have committed it meanwhile.
            if here {
                return Ok(Some(Delivery {
                    hub: self.hub.clone(),
                    route: self.route.clone(),
                    channel: self.channel,
                    position,
                    attempt,
                    payload: payload.bytes,
                    placed: payload.placed,
                    record,
                }));
            }
        }
    }

    /// Goes on behind the first one ahead. An answer about it says nothing of the next.
    fn pass(&mut self) {
        self.ahead.pop_front();
        self.handing = None;
    }

    /// Notes that a message is handed out for the first time. Cancellation-safe: from the place among the
    /// task's inputs on nothing waits.
    async fn hand(&self, position: Position, record: &InboxRecord) -> Result<(), Error> {
        let place = self.route.reserve().await?;
        self.hub.handed(self.channel, position);
        if self.hub.ended.is_cancelled() {
            return Err(self.route.gone());
        }
        place.send(Input::Command(Command::Hand {
            channel: self.channel,
            position,
            record: without_payload(record.clone()),
        }));
        Ok(())
    }

    /// Has it written down that a message is handed out another time. Returns whether it is still
    /// there. Cancellation-safe: what was asked is not asked twice.
    async fn hand_again(
        &mut self,
        position: Position,
        record: &InboxRecord,
        attempts: u32,
    ) -> Result<bool, Error> {
        let answer = match &mut self.handing {
            Some(answer) => answer,
            None => {
                let (reply, answer) = oneshot::channel();
                let command = Command::HandAgain {
                    channel: self.channel,
                    position,
                    record: record.clone(),
                    attempts,
                    reply,
                };
                self.route.send(command).await?;
                self.handing.insert(answer)
            }
        };
        let here = answer.await.map_err(|_| self.route.gone())??;
        if here {
            self.hub.handed(self.channel, position);
        }
        Ok(here)
    }

    /// Whether a message that was read ahead has left the inbox meanwhile.
    async fn is_gone(&self, position: Position) -> Result<bool, Error> {
        let key = Key::Inbox(self.hub.peer, self.channel, position).to_bytes();
        Ok(self.route.inner().store.get(key).await?.is_none())
    }

    /// Reads again the messages whose commit failed. Cancellation-safe.
    async fn turn_back(&mut self) -> Result<(), Error> {
        // Of the first one ahead it may be asked already whether it is still there.
        while self.handing.is_none()
            && let Some(position) = self.hub.next_uncommitted(self.channel)
        {
            let to_come =
                position >= self.cursor || self.ahead.iter().any(|(at, _)| *at == position);
            if !to_come {
                let key = Key::Inbox(self.hub.peer, self.channel, position).to_bytes();
                // If it is gone, it was committed after all.
                if let Some(value) = self.route.inner().store.get(key).await? {
                    let record = InboxRecord::from_bytes(&value)?;
                    let place = self.ahead.partition_point(|(at, _)| *at < position);
                    self.ahead.insert(place, (position, record));
                }
            }
            self.hub.forget_uncommitted(self.channel, position);
        }
        Ok(())
    }

    async fn read_ahead(&mut self) -> Result<(), Error> {
        let end = self.hub.inbox(self.channel).end;
        if self.cursor >= end {
            return Ok(());
        }
        let range = Key::inbox(self.hub.peer, self.channel, self.cursor, end);
        let rows = self.route.inner().store.range(range, AHEAD).await?;
        if rows.is_empty() {
            self.cursor = end;
        }
        for (key, value) in rows {
            let Ok(Key::Inbox(_, _, position)) = Key::of_peer(self.hub.peer, &key) else {
                continue;
            };
            self.cursor = position.next();
            self.ahead
                .push_back((position, InboxRecord::from_bytes(&value)?));
        }
        Ok(())
    }
}

/// The payload of a message, as far as it is in the inbox.
#[derive(Default)]
pub(crate) struct Payload {
    pub(crate) bytes: Bytes,
    /// What is in the file already that the message is a part of.
    pub(crate) placed: Vec<Placed>,
}

/// Bytes of a payload that are elsewhere.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Placed {
    /// Where they belong among the bytes that are here.
    pub(crate) at: usize,
    pub(crate) length: u64,
}

/// The payload of a message in the inbox.
pub(crate) async fn payload(
    route: &Route,
    channel: ChannelId,
    record: &InboxRecord,
) -> Result<Payload, Error> {
    let count = match &record.body {
        InboxBody::Inline(payload) => {
            return Ok(Payload {
                bytes: payload.clone(),
                ..Payload::default()
            });
        }
        InboxBody::Segments(count) => u64::from(*count),
    };
    let first = Seq(record.last.next().0.saturating_sub(count));
    let end = record.last.next();
    let range = Key::segments(route.hub().peer, record.epoch, channel, first, end);
    let rows = route.inner().store.range(range, SEGMENTS).await?;
    if rows.len() as u64 != count {
        return Err(lost_segment(record));
    }
    let (mut whole, mut elsewhere) = (BytesMut::new(), Vec::new());
    for (_, value) in rows {
        match SegmentRecord::from_bytes(&value)? {
            SegmentRecord::Data { payload, .. } => whole.extend_from_slice(&payload),
            SegmentRecord::Placed {
                beginning, placed, ..
            } => {
                whole.extend_from_slice(&beginning);
                elsewhere.push(Placed {
                    at: whole.len(),
                    length: placed.into(),
                });
            }
            SegmentRecord::Skip { .. } => return Err(lost_segment(record)),
        }
    }
    Ok(Payload {
        bytes: whole.freeze(),
        placed: elsewhere,
    })
}

pub(crate) fn lost_segment(record: &InboxRecord) -> Error {
    let what = format!("message {} has lost a segment", record.id);
    StoreError::Damaged { what }.into()
}

pub(crate) fn without_payload(record: InboxRecord) -> InboxRecord {
    let body = match record.body {
        InboxBody::Inline(_) => InboxBody::Inline(Bytes::new()),
        segments @ InboxBody::Segments(_) => segments,
    };
    InboxRecord { body, ..record }
}

/// A message in the app's hands. It stays in the inbox until it is committed.
pub struct Delivery {
    hub: Arc<Hub>,
    route: Route,
    channel: ChannelId,
    position: Position,
    attempt: u32,
    payload: Bytes,
    placed: Vec<Placed>,
    record: InboxRecord,
}

impl fmt::Debug for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delivery")
            .field("id", &self.record.id)
            .field("channel", &self.channel)
            .field("bytes", &self.payload.len())
            .field("attempt", &self.attempt)
            .finish_non_exhaustive()
    }
}

impl Delivery {
    /// Who sent it.
    #[must_use]
    pub fn from(&self) -> PeerId {
        self.hub.peer
    }

    /// The channel it came on.
    #[must_use]
    pub const fn channel(&self) -> ChannelId {
        self.channel
    }

    /// Its name, the same at the sender.
    #[must_use]
    pub const fn id(&self) -> MessageId {
        self.record.id
    }

    /// The sender's epoch it came under.
    #[must_use]
    pub const fn epoch(&self) -> Epoch {
        self.record.epoch
    }

    /// The seq of its last segment: grows within an epoch and channel.
    #[must_use]
    pub const fn seq(&self) -> Seq {
        self.record.last
    }

    /// When it was complete here.
    #[must_use]
    pub const fn received(&self) -> WallTime {
        self.record.received
    }

    /// Whether it may have been in the app's hands before: after a restart between delivery and
    /// commit, or after one of the peers lost its state. Its [`id`](Self::id) is then the same.
    #[must_use]
    pub const fn redelivered(&self) -> bool {
        self.record.redelivered || self.attempt > 1
    }

    /// For the how-manieth time the app has it in hand, as far as is known: 1 the first time, one
    /// more for each time that it comes again, after a restart or when the inbox is taken anew.
    /// From the second time on it is on disk before this is returned, so that a message on which
    /// the app crashes shows by its number; [`skip`](Self::skip) ends that.
    #[must_use]
    pub const fn attempt(&self) -> u32 {
        self.attempt
    }

    /// What is missing between the message before it, of the same epoch, and this one: messages
    /// that expired, were taken back, or are of a past that our store does not remember.
    #[must_use]
    pub const fn gap_before(&self) -> Option<Gap> {
        self.record.gap
    }

    /// What was sent. Of a part of a file that a [`FileInbox`](crate::FileInbox) had accepted, what is
    /// in that file already is left out.
    #[must_use]
    pub const fn payload(&self) -> &Bytes {
        &self.payload
    }

    /// Bytes of all that was sent.
    fn bytes(&self) -> u64 {
        let here = self.payload.len() as u64;
        let placed = self.placed.iter();
        placed.fold(here, |bytes, placed| bytes.saturating_add(placed.length))
    }

    /// What of it is not in the payload, but in its file already.
    pub(crate) fn placed(&self) -> &[Placed] {
        &self.placed
    }

    /// The app is done with the message: it leaves the inbox, and the sender's receipt says consumed
    /// once everything before it on its channel is committed too, or skipped: commits may come in any
    /// order, but the sender hears up to where all are done. Returns when the commit is durable.
    ///
    /// Dropped half-way, the message may or may not be committed; if not, it comes again, marked.
    ///
    /// # Errors
    /// [`Error::Store`] or [`Error::Record`] if the store failed or what it holds can't be used,
    /// [`Error::Shutdown`], [`Error::Closed`] or [`Error::Blocked`] if the node was shut down, the
    /// session closed, or its peer blocked first. What was not written comes again.
    pub async fn commit(self) -> Result<(), Error> {
        let (reply, answer) = oneshot::channel();
        let bytes = self.bytes();
        let command = Command::Commit {
            channel: self.channel,
            position: self.position,
            record: without_payload(self.record),
            bytes,
            reply,
        };
        self.route.send(command).await?;
        answer.await.map_err(|_| self.route.gone())?
    }

    /// The app gives up on the message: it is [committed](Self::commit), so that it does not come again
    /// and holds no receipt up, and a record of it is kept here with the reason (up to
    /// [`SKIP_REASON_BYTES`](outlive_core::limits::SKIP_REASON_BYTES) of it), which
    /// [`Session::skipped`](crate::Session::skipped) lists. Returns when both are durable.
    ///
    /// Dropped half-way, the message may or may not be skipped; if not, it comes again, marked.
    ///
    /// # Errors
    /// [`Error::Store`] or [`Error::Record`] if the store failed or what it holds can't be used,
    /// [`Error::Shutdown`], [`Error::Closed`] or [`Error::Blocked`] if the node was shut down, the
    /// session closed, or its peer blocked first. What was not written comes again.
    pub async fn skip(self, reason: &str) -> Result<(), Error> {
        let (reply, answer) = oneshot::channel();
        let bytes = self.bytes();
        let command = Command::Skip {
            channel: self.channel,
            position: self.position,
            record: without_payload(self.record),
            payload: self.payload,
            bytes,
            attempts: self.attempt,
            reason: reason.to_owned(),
            reply,
        };
        self.route.send(command).await?;
        answer.await.map_err(|_| self.route.gone())?
    }
}

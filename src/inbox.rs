//! The inbox of a channel: messages that are durable here and wait for the app.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use outlive_core::record::{InboxRecord, Key, Record};
use outlive_core::store::ReadLimit;
use outlive_core::{ChannelId, Position};
use tokio::sync::oneshot;

use crate::delivery::Delivery;
use crate::error::Error;
use crate::hub::Hub;
use crate::payload::{payload, without_payload};
use crate::route::Route;
use crate::task::{Command, InHand, Input};

/// Messages read ahead.
const AHEAD: ReadLimit = ReadLimit {
    records: 64,
    bytes: 256 * 1024,
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
        self.hub.inboxes.leave(self.channel);
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
    /// [`Error::Blocked`]. Of a message that is damaged, [`Error::Record`] or
    /// [`StoreError::Damaged`](crate::StoreError::Damaged) tells once: the next call goes on behind it. It
    /// stays where it is; its sender hears of it what it hears of those behind it.
    pub async fn next(&mut self) -> Result<Delivery, Error> {
        let mut arrivals = self.hub.inboxes.arrivals();
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
            let attempt = self.hand_out(position, &record).await?;
            self.pass();
            if let Some(attempt) = attempt {
                let in_hand = InHand::new(self.channel, position, record, &payload);
                let (hub, route) = (self.hub.clone(), self.route.clone());
                return Ok(Some(Delivery::new(hub, route, in_hand, attempt, payload)));
            }
        }
    }

    /// Goes on behind the first one ahead. An answer about it says nothing of the next.
    fn pass(&mut self) {
        self.ahead.pop_front();
        self.handing = None;
    }

    /// Has a message count as in the app's hands. Returns for the how-manieth time it is, or nothing if it
    /// is gone: who had it in hand before may have committed it meanwhile. Cancellation-safe.
    async fn hand_out(
        &mut self,
        position: Position,
        record: &InboxRecord,
    ) -> Result<Option<u32>, Error> {
        let handed = self.hub.inboxes.point(self.channel).handed;
        let before = position < handed || record.start != self.route.inner().start;
        let attempt = record.attempt(before);
        if attempt <= 1 {
            self.hand(position, record).await?;
            return Ok(Some(attempt));
        }
        match self.hand_again(position, record, attempt).await {
            Ok(here) => Ok(here.then_some(attempt)),
            Err(error) => {
                self.handing = None;
                Err(error)
            }
        }
    }

    /// Notes that a message is handed out for the first time. Cancellation-safe: from the place among the
    /// task's inputs on nothing waits.
    async fn hand(&self, position: Position, record: &InboxRecord) -> Result<(), Error> {
        let place = self.route.reserve().await?;
        self.hub.inboxes.note_handed(self.channel, position);
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
            self.hub.inboxes.note_handed(self.channel, position);
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
            && let Some(position) = self.hub.inboxes.next_uncommitted(self.channel)
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
            self.hub.inboxes.forget_uncommitted(self.channel, position);
        }
        Ok(())
    }

    async fn read_ahead(&mut self) -> Result<(), Error> {
        let end = self.hub.inboxes.point(self.channel).end;
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

//! Receipts: how far a message got.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use outlive_core::engine::{Ending, Stage, Ticket};
use outlive_core::record::Session as Record;
use outlive_core::transport::Refusal;
use outlive_core::{ChannelId, MessageId, Position};
use tokio::sync::{oneshot, watch};

use crate::error::Error;
use crate::hub::Hub;
use crate::session::Route;
use crate::task::Command;

/// How far a message got, or why it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReceiptState {
    /// It is on its way: so far.
    Reached(Stage),
    /// It is durable here, and a relay does not take it for now; it is tried again.
    Held(Refusal),
    /// It ended before it was delivered.
    Ended(Ending),
}

/// How far the messages of one session are, as long as somebody asks.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    channels: Mutex<BTreeMap<ChannelId, Channel>>,
    changed: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct Channel {
    custody: Position,
    delivered: Position,
    consumed: Position,
    held: Option<(Position, Refusal)>,
    /// Receipts somebody holds, by the end of their message: how many, and how it ended.
    asked: BTreeMap<Position, (usize, Option<Ending>)>,
}

impl Progress {
    fn with<T>(&self, channel: ChannelId, f: impl FnOnce(&mut Channel) -> T) -> T {
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        f(channels.entry(channel).or_default())
    }

    pub(crate) fn loaded(&self, session: &Record) {
        for (&channel, out) in &session.out {
            self.with(channel, |of| {
                of.delivered = of.delivered.max(out.offer);
                of.consumed = of.consumed.max(out.consumed);
                let held = out.custody.iter().map(|c| c.held.first_gap(out.low)).max();
                of.custody = of.custody.max(held.unwrap_or_default());
            });
        }
        self.changed.send_replace(());
    }

    pub(crate) fn reached(&self, channel: ChannelId, stage: Stage, below: Position) {
        self.with(channel, |of| match stage {
            Stage::Queued => {}
            Stage::Custody => of.custody = of.custody.max(below),
            Stage::Delivered => of.delivered = of.delivered.max(below),
            Stage::Consumed => of.consumed = of.consumed.max(below),
        });
        self.changed.send_replace(());
    }

    pub(crate) fn held(&self, channel: ChannelId, first: Position, reason: Refusal) {
        self.with(channel, |of| of.held = Some((first, reason)));
        self.changed.send_replace(());
    }

    pub(crate) fn ended(&self, channel: ChannelId, end: Position, how: Ending) {
        self.with(channel, |of| {
            if let Some(asked) = of.asked.get_mut(&end) {
                asked.1 = Some(how);
            }
        });
        self.changed.send_replace(());
    }

    fn state(&self, ticket: Ticket) -> ReceiptState {
        self.with(ticket.channel, |of| {
            if let Some((_, Some(how))) = of.asked.get(&ticket.end) {
                return ReceiptState::Ended(*how);
            }
            ReceiptState::Reached(if ticket.end <= of.consumed {
                Stage::Consumed
            } else if ticket.end <= of.delivered {
                Stage::Delivered
            } else if ticket.end <= of.custody {
                Stage::Custody
            } else if let Some((first, reason)) = of.held
                && ticket.end > first
            {
                return ReceiptState::Held(reason);
            } else {
                Stage::Queued
            })
        })
    }
}

/// How far one message got. Cheap to keep and to drop; the message goes its way without it.
pub struct Receipt {
    pub(crate) ticket: Ticket,
    pub(crate) hub: Arc<Hub>,
    pub(crate) route: Route,
}

impl Receipt {
    pub(crate) fn new(ticket: Ticket, hub: Arc<Hub>, route: Route) -> Self {
        hub.progress.with(ticket.channel, |of| {
            of.asked.entry(ticket.end).or_default().0 += 1;
        });
        Self { ticket, hub, route }
    }

    /// The message's name, the same at the peer.
    #[must_use]
    pub const fn id(&self) -> MessageId {
        self.ticket.id
    }

    /// How far the message is now.
    #[must_use]
    pub fn state(&self) -> ReceiptState {
        self.hub.progress.state(self.ticket)
    }

    /// Waits until the message is durable at a relay or, without one, at the peer.
    /// Cancellation-safe.
    ///
    /// # Errors
    /// [`Error::Ended`] if the message ended before.
    pub async fn custody(&self) -> Result<(), Error> {
        self.reached(Stage::Custody).await
    }

    /// Waits until the message is durable at the peer. Cancellation-safe.
    ///
    /// # Errors
    /// [`Error::Ended`] if the message ended before.
    pub async fn delivered(&self) -> Result<(), Error> {
        self.reached(Stage::Delivered).await
    }

    /// Waits until the peer's app has committed the message. Cancellation-safe.
    ///
    /// # Errors
    /// [`Error::Ended`] if the message ended before.
    pub async fn consumed(&self) -> Result<(), Error> {
        let (channel, position) = (self.ticket.channel, self.ticket.end);
        self.route
            .send(Command::AwaitConsumed { channel, position })
            .await?;
        self.reached(Stage::Consumed).await
    }

    /// Waits for a change of [`state`](Self::state) from `seen`. Cancellation-safe.
    ///
    /// # Errors
    /// [`Error::Shutdown`] if the node is gone, [`Error::Closed`] if the session is.
    pub async fn changed(&self, seen: ReceiptState) -> Result<ReceiptState, Error> {
        let mut changed = self.hub.progress.changed.subscribe();
        loop {
            let state = self.state();
            if state != seen {
                return Ok(state);
            }
            tokio::select! {
                result = changed.changed() => result.map_err(|_| Error::Shutdown)?,
                () = self.route.ended() => return Err(self.route.gone()),
            }
        }
    }

    async fn reached(&self, wanted: Stage) -> Result<(), Error> {
        let mut state = self.state();
        loop {
            match state {
                ReceiptState::Ended(how) => return Err(how.into()),
                ReceiptState::Reached(stage) if stage >= wanted => return Ok(()),
                ReceiptState::Reached(_) | ReceiptState::Held(_) => {}
            }
            state = self.changed(state).await?;
        }
    }

    /// Takes the message back if no part of it can have left this device.
    ///
    /// # Errors
    /// [`Error::TooLate`] if it has, or may have: see [`state`](Self::state) for how far it got.
    pub async fn cancel(self) -> Result<(), Error> {
        let (reply, answer) = oneshot::channel();
        self.route
            .send(Command::Cancel {
                ticket: self.ticket,
                reply,
            })
            .await?;
        if answer.await.map_err(|_| self.route.gone())? {
            Ok(())
        } else {
            Err(Error::TooLate)
        }
    }
}

impl Drop for Receipt {
    fn drop(&mut self) {
        self.hub.progress.with(self.ticket.channel, |of| {
            if let Some(asked) = of.asked.get_mut(&self.ticket.end) {
                asked.0 = asked.0.saturating_sub(1);
                if asked.0 == 0 {
                    of.asked.remove(&self.ticket.end);
                }
            }
        });
    }
}

impl fmt::Debug for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receipt")
            .field("id", &self.ticket.id)
            .field("state", &self.state())
            .finish()
    }
}

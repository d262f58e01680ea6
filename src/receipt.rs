//! Receipts: how far a message got.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex};

use outlive_core::engine::{Ending, Stage, Ticket};
use outlive_core::record::Session as Record;
use outlive_core::transport::Refusal;
use outlive_core::{ChannelId, MessageId, Position};
use tokio::sync::{oneshot, watch};

use crate::error::Error;
use crate::hub::Hub;
use crate::lock::lock;
use crate::route::Route;
use crate::task::Command;

/// How far a message got, or why it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReceiptState {
    /// It is on its way: so far.
    Reached(Stage),
    /// It is durable here, and waits for something other than its turn.
    Waiting(Waiting),
    /// It ended before it was delivered.
    Ended(Ending),
}

impl ReceiptState {
    /// Whether a message has come so far, or will not, once that is clear.
    fn known(self, wanted: Stage) -> Option<Result<(), Error>> {
        match self {
            Self::Ended(how) => Some(Err(how.into())),
            Self::Reached(stage) if stage >= wanted => Some(Ok(())),
            Self::Reached(_) | Self::Waiting(_) => None,
        }
    }
}

/// What a message waits for. Nothing has to be done about any of it: it goes on by itself, in its
/// order, until its time is over. Only a [delivery token](Refusal::Token) that stays unknown to the relay
/// may have been revoked: then another is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Waiting {
    /// For a link: there is none at the moment.
    Link,
    /// For a relay that does not take it for now, and is asked again.
    Relay(Refusal),
    /// Behind an earlier message of its channel, which waits for a relay.
    Behind {
        /// That message.
        message: MessageId,
        /// Why the relay does not take it.
        reason: Refusal,
    },
}

impl Waiting {
    /// The relay's reason, if it is a relay that holds things up.
    #[must_use]
    pub const fn refusal(self) -> Option<Refusal> {
        match self {
            Self::Link => None,
            Self::Relay(reason) | Self::Behind { reason, .. } => Some(reason),
        }
    }
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
    held: Option<Held>,
    /// Up to where somebody has asked whether the peer's app has committed all.
    awaited: Position,
    /// Receipts somebody holds, by the end of their message: how many, and how it ended.
    asked: BTreeMap<Position, (usize, Option<Ending>)>,
}

/// What a relay does not take for now: where a channel stands still.
#[derive(Clone, Copy, Debug)]
struct Held {
    first: Position,
    id: MessageId,
    reason: Refusal,
}

impl Channel {
    /// Forgets what held the channel up once that has gone on.
    fn release(&mut self) {
        let gone = self.custody.max(self.delivered);
        self.held = self.held.filter(|held| held.first >= gone);
    }
}

impl Progress {
    fn with<T>(&self, channel: ChannelId, f: impl FnOnce(&mut Channel) -> T) -> T {
        let mut channels = lock(&self.channels);
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
        self.with(channel, |of| {
            match stage {
                Stage::Queued => {}
                Stage::Custody => of.custody = of.custody.max(below),
                Stage::Delivered => of.delivered = of.delivered.max(below),
                Stage::Consumed => of.consumed = of.consumed.max(below),
            }
            of.release();
        });
        self.changed.send_replace(());
    }

    pub(crate) fn held(&self, channel: ChannelId, first: Position, id: MessageId, reason: Refusal) {
        self.with(channel, |of| {
            // Packets are refused one by one: the earliest of them is what the others wait behind.
            if of.held.is_none_or(|held| first <= held.first) {
                of.held = Some(Held { first, id, reason });
            }
            of.release();
        });
        self.changed.send_replace(());
    }

    /// Somebody waits for the peer's app to commit all below `position`.
    fn awaits(&self, channel: ChannelId, position: Position) {
        self.with(channel, |of| of.awaited = of.awaited.max(position));
    }

    /// Up to where somebody waits for that, by channel, for an engine that is loaded again.
    pub(crate) fn awaited(&self) -> Vec<(ChannelId, Position)> {
        let channels = lock(&self.channels);
        let awaited = channels
            .iter()
            .filter(|(_, of)| of.awaited > of.consumed)
            .map(|(&channel, of)| (channel, of.awaited));
        awaited.collect()
    }

    /// One past the last position of a channel that is durable at the peer.
    pub(crate) fn delivered(&self, channel: ChannelId) -> Position {
        self.with(channel, |of| of.delivered)
    }

    /// Tells when anything has moved.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    pub(crate) fn ended(&self, channel: ChannelId, id: MessageId, end: Position, how: Ending) {
        self.with(channel, |of| {
            if let Some(asked) = of.asked.get_mut(&end) {
                asked.1 = Some(how);
            }
            of.held = of.held.filter(|held| held.id != id);
        });
        self.changed.send_replace(());
    }

    fn state(&self, ticket: Ticket, linked: bool) -> ReceiptState {
        self.with(ticket.channel, |of| {
            if let Some((_, Some(how))) = of.asked.get(&ticket.end) {
                return ReceiptState::Ended(*how);
            }
            for (below, stage) in [
                (of.consumed, Stage::Consumed),
                (of.delivered, Stage::Delivered),
                (of.custody, Stage::Custody),
            ] {
                if ticket.end <= below {
                    return ReceiptState::Reached(stage);
                }
            }
            match of.held {
                _ if !linked => ReceiptState::Waiting(Waiting::Link),
                Some(Held { first, id, reason }) if ticket.first > first && ticket.id != id => {
                    ReceiptState::Waiting(Waiting::Behind {
                        message: id,
                        reason,
                    })
                }
                Some(Held { first, reason, .. }) if ticket.end > first => {
                    ReceiptState::Waiting(Waiting::Relay(reason))
                }
                _ => ReceiptState::Reached(Stage::Queued),
            }
        })
    }
}

/// How far one message got. Cheap to keep and to drop; the message goes its way without it.
///
/// It ends with the process. Who wants to know after a restart what became of a message sends it with
/// [`Session::send_once`](crate::Session::send_once) under an id of the app's own, and calls that again
/// with the same id: it sends nothing twice, and returns the receipt of the first.
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

    /// How far the message is now and, if it is not on its way, what it waits for.
    #[must_use]
    pub fn state(&self) -> ReceiptState {
        let linked = self.hub.state.borrow().carrier.is_some();
        self.hub.progress.state(self.ticket, linked)
    }

    /// Waits until the message is durable at a relay or, without one, at the peer.
    /// Cancellation-safe.
    ///
    /// # Errors
    /// [`Error::Ended`] if the message ended before. [`Error::Shutdown`], [`Error::Closed`] or
    /// [`Error::Blocked`] if the node was shut down, the session closed, or its peer blocked meanwhile:
    /// the message itself waits on disk.
    pub async fn custody(&self) -> Result<(), Error> {
        self.reached(Stage::Custody).await
    }

    /// Waits until the message is durable at the peer. Cancellation-safe.
    ///
    /// # Errors
    /// As [`custody`](Self::custody).
    pub async fn delivered(&self) -> Result<(), Error> {
        self.reached(Stage::Delivered).await
    }

    /// Waits until the peer's app has committed the message, and everything before it on its channel:
    /// one that it keeps in hand holds up the word of those behind it. Cancellation-safe.
    ///
    /// # Errors
    /// As [`custody`](Self::custody).
    pub async fn consumed(&self) -> Result<(), Error> {
        if let Some(known) = self.state().known(Stage::Consumed) {
            return known;
        }
        let (channel, position) = (self.ticket.channel, self.ticket.end);
        self.hub.progress.awaits(channel, position);
        self.route
            .send(Command::AwaitConsumed { channel, position })
            .await?;
        self.reached(Stage::Consumed).await
    }

    /// Waits for a change of [`state`](Self::state) from `seen`. Cancellation-safe.
    ///
    /// # Errors
    /// [`Error::Shutdown`] if the node is gone, [`Error::Closed`] if the session is, [`Error::Blocked`]
    /// if its peer was blocked.
    pub async fn changed(&self, seen: ReceiptState) -> Result<ReceiptState, Error> {
        let mut changed = self.hub.progress.changed.subscribe();
        let mut links = self.hub.state.subscribe();
        loop {
            let state = self.state();
            if state != seen {
                return Ok(state);
            }
            tokio::select! {
                // What has happened is told first.
                biased;
                result = links.changed() => result.map_err(|_| Error::Shutdown)?,
                result = changed.changed() => result.map_err(|_| Error::Shutdown)?,
                () = self.route.ended() => return Err(self.route.gone()),
            }
        }
    }

    async fn reached(&self, wanted: Stage) -> Result<(), Error> {
        loop {
            let state = self.state();
            if let Some(known) = state.known(wanted) {
                return known;
            }
            self.changed(state).await?;
        }
    }

    /// Takes the message back if no part of it can have left this device: it is so, durably, when this
    /// returns. Dropped half-way, it may or may not be taken back.
    ///
    /// # Errors
    /// [`Error::TooLate`] if it has, or may have: see [`state`](Self::state) for how far it got. So it
    /// is too while the store fails. [`Error::Shutdown`], [`Error::Closed`] or [`Error::Blocked`].
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

#[cfg(test)]
mod tests {
    use super::*;

    const CHANNEL: ChannelId = ChannelId::MESSAGES;
    const FULL: Refusal = Refusal::MailboxFull;

    fn id(n: u8) -> MessageId {
        MessageId([n; 16])
    }

    /// The `n`-th message of the channel: each has one segment.
    fn message(progress: &Progress, n: u8) -> ReceiptState {
        let ticket = Ticket {
            id: id(n),
            channel: CHANNEL,
            first: Position(n.into()),
            end: Position(n.into()).next(),
        };
        progress.state(ticket, true)
    }

    fn behind(n: u8) -> ReceiptState {
        ReceiptState::Waiting(Waiting::Behind {
            message: id(n),
            reason: FULL,
        })
    }

    #[test]
    fn of_several_refused_packets_the_earliest_is_the_one_to_wait_behind() {
        let progress = Progress::default();
        for n in [3, 2, 4] {
            progress.held(CHANNEL, Position(n.into()), id(n), FULL);
        }
        assert_eq!(message(&progress, 1), ReceiptState::Reached(Stage::Queued));
        assert_eq!(
            message(&progress, 2),
            ReceiptState::Waiting(Waiting::Relay(FULL))
        );
        assert_eq!(message(&progress, 3), behind(2));
        assert_eq!(message(&progress, 9), behind(2));
    }

    #[test]
    fn nothing_waits_behind_a_message_that_has_gone_on() {
        for go_on in [
            |progress: &Progress| progress.reached(CHANNEL, Stage::Custody, Position(3)),
            |progress: &Progress| progress.reached(CHANNEL, Stage::Delivered, Position(3)),
            |progress: &Progress| progress.ended(CHANNEL, id(2), Position(3), Ending::Expired),
        ] {
            let progress = Progress::default();
            progress.held(CHANNEL, Position(2), id(2), FULL);
            assert_eq!(message(&progress, 3), behind(2));
            go_on(&progress);
            assert_eq!(message(&progress, 3), ReceiptState::Reached(Stage::Queued));
            progress.held(CHANNEL, Position(3), id(3), FULL);
            assert_eq!(message(&progress, 4), behind(3));
        }
    }
}

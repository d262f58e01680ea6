//! How far the messages of `outlive send` get: told for each stage, in the order of the messages.
//!
//! ```text
//!  queued ──▶ custody ──▶ delivered ──▶ consumed
//! ```
//!
//! Each arrow is a queue of its own, so that a message which waits for its peer holds up no word of
//! those behind it.

use std::cell::Cell;
use std::sync::Arc;

use anyhow::{Result, anyhow};
use outlive::{Ending, Error, Receipt, ReceiptState, Stage};
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

/// Messages that are not yet where they have to be. While there are as many no more are read.
pub(crate) const AWAITED: usize = 4_096;

#[derive(Serialize)]
struct Event<'a> {
    event: &'static str,
    number: u64,
    id: &'a str,
    state: &'a str,
}

/// The place of a message among those that are awaited. Free again when it is dropped.
pub(crate) struct Place {
    number: u64,
    _permit: OwnedSemaphorePermit,
}

/// A message that is durable here.
pub(crate) struct Sent {
    place: Place,
    receipt: Receipt,
    /// How far it was seen to be.
    seen: Stage,
}

/// What is told of the messages of one command.
pub(crate) struct Receipts {
    json: bool,
    /// How far each has to get.
    wanted: Stage,
    queued: Cell<u64>,
    at_relay: Cell<u64>,
    at_peer: Cell<u64>,
    places: Arc<Semaphore>,
    /// Whether no message comes any more.
    read_to_its_end: Cell<bool>,
    /// The number of the last message that has, or had, a place.
    placed: Cell<u64>,
    /// The number of the last message that is durable here: they become so in their order.
    durable: Cell<u64>,
}

impl Receipts {
    pub(crate) fn new(wanted: Stage, json: bool) -> Self {
        Self {
            json,
            wanted,
            places: Arc::new(Semaphore::new(AWAITED)),
            read_to_its_end: Cell::new(false),
            placed: Cell::new(0),
            durable: Cell::new(0),
            queued: Cell::new(0),
            at_relay: Cell::new(0),
            at_peer: Cell::new(0),
        }
    }

    /// How many were seen to be at a stage at the moment.
    const fn at(&self, stage: Stage) -> Option<&Cell<u64>> {
        match stage {
            Stage::Queued => Some(&self.queued),
            Stage::Custody => Some(&self.at_relay),
            Stage::Delivered => Some(&self.at_peer),
            Stage::Consumed => None,
        }
    }

    fn enters(&self, stage: Stage) {
        if let Some(count) = self.at(stage) {
            count.set(count.get().saturating_add(1));
        }
    }

    fn leaves(&self, stage: Stage) {
        if let Some(count) = self.at(stage) {
            count.set(count.get().saturating_sub(1));
        }
    }

    fn tell(&self, number: u64, receipt: &Receipt, state: ReceiptState) -> Result<()> {
        let (id, state) = (receipt.id().to_string(), name(state));
        if self.json {
            crate::output::json(&Event {
                event: "receipt",
                number,
                id: &id,
                state: &state,
            })?;
        } else {
            crate::output::line(format!("{number} {id} {state}").as_bytes())?;
        }
        Ok(())
    }

    /// Waits for room for one more message, before it is read.
    pub(crate) async fn room(&self) -> Result<OwnedSemaphorePermit> {
        Ok(self.places.clone().acquire_owned().await?)
    }

    /// No message comes any more: all were read.
    pub(crate) fn end_of_input(&self) {
        self.read_to_its_end.set(true);
    }

    /// How far an input was read that was not read to its end.
    pub(crate) fn read_up_to(&self) -> String {
        match self.placed.get() {
            0 => "no message of the input was read".to_owned(),
            number => format!("the input was read up to message {number}"),
        }
    }

    /// Gives a message that was read its place.
    pub(crate) fn place(&self, number: u64, permit: OwnedSemaphorePermit) -> Place {
        self.placed.set(number);
        Place {
            number,
            _permit: permit,
        }
    }

    /// A message is durable here.
    pub(crate) fn queued(&self, place: Place, receipt: Receipt) -> Result<Sent> {
        let seen = Stage::Queued;
        self.durable.set(place.number);
        self.tell(place.number, &receipt, ReceiptState::Reached(seen))?;
        self.enters(seen);
        Ok(Sent {
            place,
            receipt,
            seen,
        })
    }

    /// Follows messages until each is where it has to be, or has ended. Returns what to say of the
    /// first that ended.
    pub(crate) async fn follow(
        &self,
        queued: mpsc::Receiver<Sent>,
    ) -> Result<Option<anyhow::Error>> {
        if self.wanted == Stage::Queued {
            return Ok(None);
        }
        // There is room in each for all, so that none holds up the one before.
        let (at_relay, from_relay) = mpsc::channel(AWAITED);
        let (at_peer, from_peer) = mpsc::channel(AWAITED);
        let (custody, delivered, consumed) = tokio::try_join!(
            self.reach(Stage::Custody, queued, Some(at_relay)),
            self.reach(Stage::Delivered, from_relay, Some(at_peer)),
            self.reach(Stage::Consumed, from_peer, None),
        )?;
        let ended = [custody, delivered, consumed].into_iter().flatten();
        let first = ended.min_by_key(|(number, _)| *number);
        Ok(first.map(|(number, how)| anyhow!("message {number} was not delivered: {how}")))
    }

    /// Waits for messages to reach a stage, one after the other, tells so, and hands them on if they
    /// have to get further. Returns the first that ended before.
    async fn reach(
        &self,
        stage: Stage,
        mut messages: mpsc::Receiver<Sent>,
        next: Option<mpsc::Sender<Sent>>,
    ) -> Result<Option<(u64, Ending)>> {
        let next = next.filter(|_| self.wanted > stage);
        let mut first = None;
        while let Some(mut sent) = messages.recv().await {
            let reached = self.reached(&sent, stage).await?;
            self.leaves(sent.seen);
            match reached {
                Ok(reached) => {
                    self.enters(reached);
                    sent.seen = reached;
                    // Where it is already further, the next stage tells so.
                    if reached == stage || next.is_none() {
                        self.tell(
                            sent.place.number,
                            &sent.receipt,
                            ReceiptState::Reached(reached),
                        )?;
                    }
                    if let Some(next) = &next {
                        // Who is gone has failed, and ends this too.
                        let _ = next.send(sent).await;
                    }
                }
                Err(how) => {
                    self.tell(sent.place.number, &sent.receipt, ReceiptState::Ended(how))?;
                    first = first.or(Some((sent.place.number, how)));
                }
            }
        }
        Ok(first)
    }

    /// Waits until a message is at a stage or beyond. Returns how it ended if it never will be.
    async fn reached(&self, sent: &Sent, stage: Stage) -> Result<Result<Stage, Ending>> {
        let (number, receipt) = (sent.place.number, &sent.receipt);
        if stage == Stage::Consumed {
            // The peer tells of this where it is asked alone.
            return match receipt.consumed().await {
                Ok(()) => Ok(Ok(stage)),
                Err(Error::Ended(how)) => Ok(Err(how)),
                Err(error) => Err(error.into()),
            };
        }
        let mut told = false;
        let mut state = receipt.state();
        loop {
            match state {
                ReceiptState::Reached(reached) if reached >= stage => return Ok(Ok(reached)),
                ReceiptState::Ended(how) => return Ok(Err(how)),
                ReceiptState::Waiting(waiting) if !told => {
                    if let Some(reason) = waiting.refusal() {
                        told = true;
                        crate::output::say(format_args!(
                            "message {number} waits: {reason}; trying on"
                        ));
                        self.tell(number, receipt, state)?;
                    }
                }
                ReceiptState::Reached(_) | ReceiptState::Waiting(_) => {}
            }
            state = receipt.changed(state).await?;
        }
    }

    /// Where the messages are that are not where they have to be.
    pub(crate) fn left(&self) -> String {
        let are = |count: &Cell<u64>| match count.get() {
            1 => "1 is".to_owned(),
            count => format!("{count} are"),
        };
        let queued = format!("{} queued", are(&self.queued));
        let mut left = match self.wanted {
            // Nobody looks what becomes of them then.
            Stage::Queued => match self.queued.get() {
                1 => "1 was queued".to_owned(),
                count => format!("{count} were queued"),
            },
            Stage::Custody | Stage::Delivered => {
                format!("{} at the relay, {queued}", are(&self.at_relay))
            }
            Stage::Consumed => format!(
                "{} at the peer, {} at the relay, {queued}",
                are(&self.at_peer),
                are(&self.at_relay)
            ),
        };
        if self.queued.get() > 0 {
            left += "; what is queued stays queued and is sent later";
        }
        if !self.read_to_its_end.get() {
            left += &format!("; {}", self.read_up_to());
        }
        let (durable, placed) = (self.durable.get(), self.placed.get());
        if durable < placed {
            left += &format!("; those behind message {durable} may not be queued");
        }
        left
    }
}

fn name(state: ReceiptState) -> String {
    match state {
        ReceiptState::Reached(stage) => format!("{stage:?}").to_lowercase(),
        ReceiptState::Waiting(waiting) if waiting.refusal().is_some() => "refused".to_owned(),
        ReceiptState::Waiting(_) => "queued".to_owned(),
        ReceiptState::Ended(how) => how.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_was_read_and_is_not_known_to_be_durable_is_told() {
        let receipts = Receipts::new(Stage::Queued, false);
        for number in 1..=2 {
            let room = receipts.room().await.expect("there is room");
            drop(receipts.place(number, room));
        }
        receipts.durable.set(1);
        receipts.end_of_input();
        let left = receipts.left();
        assert!(
            left.ends_with("; those behind message 1 may not be queued"),
            "{left}"
        );
        receipts.durable.set(2);
        assert_eq!(receipts.left(), "0 were queued");
    }
}

//! Messages of an inbox in the app's hands, until they leave it (I2).
//!
//! The hub knows of them, and so does the engine, which forgets with the store's failure or with its task.

use outlive_core::engine::Engine;
use outlive_core::record::{InboxRecord, Key};
use outlive_core::{ChannelId, Position};

use super::input::Reply;
use super::{Task, Waiter};
use crate::error::Error;
use crate::payload::{Payload, without_payload};

/// A message of an inbox in the hands of the app, or of who serves requests.
#[derive(Clone)]
pub(crate) struct InHand {
    pub(crate) channel: ChannelId,
    pub(crate) position: Position,
    /// Without its payload.
    pub(crate) record: InboxRecord,
    /// Bytes of the payload.
    pub(crate) bytes: u64,
}

impl InHand {
    pub(crate) fn new(
        channel: ChannelId,
        position: Position,
        record: InboxRecord,
        payload: &Payload,
    ) -> Self {
        Self {
            channel,
            position,
            record: without_payload(record),
            bytes: payload.length(),
        }
    }

    /// Where it lies.
    pub(super) const fn place(&self) -> (ChannelId, Position) {
        (self.channel, self.position)
    }
}

impl Task {
    /// Whether the store holds a message of an inbox. The engine knows only what was committed since it was
    /// loaded; what is under way it knows. (The task is borrowed alone, for it can't be shared by threads.)
    pub(super) async fn is_kept(
        &mut self,
        channel: ChannelId,
        position: Position,
    ) -> Result<bool, Error> {
        let key = Key::Inbox(self.peer, channel, position).to_bytes();
        Ok(self.inner.store.get(key).await?.is_some())
    }

    /// Has the engine know of a message that is to leave the inbox. It does, unless somebody else who had
    /// it in hand was done with it first, or a panic ended the task that was told of it.
    pub(super) async fn recall(
        &mut self,
        engine: &mut Engine,
        in_hand: &InHand,
    ) -> Result<(), Error> {
        if self.hub.inboxes.is_in_hand(in_hand.place()) {
            return Ok(());
        }
        let &InHand {
            channel,
            position,
            ref record,
            ..
        } = in_hand;
        match self.is_kept(channel, position).await {
            Ok(true) => {
                engine.hand(channel, position, record);
            }
            Ok(false) => {}
            Err(error) => {
                self.hub.inboxes.not_committed(channel, position);
                return Err(error);
            }
        }
        Ok(())
    }

    /// A message leaves the inbox with the next write.
    pub(super) fn leaves(&mut self, in_hand: &InHand, reply: Reply<()>) {
        let of = in_hand.place();
        self.hub.inboxes.begin_leaving(of);
        let waiter = Waiter::Commit(reply, self.hub.clone(), of);
        self.next.waiters.push(waiter);
    }

    /// Has a message leave the inbox of requests. It is taken in hand once more before: a
    /// panic may have ended the task that knew of it.
    pub(super) fn settle(&mut self, engine: &mut Engine, in_hand: &InHand, reply: Reply<()>) {
        engine.hand(in_hand.channel, in_hand.position, &in_hand.record);
        self.commit(engine, in_hand, reply);
    }

    /// Is done with a message that the engine knows of.
    pub(super) fn commit(&mut self, engine: &mut Engine, in_hand: &InHand, reply: Reply<()>) {
        let &InHand {
            channel,
            position,
            ref record,
            bytes,
        } = in_hand;
        engine.commit(channel, position, record, bytes, self.inner.clock.now());
        self.leaves(in_hand, reply);
    }
}

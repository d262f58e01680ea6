//! Messages of an inbox in the app's hands, until they leave it (I2).
//!
//! The hub knows of them, and so does the engine, which forgets with the store's failure or with its task.

use outlive_core::engine::Engine;
use outlive_core::record::{InboxRecord, Key};
use outlive_core::{ChannelId, Position};

use super::input::Reply;
use super::{Settled, Task, Waiter};
use crate::error::Error;

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
        channel: ChannelId,
        position: Position,
        record: &InboxRecord,
    ) -> Result<(), Error> {
        if self.hub.is_in_hand((channel, position)) {
            return Ok(());
        }
        match self.is_kept(channel, position).await {
            Ok(true) => {
                engine.hand(channel, position, record);
            }
            Ok(false) => {}
            Err(error) => {
                self.hub.not_committed(channel, position);
                return Err(error);
            }
        }
        Ok(())
    }

    /// A message leaves the inbox with the next write.
    pub(super) fn leaves(&mut self, channel: ChannelId, position: Position, reply: Reply<()>) {
        let of = (channel, position);
        self.hub.begin_leaving(of);
        let waiter = Waiter::Commit(reply, self.hub.clone(), of);
        self.next.waiters.push(waiter);
    }

    /// Has a message leave the inbox of requests. It is taken in hand once more before: a
    /// panic may have ended the task that knew of it.
    pub(super) fn settle(&mut self, engine: &mut Engine, settled: &Settled, reply: Reply<()>) {
        let (now, channel) = (self.inner.clock.now(), ChannelId::REQUESTS);
        let Settled {
            position,
            record,
            bytes,
        } = settled;
        engine.hand(channel, *position, record);
        engine.commit(channel, *position, record, *bytes, now);
        self.leaves(channel, *position, reply);
    }
}

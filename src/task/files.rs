//! The files that a session sends: what the task remembers of them, and puts into the outbox.

use std::collections::BTreeSet;

use outlive_core::engine::{Ending, Engine, External, SendOptions};
use outlive_core::limits::FILE_PART_BYTES;
use outlive_core::record::{Key, Record, SendingFileRecord};
use outlive_core::store::ReadLimit;
use outlive_core::wire::file::{FileMessage, StopReason, part_head};
use outlive_core::{ChannelId, Position, TransferId};
use tracing::warn;

use super::input::{FileReply, Reply};
use super::{Task, Waiter};
use crate::error::Error;
use crate::files::{FileError, Outcome, SENDING_FILES};

impl Task {
    /// Reads what is on its way, and goes on giving up what was given up.
    pub(super) async fn load_files(&mut self, engine: &mut Engine) -> Result<(), Error> {
        let limit = ReadLimit {
            records: SENDING_FILES,
            bytes: usize::MAX,
        };
        let range = Key::sending_files(self.peer);
        self.files.clear();
        for (key, value) in self.inner.store.range(range, limit).await? {
            if let Ok(Key::SendingFile(_, transfer)) = Key::from_bytes(&key) {
                let record = SendingFileRecord::from_bytes(&value)?;
                if record.stopped.is_some() {
                    engine.give_up(ChannelId::FILES, transfer, self.inner.clock.now());
                }
                self.files.insert(transfer, record);
            }
        }
        self.forget_files(engine);
        Ok(())
    }

    /// Takes a file for sending: all of its messages, or none.
    pub(super) fn send_file(
        &mut self,
        engine: &mut Engine,
        transfer: TransferId,
        mut record: SendingFileRecord,
        reply: FileReply,
    ) {
        if self.files.len() >= SENDING_FILES {
            let _ = reply.send(Err(FileError::TooMany));
            return;
        }
        match self.queue_file(engine, transfer, &record) {
            Ok((first, end)) => {
                (record.first, record.end) = (first, end);
                let key = Key::SendingFile(self.peer, transfer);
                engine.note(key, Some(record.to_bytes()));
                self.files.insert(transfer, record);
                self.next.waiters.push(Waiter::File(reply, (first, end)));
            }
            // The caller may have gone away.
            Err(error) => drop(reply.send(Err(error.into()))),
        }
    }

    fn queue_file(
        &self,
        engine: &mut Engine,
        transfer: TransferId,
        record: &SendingFileRecord,
    ) -> Result<(Position, Position), Error> {
        let (now, options) = (self.inner.clock.now(), SendOptions::default());
        let begin = FileMessage::Begin(transfer, record.info.clone()).to_bytes();
        let mut ticket = engine.send(ChannelId::FILES, &begin, &options, now)?;
        let (first, mut offset) = (ticket.first, 0);
        while offset < record.info.size {
            let part = External {
                transfer,
                offset,
                length: FILE_PART_BYTES.min(record.info.size.saturating_sub(offset)),
                beginning: part_head(transfer, offset),
            };
            ticket = engine.send_external(ChannelId::FILES, &part, &options, now)?;
            offset = offset.saturating_add(part.length);
        }
        Ok((first, ticket.end))
    }

    /// The app calls a file off.
    pub(super) fn cancel_file(
        &mut self,
        engine: &mut Engine,
        transfer: TransferId,
        reply: Reply<()>,
    ) {
        self.stop_file(engine, transfer, StopReason::Cancelled, true);
        self.next.waiters.push(Waiter::Noted(reply));
    }

    /// The receiver has said how a file ended.
    pub(super) fn file_reply(
        &mut self,
        engine: &mut Engine,
        transfer: TransferId,
        outcome: Outcome,
        reply: Reply<()>,
    ) {
        match outcome {
            Ok(()) => {
                if self.files.remove(&transfer).is_some() {
                    engine.note(Key::SendingFile(self.peer, transfer), None);
                }
                self.hub.files.ended(transfer, Ok(()));
            }
            Err(reason) => self.stop_file(engine, transfer, reason, false),
        }
        self.next.waiters.push(Waiter::Noted(reply));
    }

    /// Files could not be read on: they are gone, or have changed.
    pub(super) fn files_changed(&mut self, engine: &mut Engine, failed: BTreeSet<TransferId>) {
        for transfer in failed {
            self.stop_file(engine, transfer, StopReason::Changed, true);
        }
    }

    /// A message about a file has ended before it was delivered, and the file with it.
    pub(super) fn file_message_ended(&mut self, engine: &mut Engine, end: Position, how: Ending) {
        if matches!(how, Ending::Cancelled | Ending::Unreadable) {
            return;
        }
        let of = |record: &SendingFileRecord| record.first < end && end <= record.end;
        let found = self.files.iter().find(|(_, record)| of(record));
        if let Some((&transfer, _)) = found {
            self.stop_file(engine, transfer, StopReason::Expired, true);
        }
    }

    fn stop_file(
        &mut self,
        engine: &mut Engine,
        transfer: TransferId,
        reason: StopReason,
        tell: bool,
    ) {
        let Some(record) = self.files.get_mut(&transfer) else {
            return;
        };
        if record.stopped.is_some() {
            return;
        }
        record.stopped = Some(reason);
        let key = Key::SendingFile(self.peer, transfer);
        engine.note(key, Some(record.to_bytes()));
        let now = self.inner.clock.now();
        engine.give_up(ChannelId::FILES, transfer, now);
        if tell {
            let stop = FileMessage::Stop(transfer, reason).to_bytes();
            let sent = engine.send(ChannelId::FILES, &stop, &SendOptions::default(), now);
            if let Err(error) = sent {
                warn!(%transfer, %error, "the peer can't be told that a file won't come");
            }
        }
        self.hub.files.ended(transfer, Err(reason));
    }

    /// Forgets files that were given up, once nothing of them is left in the outbox.
    pub(super) fn forget_files(&mut self, engine: &mut Engine) {
        let out = engine.session().out.get(&ChannelId::FILES);
        let offer = out.map_or(Position(0), |out| out.offer);
        let peer = self.peer;
        self.files.retain(|&transfer, record| {
            let over = record.stopped.is_some() && record.end <= offer;
            if over {
                engine.note(Key::SendingFile(peer, transfer), None);
            }
            !over
        });
    }
}

//! The files that a session sends: what the task remembers of them, and puts into the outbox.

use outlive_core::engine::{Ending, Engine, External, SendError, SendOptions, Ticket};
use outlive_core::limits::FILE_PART_BYTES;
use outlive_core::record::{Extent, Key, Record, SendingFileRecord, SendingState};
use outlive_core::store::ReadLimit;
use outlive_core::wire::file::{FileMessage, StopReason, part_head};
use outlive_core::{ChannelId, Position, TransferId};
use tracing::debug;

use super::input::{FileQueued, Reply};
use super::sends::{Then, WaitingSend};
use super::{STORE_RETRY, Task, Waiter, holds_mail};
use crate::error::Error;
use crate::files::{Content, FileError, Outcome, SENDING_FILES};

/// A file that the app wants to send.
pub(super) struct OfferedFile {
    pub(super) transfer: TransferId,
    pub(super) record: Box<SendingFileRecord>,
    pub(super) reply: FileQueued,
}

impl Task {
    /// Reads what is on its way, and goes on giving up what was given up.
    pub(super) async fn load_files(&mut self, engine: &mut Engine) -> Result<(), Error> {
        let limit = ReadLimit {
            records: SENDING_FILES,
            bytes: usize::MAX,
        };
        let range = Key::sending_files(self.peer);
        self.files.clear();
        self.asked.clear();
        for (key, value) in self.inner.store.range(range, limit).await? {
            if let Ok(Key::SendingFile(_, transfer)) = Key::of_peer(self.peer, &key) {
                let record = SendingFileRecord::from_bytes(&value)?;
                let now = self.inner.clock.now();
                if let Some(reason) = record.state.stopped() {
                    engine.give_up(ChannelId::FILES, transfer, now);
                    // It may have been written by a commit that was said to have failed.
                    self.hub.files.ended(transfer, Err(reason));
                } else {
                    engine.await_consumed(ChannelId::FILES, last_end(&record), now);
                }
                self.files.insert(transfer, record);
            }
        }
        self.tell_stopped(engine);
        self.ask_about_files(engine);
        self.forget_files(engine);
        Ok(())
    }

    /// Takes a file for sending, as soon as there is room: all of its messages, or none.
    pub(super) async fn send_file(&mut self, engine: &mut Engine, file: OfferedFile) {
        let waiting = |send: &&WaitingSend| matches!(send.then, Then::File(_));
        let waiting = self.sends.iter().filter(waiting).count();
        if self.files.len().saturating_add(waiting) >= SENDING_FILES {
            // The caller may have gone away.
            drop(file.reply.send(Err(FileError::TooMany)));
            return;
        }
        let begin = FileMessage::Begin(file.transfer, file.record.info.clone());
        let send = WaitingSend {
            channel: ChannelId::FILES,
            payload: begin.to_bytes(),
            options: SendOptions::default(),
            wait: true,
            then: Then::File(file),
        };
        self.send_or_wait(engine, send).await;
    }

    /// The beginning of a file was taken for sending: its parts go with it.
    pub(super) fn file_begun(&mut self, engine: &mut Engine, begin: Ticket, file: OfferedFile) {
        let OfferedFile {
            transfer,
            mut record,
            reply,
        } = file;
        match self.queue_parts(engine, transfer, record.info.size) {
            Ok(last) => {
                record.first = begin.first;
                record.end = last.map_or(begin.end, |last| last.end);
                let asked = engine.session().heard_last();
                record.state = SendingState::Going { asked };
                engine.note(self.file_key(transfer), Some(record.to_bytes()));
                engine.await_consumed(ChannelId::FILES, record.end, self.inner.clock.now());
                let positions = (record.first, record.end);
                self.files.insert(transfer, *record);
                self.next.waiters.push(Waiter::File(reply, positions));
            }
            // The caller may have gone away.
            Err(error) => drop(reply.send(Err(Error::from(error).into()))),
        }
    }

    fn queue_parts(
        &self,
        engine: &mut Engine,
        transfer: TransferId,
        size: u64,
    ) -> Result<Option<Ticket>, SendError> {
        let (now, options) = (self.inner.clock.now(), SendOptions::default());
        let (mut last, mut offset) = (None, 0);
        while offset < size {
            let length = FILE_PART_BYTES.min(size.saturating_sub(offset));
            let part = External {
                extent: Extent {
                    transfer,
                    offset,
                    length,
                },
                beginning: part_head(transfer, offset),
            };
            last = Some(engine.send_external(ChannelId::FILES, &part, &options, now)?);
            offset = offset.saturating_add(length);
        }
        Ok(last)
    }

    const fn file_key(&self, transfer: TransferId) -> Key {
        Key::SendingFile(self.peer, transfer)
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
                    engine.note(self.file_key(transfer), None);
                }
            }
            Err(reason) => self.stop_file(engine, transfer, reason, false),
        }
        self.tell_end(transfer, outcome);
        self.next.waiters.push(Waiter::Noted(reply));
    }

    /// Tells who holds a file how it ended, once the store shows that: who looks before finds it on
    /// its way, and is to hear of it too.
    fn tell_end(&mut self, transfer: TransferId, outcome: Outcome) {
        let ended = Waiter::Ended(self.hub.clone(), transfer, outcome);
        self.next.waiters.push(ended);
    }

    /// A part of a file was read, or could not be.
    pub(super) fn file_read(
        &mut self,
        engine: &mut Engine,
        transfer: TransferId,
        content: Content,
    ) {
        let now = self.inner.clock.now();
        match content {
            Content::Read(content) => engine.content(Some(content), now),
            Content::Changed => {
                engine.content(None, now);
                self.stop_file(engine, transfer, StopReason::Changed, true);
            }
            Content::Later => {
                let at = now.elapsed.saturating_add(STORE_RETRY);
                engine.content_later(at, now);
            }
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
        // A question that has not come may be asked again.
        let asks = |record: &SendingFileRecord| matches!(record.state, SendingState::Asked { end: of, .. } if of == end);
        let files = &self.files;
        self.asked
            .retain(|transfer| !files.get(transfer).is_some_and(asks));
    }

    /// Asks the peer about files of which it acknowledged everything, but may have lost what it knew
    /// since: it has another epoch, or is done with their messages and has not said how they ended, for
    /// who lost messages is done with them too. Of parts of a file that it does not know it says so; where
    /// none is to come, there is one without content, at the end. Where the outbox is full, it is asked
    /// later, and so it is while the last question has not come: whatever epochs it makes up, one waits.
    /// A peer that never says how a file ended is not asked again and again.
    pub(super) fn ask_about_files(&mut self, engine: &mut Engine) {
        let (offer, heard) = (offer(engine), engine.session().heard_last());
        let consumed = consumed(engine);
        // What it said may wait to be read.
        let unread = holds_mail(engine)(ChannelId::FILE_REPLIES);
        self.asked.retain(|asked| self.files.contains_key(asked));
        for (&transfer, record) in &mut self.files {
            let asked = match record.state {
                SendingState::Going { asked } => asked,
                SendingState::Asked { heard, .. } => heard,
                SendingState::Stopped { .. } => continue,
            };
            let silent = last_end(record) <= consumed && !unread && !self.asked.contains(&transfer);
            if last_end(record) > offer || asked == heard && !silent {
                continue;
            }
            let question = part_head(transfer, record.info.size);
            let (now, options) = (self.inner.clock.now(), SendOptions::default());
            match engine.send(ChannelId::FILES, &question, &options, now) {
                Ok(Ticket { end, .. }) => {
                    record.state = SendingState::Asked { heard, end };
                    engine.await_consumed(ChannelId::FILES, end, now);
                }
                Err(error) => {
                    debug!(%transfer, %error, "the peer is asked later whether it knows a file");
                    return;
                }
            }
            if asked == heard {
                self.asked.insert(transfer);
            }
            engine.note(
                Key::SendingFile(self.peer, transfer),
                Some(record.to_bytes()),
            );
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
        if record.state.stopped().is_some() {
            return;
        }
        let told = !tell;
        record.state = SendingState::Stopped { reason, told };
        engine.note(
            Key::SendingFile(self.peer, transfer),
            Some(record.to_bytes()),
        );
        engine.give_up(ChannelId::FILES, transfer, self.inner.clock.now());
        self.tell_stopped(engine);
        self.tell_end(transfer, Err(reason));
        // All of it may have left: then nothing moves on its channel that would have it forgotten.
        self.forget_files(engine);
    }

    /// Tells the peer of files that will not come. Where the outbox is full, it is said later.
    pub(super) fn tell_stopped(&mut self, engine: &mut Engine) {
        for (&transfer, record) in &mut self.files {
            let SendingState::Stopped {
                reason,
                told: told @ false,
            } = &mut record.state
            else {
                continue;
            };
            let stop = FileMessage::Stop(transfer, *reason).to_bytes();
            let (now, options) = (self.inner.clock.now(), SendOptions::default());
            if let Err(error) = engine.send(ChannelId::FILES, &stop, &options, now) {
                debug!(%transfer, %error, "the peer is told later that a file won't come");
                return;
            }
            *told = true;
            engine.note(
                Key::SendingFile(self.peer, transfer),
                Some(record.to_bytes()),
            );
        }
    }

    /// Forgets files that were given up, once nothing of them is left in the outbox and the peer
    /// knows.
    pub(super) fn forget_files(&mut self, engine: &mut Engine) {
        let (offer, peer) = (offer(engine), self.peer);
        self.files.retain(|&transfer, record| {
            let told = matches!(record.state, SendingState::Stopped { told: true, .. });
            let over = told && record.end <= offer;
            if over {
                engine.note(Key::SendingFile(peer, transfer), None);
            }
            !over
        });
    }
}

/// The first position of what the peer does not have, and what follows, of our files.
fn offer(engine: &Engine) -> Position {
    let out = engine.session().out.get(&ChannelId::FILES);
    out.map_or(Position(0), |out| out.offer)
}

/// The first position that the peer's app is not done with.
fn consumed(engine: &Engine) -> Position {
    let out = engine.session().out.get(&ChannelId::FILES);
    out.map_or(Position(0), |out| out.consumed)
}

/// One past the position of the last that was said of a file that may still arrive.
const fn last_end(record: &SendingFileRecord) -> Position {
    match record.state {
        SendingState::Asked { end, .. } => end,
        SendingState::Going { .. } | SendingState::Stopped { .. } => record.end,
    }
}

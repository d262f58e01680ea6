//! A file of which all has come: it is checked, and gets its name.

use std::path::{Path, PathBuf};

use outlive_core::TransferId;
use outlive_core::record::{Key, ReceivingFileRecord, ReceivingState, Record};
use outlive_core::store::Batch;
use outlive_core::wire::file::{FileMessage, StopReason};

use super::disk::{self, NAMES, blocking};
use super::error::FileError;
use super::inbox::FileEvent;
use super::offer::text;
use super::received::ReceivedFile;
use super::receiving::{IncomingFiles, Receiving};
use super::{FileProgress, name};
use crate::error::Error;

impl IncomingFiles {
    /// A file is there up to `end`: if it is whole, it is checked and gets its name.
    pub(super) async fn go_on(
        &mut self,
        transfer: TransferId,
        end: u64,
    ) -> Result<Vec<FileEvent>, FileError> {
        let Some(receiving) = self.receiving.get_mut(&transfer) else {
            return Ok(Vec::new());
        };
        receiving.length = receiving.length.max(Some(end));
        let size = receiving.record.info.size;
        let progress = FileEvent::Progress(transfer, FileProgress { done: end, size });
        if end < size {
            return Ok(vec![progress]);
        }
        let record = receiving.record.clone();
        if let ReceivingState::Received(path) = record.state {
            let mut events = vec![progress];
            events.extend(self.received(transfer, path).await?);
            return Ok(events);
        }
        self.expect_no_more(transfer).await?;
        let (part, info) = (PathBuf::from(&record.part), record.info.clone());
        let checked = part.clone();
        let good = match blocking(move || disk::holds(&checked, info.size, info.hash)).await {
            Err(error) if error.is_missing() => return self.part_gone(transfer).await,
            checked => checked?,
        };
        if !good {
            return self.fail(transfer, StopReason::Corrupt).await;
        }
        let path = text(self.name(transfer, record).await?)?;
        let mut events = vec![progress];
        events.extend(self.received(transfer, path).await?);
        Ok(events)
    }

    /// What was put together of a file is not there any more: the file has its name, or was taken
    /// away before.
    pub(super) async fn part_gone(
        &mut self,
        transfer: TransferId,
    ) -> Result<Vec<FileEvent>, FileError> {
        let Some(Receiving { record, .. }) = self.receiving.get(&transfer) else {
            return Ok(Vec::new());
        };
        let (state, info) = (record.state.clone(), record.info.clone());
        match state {
            ReceivingState::Coming => self.fail(transfer, StopReason::Failed).await,
            ReceivingState::Naming(path) => {
                let named = PathBuf::from(&path);
                // If it was renamed, that may have ended before it was durable or written down. What
                // somebody has put there may be as long as the file.
                let renamed = blocking(move || {
                    let renamed = disk::is_there(&named, info.size, info.hash)?;
                    if renamed {
                        disk::sync_name(&named)?;
                    }
                    Ok(renamed)
                });
                if renamed.await? {
                    self.received(transfer, path).await
                } else {
                    self.fail(transfer, StopReason::Failed).await
                }
            }
            ReceivingState::Received(path) => self.tell_received(transfer, path.into()).await,
        }
    }

    /// A file has its name, and its user may change it from here on: that it has is known before it can be
    /// written down, and need not be found out again.
    async fn received(
        &mut self,
        transfer: TransferId,
        path: String,
    ) -> Result<Vec<FileEvent>, FileError> {
        let state = ReceivingState::Received(path.clone());
        if let Some(receiving) = self.receiving.get_mut(&transfer) {
            receiving.record.state = state.clone();
        }
        self.note(transfer, state).await?;
        self.tell_received(transfer, path.into()).await
    }

    /// The sender hears of a file before the app.
    async fn tell_received(
        &mut self,
        transfer: TransferId,
        path: PathBuf,
    ) -> Result<Vec<FileEvent>, FileError> {
        self.reply(FileMessage::Done(transfer)).await?;
        let Some(Receiving { record, .. }) = self.receiving.remove(&transfer) else {
            return Ok(Vec::new());
        };
        Ok(vec![FileEvent::Received(ReceivedFile {
            route: self.route.clone(),
            transfer,
            record,
            path,
        })])
    }

    /// Gives a file that is whole a name that is free. Which one is written down before, so that it is
    /// found there after a crash. A name at which somebody has put something since is theirs, and
    /// another one is found.
    async fn name(
        &mut self,
        transfer: TransferId,
        record: ReceivingFileRecord,
    ) -> Result<PathBuf, FileError> {
        let ReceivingFileRecord {
            info,
            directory,
            part,
            state,
        } = record;
        let name = name::safe(&info.name);
        let mut chosen = match state {
            ReceivingState::Coming => None,
            ReceivingState::Naming(path) | ReceivingState::Received(path) => Some(path),
        };
        for _ in 0..NAMES {
            let path = match chosen.take() {
                Some(path) => path,
                None => {
                    let (directory, name) = (PathBuf::from(&directory), name.clone());
                    let free = text(blocking(move || disk::free(&directory, &name)).await?)?;
                    self.note(transfer, ReceivingState::Naming(free.clone()))
                        .await?;
                    free
                }
            };
            let (from, to) = (PathBuf::from(&part), PathBuf::from(&path));
            if blocking(move || disk::rename(&from, &to)).await? {
                return Ok(path.into());
            }
        }
        Err(disk::no_free_name(Path::new(&directory)))
    }

    /// Writes down how far a file has come.
    async fn note(&mut self, transfer: TransferId, state: ReceivingState) -> Result<(), FileError> {
        let Some(receiving) = self.receiving.get_mut(&transfer) else {
            return Ok(());
        };
        let record = ReceivingFileRecord {
            state,
            ..receiving.record.clone()
        };
        let mut batch = Batch::new();
        let key = Key::ReceivingFile(self.route.hub().peer, transfer);
        batch.put(key.to_bytes(), record.to_bytes());
        let store = &self.route.inner().store;
        store.commit(batch).await.map_err(Error::from)?;
        receiving.record = record;
        Ok(())
    }
}

//! A file of which all has come: it is checked, and gets its name.

use std::path::PathBuf;

use outlive_core::TransferId;
use outlive_core::record::{Key, ReceivingFileRecord, Record};
use outlive_core::store::Batch;
use outlive_core::wire::file::{FileMessage, StopReason};

use super::disk::{self, blocking};
use super::error::FileError;
use super::inbox::FileEvent;
use super::offer::text;
use super::received::ReceivedFile;
use super::receiving::{Desk, Receiving};
use super::{FileProgress, name};
use crate::error::Error;

impl Desk {
    /// A file is there up to `end`: if it is whole, it is checked and gets its name.
    pub(super) async fn go_on(
        &mut self,
        transfer: TransferId,
        end: u64,
    ) -> Result<Vec<FileEvent>, FileError> {
        let Some(receiving) = self.receiving.get_mut(&transfer) else {
            return Ok(Vec::new());
        };
        receiving.length = receiving.length.max(end);
        let size = receiving.record.info.size;
        let progress = FileEvent::Progress(transfer, FileProgress { done: end, size });
        if end < size {
            return Ok(vec![progress]);
        }
        let record = receiving.record.clone();
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
        let whole = self.named(transfer, record).await?;
        let to = whole.clone();
        blocking(move || disk::rename(&part, &to)).await?;
        let mut events = vec![progress];
        events.extend(self.received(transfer, whole).await?);
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
        let size = record.info.size;
        let Some(whole) = record.whole.clone().map(PathBuf::from) else {
            return self.fail(transfer, StopReason::Failed).await;
        };
        let named = whole.clone();
        let length = blocking(move || disk::length(&named)).await?;
        // The name that was kept for it, or what somebody has put there. If nothing is there, the app or
        // the user has taken it away since it was received.
        if length.is_some_and(|length| length != size) {
            return self.fail(transfer, StopReason::Failed).await;
        }
        if length.is_some() {
            let named = whole.clone();
            // It was renamed before, and that may have ended before it was durable.
            blocking(move || disk::sync_name(&named)).await?;
        }
        self.received(transfer, whole).await
    }

    /// A file has its name: the sender hears it before the app.
    async fn received(
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

    /// Finds the name of a file that is whole, and writes down which it is. A name at which somebody has
    /// put something since it was chosen is theirs, and another one is found.
    async fn named(
        &mut self,
        transfer: TransferId,
        mut record: ReceivingFileRecord,
    ) -> Result<PathBuf, FileError> {
        loop {
            if let Some(whole) = record.whole.clone().map(PathBuf::from) {
                let chosen = whole.clone();
                if blocking(move || disk::length(&chosen)).await? == Some(0) {
                    return Ok(whole);
                }
            }
            record = self.choose_name(transfer, record).await?;
        }
    }

    async fn choose_name(
        &mut self,
        transfer: TransferId,
        mut record: ReceivingFileRecord,
    ) -> Result<ReceivingFileRecord, FileError> {
        let directory = PathBuf::from(&record.directory);
        let name = name::safe(&record.info.name);
        let path = blocking(move || disk::create(&directory, &name, "")).await?;
        record.whole = Some(text(path.clone())?);
        let mut batch = Batch::new();
        let key = Key::ReceivingFile(self.route.hub().peer, transfer);
        batch.put(key.to_bytes(), record.to_bytes());
        let store = &self.route.inner().store;
        if let Err(error) = store.commit(batch).await {
            blocking(move || disk::remove_empty(&path)).await?;
            return Err(Error::from(error).into());
        }
        if let Some(receiving) = self.receiving.get_mut(&transfer) {
            receiving.record = record.clone();
        }
        Ok(record)
    }
}

//! The files that come: what is known of them, and how they end.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use outlive_core::engine::SendOptions;
use outlive_core::record::{Key, ReceivingFileRecord, ReceivingState, Record};
use outlive_core::store::{Batch, ReadLimit};
use outlive_core::wire::file::{FileMessage, StopReason};
use outlive_core::{ChannelId, TransferId};
use tokio::sync::oneshot;
use tracing::debug;

use super::arriving::Arriving;
use super::disk::{self, blocking};
use super::error::FileError;
use super::inbox::FileEvent;
use crate::error::Error;
use crate::route::Route;
use crate::task::Command;

/// Files from one peer that are being received, or that the app has not committed. One more is
/// stopped.
pub(super) const RECEIVING_FILES: usize = 1_024;

/// Files that are not offered when their beginning comes: those that were whole when the inbox was taken,
/// and as many whose beginning could not be committed since.
pub(super) const BEGUN_FILES: usize = 2 * RECEIVING_FILES;

/// A file that was accepted.
#[derive(Debug)]
pub(super) struct Receiving {
    pub(super) record: ReceivingFileRecord,
    /// How long it is on the disk. There may be holes in it, for parts that wait in the inbox. None if it
    /// could not be looked at.
    pub(super) length: Option<u64>,
}

/// What is known of the files that come, and what is done with them.
pub(super) struct IncomingFiles {
    pub(super) route: Route,
    pub(super) receiving: BTreeMap<TransferId, Receiving>,
    /// Files whose beginning was dealt with, and comes again because it could not be committed, or may,
    /// after a restart: by then the file may be whole, and the app may have committed it. At most
    /// [`BEGUN_FILES`].
    pub(super) begun: BTreeSet<TransferId>,
    /// The last file whose sender was told that it is over: what still comes of it needs no answer.
    over: Option<TransferId>,
}

impl IncomingFiles {
    /// With the files that were accepted before, and what has to be told of them.
    pub(super) async fn open(
        route: &Route,
    ) -> Result<(Self, Vec<Result<FileEvent, FileError>>), FileError> {
        let mut incoming = Self {
            route: route.clone(),
            receiving: BTreeMap::new(),
            begun: BTreeSet::new(),
            over: None,
        };
        // Who took them before may have gone while something was being placed.
        if let Some(arriving) = route.hub().files.arriving() {
            close(arriving).await?;
        }
        let mut events = Vec::new();
        for (key, value) in incoming.records().await? {
            let Ok(Key::ReceivingFile(_, transfer)) = Key::from_bytes(&key) else {
                continue;
            };
            let record = ReceivingFileRecord::from_bytes(&value).map_err(Error::from)?;
            match incoming.look_at(transfer, record.clone()).await {
                Ok(told) => events.extend(told.into_iter().map(Ok)),
                // The others go on.
                Err(error @ FileError::Io { .. }) => {
                    let length = None;
                    incoming
                        .receiving
                        .insert(transfer, Receiving { record, length });
                    events.push(Err(error));
                }
                Err(error) => return Err(error),
            }
        }
        Ok((incoming, events))
    }

    /// Finds out what became of a file that was accepted before.
    pub(super) async fn look_at(
        &mut self,
        transfer: TransferId,
        record: ReceivingFileRecord,
    ) -> Result<Vec<FileEvent>, FileError> {
        if self.go_on_with(transfer, record).await? {
            return Ok(Vec::new());
        }
        self.begun.insert(transfer);
        self.part_gone(transfer).await
    }

    pub(super) async fn records(&self) -> Result<Vec<(Bytes, Bytes)>, Error> {
        // As for one of them.
        let _turn = self.route.hub().files.accepting.acquire().await;
        let limit = ReadLimit {
            records: RECEIVING_FILES,
            bytes: usize::MAX,
        };
        let range = Key::receiving_files(self.route.hub().peer);
        Ok(self.route.inner().store.range(range, limit).await?)
    }

    pub(super) fn has(&self, transfer: TransferId) -> bool {
        self.receiving.contains_key(&transfer)
    }

    /// Calls off a file that was accepted.
    pub(super) async fn cancel(&mut self, transfer: TransferId) -> Result<(), FileError> {
        self.stop(transfer, StopReason::Cancelled).await
    }

    /// What was written down of a file when it was accepted.
    pub(super) async fn record(
        &self,
        transfer: TransferId,
    ) -> Result<Option<ReceivingFileRecord>, FileError> {
        // By then an acceptance whose inbox is gone is undone, unless the store did not let it.
        let _turn = self.route.hub().files.accepting.acquire().await;
        let key = Key::ReceivingFile(self.route.hub().peer, transfer);
        let found = self.route.inner().store.get(key.to_bytes()).await;
        let record = found
            .map_err(Error::from)?
            .map(|value| ReceivingFileRecord::from_bytes(&value));
        Ok(record.transpose().map_err(Error::from)?)
    }

    /// Receives a file of which there is a record. Returns whether there is a part of it.
    pub(super) async fn go_on_with(
        &mut self,
        transfer: TransferId,
        record: ReceivingFileRecord,
    ) -> Result<bool, FileError> {
        let here = match record.state {
            ReceivingState::Coming | ReceivingState::Naming(_) => {
                let part = PathBuf::from(&record.part);
                blocking(move || disk::length(&part)).await?
            }
            ReceivingState::Received(_) => None,
        };
        let length = Some(here.unwrap_or(0));
        self.receiving
            .insert(transfer, Receiving { record, length });
        Ok(here.is_some())
    }

    /// Has the parts of a file that come from now on placed at once.
    pub(super) async fn expect_more(&self, transfer: TransferId, receiving: &Receiving) {
        let files = &self.route.hub().files;
        let before = files.arriving();
        let open = before.as_ref().filter(|arriving| arriving.is_open());
        if open.is_some_and(|arriving| arriving.transfer() == transfer) {
            return;
        }
        let (part, size) = (receiving.record.part.clone(), receiving.record.info.size);
        let opened = blocking(move || {
            // Once it is replaced, who checks that file does not wait for what is placed in it.
            if let Some(before) = before {
                before.close();
            }
            Arriving::open(transfer, size, Path::new(&part)).map_err(FileError::io("write", part))
        });
        match opened.await {
            Ok(arriving) => files.set_arriving(arriving),
            // Who writes the next part will tell.
            Err(error) => debug!(%transfer, %error, "parts stay in the inbox until they are taken"),
        }
    }

    /// Has nothing more placed in a file by itself.
    pub(super) async fn expect_no_more(&self, transfer: TransferId) -> Result<(), FileError> {
        let arriving = self.route.hub().files.arriving();
        match arriving.filter(|of| of.transfer() == transfer) {
            Some(arriving) => close(arriving).await,
            None => Ok(()),
        }
    }

    /// The file will not come: neither the sender nor the app waits for it any more.
    pub(super) async fn fail(
        &mut self,
        transfer: TransferId,
        reason: StopReason,
    ) -> Result<Vec<FileEvent>, FileError> {
        self.stop(transfer, reason).await?;
        Ok(vec![FileEvent::Failed(transfer, reason)])
    }

    async fn stop(&mut self, transfer: TransferId, reason: StopReason) -> Result<(), FileError> {
        self.reply(FileMessage::Stop(transfer, reason)).await?;
        self.remove(transfer).await
    }

    /// Lets go of what there is of a file.
    pub(super) async fn remove(&mut self, transfer: TransferId) -> Result<(), FileError> {
        let Some(receiving) = self.receiving.get(&transfer) else {
            return Ok(());
        };
        let part = PathBuf::from(&receiving.record.part);
        self.expect_no_more(transfer).await?;
        blocking(move || disk::remove(&part)).await?;
        let mut batch = Batch::new();
        let key = Key::ReceivingFile(self.route.hub().peer, transfer);
        batch.delete(key.to_bytes());
        let store = &self.route.inner().store;
        store.commit(batch).await.map_err(Error::from)?;
        self.receiving.remove(&transfer);
        Ok(())
    }

    /// Parts come of a file that is not being received. Its sender waits for the end of it, if the store
    /// was lost that knew of it.
    pub(super) async fn pass_over(&mut self, transfer: TransferId) -> Result<(), FileError> {
        if self.over == Some(transfer) {
            return Ok(());
        }
        self.reply(FileMessage::Stop(transfer, StopReason::Failed))
            .await
    }

    /// Tells the sender how a file ended, durably.
    pub(super) async fn reply(&mut self, message: FileMessage) -> Result<(), FileError> {
        let transfer = message.transfer();
        let (reply, answer) = oneshot::channel();
        let command = Command::Send {
            channel: ChannelId::FILE_REPLIES,
            payload: message.to_bytes(),
            options: SendOptions::default(),
            wait: true,
            reply,
        };
        self.route.send(command).await?;
        answer.await.map_err(|_| self.route.gone())??;
        self.over = Some(transfer);
        Ok(())
    }
}

async fn close(arriving: Arc<Arriving>) -> Result<(), FileError> {
    blocking(move || {
        arriving.close();
        Ok(())
    })
    .await
}

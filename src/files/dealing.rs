//! What the receiving side does with the messages about files, a step at a time.

use std::path::PathBuf;

use outlive_core::TransferId;
use outlive_core::record::ReceivingState;
use outlive_core::wire::file::{FileInfo, FileMessage, StopReason};
use tokio::sync::oneshot;
use tracing::debug;

use super::disk::{self, blocking};
use super::error::FileError;
use super::inbox::{FileEvent, State, Taken};
use super::offer::FileOffer;
use super::receiving::{BEGUN_FILES, IncomingFiles, RECEIVING_FILES, Receiving};
use super::step::Step;

/// How a message was dealt with.
enum Dealt {
    Taken(Vec<FileEvent>),
    /// The app is to decide.
    Offered(FileOffer, oneshot::Receiver<Receiving>),
}

impl IncomingFiles {
    pub(super) async fn take(mut self, step: Step) -> Taken {
        match self.deal(&step).await {
            Ok(Dealt::Taken(events)) => self.commit(step, events).await,
            Ok(Dealt::Offered(offer, decision)) => (
                State::Undecided(self, step, decision),
                vec![FileEvent::Offered(offer)],
                Ok(()),
            ),
            Err(error) => (State::Again(self, step), Vec::new(), Err(error)),
        }
    }

    /// The app has decided about the offer of a step: if it took it, here is where it goes.
    pub(super) async fn decided(mut self, step: Step, decision: Option<Receiving>) -> Taken {
        let Some(transfer) = step.message().map(FileMessage::transfer) else {
            return self.commit(step, Vec::new()).await;
        };
        match decision {
            Some(receiving) => {
                self.receiving.insert(transfer, receiving);
                // It is known now; an empty file is whole already.
                self.take(step).await
            }
            None => {
                let declined = FileMessage::Stop(transfer, StopReason::Declined);
                match self.reply(declined).await {
                    Ok(()) => self.commit(step, Vec::new()).await,
                    // It is offered again.
                    Err(error) => (State::Again(self, step), Vec::new(), Err(error)),
                }
            }
        }
    }

    async fn commit(mut self, step: Step, events: Vec<FileEvent>) -> Taken {
        let begun = match step.message() {
            Some(FileMessage::Begin(transfer, _)) => Some(*transfer),
            _ => None,
        };
        // What was not committed comes again; what happened has happened all the same.
        let committed = step.commit().await.map_err(FileError::from);
        match begun {
            Some(transfer) if committed.is_ok() => {
                self.begun.remove(&transfer);
            }
            Some(transfer) if self.begun.len() < BEGUN_FILES => {
                self.begun.insert(transfer);
            }
            _ => {}
        }
        (State::Idle(self), events, committed)
    }

    async fn deal(&mut self, step: &Step) -> Result<Dealt, FileError> {
        let Some(message) = step.message().cloned() else {
            return Ok(Dealt::Taken(Vec::new()));
        };
        if let FileMessage::Begin(transfer, _) | FileMessage::Part { transfer, .. } = message
            && let Some(Receiving {
                record,
                length: None,
            }) = self.receiving.get(&transfer)
        {
            match record.state {
                ReceivingState::Coming => {
                    let told = self.look_at(transfer, record.clone()).await?;
                    if !self.has(transfer) {
                        return Ok(Dealt::Taken(told));
                    }
                }
                // All of it had come: nothing in a message is missing, and those behind it need not wait.
                ReceivingState::Naming(_) | ReceivingState::Received(_) => {
                    return Ok(Dealt::Taken(Vec::new()));
                }
            }
        }
        let events = match message {
            FileMessage::Begin(transfer, info) => return self.begin(transfer, info).await,
            FileMessage::Part {
                transfer, offset, ..
            } => self.parts(transfer, offset, step).await?,
            FileMessage::Stop(transfer, reason) => self.stopped(transfer, reason).await?,
            FileMessage::Done(transfer) => {
                debug!(%transfer, "the word of a receiver on the channel of senders");
                Vec::new()
            }
        };
        Ok(Dealt::Taken(events))
    }

    /// The beginning of a file: unless it is known, the app is to decide about it.
    async fn begin(&mut self, transfer: TransferId, info: FileInfo) -> Result<Dealt, FileError> {
        let over = !self.has(transfer) && self.is_over(transfer).await?;
        let events = if let Some(receiving) = self.receiving.get(&transfer) {
            self.expect_more(transfer, receiving).await;
            // Only an empty file is whole without a part. What the disk has of another one
            // may have holes, into which parts that wait in the inbox belong.
            self.go_on(transfer, 0).await?
        } else if over {
            Vec::new()
        } else if self.records().await?.len() >= RECEIVING_FILES {
            self.reply(FileMessage::Stop(transfer, StopReason::Failed))
                .await?;
            Vec::new()
        } else {
            let (offer, decided) = FileOffer::new(self.route.clone(), transfer, info);
            return Ok(Dealt::Offered(offer, decided));
        };
        Ok(Dealt::Taken(events))
    }

    /// Parts of a file, from `offset` on.
    async fn parts(
        &mut self,
        transfer: TransferId,
        offset: u64,
        step: &Step,
    ) -> Result<Vec<FileEvent>, FileError> {
        let Some(receiving) = self.receiving.get(&transfer) else {
            self.pass_over(transfer).await?;
            return Ok(Vec::new());
        };
        let end = step.end();
        if end > receiving.record.info.size || Some(offset) > receiving.length {
            return self.fail(transfer, StopReason::Corrupt).await;
        }
        let written = match &receiving.record.state {
            ReceivingState::Coming => {
                let part = PathBuf::from(&receiving.record.part);
                let pieces = step.pieces().to_vec();
                self.expect_more(transfer, receiving).await;
                blocking(move || disk::write(&part, &pieces)).await
            }
            // All of it was there when this was tried before.
            ReceivingState::Naming(_) | ReceivingState::Received(_) => Ok(()),
        };
        match written {
            Ok(()) => self.go_on(transfer, end).await,
            // What was put together is gone.
            Err(error) if error.is_missing() => self.fail(transfer, StopReason::Failed).await,
            Err(error) => Err(error),
        }
    }

    /// The sender has ended a file.
    async fn stopped(
        &mut self,
        transfer: TransferId,
        reason: StopReason,
    ) -> Result<Vec<FileEvent>, FileError> {
        if !self.has(transfer) {
            return Ok(Vec::new());
        }
        self.remove(transfer).await?;
        Ok(vec![FileEvent::Failed(transfer, reason)])
    }

    /// Whether a file that is not being received has come to its end, and its beginning comes again. If
    /// it was accepted after all, it is being received from here on.
    async fn is_over(&mut self, transfer: TransferId) -> Result<bool, FileError> {
        if self.begun.contains(&transfer) {
            return Ok(true);
        }
        match self.record(transfer).await? {
            None => Ok(false),
            // Whole, it waits for the app to commit it.
            Some(record) => match record.state {
                ReceivingState::Naming(_) | ReceivingState::Received(_) => Ok(true),
                ReceivingState::Coming => {
                    self.go_on_with(transfer, record).await?;
                    Ok(false)
                }
            },
        }
    }
}

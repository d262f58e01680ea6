//! What the receiving side takes at once.

use std::collections::VecDeque;

use bytes::Bytes;
use futures_util::future::join_all;
use outlive_core::TransferId;
use outlive_core::wire::file::FileMessage;
use tracing::warn;

use crate::error::Error;
use crate::inbox::Delivery;

/// A message, or parts of a file of which each begins where the one before ends.
pub(super) struct Step {
    deliveries: Vec<Delivery>,
    /// What the first says; none if that is nothing known.
    message: Option<FileMessage>,
    /// The parts behind it, if it is one.
    more: Vec<Bytes>,
}

impl Step {
    /// Takes the next off what is here.
    pub(super) fn next(here: &mut VecDeque<Delivery>) -> Option<Self> {
        let first = here.pop_front()?;
        let mut step = Self {
            message: read(&first),
            deliveries: vec![first],
            more: Vec::new(),
        };
        if let Some(FileMessage::Part {
            transfer,
            offset,
            bytes,
        }) = &step.message
        {
            let mut end = offset.saturating_add(bytes.len() as u64);
            while let Some(bytes) = here.front().and_then(|of| part_at(of, *transfer, end)) {
                end = end.saturating_add(bytes.len() as u64);
                step.more.push(bytes);
                step.deliveries.extend(here.pop_front());
            }
        }
        Some(step)
    }

    pub(super) const fn message(&self) -> Option<&FileMessage> {
        self.message.as_ref()
    }

    /// The parts that belong right behind the one that the message is.
    pub(super) fn more(&self) -> &[Bytes] {
        &self.more
    }

    /// Is done with all of it.
    pub(super) async fn commit(self) -> Result<(), Error> {
        let commits = self.deliveries.into_iter().map(Delivery::commit);
        join_all(commits).await.into_iter().collect()
    }
}

fn read(delivery: &Delivery) -> Option<FileMessage> {
    match FileMessage::decode(delivery.payload()) {
        Ok(message) => message,
        Err(error) => {
            warn!(id = %delivery.id(), %error, "a malformed message about a file");
            None
        }
    }
}

/// The bytes of the part of this file that begins there, if it is one.
fn part_at(delivery: &Delivery, of: TransferId, at: u64) -> Option<Bytes> {
    match FileMessage::decode(delivery.payload()) {
        Ok(Some(FileMessage::Part {
            transfer,
            offset,
            bytes,
        })) if transfer == of && offset == at => Some(bytes),
        _ => None,
    }
}

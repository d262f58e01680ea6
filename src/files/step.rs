//! What the receiving side takes at once.

use std::collections::VecDeque;

use bytes::Bytes;
use futures_util::future::join_all;
use outlive_core::wire::file::FileMessage;
use tracing::warn;

use super::disk::Piece;
use crate::delivery::Delivery;
use crate::error::Error;

/// A message, or parts of a file of which each begins where the one before ends.
pub(super) struct Step {
    deliveries: Vec<Delivery>,
    /// What the first says; none if that is nothing known.
    message: Option<FileMessage>,
    /// What of the parts is not in its place yet, and where the last of them ends.
    pieces: Vec<Piece>,
    end: u64,
}

impl Step {
    /// Takes the next off what is here.
    pub(super) fn next(here: &mut VecDeque<Delivery>) -> Option<Self> {
        let first = here.pop_front()?;
        let mut step = Self {
            message: read(&first),
            deliveries: Vec::new(),
            pieces: Vec::new(),
            end: 0,
        };
        if let Some(FileMessage::Part {
            transfer,
            offset,
            bytes,
        }) = step.message.clone()
        {
            step.end = offset;
            step.add(&first, &bytes);
            step.deliveries.push(first);
            while let Some(bytes) = here.front().and_then(|next| match read(next) {
                Some(FileMessage::Part {
                    transfer: of,
                    offset,
                    bytes,
                }) if of == transfer && offset == step.end => Some(bytes),
                _ => None,
            }) {
                let Some(next) = here.pop_front() else { break };
                step.add(&next, &bytes);
                step.deliveries.push(next);
            }
        } else {
            step.deliveries.push(first);
        }
        Some(step)
    }

    /// Adds a part: the bytes of it that are in the inbox, in pieces where others are in the file.
    fn add(&mut self, delivery: &Delivery, bytes: &Bytes) {
        let head = delivery.payload().len().saturating_sub(bytes.len());
        let mut from = 0;
        for placed in delivery.placed() {
            let at = placed.at.saturating_sub(head).clamp(from, bytes.len());
            self.add_piece(bytes.slice(from..at));
            self.end = self.end.saturating_add(placed.length);
            from = at;
        }
        self.add_piece(bytes.slice(from..));
    }

    fn add_piece(&mut self, bytes: Bytes) {
        let offset = self.end;
        self.end = offset.saturating_add(bytes.len() as u64);
        if !bytes.is_empty() {
            self.pieces.push((offset, bytes));
        }
    }

    pub(super) const fn message(&self) -> Option<&FileMessage> {
        self.message.as_ref()
    }

    /// What of the parts is not in its place yet.
    pub(super) fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    /// Where the last of the parts ends in the file.
    pub(super) const fn end(&self) -> u64 {
        self.end
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

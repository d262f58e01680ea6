//! Writes on their way to the store, and what may be said once they are there (I4).
//!
//! One batch is on its way at a time; what changes meanwhile collects in the next. So a session
//! costs one durable write however many messages come and go while the last one is made.

use crate::record::Session;
use crate::store::Batch;
use crate::{ChannelId, EnvelopeId, Epoch, Generation, Position, ResumeId};

use super::event::Event;

/// What is done when a batch is durable.
#[derive(Clone, Debug)]
pub(super) enum After {
    /// Tell the app.
    Event(Event),
    /// Acknowledge a stream, on this link if it still is.
    Ack {
        generation: Generation,
        epoch: Epoch,
        answers: Option<ResumeId>,
    },
    /// Say the response to the peer's initiation.
    Keys { generation: Generation },
    /// Say something under the keys that were agreed on.
    Confirm { generation: Generation },
    /// Let the mailbox drop an envelope.
    Release {
        generation: Generation,
        envelope: EnvelopeId,
    },
    /// The segments in this run are tombstones now.
    Tombstones {
        channel: ChannelId,
        first: Position,
        end: Position,
    },
}

/// The batch being collected, and the one on its way.
#[derive(Debug, Default)]
pub(super) struct Writes {
    batch: Batch,
    after: Vec<After>,
    dirty: bool,
    tombstones: bool,
    flight: Option<Flight>,
}

#[derive(Debug)]
struct Flight {
    session: Session,
    after: Vec<After>,
    tombstones: bool,
}

impl Writes {
    /// The batch under construction. The session's record will be written with it.
    pub(super) fn batch(&mut self) -> &mut Batch {
        self.dirty = true;
        &mut self.batch
    }

    /// The session's record has changed.
    pub(super) const fn touch(&mut self) {
        self.dirty = true;
    }

    /// Rewrites outbox records that a read must not see half-way.
    pub(super) const fn rewrites_outbox(&mut self) {
        self.tombstones = true;
    }

    /// Whether outbox records are being rewritten, so that reading them has to wait.
    pub(super) fn blocks_reads(&self) -> bool {
        self.tombstones || self.flight.as_ref().is_some_and(|flight| flight.tombstones)
    }

    /// Has `after` done when everything so far is durable. Returns it if that is so already.
    pub(super) fn defer(&mut self, after: After) -> Option<After> {
        if self.dirty {
            self.after.push(after);
        } else if let Some(flight) = &mut self.flight {
            flight.after.push(after);
        } else {
            return Some(after);
        }
        None
    }

    /// Whether a batch is wanted and none is on its way.
    pub(super) const fn ready(&self) -> bool {
        self.dirty && self.flight.is_none()
    }

    /// Whether anything is not durable yet.
    pub(super) const fn pending(&self) -> bool {
        self.dirty || self.flight.is_some()
    }

    /// Takes the batch, with `session` as the record that is written with it.
    pub(super) fn take(&mut self, session: Session) -> Batch {
        self.dirty = false;
        self.flight = Some(Flight {
            session,
            after: std::mem::take(&mut self.after),
            tombstones: std::mem::take(&mut self.tombstones),
        });
        std::mem::take(&mut self.batch)
    }

    /// The batch on its way is durable: the record that was written, and what to do now.
    pub(super) fn done(&mut self) -> Option<(Session, Vec<After>)> {
        self.flight
            .take()
            .map(|flight| (flight.session, flight.after))
    }
}

//! Writes on their way to the store, and what may be said once they are there (I4).
//!
//! One batch is on its way at a time; what changes meanwhile collects in the next. So a session
//! costs one durable write however many messages come and go while the last one is made.

use bytes::Bytes;

use super::Engine;
use super::event::{Event, Output, Stage};
use super::reading::Reading;
use super::rules::Rule;
use crate::limits::PURGE_RECORDS;
use crate::record::{Key, Record, Session};
use crate::store::Batch;
use crate::{ChannelId, EnvelopeId, Epoch, Generation, Now, Position, ResumeId};

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
    /// Tell what the app has committed of a stream.
    Consumed { epoch: Epoch },
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
    underway: Option<Underway>,
}

/// What is on its way to the store: the session as it is written, and what is done once it is there.
#[derive(Debug)]
struct Underway {
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
        self.tombstones || self.underway.as_ref().is_some_and(|batch| batch.tombstones)
    }

    /// Has `after` done when everything so far is durable. Returns it if that is so already.
    pub(super) fn defer(&mut self, after: After) -> Option<After> {
        if self.dirty {
            self.after.push(after);
        } else if let Some(underway) = &mut self.underway {
            underway.after.push(after);
        } else {
            return Some(after);
        }
        None
    }

    /// Whether a batch is wanted and none is on its way.
    pub(super) const fn ready(&self) -> bool {
        self.dirty && self.underway.is_none()
    }

    /// Whether anything is not durable yet.
    pub(super) const fn pending(&self) -> bool {
        self.dirty || self.underway.is_some()
    }

    /// Takes the batch, with `session` as the record that is written with it.
    pub(super) fn take(&mut self, session: Session) -> Batch {
        self.dirty = false;
        self.underway = Some(Underway {
            session,
            after: std::mem::take(&mut self.after),
            tombstones: std::mem::take(&mut self.tombstones),
        });
        std::mem::take(&mut self.batch)
    }

    /// The batch on its way is durable.
    const fn done(&mut self) -> Option<Underway> {
        self.underway.take()
    }
}

impl Engine {
    /// The last batch that [`Output::Write`] asked for is durable.
    pub fn written(&mut self, now: Now) {
        self.now = now;
        let Some(underway) = self.writes.done() else {
            return;
        };
        let Underway {
            session,
            after,
            tombstones,
        } = underway;
        if tombstones && let Some(reading) = &mut self.reading {
            *reading = Reading::Overtaken;
        }
        let before = std::mem::replace(&mut self.durable, session);
        let first = !std::mem::replace(&mut self.stored, true);
        self.tell_progress(&before, first);
        for after in after {
            self.run(after);
        }
        self.purge();
    }

    pub(super) fn next_batch(&mut self) -> Batch {
        self.write_lazily = None;
        self.live.keys.delete_old(self.now.wall);
        let work = self.live.has_work();
        if work != self.live.work || !self.stored {
            self.live.work = work;
            let key = Key::Work(self.peer).to_bytes();
            if work {
                self.writes.batch().put(key, Bytes::new());
            } else {
                self.writes.batch().delete(key);
            }
        }
        let record = self.live.to_bytes();
        self.writes
            .batch()
            .put(Key::Session(self.peer).to_bytes(), record);
        self.writes.take(self.live.clone())
    }

    pub(super) fn defer(&mut self, after: After) {
        if !self.rules.keeps(Rule::AckAfterDurable) && matches!(after, After::Ack { .. }) {
            self.durable.clone_from(&self.live);
            self.run(after);
        } else if let Some(after) = self.writes.defer(after) {
            self.run(after);
        }
    }

    pub(super) fn run(&mut self, after: After) {
        match after {
            After::Event(event) => self.outputs.push_back(Output::Event(event)),
            After::Ack {
                generation,
                epoch,
                answers,
            } => {
                if let Some(link) = self.links.get_or_best(generation) {
                    if link.is_direct() && answers.is_none() {
                        link.acks.owe_soon(epoch, self.now.elapsed);
                    } else {
                        link.acks.owe(epoch, answers);
                    }
                } else {
                    self.leave_unsaid(epoch, answers);
                }
            }
            After::Consumed { epoch } => match self.links.get_best() {
                Some(link) => link.acks.owe(epoch, None),
                None => self.leave_unsaid(epoch, None),
            },
            After::Keys { generation } => match self.links.get_or_best(generation) {
                Some(link) => link.keys_due = true,
                None => self.unsaid.keys(),
            },
            After::Confirm { generation } => self.confirm_keys(generation),
            After::Release {
                generation,
                envelope,
            } => {
                self.outputs.push_back(Output::Release {
                    generation,
                    envelope,
                });
            }
            After::Tombstones {
                channel,
                first,
                end,
            } => {
                if let Some(sending) = self.sending.get_mut(&channel) {
                    sending.ended(first, end);
                }
            }
        }
    }

    /// Tells the app what the last write made durable.
    fn tell_progress(&mut self, before: &Session, first: bool) {
        for (&channel, out) in &self.durable.out {
            let was = before.out.get(&channel).filter(|_| !first);
            let mut tell = |stage, below: Position, was: Option<Position>| {
                if was.is_none_or(|was| was < below) && below > Position(1) {
                    let event = Event::Progress {
                        channel,
                        stage,
                        below,
                    };
                    self.outputs.push_back(Output::Event(event));
                }
            };
            tell(Stage::Queued, out.next, was.map(|was| was.next));
            tell(Stage::Delivered, out.offer, was.map(|was| was.offer));
            tell(Stage::Consumed, out.consumed, was.map(|was| was.consumed));
        }
        for (&channel, inbox) in &self.durable.inboxes {
            let was = before.inboxes.get(&channel).filter(|_| !first);
            if was.is_none_or(|was| was.next < inbox.next) {
                let event = Event::Inbox {
                    channel,
                    end: inbox.next,
                };
                self.outputs.push_back(Output::Event(event));
            }
        }
    }

    /// Deletes what is no longer offered, a bounded part at a time.
    pub(super) fn purge(&mut self) {
        for (&channel, out) in &mut self.live.out {
            let end = out.offer.min(out.stored.plus(PURGE_RECORDS));
            let mut sending = self.sending.get_mut(&channel);
            while out.stored < end {
                // Of a message that lies elsewhere there is no record but its last.
                if let Some(sending) = &sending
                    && let Some((at, _)) = sending.elsewhere(out.stored)
                {
                    out.stored = at;
                    if at >= end {
                        out.stored = end;
                        break;
                    }
                }
                let key = Key::Outbox(self.peer, channel, out.stored);
                self.writes.batch().delete(key.to_bytes());
                out.stored = out.stored.next();
            }
            if let Some(sending) = &mut sending {
                sending.forget_elsewhere(out.stored);
            }
        }
    }
}

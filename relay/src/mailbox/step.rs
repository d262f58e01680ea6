//! One batch under construction, and what follows from it.

use std::collections::{BTreeSet, HashMap, HashSet};

use bytes::Bytes;
use outlive_core::store::{Batch, StoreError};
use outlive_core::transport::{Class, Sender};
use outlive_core::{EnvelopeId, PeerId, StoreTime};

use super::request::{Answer, Change, Puts};
use crate::records::{self, Newest};

/// Envelopes that requests bring and take away in one step. The rest has its turn with the next: a
/// batch is in memory as a whole, and nobody hears an answer while it is written.
pub(super) const STEP_ENVELOPES: usize = 4_096;

/// Bytes of packets after which a step takes no further one.
pub(super) const STEP_BYTES: usize = 4 * 1024 * 1024;

#[derive(Default)]
pub(super) struct Step {
    pub(super) batch: Batch,
    /// Requests, and what becomes of those of their envelopes that are in this step.
    pub(super) answers: Vec<(Puts, Vec<Answer>)>,
    /// What is accepted if the store takes the step: classes, and bytes of packets.
    pub(super) accepted: Vec<(Class, usize)>,
    pub(super) woken: BTreeSet<(PeerId, Sender)>,
    pub(super) touched: BTreeSet<PeerId>,
    /// The newest-only envelopes as this step leaves them, which no read shows yet.
    pub(super) newest: HashMap<(PeerId, Sender), Option<Newest>>,
    /// Envelopes this step removes, which reads show still: none is to be counted twice.
    pub(super) removed: HashSet<Bytes>,
    /// What recipients changed with this step.
    pub(super) changes: Vec<Change>,
    /// Why something could not be read, if so: whatever needs it is left out, and nothing else.
    pub(super) unread: Option<StoreError>,
    /// Whether what has expired was searched for because a mailbox is full.
    pub(super) swept_early: bool,
    envelopes: usize,
    bytes: usize,
}

impl Step {
    /// How many envelopes more it takes.
    pub(super) const fn room(&self) -> usize {
        if self.bytes < STEP_BYTES {
            STEP_ENVELOPES.saturating_sub(self.envelopes)
        } else {
            0
        }
    }

    /// Counts what a request brings or takes away.
    pub(super) const fn count(&mut self, envelopes: usize, bytes: usize) {
        self.envelopes = self.envelopes.saturating_add(envelopes);
        self.bytes = self.bytes.saturating_add(bytes);
    }

    /// Removes an envelope, and the note of when its time is over.
    pub(super) fn remove(
        &mut self,
        to: PeerId,
        from: Sender,
        number: EnvelopeId,
        expires: StoreTime,
    ) {
        let key = records::envelope(&to, &from, number);
        self.batch.delete(key.clone());
        self.removed.insert(key);
        self.batch
            .delete(records::expiry(expires, &to, &from, number));
    }
}

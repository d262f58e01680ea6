//! When what came is acknowledged: at once, or in the packet of the app's answer.
//!
//! An acknowledgement by itself is a packet like any other. In a conversation the app's answer follows
//! it so soon that one packet can carry both, but where no answer comes the sender should not wait for
//! its receipt. So only the past decides, as in TCP's delayed acknowledgements between two that take
//! turns: one waits where the last one would have had company in time.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::limits::ACK_DELAY;
use crate::{Epoch, ResumeId};

/// Acknowledgements that are to be said on one link.
#[derive(Debug, Default)]
pub(super) struct Acks {
    /// The peer's epochs, and the Resume that is answered by it.
    due: BTreeMap<Epoch, Option<ResumeId>>,
    /// Until when they wait for company.
    wait: Option<Duration>,
    /// When the last segment came that none of ours has followed.
    came: Option<Duration>,
    /// Whether the last answer of the app would have been company.
    answers_soon: bool,
}

impl Acks {
    /// A stream is to be acknowledged now.
    pub(super) fn owe(&mut self, epoch: Epoch, answers: Option<ResumeId>) {
        let due = self.due.entry(epoch).or_default();
        *due = answers.or(*due);
        self.wait = None;
    }

    /// Something came on a stream: it is acknowledged now, or with the app's answer. A second one does
    /// not wait with the first (RFC 1122, 4.2.3.2; RFC 9000, 13.2.2).
    pub(super) fn owe_soon(&mut self, epoch: Epoch, now: Duration) {
        // What came before this still waits: no answer came between the two.
        self.answers_soon &= self.wait.is_none();
        let waits = self.answers_soon && self.due.is_empty();
        self.owe(epoch, None);
        self.wait = waits.then_some(now + ACK_DELAY);
        self.came = Some(now);
    }

    /// A segment of ours goes out.
    pub(super) fn segment_sent(&mut self, now: Duration) {
        if let Some(came) = self.came.take() {
            self.answers_soon = now.saturating_sub(came) <= ACK_DELAY;
        }
    }

    /// Whether some are to be said with or without company.
    pub(super) fn press(&self, now: Duration) -> bool {
        !self.due.is_empty() && self.wait.is_none_or(|at| at <= now)
    }

    /// Forgets those of other epochs.
    pub(super) fn retain(&mut self, of: impl Fn(Epoch) -> bool) {
        self.due.retain(|epoch, _| of(*epoch));
    }

    #[cfg(feature = "sabotage")]
    pub(super) fn len(&self) -> usize {
        self.due.len()
    }

    /// Whether there are any.
    pub(super) fn are_due(&self) -> bool {
        !self.due.is_empty()
    }

    /// None of them waits any longer.
    pub(super) const fn hasten(&mut self) {
        self.wait = None;
    }

    /// Takes them all, to be said.
    pub(super) fn take(&mut self, now: Duration) -> BTreeMap<Epoch, Option<ResumeId>> {
        if self.wait.take().is_some_and(|at| at <= now) {
            // It waited for nothing: the next one does not.
            self.answers_soon = false;
        }
        std::mem::take(&mut self.due)
    }

    /// When those that wait are to be said at the latest.
    pub(super) fn deadline(&self) -> Option<Duration> {
        self.wait.filter(|_| !self.due.is_empty())
    }
}

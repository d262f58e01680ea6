//! What was to be said while no link led to the peer: the next one that does says it.
//!
//! What comes over a relay where the peer reads nothing is answered elsewhere, and the way there may not be up
//! yet. A sender that has left by then would otherwise never hear that its messages arrived.

use std::time::Duration;

use super::acks::Acks;
use super::{Engine, Link};
use crate::{Epoch, Generation, ResumeId};

/// Words that found no link.
#[derive(Debug, Default)]
pub(super) struct Unsaid {
    acks: Acks,
    /// Whether a handshake is.
    keys: bool,
}

impl Unsaid {
    /// A handshake is to be said.
    pub(super) const fn keys(&mut self) {
        self.keys = true;
    }

    fn is_empty(&self) -> bool {
        !self.keys && !self.acks.are_due()
    }

    /// This link leads to the peer.
    pub(super) fn say_on(&mut self, link: &mut Link) {
        for (epoch, answers) in self.acks.take(Duration::ZERO) {
            link.acks.owe(epoch, answers);
        }
        link.keys_due |= std::mem::take(&mut self.keys);
    }
}

impl Engine {
    /// An Ack finds no link. Of epochs that are forgotten there is nothing to say.
    pub(super) fn leave_unsaid(&mut self, epoch: Epoch, answers: Option<ResumeId>) {
        self.unsaid.acks.owe(epoch, answers);
        let durable = &self.durable;
        self.unsaid
            .acks
            .retain(|epoch| durable.stream(epoch).is_some());
    }

    /// Whether more is kept than there are streams.
    #[cfg(feature = "sabotage")]
    pub(super) fn unsaid_is_overgrown(&self) -> bool {
        self.unsaid.acks.len() > crate::limits::PEER_EPOCHS
    }

    /// What was to be said on this link, which leads to the peer no more, is said on another.
    pub(super) fn take_back_unsaid(&mut self, generation: Generation) {
        let Some(link) = self.links.get(generation) else {
            return;
        };
        let keys = std::mem::take(&mut link.keys_due);
        for (epoch, answers) in link.acks.take(Duration::ZERO) {
            self.leave_unsaid(epoch, answers);
        }
        self.unsaid.keys |= keys;
        if let Some(best) = self.links.get_best() {
            self.unsaid.say_on(best);
        }
    }

    /// Whether the peer waits for a word, perhaps without knowing it, that is said as soon as a link leads to
    /// it.
    #[must_use]
    pub fn owes_a_word(&self) -> bool {
        !self.unsaid.is_empty()
    }
}

//! Which session an envelope that is on its way belongs to.

use std::collections::HashMap;

use outlive_core::transport::Class;
use outlive_core::{EnvelopeId, Generation, PeerId};

/// The envelopes of one connection that the relay has not answered. They are bounded by what each
/// session may have unanswered.
#[derive(Default)]
pub(super) struct Envelopes {
    last: u64,
    sent: HashMap<EnvelopeId, (PeerId, Generation, EnvelopeId)>,
}

impl Envelopes {
    /// A number of this connection for an envelope of a session.
    pub(super) fn number(
        &mut self,
        to: PeerId,
        generation: Generation,
        envelope: EnvelopeId,
        class: Class,
    ) -> EnvelopeId {
        self.last = self.last.wrapping_add(1);
        let number = EnvelopeId(self.last);
        // Only segments have a fate that their session waits for.
        if class == Class::Keep {
            self.sent.insert(number, (to, generation, envelope));
        }
        number
    }

    /// The session whose envelope has this number, which the relay has answered.
    pub(super) fn claim(&mut self, number: EnvelopeId) -> Option<(PeerId, Generation, EnvelopeId)> {
        self.sent.remove(&number)
    }
}

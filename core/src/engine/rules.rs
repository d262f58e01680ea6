//! The rules that a simulation can switch off, to see that it would notice.

use crate::record::Session;

/// A rule of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[doc(hidden)]
pub enum Rule {
    /// An Ack leaves only when the store holds what it states (I4).
    AckAfterDurable,
    /// A segment leaves only when the store holds it (I4).
    DataAfterDurable,
    /// A Resume says only what the store holds (I4).
    ResumeAfterDurable,
    /// A resume never writes a counter (I8).
    ResumeKeepsCounters,
    /// A segment that was taken is not taken again (I2).
    Dedup,
    /// What a retired link says changes nothing (I5).
    Generations,
    /// A segment out of order waits for those before it (I1, I3).
    WaitInOrder,
    /// A handshake is sealed by itself, whatever keys there are (I1).
    HandshakeByItself,
    /// A name drawn at each start is mixed into the keys (I8).
    MixStart,
    /// What finds no room lets others pass (I3).
    Park,
    /// A link over which no answer to a challenge came goes behind those that have one.
    Validate,
}

/// The rules that are kept: all of them, outside of simulations.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rules {
    #[cfg(feature = "sabotage")]
    broken: Option<Rule>,
}

#[cfg(feature = "sabotage")]
impl Rules {
    pub(super) fn keeps(self, rule: Rule) -> bool {
        self.broken != Some(rule)
    }
}

#[cfg(not(feature = "sabotage"))]
impl Rules {
    // Takes the same arguments as the one above, so that its callers need no `cfg`.
    pub(super) const fn keeps(self, _rule: Rule) -> bool {
        true
    }
}

impl super::Engine {
    /// The session as it may be spoken of: as the store holds it.
    pub(super) fn stated(&self, rule: Rule) -> &Session {
        if self.rules.keeps(rule) {
            &self.durable
        } else {
            &self.live
        }
    }
}

#[cfg(feature = "sabotage")]
mod broken;

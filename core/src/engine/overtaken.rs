//! Whether a Resume is the peer's last word of where it is. One that waited somewhere may come after others
//! that were said later, and names an epoch that may be over.
//!
//! Under the same keys numbers tell what was said later, and so they do among packets that are sealed by
//! themselves. Of two sets of keys it is those to which the peer went over. Between a packet under shared
//! keys and one sealed by itself nothing tells, unless the latter is the newest word of a peer that may have
//! lost its keys; then a Resume does not lead back to an epoch that was there before the present one.

use super::Engine;
use crate::Epoch;
use crate::seal::{Locator, PacketNumber};

/// What is known of when a packet was sealed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sealed {
    /// Under which keys, unless by itself.
    pub(super) keys: Option<Locator>,
    /// Its number among those.
    pub(super) number: PacketNumber,
    /// Whether it is newer than all of those that came before.
    pub(super) newest: bool,
    /// Whether the peer has gone over to other keys since.
    pub(super) left: bool,
}

/// What a Resume is beside what came before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Word {
    /// Nothing that came was said later.
    Newest,
    /// No Resume that came was said later.
    Last,
    /// What it says is old.
    Overtaken,
}

impl Engine {
    /// What a Resume of this epoch is. Unless it was overtaken, those that come behind are weighed by it.
    pub(super) fn weigh(&mut self, sealed: Sealed, epoch: Epoch) -> Word {
        let word = self.word(sealed, epoch);
        if word != Word::Overtaken {
            self.sealing.last_resume = Some(sealed);
        }
        word
    }

    fn word(&self, sealed: Sealed, epoch: Epoch) -> Word {
        if sealed.left {
            return Word::Overtaken;
        }
        let later = match self.sealing.last_resume {
            None => true,
            Some(last) if last.keys == sealed.keys => sealed.newest || sealed.number > last.number,
            Some(Sealed { keys: Some(_), .. }) if sealed.keys.is_some() || sealed.newest => true,
            Some(_) if self.is_over(epoch) => false,
            Some(_) => return Word::Last,
        };
        match later {
            true if sealed.newest => Word::Newest,
            true => Word::Last,
            false => Word::Overtaken,
        }
    }

    /// Whether the peer may be at this epoch still: it is known, and it came to no other after it.
    #[must_use]
    pub fn may_be_present(&self, epoch: Epoch) -> bool {
        self.known_stream(epoch).is_some() && !self.is_over(epoch)
    }

    /// Whether the peer was at this epoch before the present one.
    fn is_over(&self, epoch: Epoch) -> bool {
        let present = self.live.peer_epoch.and_then(|of| self.known_stream(of));
        let known = self.known_stream(epoch);
        known.is_some_and(|known| present.is_some_and(|present| known < present))
    }
}

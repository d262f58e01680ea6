//! Which of several direct links between two peers are too many.
//!
//! Two peers that tell each other where they are dial each other at once, and often both get
//! through. Both ends then have to let go of the same link, without a word about it, and never of
//! the last one that works:
//!
//! 1. The newest of those that the peer with the smaller id dialed stays; if it dialed none, the
//!    newest of the other's.
//! 2. The others are let go of when something that the peer sealed has come over the one that stays,
//!    after the others were up: then it is up at both ends, whatever became of the others. Until
//!    then all are kept; what is sent twice does no harm.
//!
//! Links through a negotiated connection or a relay are none of these.

use crate::PeerId;

/// Who dialed a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DialedBy {
    /// This node.
    Us,
    /// The peer.
    Peer,
}

/// A direct link that is up, as this end sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LinkSeen {
    /// Who dialed it.
    pub dialed_by: DialedBy,
    /// Whether anything that the peer sealed came over it since the last of the links came up.
    pub heard: bool,
}

/// The places of those of `links` that are to be closed now. `links` are all that are up between
/// `me` and `peer`, in the order in which they came up.
#[must_use]
pub fn extra_links(me: PeerId, peer: PeerId, links: &[LinkSeen]) -> Vec<usize> {
    let smaller = if me < peer {
        DialedBy::Us
    } else {
        DialedBy::Peer
    };
    let newest = |by| links.iter().rposition(|link| by == link.dialed_by);
    let stays = newest(smaller).or_else(|| links.len().checked_sub(1));
    match stays.and_then(|stays| links.get(stays).map(|link| (stays, link))) {
        Some((stays, link)) if link.heard => (0..links.len()).filter(|at| *at != stays).collect(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Identity;

    fn peers() -> [PeerId; 2] {
        let mut peers = [1, 2].map(|n| Identity::from_seed([n; 32]).peer_id());
        peers.sort();
        peers
    }

    fn link(dialed_by: DialedBy, heard: bool) -> LinkSeen {
        LinkSeen { dialed_by, heard }
    }

    #[test]
    fn both_ends_of_two_links_dialed_at_once_keep_the_same() {
        use DialedBy::{Peer, Us};
        let [smaller, larger] = peers();
        // Each end saw its own come up first.
        let at_smaller = [link(Us, true), link(Peer, true)];
        let at_larger = [link(Us, true), link(Peer, true)];
        assert_eq!(extra_links(smaller, larger, &at_smaller), [1]);
        assert_eq!(extra_links(larger, smaller, &at_larger), [0]);
    }

    #[test]
    fn nothing_is_closed_before_the_other_has_been_heard_on() {
        use DialedBy::{Peer, Us};
        let [smaller, larger] = peers();
        for (me, peer, stays, goes) in [(smaller, larger, Us, Peer), (larger, smaller, Peer, Us)] {
            assert_eq!(extra_links(me, peer, &[]), [0; 0]);
            assert_eq!(extra_links(me, peer, &[link(goes, true)]), [0; 0]);
            assert_eq!(extra_links(me, peer, &[link(stays, true)]), [0; 0]);
            let both = [link(goes, true), link(stays, false)];
            assert_eq!(extra_links(me, peer, &both), [0; 0]);
            let both = [link(goes, false), link(stays, true)];
            assert_eq!(extra_links(me, peer, &both), [0]);
        }
    }

    #[test]
    fn of_links_dialed_by_the_same_peer_the_newest_stays() {
        let [smaller, larger] = peers();
        for by in [DialedBy::Us, DialedBy::Peer] {
            let links = [link(by, true), link(by, false), link(by, true)];
            assert_eq!(extra_links(smaller, larger, &links), [0, 1]);
            assert_eq!(extra_links(larger, smaller, &links), [0, 1]);
        }
    }
}

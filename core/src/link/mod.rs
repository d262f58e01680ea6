//! Links: their states, and how one is named and classed.

mod state;

pub use state::{InvalidTransition, LinkInput, LinkState};

use crate::StoreId;

/// What kind of way a link is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LinkClass {
    /// To the peer itself.
    Direct,
    /// Through a relay, which stores and forwards. Up whenever the relay is, whether the peer is
    /// there or not.
    Relayed(StoreId),
}

/// Whether the peer reads what is left at the relay of a link. What comes over the link is taken in any case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reads {
    /// It has a mailbox there that it reads, as far as is known.
    #[default]
    Always,
    /// It may: it is there at the moment, or where it reads can't be reached or is not known.
    Perhaps,
    /// Whatever is left there stays there.
    Never,
}

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

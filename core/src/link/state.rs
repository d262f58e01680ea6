//! The states of a link, and the only ways from one to the next.
//!
//! ```text
//!            Dial             Up              Interrupted
//!     New ─────────▶ Connecting ───▶ Connected ◀─────────▶ Disconnected
//!      │                 │              │          Up           │
//!      │                 │ GiveUp       │ GiveUp                │ GiveUp
//!      │                 ▼              ▼                       ▼
//!      │               Failed         Failed                  Failed
//!      └───── Close: from every state but Failed and Closed ──▶ Closed
//! ```

use std::fmt;

use thiserror::Error;

/// Where a link is in its life, in the words of WebRTC's `RTCPeerConnectionState`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LinkState {
    /// Made, nothing done yet.
    New,
    /// Being set up.
    Connecting,
    /// Carries packets.
    Connected,
    /// Silent for the moment; may come back by itself.
    Disconnected,
    /// Will not come back.
    Failed,
    /// Ended by us.
    Closed,
}

/// As `RTCPeerConnectionState` has it: `connected`.
impl fmt::Display for LinkState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::New => "new",
            Self::Connecting => "connecting",
            Self::Connected => "connected",
            Self::Disconnected => "disconnected",
            Self::Failed => "failed",
            Self::Closed => "closed",
        })
    }
}

/// What can happen to a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LinkInput {
    /// Setting up begins.
    Dial,
    /// The other end answers.
    Up,
    /// The other end fell silent.
    Interrupted,
    /// It will not come back.
    GiveUp,
    /// We end it.
    Close,
}

/// This can't happen to a link in this state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("a link that is {from:?} can't take {input:?}")]
pub struct InvalidTransition {
    /// The state it was in, and stays in.
    pub from: LinkState,
    /// What should have happened.
    pub input: LinkInput,
}

impl LinkState {
    /// The state after `input`.
    ///
    /// # Errors
    /// [`InvalidTransition`] for every pair that is not in the picture above.
    pub const fn on(self, input: LinkInput) -> Result<Self, InvalidTransition> {
        use LinkInput::{Close, Dial, GiveUp, Interrupted, Up};
        match (self, input) {
            (Self::New, Dial) => Ok(Self::Connecting),
            (Self::Connecting | Self::Disconnected, Up) => Ok(Self::Connected),
            (Self::Connected, Interrupted) => Ok(Self::Disconnected),
            (Self::Connecting | Self::Connected | Self::Disconnected, GiveUp) => Ok(Self::Failed),
            (Self::New | Self::Connecting | Self::Connected | Self::Disconnected, Close) => {
                Ok(Self::Closed)
            }
            (Self::New, Up | Interrupted | GiveUp)
            | (Self::Connecting, Dial | Interrupted)
            | (Self::Connected, Dial | Up)
            | (Self::Disconnected, Dial | Interrupted)
            | (Self::Failed | Self::Closed, Dial | Up | Interrupted | GiveUp | Close) => {
                Err(InvalidTransition { from: self, input })
            }
        }
    }

    /// Whether nothing can happen to the link any more.
    #[must_use]
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Failed | Self::Closed)
    }
}

#[cfg(test)]
mod tests {
    use super::LinkInput::{Close, Dial, GiveUp, Interrupted, Up};
    use super::LinkState::{Closed, Connected, Connecting, Disconnected, Failed, New};
    use super::*;

    #[test]
    fn a_link_comes_up_falls_silent_and_comes_back() {
        let path = [
            (Dial, Connecting),
            (Up, Connected),
            (Interrupted, Disconnected),
            (Up, Connected),
            (Close, Closed),
        ];
        let mut state = New;
        for (input, next) in path {
            state = state.on(input).unwrap();
            assert_eq!(state, next);
        }
    }

    #[test]
    fn nothing_happens_to_a_link_that_is_over() {
        for state in [Failed, Closed] {
            assert!(state.is_final());
            for input in [Dial, Up, Interrupted, GiveUp, Close] {
                assert_eq!(
                    state.on(input),
                    Err(InvalidTransition { from: state, input })
                );
            }
        }
    }

    #[test]
    fn what_is_not_in_the_table_is_an_error_and_changes_nothing() {
        let allowed = [New, Connecting, Connected, Disconnected]
            .into_iter()
            .flat_map(|state| {
                [Dial, Up, Interrupted, GiveUp, Close].map(|input| state.on(input).is_ok())
            })
            .filter(|ok| *ok)
            .count();
        assert_eq!(allowed, 1 + 2 + 1 + 3 + 4);
    }
}

//! Who begins the handshake of DTLS. That is settled by the first answer, and by [RFC 8842] each later
//! one has to say the same, for a restart of ICE does not make a new handshake. `webrtc` says in every
//! answer that it begins; browsers refuse that where it did not.
//!
//! [RFC 8842]: https://www.rfc-editor.org/rfc/rfc8842#section-5

const BEGINS: &str = "a=setup:active";
const WAITS: &str = "a=setup:passive";

/// Our part in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Role {
    /// We begin, as who answers first does here.
    #[default]
    Begins,
    /// The peer begins.
    Waits,
}

impl Role {
    /// What an answer of the peer leaves us, if it is the first.
    pub(super) fn of_answer(sdp: &str) -> Self {
        if sdp.lines().any(|line| line == BEGINS) {
            Self::Waits
        } else {
            Self::Begins
        }
    }

    /// An answer of `webrtc`, with our part in it.
    pub(super) fn tell(self, answer: String) -> String {
        match self {
            Self::Begins => answer,
            Self::Waits => answer.replace(BEGINS, WAITS),
        }
    }
}

//! How a connection to a relay ends, and how soon the next one is made after it.

use std::time::Duration;

use outlive_core::transport::{GoodbyeReason, TransportError};

/// How long a connection has to last for the next one to be made at once, if it ended for a reason
/// that would end the next one too. Longer than the longest wait between attempts: two nodes of one identity
/// push each other out, each when its wait is over.
const SETTLED: Duration = Duration::from_secs(60);

/// How long one has to last for that if it broke before the relay had said anything. One that falls over when
/// it is greeted is not to be greeted without end.
const GREETED: Duration = Duration::from_secs(10);

/// How a connection ended.
pub(super) enum Ended {
    /// The relay is used no more.
    Left,
    /// We ourselves have moved. Others have not, and need no time between us.
    Moved,
    NetworkDown,
    /// The network had changed, and nothing came any more.
    LedNowhere,
    Failed {
        error: TransportError,
        /// Whether the relay had said anything over it.
        was_heard: bool,
    },
    /// The second one failed, on which we are not named, and the first with it.
    SecondFailed(TransportError),
}

impl Ended {
    /// How long it has to have lasted for the next one to be made at once.
    pub(super) const fn time_to_settle(&self) -> Duration {
        match self {
            Self::Left | Self::Moved | Self::NetworkDown | Self::LedNowhere => Duration::ZERO,
            // The next one would end in the same way, for all we know.
            Self::SecondFailed(_) => SETTLED,
            Self::Failed { error, was_heard } => match error {
                TransportError::Closed(GoodbyeReason::Draining) => Duration::ZERO,
                TransportError::Closed(_)
                | TransportError::Refused(_)
                | TransportError::Protocol(_) => SETTLED,
                _ if *was_heard => Duration::ZERO,
                _ => GREETED,
            },
        }
    }
}

//! Who may open a session with us.

use std::fmt;
use std::sync::Arc;

use outlive_core::PeerId;

/// Who may open a session with us.
#[derive(Clone, Default)]
pub enum Strangers {
    /// Anyone. Until the app opens the session, or trusts the peer, what a stranger can make us
    /// keep is bounded by [`STRANGER_BYTES`](outlive_core::limits::STRANGER_BYTES), and the number
    /// of such strangers by [`STRANGERS`](outlive_core::limits::STRANGERS).
    #[default]
    Accept,
    /// Only peers the app has opened a session with, at any time, and those it trusts: that is
    /// remembered on disk.
    KnownOnly,
    /// Whom this function accepts. It is asked for each packet until it says yes, and once more for
    /// what came while the store failed. It must not block. One that panics has said no to that packet, and
    /// an error is logged.
    Ask(Arc<dyn Fn(PeerId) -> bool + Send + Sync>),
}

impl fmt::Debug for Strangers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Accept => "Accept",
            Self::KnownOnly => "KnownOnly",
            Self::Ask(_) => "Ask(..)",
        })
    }
}

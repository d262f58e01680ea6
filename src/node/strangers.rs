//! Who may open a session with us.

use std::fmt;
use std::sync::Arc;

use outlive_core::PeerId;

/// Who may open a session with us.
#[derive(Clone, Default)]
pub enum Strangers {
    /// Anyone.
    #[default]
    Accept,
    /// Only peers the app has opened a session with, at any time: that is remembered on disk.
    KnownOnly,
    /// Whom this function accepts. It is asked for each packet until it says yes, and must not
    /// block.
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

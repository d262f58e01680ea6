//! Packets that are left readable, for tests and benchmarks. No other build has this.

use std::collections::VecDeque;

use super::Engine;

impl Engine {
    /// Seals nothing from here on, and takes what is not sealed.
    #[doc(hidden)]
    pub fn seal_nothing(&mut self) {
        self.sealing.plain = true;
    }

    /// Whether what comes without a seal from here on waited somewhere while newer packets came.
    #[doc(hidden)]
    pub const fn take_as_late(&mut self, late: bool) {
        self.sealing.late = late;
    }

    /// The frames of the packets that were sent since this was asked last, as they were before they
    /// were sealed.
    #[doc(hidden)]
    pub fn overhear(&mut self) -> VecDeque<Vec<u8>> {
        self.sealing
            .said
            .replace(VecDeque::new())
            .unwrap_or_default()
    }
}

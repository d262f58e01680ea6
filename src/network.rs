//! Whether there is a network, as the app learns it from its operating system.

use std::sync::Arc;

use tokio::sync::watch;

/// Tells a node whether there is a network. Down pauses dialing; up dials at once, whatever the
/// back-off was.
///
/// ```
/// # use outlive::NetworkMonitor;
/// let network = NetworkMonitor::new();
/// network.down();
/// network.up();
/// ```
#[derive(Clone, Debug)]
pub struct NetworkMonitor {
    state: Arc<watch::Sender<Network>>,
}

/// The network as last told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Network {
    pub(crate) up: bool,
    /// Counts each word of it being up, so that every one of them wakes the dialing.
    pub(crate) ups: u64,
}

impl Default for NetworkMonitor {
    fn default() -> Self {
        Self::new()
    }
}

impl NetworkMonitor {
    /// A monitor that says the network is up.
    #[must_use]
    pub fn new() -> Self {
        Self {
            state: Arc::new(watch::Sender::new(Network { up: true, ups: 0 })),
        }
    }

    /// There is a network, perhaps another one than before: dial at once.
    pub fn up(&self) {
        self.state.send_modify(|state| {
            state.up = true;
            state.ups = state.ups.wrapping_add(1);
        });
    }

    /// There is no network: dialing is of no use.
    pub fn down(&self) {
        self.state.send_modify(|state| state.up = false);
    }

    pub(crate) fn watch(&self) -> watch::Receiver<Network> {
        self.state.subscribe()
    }
}

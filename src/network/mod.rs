//! Whether there is a network, as the app or this library learns it from the operating system.

#[cfg(all(feature = "network", target_os = "linux"))]
mod system;

use std::sync::Arc;

use tokio::sync::watch;

/// Tells a node whether there is a network. Down pauses dialing; up dials at once, whatever the
/// back-off was and however far an attempt under way has come, and has a connection that is there
/// show that it still leads somewhere. Say it once for each change, and when the device has slept. Where it is
/// said again and again, attempts have ever more time, so that one succeeds.
///
/// ```
/// # use outlive::NetworkMonitor;
/// let network = NetworkMonitor::new();
/// network.down();
/// network.up();
/// ```
///
/// An app that learns of changes by itself (on a phone it should: the system tells more there) says
/// them so. On Linux a [`system`](Self::system) monitor finds them out.
#[derive(Clone, Debug)]
pub struct NetworkMonitor {
    state: Arc<watch::Sender<Network>>,
    /// Whether the node is to find out by itself.
    #[cfg(feature = "network")]
    system: bool,
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
            #[cfg(feature = "network")]
            system: false,
        }
    }

    /// A monitor that finds out by itself: the node that is started with it watches the network of
    /// this host, and of the namespace in which it is started, as long as it runs. Each change of the
    /// addresses or of the way out is an [`up`](Self::up), the loss of the last address a
    /// [`down`](Self::down). The app may say more besides. Give each node one of its own.
    ///
    /// On Linux only; elsewhere, and where the system does not let itself be watched, the node says
    /// so in its log, and such a monitor is like a [`new`](Self::new) one.
    #[cfg(feature = "network")]
    #[must_use]
    pub fn system() -> Self {
        Self {
            system: true,
            ..Self::new()
        }
    }

    /// Finds out, if it is such a monitor, until it is dropped. Cancellation-safe.
    #[cfg(feature = "network")]
    pub(crate) async fn find_out(&self) {
        if !self.system {
            return;
        }
        #[cfg(target_os = "linux")]
        if let Err(error) = system::watch(self).await {
            tracing::warn!(%error, "the network is not watched; the app has to tell of changes");
        }
        #[cfg(not(target_os = "linux"))]
        tracing::warn!("the network can't be watched here; the app has to tell of changes");
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

    pub(crate) fn ear(&self) -> Ear {
        let state = self.state.subscribe();
        let ups = state.borrow().ups;
        Ear { state, ups }
    }

    pub(crate) fn watch(&self) -> watch::Receiver<Network> {
        self.state.subscribe()
    }
}

/// What one task has heard of the network.
pub(crate) struct Ear {
    state: watch::Receiver<Network>,
    /// How often the network was said to be up.
    ups: u64,
}

/// What there is to hear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum News {
    Down,
    /// It is up, perhaps another one than before.
    Up,
}

impl Ear {
    /// Waits until there is a network. Cancellation-safe.
    pub(crate) async fn until_up(&mut self) {
        // The monitor lives as long as the node; without it there is nothing to wait for.
        if let Ok(state) = self.state.wait_for(|state| state.up).await {
            self.ups = state.ups;
        }
    }

    /// Waits until the network is down, or is said to be up once more. Cancellation-safe.
    pub(crate) async fn news(&mut self) -> News {
        let heard = self.ups;
        let told = self
            .state
            .wait_for(|state| !state.up || state.ups != heard)
            .await
            .map(|state| *state);
        match told {
            Ok(Network { up: true, ups }) => {
                self.ups = ups;
                News::Up
            }
            Ok(Network { up: false, .. }) => News::Down,
            Err(_) => std::future::pending().await,
        }
    }
}

//! The server: starts, drains, stops.

use std::net::SocketAddr;
use std::sync::Arc;

use outlive_core::store::Store;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::info;

use crate::accounts::Accounts;
use crate::config::RelayConfig;
use crate::connection::Shared;
use crate::counts::Counts;
use crate::directory::Directory;
use crate::error::RelayError;
use crate::health::Health;
use crate::listener::Listener;
use crate::mailbox::{Writer, clock};
use crate::metrics::{Metrics, Sources};
use crate::refusals::{RefusalLog, Refused};
use crate::stun::Stun;
use crate::tls::RelayTls;

/// Peers, beside those that are connected, whose use of their rates is remembered.
const RECENT_PEERS: usize = 65_536;

/// Collects what a relay needs.
#[derive(Default)]
pub struct RelayBuilder {
    store: Option<Arc<dyn Store>>,
    config: RelayConfig,
    tls: Option<RelayTls>,
    stun: Option<SocketAddr>,
    metrics: Option<SocketAddr>,
}

impl std::fmt::Debug for RelayBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RelayBuilder")
            .field("config", &self.config)
            .field("tls", &self.tls)
            .finish_non_exhaustive()
    }
}

impl RelayBuilder {
    /// Where the mailboxes live. Required.
    #[must_use]
    pub fn store(mut self, store: impl Store) -> Self {
        self.store = Some(Arc::new(store));
        self
    }

    /// Settings other than the defaults.
    #[must_use]
    pub fn config(mut self, config: RelayConfig) -> Self {
        self.config = config;
        self
    }

    /// Ends TLS in the relay: it is reached as `wss://`, and sign-ins are tied to their connection.
    /// Without this it is reached as `ws://`, or through a proxy that ends TLS before it.
    #[must_use]
    pub fn tls(mut self, tls: RelayTls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// Answers STUN binding requests over UDP at this address too (port 0 takes a free one), so that
    /// two peers behind NATs need no other server to find a direct way to each other.
    #[must_use]
    pub const fn stun(mut self, address: SocketAddr) -> Self {
        self.stun = Some(address);
        self
    }

    /// Answers `GET /metrics` over plain HTTP at this address too (port 0 takes a free one), as a Prometheus
    /// reads it. There is no sign-in there: let it be an address that only those reach who may know.
    #[must_use]
    pub const fn metrics(mut self, address: SocketAddr) -> Self {
        self.metrics = Some(address);
        self
    }

    /// Starts the relay on an address; port 0 takes a free one. Dropped half-way, no relay runs; at
    /// most the store has got its id.
    ///
    /// # Errors
    /// [`RelayError`] if the address, the store or a setting can't be used.
    pub async fn bind(self, address: SocketAddr) -> Result<Relay, RelayError> {
        let store = self.store.ok_or(RelayError::NoStore)?;
        self.config.check()?;
        let (config, refusals) = (Arc::new(self.config), Arc::new(RefusalLog::default()));
        let failed = |error| RelayError::Listen { address, error };
        let (counts, health) = (Arc::<Counts>::default(), Arc::<Health>::default());
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let stun = match self.stun {
            Some(address) => {
                let failed = |error| RelayError::Listen { address, error };
                let binding = Stun::bind(address, config.clone(), refusals.clone(), counts.clone());
                Some(binding.await.map_err(failed)?)
            }
            None => None,
        };
        let metrics = match self.metrics {
            Some(address) => {
                let failed = |error| RelayError::Listen { address, error };
                let sources = Sources {
                    counts: counts.clone(),
                    refusals: refusals.clone(),
                    health: health.clone(),
                };
                Some(Metrics::bind(address, sources).await.map_err(failed)?)
            }
            None => None,
        };
        let directory = Arc::new(Directory::default());
        let clock = Arc::new(clock(&*store).await?);
        let (writer, mailboxes, store_id) = Writer::open(
            store.clone(),
            clock.clone(),
            (*config).clone(),
            directory.clone(),
            health.clone(),
            refusals.clone(),
            counts.clone(),
        )
        .await?;
        let draining = CancellationToken::new();
        let (tasks, writing) = (TaskTracker::new(), TaskTracker::new());
        writing.spawn(writer.run());
        let most = config.connections.saturating_add(RECENT_PEERS);
        let shared = Shared {
            store: store.clone(),
            clock,
            store_id,
            config,
            directory,
            peers: Arc::new(Accounts::new(most)),
            sources: Arc::new(Accounts::new(most)),
            addresses: Arc::new(Accounts::new(most)),
            mailboxes,
            health,
            refusals: refusals.clone(),
            counts,
            draining: draining.clone(),
        };
        let (stun, stun_address) = stun.unzip();
        if let Some(stun) = stun {
            tasks.spawn(stun.run(draining.clone()));
        }
        let (metrics, metrics_address) = metrics.unzip();
        if let Some(metrics) = metrics {
            tasks.spawn(metrics.run(draining.clone(), tasks.clone()));
        }
        let telling = draining.clone();
        tasks.spawn(async move {
            let tell = |what: Refused, count| info!(count, "{}", what.told());
            refusals.run(telling, tell).await;
        });
        let (tls, shown) = self.tls.map(watch::channel).unzip();
        let listener = Listener::new(listener, shared, shown, tasks.clone());
        tasks.spawn(listener.run());
        info!(%address, store = %store_id, tls = tls.is_some(), "listening");
        Ok(Relay {
            address,
            stun_address,
            metrics_address,
            tls,
            store,
            draining,
            tasks,
            writing,
        })
    }
}

/// A running relay. Dropping it stops it without a farewell; nothing that it accepted is lost.
pub struct Relay {
    address: SocketAddr,
    stun_address: Option<SocketAddr>,
    metrics_address: Option<SocketAddr>,
    /// The certificate that is shown now.
    tls: Option<watch::Sender<RelayTls>>,
    store: Arc<dyn Store>,
    draining: CancellationToken,
    tasks: TaskTracker,
    writing: TaskTracker,
}

impl std::fmt::Debug for Relay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Relay")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

impl Relay {
    /// What a relay is made of.
    #[must_use]
    pub fn builder() -> RelayBuilder {
        RelayBuilder::default()
    }

    /// Where it listens.
    #[must_use]
    pub const fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Where it answers STUN requests, if it does.
    #[must_use]
    pub const fn stun_addr(&self) -> Option<SocketAddr> {
        self.stun_address
    }

    /// Where it answers `GET /metrics`, if it does.
    #[must_use]
    pub const fn metrics_addr(&self) -> Option<SocketAddr> {
        self.metrics_address
    }

    /// Shows this certificate to whoever connects from now on, in place of the one before. Connections that
    /// are up stay as they are; what was agreed on under the old one is not resumed.
    ///
    /// # Errors
    /// [`RelayError::NoTls`] if the relay was started without TLS.
    pub fn reload_tls(&self, tls: RelayTls) -> Result<(), RelayError> {
        let shown = self.tls.as_ref().ok_or(RelayError::NoTls)?;
        // The whole configuration: the new one knows no TLS session of the old one, each of which would show
        // the old certificate for as long as it is resumed.
        shown.send_replace(tls);
        Ok(())
    }

    /// Drains: takes no more connections, tells those there are, answers what was submitted, and
    /// closes the store. Clients that take nothing hold it up for
    /// [`drain_timeout`](RelayConfig::drain_timeout) at most. Dropped half-way, it drains all the
    /// same, but nobody waits for that, and the store is not closed.
    ///
    /// # Errors
    /// [`RelayError::Store`] if the last flush failed.
    pub async fn shutdown(self) -> Result<(), RelayError> {
        self.draining.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        self.writing.close();
        self.writing.wait().await;
        Ok(self.store.close().await?)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.draining.cancel();
    }
}

//! The server: listens, upgrades to WebSockets, drains.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::extract::State;
use axum::extract::ws::WebSocketUpgrade;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::serve::ListenerExt;
use outlive_core::store::Store;
use outlive_core::wire::relay::MESSAGE_BYTES;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::info;

use crate::config::RelayConfig;
use crate::connection::{Desk, serve};
use crate::directory::Directory;
use crate::error::RelayError;
use crate::mailbox::Writer;

/// Bytes of a connection's read buffer. tungstenite's own choice is 128 KiB, which at 65,536
/// connections is 8 GiB.
const READ_BUFFER: usize = 8 * 1024;

/// Bytes that may wait unwritten in a connection. Sending more waits.
const WRITE_BUFFER_MOST: usize = 1024 * 1024;

/// Collects what a relay needs.
#[derive(Default)]
pub struct RelayBuilder {
    store: Option<Arc<dyn Store>>,
    config: RelayConfig,
}

impl std::fmt::Debug for RelayBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RelayBuilder")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

impl RelayBuilder {
    /// Where the mailboxes live. Required.
    #[must_use]
    pub fn store(mut self, store: Arc<dyn Store>) -> Self {
        self.store = Some(store);
        self
    }

    /// Settings other than the defaults.
    #[must_use]
    pub fn config(mut self, config: RelayConfig) -> Self {
        self.config = config;
        self
    }

    /// Starts the relay on an address; port 0 takes a free one.
    ///
    /// # Errors
    /// [`RelayError`] if the address or the store can't be used.
    pub async fn bind(self, address: SocketAddr) -> Result<Relay, RelayError> {
        let store = self.store.ok_or(RelayError::NoStore)?;
        let failed = |source| RelayError::Listen { address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let directory = Arc::new(Directory::default());
        let (writer, mailboxes, store_id) =
            Writer::open(store.clone(), self.config.clone(), directory.clone()).await?;
        let draining = CancellationToken::new();
        let (tasks, writing) = (TaskTracker::new(), TaskTracker::new());
        writing.spawn(writer.run());
        let desk = Desk {
            store: store.clone(),
            store_id,
            config: self.config,
            directory,
            mailboxes,
            draining: draining.clone(),
        };
        let counted = Counted {
            desk,
            tasks: tasks.clone(),
            connections: Arc::default(),
        };
        let app = Router::new()
            .route("/", get(upgrade))
            .route("/v1", get(upgrade))
            .route("/health", get(|| async { "ok" }))
            .with_state(counted);
        let listener = listener.tap_io(|socket| {
            // Without it small packets wait for acknowledgements; the connection works anyway.
            let _ = socket.set_nodelay(true);
        });
        let drained = draining.clone().cancelled_owned();
        tasks.spawn(async move {
            // Serving ends without an error when it is told to.
            let _ = axum::serve(listener, app)
                .with_graceful_shutdown(drained)
                .await;
        });
        info!(%address, store = %store_id, "listening");
        Ok(Relay {
            address,
            store,
            draining,
            tasks,
            writing,
        })
    }
}

#[derive(Clone)]
struct Counted {
    desk: Desk,
    tasks: TaskTracker,
    connections: Arc<AtomicUsize>,
}

struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn upgrade(State(counted): State<Counted>, upgrade: WebSocketUpgrade) -> Response {
    let Counted {
        desk,
        tasks,
        connections,
    } = counted;
    let before = connections.fetch_add(1, Ordering::Relaxed);
    let place = Place(connections);
    if before >= desk.config.connections {
        return (StatusCode::SERVICE_UNAVAILABLE, "too many connections").into_response();
    }
    let tracked = tasks.token();
    upgrade
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(0)
        .max_write_buffer_size(WRITE_BUFFER_MOST)
        .max_message_size(MESSAGE_BYTES)
        .max_frame_size(MESSAGE_BYTES)
        .on_upgrade(move |socket| async move {
            serve(socket, desk).await;
            drop((place, tracked));
        })
}

/// A running relay. Dropping it stops it without a farewell; nothing that it accepted is lost.
pub struct Relay {
    address: SocketAddr,
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

    /// Drains: takes no more connections, tells those there are, answers what was submitted, and
    /// closes the store.
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

//! `GET /metrics`, for a Prometheus: what the relay counts, at an address of its own.
//!
//! There is neither TLS nor a sign-in there, so the address has to be a private one. What is said names no
//! peer and no address, and is as long as it is however many there are.

mod page;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use prometheus_client::encoding::prometheus_text;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::debug;

pub(crate) use self::page::Sources;

/// Sockets at once. One more waits until another is done.
const SOCKETS: usize = 16;

/// Bytes of a request. A longer one is answered with an error.
const REQUEST_BYTES: usize = 8 * 1024;

/// How long a socket may be open, so that nobody who dawdles keeps its place.
const OPEN_MOST: Duration = Duration::from_secs(10);

/// How long to wait after the system could not accept, before it would fail again.
const NO_SOCKET: Duration = Duration::from_millis(100);

/// Answers who asks for the numbers, until the relay drains.
pub(crate) struct Metrics {
    listener: TcpListener,
    sockets: Arc<Semaphore>,
    app: Router,
}

impl Metrics {
    /// Also returns the address, which port 0 leaves open.
    pub(crate) async fn bind(
        address: SocketAddr,
        sources: Sources,
    ) -> io::Result<(Self, SocketAddr)> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let app = Router::new()
            .route("/metrics", get(numbers))
            .with_state(sources);
        let metrics = Self {
            listener,
            sockets: Arc::new(Semaphore::new(SOCKETS)),
            app,
        };
        Ok((metrics, address))
    }

    pub(crate) async fn run(self, draining: CancellationToken, tasks: TaskTracker) {
        loop {
            let accepted = tokio::select! {
                () = draining.cancelled() => return,
                accepted = self.accept() => accepted,
            };
            let (socket, place) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    debug!(%error, "no connection for metrics can be accepted");
                    tokio::time::sleep(NO_SOCKET).await;
                    continue;
                }
            };
            let (app, draining) = (self.app.clone(), draining.clone());
            tasks.spawn(async move {
                tokio::select! {
                    () = draining.cancelled() => {}
                    _ = tokio::time::timeout(OPEN_MOST, speak(socket, app)) => {}
                }
                drop(place);
            });
        }
    }

    /// The next socket, when there is a place for it.
    async fn accept(&self) -> io::Result<(TcpStream, Option<OwnedSemaphorePermit>)> {
        // It is never closed.
        let place = self.sockets.clone().acquire_owned().await.ok();
        let (socket, _) = self.listener.accept().await?;
        Ok((socket, place))
    }
}

/// One request and its answer: whoever asks again comes again.
async fn speak(socket: TcpStream, app: Router) {
    let serving = http1::Builder::new()
        .keep_alive(false)
        .max_buf_size(REQUEST_BYTES)
        .serve_connection(TokioIo::new(socket), TowerToHyperService::new(app));
    if let Err(error) = serving.await {
        debug!(%error, "no HTTP");
    }
}

async fn numbers(State(sources): State<Sources>) -> Response {
    match sources.page() {
        Ok(page) => ([(CONTENT_TYPE, prometheus_text::CONTENT_TYPE)], page).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

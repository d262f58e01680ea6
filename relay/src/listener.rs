//! The way in: sockets, TLS, HTTP, up to the WebSocket.
//!
//! Everything that takes its time here happens in a task of its own under one timeout, so that
//! nobody who dawdles holds up the next, and is counted, so that their number has a bound. That is
//! why `axum::serve` is not used: it waits for half a request as long as it takes, in a drain too.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::extract::ws::WebSocketUpgrade;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use outlive_core::wire::relay::{Exported, MESSAGE_BYTES};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tracing::{debug, warn};

use crate::accounts::{Accounts, OpenSocket, SocketAccount, source};
use crate::connection::{Shared, serve};
use crate::lock::lock;
use crate::refusals::Refused;
use crate::tls::{self, RelayTls};

/// Bytes of a connection's read buffer. tungstenite's own choice is 128 KiB, which at 65,536
/// connections is 8 GiB.
const READ_BUFFER: usize = 8 * 1024;

/// Bytes that may wait unwritten in a connection. Sending more waits.
const WRITE_BUFFER_MOST: usize = 1024 * 1024;

/// Bytes of an HTTP request. A longer one is answered with an error.
const REQUEST_BYTES: usize = 8 * 1024;

/// Sockets, beside the connections, that may be on their way in. One more is closed at once.
const COMING_IN: usize = 1_024;

/// Addresses, beside those with open sockets, whose sign-ins are counted.
const ADDRESSES: usize = 65_536;

/// How long to wait after the system could not accept: it has no file descriptor left, and the next
/// attempt would fail as fast.
const NO_SOCKET: Duration = Duration::from_millis(100);

/// Time between two warnings that addresses are turned away.
const WARN_EVERY: Duration = Duration::from_secs(60);

/// Takes sockets in until the relay drains.
pub(crate) struct Listener {
    listener: TcpListener,
    addresses: Accounts<IpAddr, SocketAccount>,
    warned: Mutex<Option<Instant>>,
    sockets: Arc<Semaphore>,
    door: Door,
}

/// What a socket needs to become a connection.
#[derive(Clone)]
struct Door {
    shared: Shared,
    /// The certificate that is shown now.
    tls: Option<watch::Receiver<RelayTls>>,
    connections: Arc<Semaphore>,
    tasks: TaskTracker,
    app: Router<Arrival>,
}

/// A socket that is on its way in.
#[derive(Clone)]
struct Arrival {
    shared: Shared,
    connections: Arc<Semaphore>,
    /// What its TLS exported, if that ends here.
    exported: Option<Exported>,
    /// Where it comes from, if that tells clients apart.
    source: Option<IpAddr>,
    /// Kept for as long as the socket is open.
    held: Arc<(Place, TaskTrackerToken)>,
}

/// Where a socket is counted for as long as it is open.
struct Place {
    _all: OwnedSemaphorePermit,
    _address: Option<OpenSocket>,
}

impl Listener {
    pub(crate) fn new(
        listener: TcpListener,
        shared: Shared,
        tls: Option<watch::Receiver<RelayTls>>,
        tasks: TaskTracker,
    ) -> Self {
        let most = shared.config.connections.min(Semaphore::MAX_PERMITS / 2);
        let app = Router::new()
            .route("/", get(upgrade))
            .route("/v1", get(upgrade))
            .route("/health", get(health));
        Self {
            listener,
            // Those with open sockets are not forgotten, and leave room for the others.
            addresses: Accounts::new(most + COMING_IN + ADDRESSES),
            warned: Mutex::default(),
            sockets: Arc::new(Semaphore::new(most + COMING_IN)),
            door: Door {
                shared,
                tls,
                connections: Arc::new(Semaphore::new(most)),
                tasks,
                app,
            },
        }
    }

    pub(crate) async fn run(self) {
        let draining = self.door.shared.draining.clone();
        let mut accepts = true;
        loop {
            let accepted = tokio::select! {
                () = draining.cancelled() => return,
                accepted = self.listener.accept() => accepted,
            };
            let (socket, from) = match accepted {
                Ok(accepted) => {
                    accepts = true;
                    accepted
                }
                Err(error) => {
                    // Once, until it does again: who is out of sockets fails ten times a second.
                    if std::mem::take(&mut accepts) {
                        warn!(%error, "no connection can be accepted; are there too few files for it (ulimit -n)?");
                    }
                    tokio::time::sleep(NO_SOCKET).await;
                    continue;
                }
            };
            let source = self.source(from);
            let Some(place) = self.place(source) else {
                continue;
            };
            let (door, draining) = (self.door.clone(), draining.clone());
            let timeout = door.shared.config.sign_in_timeout;
            self.door.tasks.spawn(async move {
                let coming_in = tokio::time::timeout(timeout, door.open(socket, source, place));
                tokio::select! {
                    () = draining.cancelled() => {}
                    result = coming_in => if result.is_err() {
                        debug!(%from, "too slow to come in");
                    }
                }
            });
        }
    }

    /// Whom an address stands for; `None` if limits are not told by it.
    fn source(&self, from: SocketAddr) -> Option<IpAddr> {
        let config = &self.door.shared.config;
        let address = source(from.ip());
        let limited =
            config.address_sign_ins.is_some() && (config.limit_loopback || !address.is_loopback());
        limited.then_some(address)
    }

    /// The place of one more socket, if there is one.
    fn place(&self, source: Option<IpAddr>) -> Option<Place> {
        let address = match source {
            Some(address) => Some(self.admit(address)?),
            None => None,
        };
        let Ok(all) = self.sockets.clone().try_acquire_owned() else {
            debug!("no place for one more socket");
            self.door.shared.refusals.count(Refused::Connections);
            return None;
        };
        Some(Place {
            _all: all,
            _address: address,
        })
    }

    fn admit(&self, address: IpAddr) -> Option<OpenSocket> {
        let Shared {
            config, refusals, ..
        } = &self.door.shared;
        let now = Instant::now();
        let account = self.addresses.of(address, now);
        let admitted = match account.opens(config.address_connections) {
            None => Err(Refused::AddressConnections),
            Some(_) if !account.admits(config.address_sign_ins, now) => {
                Err(Refused::AddressSignIns)
            }
            Some(open) => Ok(open),
        };
        if let Err(what) = admitted {
            refusals.count(what);
            let mut warned = lock(&self.warned);
            if warned.is_none_or(|at| at + WARN_EVERY <= now) {
                *warned = Some(now);
                warn!(%address, "an address opens too many connections; they are closed at once");
            }
        }
        admitted.ok()
    }
}

impl Door {
    /// Through TLS, if there is any, and HTTP. Returns when the client is gone or upgraded.
    async fn open(self, socket: TcpStream, source: Option<IpAddr>, place: Place) {
        // Without it small packets wait for acknowledgements; the connection works anyway.
        let _ = socket.set_nodelay(true);
        let Some(tls) = &self.tls else {
            return self.http(socket, None, source, place).await;
        };
        if !matches!(begins_with(&socket).await, Some(tls::HANDSHAKE)) {
            let app = Router::new().fallback(no_tls);
            return speak(socket, app).await;
        }
        let acceptor = tls.borrow().acceptor();
        let stream = match acceptor.accept(socket).await {
            Ok(stream) => stream,
            Err(error) => return debug!(%error, "no TLS"),
        };
        match tls::exported(&stream) {
            Ok(exported) => self.http(stream, Some(exported), source, place).await,
            Err(error) => debug!(%error, "TLS exports nothing"),
        }
    }

    async fn http<IO>(
        self,
        io: IO,
        exported: Option<Exported>,
        source: Option<IpAddr>,
        place: Place,
    ) where
        IO: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let arrival = Arrival {
            shared: self.shared,
            connections: self.connections,
            exported,
            source,
            held: Arc::new((place, self.tasks.token())),
        };
        speak(io, self.app.with_state(arrival)).await;
    }
}

/// The first byte of a client, which stays unread; `None` if there is none.
async fn begins_with(socket: &TcpStream) -> Option<u8> {
    let mut first = [0];
    match socket.peek(&mut first).await {
        Ok(1) => Some(first[0]),
        Ok(_) | Err(_) => None,
    }
}

/// Requests and their answers, until the timeout of whoever calls or an upgrade.
async fn speak<IO>(io: IO, app: Router)
where
    IO: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let service = TowerToHyperService::new(app);
    let serving = http1::Builder::new()
        .max_buf_size(REQUEST_BYTES)
        .serve_connection(TokioIo::new(io), service)
        .with_upgrades();
    if let Err(error) = serving.await {
        debug!(%error, "no HTTP");
    }
}

async fn no_tls() -> Response {
    let say = "this port speaks TLS; use wss://\n";
    (StatusCode::BAD_REQUEST, say).into_response()
}

async fn health(State(arrival): State<Arrival>) -> Response {
    match arrival.shared.health.failure() {
        None => "ok".into_response(),
        Some(reason) => {
            let say = format!("the store can't be written: {reason}\n");
            (StatusCode::SERVICE_UNAVAILABLE, say).into_response()
        }
    }
}

async fn upgrade(State(arrival): State<Arrival>, upgrade: WebSocketUpgrade) -> Response {
    let Ok(place) = arrival.connections.clone().try_acquire_owned() else {
        arrival.shared.refusals.count(Refused::Connections);
        return (StatusCode::SERVICE_UNAVAILABLE, "too many connections\n").into_response();
    };
    upgrade
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(0)
        .max_write_buffer_size(WRITE_BUFFER_MOST)
        .max_message_size(MESSAGE_BYTES)
        .max_frame_size(MESSAGE_BYTES)
        .on_upgrade(move |socket| async move {
            serve(socket, arrival.shared, arrival.exported, arrival.source).await;
            drop((place, arrival.held));
        })
}

#[cfg(test)]
mod tests;

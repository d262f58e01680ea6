//! A bound socket: dialing from it, accepting at it, moving it, closing it.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use outlive_core::transport::{DirectEndpoint, DirectLink, TransportError};
use outlive_core::{Identity, PeerId};
use quinn::{ClientConfig, EndpointConfig, ServerConfig, TransportConfig};
use tracing::debug;

use super::accepting::{self, Accepted};
use super::addresses;
use super::socket::Socket;
use super::tasks::Tasks;
use super::trust::{SERVER_NAME, Trust};
use super::{HANDSHAKE_TIME, Quic, RECEIVE_WINDOW, errors, halves, stun};

/// How long saying goodbye to all peers may take when an endpoint is closed.
const FAREWELL: Duration = Duration::from_secs(1);

pub(super) struct Endpoint {
    trust: Trust,
    config: Arc<TransportConfig>,
    /// The address that was asked for.
    address: Option<SocketAddr>,
    /// The STUN servers.
    servers: Vec<String>,
    /// What peers are told, if that is not for the socket to say.
    found_at: Vec<SocketAddr>,
    /// `None` once it is closed.
    open: Mutex<Option<Open>>,
    accepted: Arc<Accepted>,
    tasks: Tasks,
}

/// What there is only while an endpoint is open.
#[derive(Clone)]
struct Open {
    quinn: quinn::Endpoint,
    socket: Arc<Socket>,
}

impl Endpoint {
    pub(super) fn open(quic: &Quic, identity: &Identity) -> Result<Self, TransportError> {
        let address = quic.address;
        let config = Arc::new(quic.transport_config(RECEIVE_WINDOW)?);
        let before = quic.transport_config(accepting::WINDOW_BEFORE)?;
        let trust = Trust::new(identity);
        let mut server = ServerConfig::with_crypto(Arc::new(trust.accepting()?));
        server
            .transport_config(Arc::new(before))
            .max_incoming(accepting::FIRST_PACKETS)
            .incoming_buffer_size(accepting::FIRST_BYTES)
            .incoming_buffer_size_total(accepting::FIRST_BYTES_ALL);
        let tasks = Tasks::new();
        let socket = Socket::open(address).map_err(|error| no_socket(address, &error))?;
        let socket = Arc::new(socket);
        let mut endpoint = EndpointConfig::default();
        // Packets that begin with any bits could not be told from STUN.
        endpoint.grease_quic_bit(false);
        let quinn = quinn::Endpoint::new_with_abstract_socket(
            endpoint,
            Some(server),
            socket.clone(),
            Arc::new(tasks.clone()),
        )
        .map_err(|error| no_socket(address, &error))?;
        let accepted = Arc::new(Accepted::default());
        tasks.start(accepting::run(quinn.clone(), accepted.clone()));
        Ok(Self {
            trust,
            config,
            address,
            servers: quic.servers.clone(),
            found_at: quic.found_at.clone(),
            open: Mutex::new(Some(Open { quinn, socket })),
            accepted,
            tasks,
        })
    }

    fn with<T>(&self, change: impl FnOnce(&mut Option<Open>) -> T) -> T {
        change(&mut self.open.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn still_open(&self) -> Result<Open, TransportError> {
        self.with(|open| open.clone())
            .ok_or_else(errors::closed_here)
    }

    /// Closes whatever is open. What is left of it ends by itself, shortly after.
    fn shut(&self) {
        if let Some(open) = self.with(Option::take) {
            open.quinn.close(halves::DONE, b"");
        }
        self.accepted.close();
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.shut();
    }
}

fn no_socket(address: Option<SocketAddr>, error: &std::io::Error) -> TransportError {
    let address = address.map_or_else(|| "of this host".to_owned(), |a| a.to_string());
    TransportError::Address {
        address,
        reason: error.to_string(),
    }
}

#[async_trait]
impl DirectEndpoint for Endpoint {
    async fn addresses(&self) -> Vec<SocketAddr> {
        let Ok(Open { socket, .. }) = self.still_open() else {
            return Vec::new();
        };
        if !self.found_at.is_empty() {
            return self.found_at.clone();
        }
        let Ok(local) = socket.local() else {
            return Vec::new();
        };
        // What servers see first: it is the only one that helps a peer who is elsewhere.
        let mut all = stun::ask(&socket, &self.servers).await;
        for address in addresses::of_interfaces(local) {
            if !all.contains(&address) {
                all.push(address);
            }
        }
        all.truncate(addresses::ADDRESSES);
        all
    }

    async fn dial(
        &self,
        peer: PeerId,
        addresses: &[SocketAddr],
    ) -> Result<DirectLink, TransportError> {
        let Open { quinn, socket } = self.still_open()?;
        let local = socket
            .local()
            .map_err(|error| no_socket(self.address, &error))?;
        drop(socket);
        let mut config = ClientConfig::new(Arc::new(self.trust.dialing(peer)?));
        config.transport_config(self.config.clone());

        let mut failure = errors::unreachable(peer, "none of its addresses can be dialed");
        let mut attempts = FuturesUnordered::new();
        for address in addresses::to_dial(addresses, local) {
            match quinn.connect_with(config.clone(), address, SERVER_NAME) {
                Ok(connecting) => attempts.push(async move {
                    match tokio::time::timeout(HANDSHAKE_TIME, connecting).await {
                        Ok(Ok(connection)) => Ok((address, connection)),
                        Ok(Err(error)) => Err(errors::handshake(address, &error)),
                        Err(_) => Err(errors::silent(address)),
                    }
                }),
                Err(error) => failure = worse(failure, errors::dialing(address, &error)),
            }
        }
        while let Some(attempt) = attempts.next().await {
            let link = match attempt {
                Ok((address, connection)) => {
                    let link = halves::dialed(connection, peer);
                    // A peer that lets us open no stream is none to wait for.
                    let link = tokio::time::timeout(HANDSHAKE_TIME, link).await;
                    link.unwrap_or_else(|_| Err(errors::silent(address)))
                }
                Err(error) => Err(error),
            };
            match link {
                Ok(link) => return Ok(link),
                Err(error) => {
                    debug!(%error, "an address of a peer did not do");
                    failure = worse(failure, error);
                }
            }
        }
        Err(failure)
    }

    async fn accept(&self) -> Result<DirectLink, TransportError> {
        self.accepted.next().await
    }

    async fn network_changed(&self) -> Result<(), TransportError> {
        self.with(|open| {
            let open = open.as_mut().ok_or_else(errors::closed_here)?;
            let moved = open.socket.fresh(self.address).and_then(|socket| {
                let socket = Arc::new(socket);
                open.quinn.rebind_abstract(socket.clone())?;
                open.socket = socket;
                Ok(())
            });
            moved.map_err(|error| no_socket(self.address, &error))
        })
    }

    async fn close(&self) {
        self.shut();
        if tokio::time::timeout(FAREWELL, self.tasks.ended())
            .await
            .is_err()
        {
            self.tasks.cut();
            self.tasks.ended().await;
        }
    }
}

/// Which of two failures tells more: that somebody else is there, or one who does not want us, more
/// than that nobody is.
fn worse(known: TransportError, other: TransportError) -> TransportError {
    let weight = |error: &TransportError| match error {
        TransportError::Untrusted { .. } => 2,
        TransportError::Unreachable { .. } => 0,
        _ => 1,
    };
    if weight(&known) > weight(&other) {
        known
    } else {
        other
    }
}

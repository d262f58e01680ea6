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
use super::addresses::{self, ADDRESSES};
use super::tasks::Tasks;
use super::trust::{SERVER_NAME, Trust};
use super::{HANDSHAKE_TIME, errors, halves, plain, socket};

/// How long saying goodbye to all peers may take when an endpoint is closed.
const FAREWELL: Duration = Duration::from_secs(1);

pub(super) struct Endpoint {
    trust: Trust,
    config: Arc<TransportConfig>,
    /// The address that was asked for.
    address: Option<SocketAddr>,
    /// `None` once it is closed.
    quinn: Mutex<Option<quinn::Endpoint>>,
    accepted: Arc<Accepted>,
    tasks: Tasks,
}

impl Endpoint {
    pub(super) fn open(
        address: Option<SocketAddr>,
        identity: &Identity,
        config: Arc<TransportConfig>,
    ) -> Result<Self, TransportError> {
        let trust = Trust::new(identity);
        let mut server = ServerConfig::with_crypto(Arc::new(trust.accepting()?));
        server
            .transport_config(config.clone())
            .max_incoming(accepting::FIRST_PACKETS)
            .incoming_buffer_size(accepting::FIRST_BYTES)
            .incoming_buffer_size_total(accepting::FIRST_BYTES_ALL);
        let tasks = Tasks::new();
        let socket = socket::open(address).map_err(|error| no_socket(address, &error))?;
        let quinn = quinn::Endpoint::new(
            EndpointConfig::default(),
            Some(server),
            socket,
            Arc::new(tasks.clone()),
        )
        .map_err(|error| no_socket(address, &error))?;
        let accepted = Arc::new(Accepted::default());
        tasks.start(accepting::run(quinn.clone(), accepted.clone()));
        Ok(Self {
            trust,
            config,
            address,
            quinn: Mutex::new(Some(quinn)),
            accepted,
            tasks,
        })
    }

    /// quinn's handle, as long as the endpoint is not closed.
    fn quinn(&self) -> Result<quinn::Endpoint, TransportError> {
        let quinn = self.quinn.lock().unwrap_or_else(PoisonError::into_inner);
        quinn.clone().ok_or_else(errors::closed_here)
    }

    /// Closes whatever is open. What is left of it ends by itself, shortly after.
    fn shut(&self) {
        let quinn = self
            .quinn
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(quinn) = quinn {
            quinn.close(halves::DONE, b"");
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
        let local = self.quinn().ok().and_then(|quinn| quinn.local_addr().ok());
        local.map(addresses::of_interfaces).unwrap_or_default()
    }

    async fn dial(
        &self,
        peer: PeerId,
        addresses: &[SocketAddr],
    ) -> Result<DirectLink, TransportError> {
        let quinn = self.quinn()?;
        let local = quinn
            .local_addr()
            .map_err(|error| no_socket(self.address, &error))?;
        let mut config = ClientConfig::new(Arc::new(self.trust.dialing(peer)?));
        config.transport_config(self.config.clone());

        let mut distinct: Vec<SocketAddr> = Vec::new();
        for address in addresses.iter().copied().map(plain) {
            let takes = distinct.len() < ADDRESSES && !distinct.contains(&address);
            if takes && addresses::can_be_dialed(address, local) {
                distinct.push(address);
            }
        }
        let mut failure = errors::unreachable(peer, "none of its addresses can be dialed");
        let mut attempts = FuturesUnordered::new();
        for address in distinct {
            match quinn.connect_with(config.clone(), address, SERVER_NAME) {
                Ok(connecting) => attempts.push(async move {
                    match tokio::time::timeout(HANDSHAKE_TIME, connecting).await {
                        Ok(Ok(connection)) => Ok(connection),
                        Ok(Err(error)) => Err(errors::handshake(address, &error)),
                        Err(_) => Err(errors::silent(address)),
                    }
                }),
                Err(error) => failure = worse(failure, errors::dialing(address, &error)),
            }
        }
        while let Some(attempt) = attempts.next().await {
            let link = match attempt {
                Ok(connection) => halves::dialed(connection, peer).await,
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
        let quinn = self.quinn()?;
        let moved = socket::open(self.address).and_then(|socket| quinn.rebind(socket));
        moved.map_err(|error| no_socket(self.address, &error))
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

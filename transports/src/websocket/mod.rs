//! The way to a relay over a WebSocket: `ws` for loopback and tests, `wss` for everything else.
//!
//! One connection carries all sessions. What is sent together travels in as few WebSocket messages
//! as possible and is flushed once.

mod errors;
mod halves;
mod heard;
mod sign_in;
mod tcp;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use outlive_core::Identity;
use outlive_core::transport::{IsInUse, RelayConnection, RelayTransport, TransportError};
use outlive_core::wire::relay::MESSAGE_BYTES;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::Uri;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::{Connector, client_async_tls_with_config};

use self::heard::Heard;
use self::sign_in::{SignedIn, Socket};

/// How long each part of connecting may take: finding the host, TLS and the upgrade, and the sign-in. In bad
/// reception a round trip takes two seconds, and there are six; longer, and a dead address holds up the
/// next try.
const FINDING: Duration = Duration::from_secs(15);
const UPGRADE: Duration = Duration::from_secs(10);
const SIGN_IN: Duration = Duration::from_secs(10);

/// How long a relay may be silent. It pings every 20 s; after two lost Pings it is gone.
const SILENCE: Duration = Duration::from_secs(50);

/// Bytes of the read buffer of a connection. tungstenite's own choice is 128 KiB.
const READ_BUFFER: usize = 16 * 1024;

/// Bytes that may wait unwritten in a connection. Sending more waits.
const WRITE_BUFFER_MOST: usize = 1024 * 1024;

/// A relay that is reached over a WebSocket.
pub struct WebSocketRelay {
    address: String,
    uri: Uri,
    tls: Arc<ClientConfig>,
    roots: RootCertStore,
    silence: Duration,
}

impl fmt::Debug for WebSocketRelay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("WebSocketRelay")
            .field(&self.address)
            .finish()
    }
}

impl WebSocketRelay {
    /// The relay at `address`: a URL with the scheme `wss`, or `ws` where nobody else listens.
    ///
    /// ```
    /// # use outlive_transports::WebSocketRelay;
    /// assert!(WebSocketRelay::new("wss://relay.example").is_ok());
    /// assert!(WebSocketRelay::new("relay.example").is_err());
    /// assert!(WebSocketRelay::new("ws://127.0.0.1:99999").is_err());
    /// ```
    ///
    /// # Errors
    /// [`TransportError::Address`] if the address can never work.
    pub fn new(address: &str) -> Result<Self, TransportError> {
        let wrong = |reason: &str| TransportError::Address {
            address: address.to_owned(),
            reason: reason.to_owned(),
        };
        let uri: Uri = address.parse().map_err(|_| wrong("it is no URL"))?;
        match uri.scheme_str() {
            Some("ws" | "wss") => {}
            Some(_) => return Err(wrong("its scheme is neither wss nor ws")),
            None => return Err(wrong("it lacks a scheme; write wss:// before it")),
        }
        if uri.host().is_none_or(str::is_empty) {
            return Err(wrong("it names no host"));
        }
        if !has_a_port_or_none(&uri) {
            return Err(wrong("its port is none; use 1 to 65535"));
        }
        let mut roots = RootCertStore::empty();
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        let tls = tls_config(&roots)?;
        Ok(Self {
            address: address.to_owned(),
            uri,
            tls,
            roots,
            silence: SILENCE,
        })
    }

    /// Trusts one more certificate authority, for a relay with a certificate of its own.
    ///
    /// # Errors
    /// [`TransportError::Address`] if the bytes are no certificate (in DER).
    pub fn with_root_certificate(mut self, der: &[u8]) -> Result<Self, TransportError> {
        self.trust(CertificateDer::from(der))?;
        Ok(self)
    }

    /// Trusts the certificate authorities of a PEM file too.
    ///
    /// # Errors
    /// [`TransportError::Address`] if there is no certificate in it, or something that is none.
    pub fn with_root_certificates(mut self, pem: &[u8]) -> Result<Self, TransportError> {
        let mut found = false;
        for certificate in CertificateDer::pem_slice_iter(pem) {
            let certificate =
                certificate.map_err(|error| self.bad_root(format_args!("not PEM: {error}")))?;
            self.trust(certificate)?;
            found = true;
        }
        if found {
            Ok(self)
        } else {
            Err(self.bad_root("there is none in what was given; it has to be PEM"))
        }
    }

    fn trust(&mut self, certificate: CertificateDer<'_>) -> Result<(), TransportError> {
        let added = self.roots.add(certificate.into_owned());
        added.map_err(|error| self.bad_root(error))?;
        self.tls = tls_config(&self.roots)?;
        Ok(())
    }

    fn bad_root(&self, reason: impl fmt::Display) -> TransportError {
        TransportError::Address {
            address: self.address.clone(),
            reason: format!("the root certificate is not usable: {reason}"),
        }
    }

    /// Gives a relay up after this time without a sign of life; 50 s if not said. After half of it one that owes
    /// an answer: so it has to be more than twice the relay's interval of Pings.
    #[must_use]
    pub const fn with_silence(mut self, silence: Duration) -> Self {
        self.silence = silence;
        self
    }

    /// Dials the relay, and says who we are as `greet` does.
    async fn dial<F, G>(&self, greet: F) -> Result<RelayConnection, TransportError>
    where
        F: FnOnce(Socket) -> G + Send,
        G: Future<Output = Result<SignedIn, TransportError>> + Send,
    {
        let request = self
            .address
            .as_str()
            .into_client_request()
            .map_err(|error| TransportError::Address {
                address: self.address.clone(),
                reason: error.to_string(),
            })?;
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER)
            .write_buffer_size(0)
            .max_write_buffer_size(WRITE_BUFFER_MOST)
            .max_message_size(Some(MESSAGE_BYTES))
            .max_frame_size(Some(MESSAGE_BYTES));
        let finding = tcp::connect(&self.uri);
        let tcp = self
            .in_time(FINDING, "nobody is found there", finding)
            .await?;
        let tcp = tcp.map_err(|error| self.unreachable(error))?;
        let heard = Heard::new();
        let tcp = heard.listen(tcp);
        let tls = Some(Connector::Rustls(self.tls.clone()));
        let upgrade = Box::pin(client_async_tls_with_config(
            request,
            tcp,
            Some(config),
            tls,
        ));
        let upgraded = self
            .in_time(UPGRADE, "no WebSocket comes about", upgrade)
            .await?;
        let (socket, _) = upgraded.map_err(|error| errors::connecting(&self.address, error))?;
        let signed_in = self
            .in_time(SIGN_IN, "it does not sign us in", greet(socket))
            .await??;
        Ok(halves::split(signed_in, heard, self.silence))
    }

    async fn in_time<T>(
        &self,
        time: Duration,
        failing: &str,
        work: impl Future<Output = T>,
    ) -> Result<T, TransportError> {
        let done = tokio::time::timeout(time, work).await;
        done.map_err(|_| self.unreachable(format_args!("{failing} in {} s", time.as_secs())))
    }

    fn unreachable(&self, reason: impl fmt::Display) -> TransportError {
        TransportError::Unreachable {
            address: self.address.clone(),
            reason: reason.to_string(),
        }
    }
}

/// Whether what follows the host is a port that can be dialed, or nothing. `Uri` takes others too, and then
/// says that there is none.
fn has_a_port_or_none(uri: &Uri) -> bool {
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    let server = authority
        .rsplit_once('@')
        .map_or(authority, |(_, server)| server);
    let behind = server.strip_prefix(uri.host().unwrap_or_default());
    match behind.and_then(|behind| behind.strip_prefix(':')) {
        Some(port) => port.parse::<u16>().is_ok_and(|port| port != 0),
        None => behind.is_some_and(str::is_empty),
    }
}

fn tls_config(roots: &RootCertStore) -> Result<Arc<ClientConfig>, TransportError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| TransportError::Broken(format!("TLS is not available: {error}")))?
        .with_root_certificates(roots.clone())
        .with_no_client_auth();
    Ok(Arc::new(config))
}

#[async_trait]
impl RelayTransport for WebSocketRelay {
    fn address(&self) -> &str {
        &self.address
    }

    async fn connect(&self, identity: &Identity) -> Result<RelayConnection, TransportError> {
        self.connect_apart(identity, &|_, _| false).await
    }

    async fn connect_apart(
        &self,
        identity: &Identity,
        in_use: &IsInUse<'_>,
    ) -> Result<RelayConnection, TransportError> {
        let sign_in = |socket| sign_in::sign_in(socket, identity, &self.address, in_use);
        self.dial(sign_in).await
    }

    async fn connect_unidentified(&self) -> Result<RelayConnection, TransportError> {
        self.dial(sign_in::stay_unknown).await
    }
}

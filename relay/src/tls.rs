//! TLS that ends in the relay itself: then a sign-in can be tied to the connection it happens on.

use std::fmt;
use std::sync::Arc;

use outlive_core::wire::relay::{EXPORTER_LABEL, Exported};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::error::RelayError;

/// The first byte of a client that speaks TLS: a record of the handshake.
pub(crate) const HANDSHAKE: u8 = 22;

/// The certificate a relay shows, and its key. TLS 1.3 alone is spoken: what earlier versions
/// export may be the same on two connections.
#[derive(Clone)]
pub struct RelayTls {
    config: Arc<ServerConfig>,
}

impl fmt::Debug for RelayTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RelayTls").finish_non_exhaustive()
    }
}

impl RelayTls {
    /// From PEM: the chain of certificates, the relay's own first, and the private key (PKCS#8,
    /// PKCS#1 or SEC1, not encrypted).
    ///
    /// # Errors
    /// [`RelayError::Certificate`] or [`RelayError::Key`] say which of the two is not usable.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, RelayError> {
        let certificate = |reason: String| RelayError::Certificate { reason };
        let chain = CertificateDer::pem_slice_iter(chain)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| certificate(format!("it is not PEM: {error}")))?;
        if chain.is_empty() {
            return Err(certificate("there is none in what was given".to_owned()));
        }
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| RelayError::Key {
            reason: match error {
                rustls::pki_types::pem::Error::NoItemsFound => {
                    "there is none in what was given, or it is encrypted".to_owned()
                }
                error => format!("it is not PEM: {error}"),
            },
        })?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| certificate(error.to_string()))?
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .map_err(|error| match error {
                rustls::Error::InconsistentKeys(_) => RelayError::Key {
                    reason: "it is not the one of the certificate".to_owned(),
                },
                rustls::Error::InvalidCertificate(error) => certificate(error.to_string()),
                error => RelayError::Key {
                    reason: error.to_string(),
                },
            })?;
        // What a WebSocket begins with.
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self {
            config: Arc::new(config),
        })
    }

    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.config.clone())
    }
}

/// What ties a sign-in to this connection.
pub(crate) fn exported<IO>(stream: &TlsStream<IO>) -> Result<Exported, rustls::Error>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let (_, tls) = stream.get_ref();
    tls.export_keying_material(Exported::default(), EXPORTER_LABEL, None)
}

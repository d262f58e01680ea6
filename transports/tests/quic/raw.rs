//! Peers that are not outlive: bare quinn, with any key and any first words.

use std::net::SocketAddr;
use std::sync::Arc;

use outlive_core::Identity;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{ClientConfig, ConnectError, Connecting, Endpoint, ServerConfig, TransportConfig};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{AlwaysResolvesClientRawPublicKeys, ResolvesClientCert};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::AlwaysResolvesServerRawPublicKeys;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::sign::{CertifiedKey, Signer, SigningKey};
use rustls::{DigitallySignedStruct, DistinguishedName, SignatureAlgorithm, SignatureScheme};

pub(crate) const ALPN: &str = "outlive/1";

/// What a peer shows for its key, and what it signs with.
#[derive(Clone, Debug)]
pub(crate) struct Shown {
    pub(crate) spki: Vec<u8>,
    pub(crate) signs: Identity,
}

impl Shown {
    /// What an honest peer shows, put together from RFC 8410 and not from the code under test.
    pub(crate) fn honest(identity: &Identity) -> Self {
        let mut spki = b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00".to_vec();
        spki.extend_from_slice(identity.peer_id().as_bytes());
        Self {
            spki,
            signs: identity.clone(),
        }
    }

    fn certified(&self) -> Arc<CertifiedKey> {
        let spki = CertificateDer::from(self.spki.clone());
        Arc::new(CertifiedKey::new(vec![spki], Arc::new(Key(self.clone()))))
    }
}

#[derive(Clone, Debug)]
struct Key(Shown);

impl SigningKey for Key {
    fn choose_scheme(&self, _: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        Some(Box::new(self.clone()))
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::ED25519
    }
}

impl Signer for Key {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        Ok(self.0.signs.sign(message).to_vec())
    }

    fn scheme(&self) -> SignatureScheme {
        SignatureScheme::ED25519
    }
}

/// Takes whoever answers, and whoever dials.
#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

impl ClientCertVerifier for Anybody {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

/// Has no key to show, but speaks of raw public keys all the same.
#[derive(Debug)]
struct Nothing;

impl ResolvesClientCert for Nothing {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        None
    }

    fn only_raw_public_keys(&self) -> bool {
        true
    }

    fn has_certs(&self) -> bool {
        false
    }
}

/// An endpoint that can dial only.
pub(crate) fn endpoint() -> Endpoint {
    Endpoint::client(([127, 0, 0, 1], 0).into()).expect("a socket")
}

pub(crate) fn dial(
    endpoint: &Endpoint,
    to: SocketAddr,
    shown: Option<&Shown>,
    alpn: &str,
) -> Result<Connecting, ConnectError> {
    let resolver: Arc<dyn ResolvesClientCert> = match shown {
        Some(shown) => Arc::new(AlwaysResolvesClientRawPublicKeys::new(shown.certified())),
        None => Arc::new(Nothing),
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody))
        .with_client_cert_resolver(resolver);
    config.alpn_protocols = vec![alpn.into()];
    let config = QuicClientConfig::try_from(config).expect("a cipher for QUIC");
    endpoint.connect_with(ClientConfig::new(Arc::new(config)), to, "anybody")
}

/// An endpoint that others can dial, and open so many streams at.
pub(crate) fn server(shown: &Shown, alpn: &str, streams: u32) -> Endpoint {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3")
        .with_client_cert_verifier(Arc::new(Anybody))
        .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(
            shown.certified(),
        )));
    config.alpn_protocols = vec![alpn.into()];
    let config = QuicServerConfig::try_from(config).expect("a cipher for QUIC");
    let mut config = ServerConfig::with_crypto(Arc::new(config));
    let mut transport = TransportConfig::default();
    transport.max_concurrent_uni_streams(streams.into());
    config.transport_config(Arc::new(transport));
    Endpoint::server(config, ([127, 0, 0, 1], 0).into()).expect("a socket")
}

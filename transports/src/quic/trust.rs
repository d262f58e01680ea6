//! Who is at the other end of a connection: TLS with raw public keys ([RFC 7250]), which are the
//! names of the peers.
//!
//! The identity itself signs; its secret half is never exported. What TLS 1.3 signs begins with 64
//! spaces and a text of its own ([RFC 8446], section 4.4.3), and nothing else that an identity signs
//! does: a signature from here is good nowhere else, and none from elsewhere is good here.
//!
//! [RFC 7250]: https://www.rfc-editor.org/rfc/rfc7250
//! [RFC 8446]: https://www.rfc-editor.org/rfc/rfc8446#section-4.4.3

use std::sync::Arc;

use outlive_core::transport::TransportError;
use outlive_core::{Identity, PeerId};
use quinn::crypto::rustls::{NoInitialCipherSuite, QuicClientConfig, QuicServerConfig};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{AlwaysResolvesClientRawPublicKeys, Resumption};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{AlwaysResolvesServerRawPublicKeys, NoServerSessionStorage};
use rustls::sign::{CertifiedKey, Signer, SigningKey};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, PeerIncompatible,
    SignatureAlgorithm, SignatureScheme,
};

/// What a link speaks. Who speaks something else is turned away by TLS.
const ALPN: &[u8] = b"outlive/1";

/// What TLS wants as the name of a server. It is not sent, and nobody looks at it: the key is the
/// name.
pub(super) const SERVER_NAME: &str = "outlive";

/// What comes before an Ed25519 key in a SubjectPublicKeyInfo, always the same ([RFC 8410]).
///
/// [RFC 8410]: https://www.rfc-editor.org/rfc/rfc8410#section-4
const SPKI_PREFIX: [u8; 12] = [
    0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
];

/// Makes the TLS settings of connections that are this identity's.
pub(super) struct Trust {
    provider: Arc<CryptoProvider>,
    key: Arc<CertifiedKey>,
}

impl Trust {
    pub(super) fn new(identity: &Identity) -> Self {
        let key = Key(Arc::new(identity.clone()));
        let spki = CertificateDer::from(spki(&identity.peer_id()));
        Self {
            provider: Arc::new(rustls::crypto::ring::default_provider()),
            key: Arc::new(CertifiedKey::new(vec![spki], Arc::new(key))),
        }
    }

    /// For a connection that is good only if `peer` is at its other end.
    pub(super) fn dialing(&self, peer: PeerId) -> Result<QuicClientConfig, TransportError> {
        let builder = rustls::ClientConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(unavailable)?;
        let mut config = builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Expected { peer }))
            .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(
                self.key.clone(),
            )));
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.enable_sni = false;
        config.resumption = Resumption::disabled();
        QuicClientConfig::try_from(config).map_err(|error: NoInitialCipherSuite| unavailable(error))
    }

    /// For connections from whoever proves to be some peer.
    pub(super) fn accepting(&self) -> Result<QuicServerConfig, TransportError> {
        let builder = rustls::ServerConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(unavailable)?;
        let mut config = builder
            .with_client_cert_verifier(Arc::new(SomePeer))
            .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(
                self.key.clone(),
            )));
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        QuicServerConfig::try_from(config).map_err(|error: NoInitialCipherSuite| unavailable(error))
    }
}

fn unavailable(error: impl std::fmt::Display) -> TransportError {
    TransportError::Broken(format!("TLS is not available: {error}"))
}

/// The peer that proved to be at the other end.
pub(super) fn peer_of(connection: &quinn::Connection) -> Result<PeerId, TransportError> {
    let shown = connection
        .peer_identity()
        .and_then(|identity| identity.downcast::<Vec<CertificateDer<'static>>>().ok())
        .ok_or_else(|| TransportError::Protocol("it showed no key".to_owned()))?;
    only_key(&shown).map_err(|error| TransportError::Protocol(error.to_string()))
}

fn only_key(shown: &[CertificateDer<'_>]) -> Result<PeerId, rustls::Error> {
    match shown {
        [key] => named_by(key),
        _ => Err(CertificateError::BadEncoding.into()),
    }
}

/// A peer's key as TLS carries it.
fn spki(peer: &PeerId) -> Vec<u8> {
    [&SPKI_PREFIX[..], peer.as_bytes()].concat()
}

/// The peer whose key this is. Anything that is not exactly an Ed25519 key is nobody's.
fn named_by(spki: &[u8]) -> Result<PeerId, rustls::Error> {
    spki.strip_prefix(&SPKI_PREFIX)
        .and_then(|key| <[u8; 32]>::try_from(key).ok())
        .and_then(|key| PeerId::from_bytes(key).ok())
        .ok_or_else(|| CertificateError::BadEncoding.into())
}

fn verify(
    statement: &[u8],
    spki: &[u8],
    signed: &DigitallySignedStruct,
) -> Result<HandshakeSignatureValid, rustls::Error> {
    let signature = <[u8; 64]>::try_from(signed.signature());
    match signature {
        Ok(signature) if signed.scheme == SignatureScheme::ED25519 => {
            match named_by(spki)?.verify(statement, &signature) {
                Ok(()) => Ok(HandshakeSignatureValid::assertion()),
                Err(_) => Err(CertificateError::BadSignature.into()),
            }
        }
        _ => Err(CertificateError::BadSignature.into()),
    }
}

/// TLS 1.2 is not spoken, so nothing of it is ever verified.
fn not_spoken() -> rustls::Error {
    PeerIncompatible::Tls13RequiredForQuic.into()
}

/// The key of an identity, for TLS.
#[derive(Debug, Clone)]
struct Key(Arc<Identity>);

impl SigningKey for Key {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        offered
            .contains(&SignatureScheme::ED25519)
            .then(|| -> Box<dyn Signer> { Box::new(self.clone()) })
    }

    fn public_key(&self) -> Option<SubjectPublicKeyInfoDer<'_>> {
        Some(spki(&self.0.peer_id()).into())
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::ED25519
    }
}

impl Signer for Key {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        Ok(self.0.sign(message).to_vec())
    }

    fn scheme(&self) -> SignatureScheme {
        SignatureScheme::ED25519
    }
}

/// Takes one peer for a server, and nobody else.
#[derive(Debug)]
struct Expected {
    peer: PeerId,
}

impl ServerCertVerifier for Expected {
    fn verify_server_cert(
        &self,
        shown: &CertificateDer<'_>,
        more: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if !more.is_empty() {
            return Err(CertificateError::BadEncoding.into());
        }
        if named_by(shown)? == self.peer {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(CertificateError::ApplicationVerificationFailure.into())
        }
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(not_spoken())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify(message, shown, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

/// Takes any peer for a client, but never nobody.
#[derive(Debug)]
struct SomePeer;

impl ClientCertVerifier for SomePeer {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        shown: &CertificateDer<'_>,
        more: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        if !more.is_empty() {
            return Err(CertificateError::BadEncoding.into());
        }
        named_by(shown).map(|_| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(not_spoken())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify(message, shown, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_read_back_as_the_peer_it_names_and_anything_else_as_nobody() {
        let peer = Identity::from_seed([3; 32]).peer_id();
        let good = spki(&peer);
        assert_eq!(named_by(&good), Ok(peer));
        for at in 0..SPKI_PREFIX.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert!(named_by(&bad).is_err(), "byte {at}");
        }
        assert!(named_by(&good[..43]).is_err());
        assert!(named_by(&[&good[..], &[0]].concat()).is_err());
        let weak = [&SPKI_PREFIX[..], &[0; 32]].concat();
        assert!(named_by(&weak).is_err());
    }
}

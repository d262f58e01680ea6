//! TLS that ends in the relay, and whoever sits in the middle of it.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use outlive_core::transport::{
    Class, GoodbyeReason, Incoming, Outgoing, RelayTransport, TransportError,
};
use outlive_core::wire::relay::{self, Binding, FromRelay};
use outlive_core::{EnvelopeId, StoreId};
use outlive_relay::{Relay, RelayConfig, RelayError, RelayTls};
use outlive_storage::MemoryStore;
use outlive_transports::WebSocketRelay;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::Connector;
use tokio_tungstenite::tungstenite::Message;

use crate::client::{Client, TTL, hello, id, identity, relay_over, soon};

const ALICE: u16 = 1;
const BOB: u16 = 2;

/// An authority of one's own.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, in PEM.
pub(crate) struct Certificate {
    pub(crate) chain: String,
    pub(crate) key: String,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        Self(CertifiedIssuer::self_signed(params, key).expect("a certificate"))
    }

    fn pem(&self) -> String {
        self.0.pem()
    }

    pub(crate) fn certificate(&self, name: &str) -> Certificate {
        let params = CertificateParams::new([name.to_owned()]).expect("a name");
        let key = KeyPair::generate().expect("a key");
        let signed = params.signed_by(&key, &self.0).expect("a certificate");
        Certificate {
            chain: signed.pem(),
            key: key.serialize_pem(),
        }
    }

    pub(crate) fn connector(&self) -> Connector {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).expect("a root");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        Connector::Rustls(Arc::new(config))
    }
}

impl Certificate {
    pub(crate) fn relay_tls(&self) -> RelayTls {
        RelayTls::from_pem(self.chain.as_bytes(), self.key.as_bytes()).expect("a usable pair")
    }
}

pub(crate) async fn relay(certificate: &Certificate) -> Relay {
    relay_with(certificate, RelayConfig::default()).await
}

async fn relay_with(certificate: &Certificate, config: RelayConfig) -> Relay {
    let relay = Relay::builder()
        .store(Arc::new(MemoryStore::new()))
        .config(config)
        .tls(certificate.relay_tls())
        .bind(([127, 0, 0, 1], 0).into());
    relay.await.expect("a free port")
}

pub(crate) fn way(scheme: &str, port: u16, authority: &Authority) -> WebSocketRelay {
    WebSocketRelay::new(&format!("{scheme}://127.0.0.1:{port}"))
        .and_then(|way| way.with_root_certificates(authority.pem().as_bytes()))
        .expect("a good address")
}

async fn connect(way: &WebSocketRelay, n: u16) -> Result<(), TransportError> {
    let identity = identity(n);
    soon("an end of connecting", way.connect(&identity))
        .await
        .map(drop)
}

#[tokio::test]
async fn peers_who_trust_the_authority_sign_in_again_and_again() {
    let authority = Authority::new();
    let relay = relay(&authority.certificate("127.0.0.1")).await;
    let way = way("wss", relay.local_addr().port(), &authority);
    // Later ones resume the TLS session of the first; what is exported is new each time.
    for _ in 0..3 {
        connect(&way, ALICE).await.expect("signed in");
    }
}

#[tokio::test]
async fn a_certificate_that_is_not_trusted_is_called_so() {
    let (authority, other) = (Authority::new(), Authority::new());
    let good = relay(&authority.certificate("127.0.0.1")).await;
    let misnamed = relay(&authority.certificate("relay.example")).await;
    for (relay, authority, said) in [
        (&good, &other, "no authority that is trusted here"),
        (&misnamed, &authority, "it is for another name"),
    ] {
        let way = way("wss", relay.local_addr().port(), authority);
        match connect(&way, ALICE).await {
            Err(error @ TransportError::Untrusted { .. }) => {
                let text = error.to_string();
                assert!(
                    text.contains(said) && text.contains("wss://127.0.0.1"),
                    "{text}"
                );
            }
            other => panic!("trusted: {other:?}"),
        }
    }
}

#[tokio::test]
async fn the_wrong_scheme_is_told_from_a_relay_that_is_down() {
    let authority = Authority::new();
    let secured = relay(&authority.certificate("127.0.0.1")).await;
    let plain = relay_over(MemoryStore::new(), RelayConfig::default()).await;
    for (scheme, relay, said) in [("ws", &secured, "use wss://"), ("wss", &plain, "try ws://")] {
        let way = way(scheme, relay.local_addr().port(), &authority);
        match connect(&way, ALICE).await {
            Err(TransportError::Unreachable { reason, .. }) => {
                assert!(reason.contains(said), "{reason}");
            }
            other => panic!("no hint: {other:?}"),
        }
    }
}

#[test]
fn what_is_no_certificate_and_no_key_is_refused_with_the_reason() {
    let authority = Authority::new();
    let (one, two) = (authority.certificate("a"), authority.certificate("b"));
    let tls = |chain: &str, key: &str| RelayTls::from_pem(chain.as_bytes(), key.as_bytes());
    let certificate = |result| match result {
        Err(RelayError::Certificate { reason }) => reason,
        other => panic!("not the certificate: {other:?}"),
    };
    let key = |result| match result {
        Err(RelayError::Key { reason }) => reason,
        other => panic!("not the key: {other:?}"),
    };
    assert!(certificate(tls("", &one.key)).contains("there is none"));
    assert!(certificate(tls(&one.key, &one.chain)).contains("there is none"));
    assert!(certificate(tls("-----BEGIN CERTIFICATE-----\nAAAA", &one.key)).contains("not PEM"));
    let nonsense = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    certificate(tls(nonsense, &one.key));
    assert!(key(tls(&one.chain, "")).contains("there is none"));
    assert!(key(tls(&one.chain, &two.key)).contains("not the one of the certificate"));
    let way = || WebSocketRelay::new("wss://relay.example").expect("an address");
    for pem in ["", &one.key, nonsense, "-----BEGIN CERTIFICATE-----\nAAAA"] {
        let error = way().with_root_certificates(pem.as_bytes()).unwrap_err();
        assert!(matches!(error, TransportError::Address { .. }));
    }
}

#[tokio::test]
async fn a_handshake_that_stalls_holds_up_nobody_and_is_let_go() {
    let authority = Authority::new();
    let mut config = RelayConfig::default();
    config.sign_in_timeout = std::time::Duration::from_secs(3);
    let relay = relay_with(&authority.certificate("127.0.0.1"), config).await;
    let way = way("wss", relay.local_addr().port(), &authority);
    let mut stalled = Vec::new();
    // Nothing; the first byte of a handshake; a record that promises more; no TLS and no HTTP.
    for said in [&b""[..], &[22], &[22, 3, 1, 2, 0, 1], &[0, 0, 0]] {
        let mut socket = TcpStream::connect(relay.local_addr()).await.unwrap();
        socket.write_all(said).await.unwrap();
        stalled.push(socket);
    }
    for _ in 0..3 {
        connect(&way, ALICE).await.expect("signed in");
    }
    for mut socket in stalled {
        let mut answer = Vec::new();
        // Closed or reset, it ends.
        let _ = soon("the end", socket.read_to_end(&mut answer)).await;
    }
}

#[tokio::test]
async fn a_relay_that_ends_tls_takes_no_proof_that_is_not_tied_to_it() {
    let authority = Authority::new();
    let relay = relay(&authority.certificate("127.0.0.1")).await;
    let url = format!("wss://{}", relay.local_addr());
    for tie in [None, Some([0; 32])] {
        let mut eve = Client::connect_to(&url, authority.connector()).await;
        eve.say([hello(ALICE)]).await;
        let Some(FromRelay::Challenge {
            nonce,
            store,
            binding,
        }) = eve.hear().await
        else {
            panic!("no challenge");
        };
        assert_eq!(binding, Binding::TlsExporter);
        let proof = relay::prove(&identity(ALICE), &nonce, store, tie.as_ref());
        eve.say([proof]).await;
        assert_eq!(eve.hear_goodbye().await, GoodbyeReason::Signature);
    }
}

/// A relay that somebody trusts, and that passes on what it is told to another relay: one
/// connection of its own, `tampered` with. Returns what the other relay said.
async fn man_in_the_middle(
    listener: TcpListener,
    certificate: &Certificate,
    url: String,
    connector: Connector,
    tamper: fn(&mut FromRelay),
) -> Vec<FromRelay> {
    let chain = CertificateDer::pem_slice_iter(certificate.chain.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .expect("a chain");
    let key = PrivateKeyDer::from_pem_slice(certificate.key.as_bytes()).expect("a key");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .expect("a usable pair");
    let (socket, _) = listener.accept().await.expect("the victim");
    let socket = TlsAcceptor::from(Arc::new(config)).accept(socket).await;
    let mut victim = tokio_tungstenite::accept_async(socket.expect("TLS"))
        .await
        .expect("a WebSocket");
    let mut real = Client::connect_to(&url, connector).await;
    let mut said = Vec::new();
    loop {
        tokio::select! {
            message = victim.next() => match message {
                Some(Ok(message @ Message::Binary(_))) => real.say_raw(message).await,
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return said,
            },
            message = real.hear() => {
                let Some(mut message) = message else { return said };
                said.push(message.clone());
                tamper(&mut message);
                let mut bytes = Vec::new();
                relay::encode(&message, &mut bytes);
                victim.send(Message::binary(bytes)).await.expect("the victim hears it");
            }
        }
    }
}

async fn forward(
    authority: &Authority,
    real: &Relay,
    scheme: &str,
    tamper: fn(&mut FromRelay),
) -> (Result<(), TransportError>, Vec<FromRelay>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let way = way(
        "wss",
        listener.local_addr().expect("bound").port(),
        authority,
    );
    let certificate = authority.certificate("127.0.0.1");
    let url = format!("{scheme}://{}", real.local_addr());
    let middle = man_in_the_middle(listener, &certificate, url, authority.connector(), tamper);
    let attack = Box::pin(async { tokio::join!(connect(&way, ALICE), middle) });
    soon("the end of the attack", attack).await
}

fn is_welcome(message: &FromRelay) -> bool {
    matches!(message, FromRelay::Welcome { .. })
}

#[tokio::test]
async fn a_forwarded_challenge_signs_nobody_in_where_it_came_from() {
    let authority = Authority::new();
    let real = relay(&authority.certificate("127.0.0.1")).await;
    let untouched: fn(&mut FromRelay) = |_| {};
    let untied: fn(&mut FromRelay) = |message| {
        if let FromRelay::Challenge { binding, .. } = message {
            *binding = Binding::None;
        }
    };
    for tamper in [untouched, untied] {
        let (victim, said) = forward(&authority, &real, "wss", tamper).await;
        assert!(
            matches!(victim, Err(TransportError::Refused(_))),
            "{victim:?}"
        );
        assert!(!said.iter().any(is_welcome), "{said:?}");
        assert!(said.contains(&FromRelay::Goodbye {
            reason: GoodbyeReason::Signature
        }));
    }
    // The victim itself is let in by the real one.
    let way = way("wss", real.local_addr().port(), &authority);
    connect(&way, ALICE).await.expect("signed in");
}

#[tokio::test]
async fn without_tls_in_the_relay_the_same_attack_works() {
    // What the tie is for, and what a proxy that ends TLS before the relay gives up.
    let authority = Authority::new();
    let real = relay_over(MemoryStore::new(), RelayConfig::default()).await;
    let (victim, said) = forward(&authority, &real, "ws", |_| {}).await;
    assert!(victim.is_ok() && said.iter().any(is_welcome), "{said:?}");
}

#[tokio::test]
async fn a_relay_that_asks_for_a_tie_on_a_plain_connection_is_refused() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let way = way(
        "ws",
        listener.local_addr().expect("bound").port(),
        &Authority::new(),
    );
    let asking = async {
        let (socket, _) = listener.accept().await.expect("the client");
        let mut socket = tokio_tungstenite::accept_async(socket)
            .await
            .expect("WebSocket");
        socket.next().await;
        let challenge = FromRelay::Challenge {
            nonce: [1; 32],
            store: StoreId([2; 16]),
            binding: Binding::TlsExporter,
        };
        let mut bytes = Vec::new();
        relay::encode(&challenge, &mut bytes);
        socket.send(Message::binary(bytes)).await.expect("heard");
        socket.next().await
    };
    let (refused, _) = tokio::join!(connect(&way, ALICE), asking);
    match refused {
        Err(TransportError::Protocol(reason)) => assert!(reason.contains("use wss://")),
        other => panic!("not refused: {other:?}"),
    }
}

#[tokio::test]
async fn messages_go_through_tls_both_ways() {
    let authority = Authority::new();
    let relay = relay(&authority.certificate("127.0.0.1")).await;
    let way = way("wss", relay.local_addr().port(), &authority);
    let (alice, bob) = (identity(ALICE), identity(BOB));
    let mut alice = way.connect(&alice).await.expect("signed in");
    let mut bob = way.connect(&bob).await.expect("signed in");
    let packet = Bytes::from(vec![7; 60_000]);
    let item = Outgoing::Submit {
        envelope: EnvelopeId(1),
        to: id(BOB),
        class: Class::Keep,
        ttl: TTL,
        packet: packet.clone(),
    };
    alice.sender.send(vec![item]).await.expect("sent");
    let answer = soon("the answer", alice.receiver.receive()).await;
    assert!(matches!(answer, Ok(Incoming::Accepted { .. })));
    match soon("the packet", bob.receiver.receive()).await {
        Ok(Incoming::Deliver { packet: came, .. }) => assert_eq!(came, packet),
        other => panic!("no packet: {other:?}"),
    }
}

//! A relay's certificate that is renewed while it runs.

use bytes::Bytes;
use outlive_core::EnvelopeId;
use outlive_core::transport::{Class, Incoming, Outgoing, RelayTransport};
use outlive_relay::{Relay, RelayConfig, RelayError, RelayTls};
use outlive_storage::MemoryStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_tungstenite::Connector;

use crate::client::{Client, TTL, id, identity, relay_over, soon};
use crate::tls::{Authority, Certificate, relay, way};

const ALICE: u16 = 1;
const BOB: u16 = 2;

impl Certificate {
    fn der(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(self.chain.as_bytes()).expect("a certificate")
    }
}

/// The certificate that a new connection is shown; `None` if there is no TLS.
async fn shown(relay: &Relay, connector: &Connector) -> Option<CertificateDer<'static>> {
    let Connector::Rustls(config) = connector else {
        return None;
    };
    let socket = TcpStream::connect(relay.local_addr()).await.ok()?;
    let name = ServerName::try_from("127.0.0.1").expect("a name");
    let connecting = TlsConnector::from(config.clone()).connect(name, socket);
    let mut stream = soon("a handshake", connecting).await.ok()?;
    // What makes it possible to resume comes behind the handshake.
    let request = b"GET /health HTTP/1.1\r\nHost: relay\r\nConnection: close\r\n\r\n";
    stream.write_all(request).await.ok()?;
    let mut answer = Vec::new();
    let _ = soon("an answer", stream.read_to_end(&mut answer)).await;
    let (_, tls) = stream.get_ref();
    let chain = tls.peer_certificates()?;
    chain.first().map(|first| first.clone().into_owned())
}

#[tokio::test]
async fn a_renewed_certificate_is_shown_to_whoever_comes_and_disturbs_nobody_who_is_there() {
    let authority = Authority::new();
    let (old, new) = (
        authority.certificate("127.0.0.1"),
        authority.certificate("127.0.0.1"),
    );
    let relay = relay(&old).await;
    let way = way("wss", relay.local_addr().port(), &authority);
    let alice = identity(ALICE);
    let mut before = way.connect(&alice).await.expect("signed in");
    // One client that could resume what it did under the old one.
    let connector = authority.connector();
    for _ in 0..2 {
        assert_eq!(shown(&relay, &connector).await, Some(old.der()));
    }
    relay.reload_tls(new.relay_tls()).expect("it has TLS");
    for _ in 0..2 {
        assert_eq!(shown(&relay, &connector).await, Some(new.der()));
    }
    // Who comes now signs in, tied to its connection, and hears from who was there.
    let bob = identity(BOB);
    let mut after = way.connect(&bob).await.expect("signed in");
    let item = Outgoing::Submit {
        envelope: EnvelopeId(1),
        to: id(BOB),
        class: Class::Keep,
        ttl: TTL,
        packet: Bytes::from_static(b"still here"),
    };
    before.sender.send(vec![item]).await.expect("sent");
    let answer = soon("the answer", before.receiver.receive()).await;
    assert!(matches!(answer, Ok(Incoming::Accepted { .. })));
    match soon("the packet", after.receiver.receive()).await {
        Ok(Incoming::Deliver { packet, .. }) => assert_eq!(packet, "still here"),
        other => panic!("no packet: {other:?}"),
    }
}

#[tokio::test]
async fn what_is_no_certificate_leaves_the_old_one_in_use() {
    let authority = Authority::new();
    let (old, other) = (
        authority.certificate("127.0.0.1"),
        authority.certificate("127.0.0.1"),
    );
    let relay = relay(&old).await;
    for (chain, key) in [(&other.chain, &old.key), (&old.key, &old.key)] {
        let renewed = RelayTls::from_pem(chain.as_bytes(), key.as_bytes())
            .and_then(|renewed| relay.reload_tls(renewed));
        renewed.expect_err("they do not fit together");
        let connector = authority.connector();
        assert_eq!(shown(&relay, &connector).await, Some(old.der()));
    }
}

#[tokio::test]
async fn a_relay_that_began_without_tls_goes_on_without_it() {
    let authority = Authority::new();
    let plain = relay_over(MemoryStore::new(), RelayConfig::default()).await;
    let certificate = authority.certificate("127.0.0.1");
    let refused = plain.reload_tls(certificate.relay_tls());
    assert!(matches!(refused, Err(RelayError::NoTls)), "{refused:?}");
    let _alice = Client::sign_in(&plain, ALICE).await;
    assert_eq!(shown(&plain, &authority.connector()).await, None);
}

//! The bytes in the document are those on the wire.

use outlive_core::transport::Lane;
use rustls::pki_types::CertificateDer;

use crate::raw::{self, ALPN, Shown};
use crate::{hear, id, identity, node, say};

const DOCUMENT: &str = include_str!("../../../docs/PROTOCOL.md");

/// The bytes of a block of hex with comments.
fn block(name: &str) -> Vec<u8> {
    let head = format!("```vector-quic {name}");
    let lines = DOCUMENT.lines().skip_while(|line| *line != head).skip(1);
    let bytes: Vec<u8> = lines
        .take_while(|line| *line != "```")
        .flat_map(|line| line.split('#').next())
        .flat_map(str::split_whitespace)
        .map(|byte| u8::from_str_radix(byte, 16).expect("hex"))
        .collect();
    assert!(!bytes.is_empty(), "the document has no {name}");
    bytes
}

#[tokio::test]
async fn a_node_says_what_the_document_says_and_understands_it() {
    let node = node(1).await;
    let endpoint = raw::endpoint();
    let shown = Shown::honest(&identity(7));
    let connecting = raw::dial(&endpoint, node.addresses[0], Some(&shown), ALPN);
    let connection = connecting.expect("it dials").await.expect("a good key");
    let keys = connection.peer_identity().expect("it has shown its key");
    let keys = keys.downcast::<Vec<CertificateDer<'static>>>();
    let keys = keys.expect("as TLS has them");
    assert_eq!(keys.len(), 1);
    assert_eq!(&keys[0][..], block("key"));

    let mut stream = connection.open_uni().await.expect("room for a stream");
    stream.write_all(&block("stream")).await.expect("it is up");
    let mut link = node.endpoint.accept().await.expect("a link");
    assert_eq!(link.peer, id(7));
    assert_eq!(hear(&mut link).await, &b"abc"[..]);

    say(&mut link, Lane::Interactive, vec![b"abc"[..].into()]).await;
    let mut stream = connection.accept_uni().await.expect("a lane");
    let mut said = vec![0; block("stream").len()];
    stream.read_exact(&mut said).await.expect("it is up");
    assert_eq!(said, block("stream"));
    say(&mut link, Lane::Bulk, vec![b"abc"[..].into()]).await;
    let mut stream = connection.accept_uni().await.expect("a lane");
    stream.read_exact(&mut said).await.expect("it is up");
    assert_eq!(said[0], 1);
    assert_eq!(said[1..], block("stream")[1..]);
}

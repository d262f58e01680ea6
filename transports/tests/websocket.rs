//! What a relay sees of a client over a WebSocket.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use outlive_core::transport::{
    Class, DeliveryToken, Incoming, Outgoing, RelayTransport, Slot, TransportError,
};
use outlive_core::wire::relay::{self, Binding, FromRelay, ToRelay};
use outlive_core::{EnvelopeId, Identity, StoreId};
use outlive_transports::WebSocketRelay;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

const WELCOME: FromRelay = FromRelay::WelcomeUnidentified {
    store: StoreId([1; 16]),
    max_ttl: 60,
};

/// A client that has said whom it comes as.
async fn greeted(listener: &TcpListener) -> WebSocketStream<TcpStream> {
    let (socket, _) = listener.accept().await.expect("a client");
    let upgraded = tokio_tungstenite::accept_async(socket).await;
    let mut socket = upgraded.expect("a WebSocket");
    socket.next().await.expect("a greeting").expect("a message");
    socket
}

fn submit(number: u64, bytes: usize) -> Outgoing {
    Outgoing::SubmitUnidentified {
        envelope: EnvelopeId(number),
        to: Identity::from_seed([1; 32]).peer_id(),
        token: DeliveryToken::from_bytes([2; 32]),
        slot: Slot([3; 32]),
        class: Class::Keep,
        ttl: 60,
        packet: Bytes::from(vec![0; bytes]),
    }
}

/// A relay hears a slow client whenever a message of it is there as a whole.
#[tokio::test]
async fn much_at_once_is_cut_into_messages_that_a_slow_link_carries_in_time() {
    const ENVELOPES: u64 = 32;
    const PACKET: usize = 16 * 1024;
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
    let address = format!("ws://{}", listener.local_addr().expect("an address"));
    let relay = async {
        let mut socket = greeted(&listener).await;
        let mut welcome = Vec::new();
        relay::encode(&WELCOME, &mut welcome);
        let said = socket.send(Message::binary(welcome)).await;
        said.expect("it is taken");
        let (mut envelopes, mut sizes) = (0, Vec::new());
        while envelopes < ENVELOPES {
            if let Message::Binary(bytes) = socket.next().await.expect("more").expect("a message") {
                let messages = relay::decode::<ToRelay>(&bytes).expect("envelopes");
                envelopes += messages.len() as u64;
                sizes.push(bytes.len());
            }
        }
        sizes
    };
    let client = async {
        let relay = WebSocketRelay::new(&address)?;
        let mut connection = relay.connect_unidentified().await?;
        let envelope = |number| submit(number, PACKET);
        let envelopes = (0..ENVELOPES).map(envelope).collect();
        connection.sender.send(envelopes).await?;
        Ok::<_, TransportError>(connection)
    };
    let (sizes, connection) = tokio::join!(relay, client);
    connection.expect("a connection");
    let most = sizes.iter().max().expect("messages");
    assert!(*most < 3 * PACKET, "{sizes:?}");
}

#[tokio::test]
async fn a_silence_longer_than_any_clock_goes_is_none() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
    let address = format!("ws://{}", listener.local_addr().expect("an address"));
    let relay = async {
        let mut socket = greeted(&listener).await;
        let envelope = EnvelopeId(7);
        for word in [WELCOME, FromRelay::Accepted { envelope }] {
            let mut said = Vec::new();
            relay::encode(&word, &mut said);
            let said = socket.send(Message::binary(said)).await;
            said.expect("it is taken");
            if word == WELCOME {
                socket.next().await.expect("an envelope").expect("whole");
            }
        }
    };
    let client = async {
        let relay = WebSocketRelay::new(&address)?.with_silence(Duration::MAX);
        let mut connection = relay.connect_unidentified().await?;
        connection.sender.send(vec![submit(7, 1)]).await?;
        connection.receiver.receive().await
    };
    let ((), heard) = tokio::join!(relay, client);
    let heard = heard.expect("a word");
    assert!(matches!(heard, Incoming::Accepted { envelope } if envelope == EnvelopeId(7)));
}

#[tokio::test]
async fn a_message_that_takes_longer_than_a_relay_may_be_silent_is_no_silence() {
    let silence = Duration::from_secs(1);
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
    let address = format!("ws://{}", listener.local_addr().expect("an address"));
    let relay = async {
        let mut socket = greeted(&listener).await;
        let (mut welcome, mut accepted) = (Vec::new(), Vec::new());
        relay::encode(&WELCOME, &mut welcome);
        let said = socket.send(Message::binary(welcome)).await;
        said.expect("it is taken");
        let envelope = EnvelopeId(7);
        relay::encode(&FromRelay::Accepted { envelope }, &mut accepted);
        // A binary message (RFC 6455, section 5.2), as it comes over a very slow line.
        let length = u8::try_from(accepted.len()).expect("a short one");
        let message = [&[0x82, length], &accepted[..]].concat();
        for byte in message {
            tokio::time::sleep(silence * 3 / 10).await;
            let sent = socket.get_mut().write_all(&[byte]).await;
            sent.expect("it is taken");
        }
        socket
    };
    let client = async {
        let relay = WebSocketRelay::new(&address)?.with_silence(silence);
        let mut connection = relay.connect_unidentified().await?;
        connection.sender.send(vec![submit(7, 1)]).await?;
        connection.receiver.receive().await
    };
    let (_socket, heard) = tokio::join!(relay, client);
    let heard = heard.expect("a word");
    assert!(matches!(heard, Incoming::Accepted { envelope } if envelope == EnvelopeId(7)));
}

/// Whoever is dialed may pass on the challenge of another relay. What answers it would be good there.
#[tokio::test]
async fn a_relay_that_is_in_use_elsewhere_is_proved_nothing() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
    let address = format!("ws://{}", listener.local_addr().expect("an address"));
    let [known, other] = [1, 2].map(|n| StoreId([n; 16]));
    let client = WebSocketRelay::new(&address).expect("an address");
    let identity = Identity::from_seed([1; 32]);
    for store in [known, other] {
        let relay = async {
            let mut socket = greeted(&listener).await;
            let mut challenge = Vec::new();
            relay::encode(
                &FromRelay::Challenge {
                    nonce: [7; 32],
                    store,
                    binding: Binding::None,
                },
                &mut challenge,
            );
            let said = socket.send(Message::binary(challenge)).await;
            said.expect("it is taken");
            let answer = socket.next().await.and_then(Result::ok);
            matches!(answer, Some(Message::Binary(_)))
        };
        let in_use = |of, _| of == known;
        let signing_in = client.connect_apart(&identity, &in_use);
        let (proved, signed_in) = tokio::join!(relay, signing_in);
        assert_eq!(proved, store == other);
        let refused =
            matches!(signed_in, Err(TransportError::InUse { store: of, .. }) if of == store);
        assert_eq!(refused, store == known);
    }
}

//! A client that says whatever a test wants, when the test wants it.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use outlive_core::store::Store;
use outlive_core::wire::relay::{self, Class, FromRelay, GoodbyeReason, ToRelay, VERSION};
use outlive_core::{EnvelopeId, Identity, PeerId};
use outlive_relay::{Relay, RelayConfig};
pub(crate) use outlive_testing::{comes, comes_true, soon};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{
    Connector, MaybeTlsStream, WebSocketStream, connect_async_tls_with_config,
};

/// Seconds an envelope may wait, where it does not matter.
pub(crate) const TTL: u32 = 3_600;

pub(crate) fn identity(n: u16) -> Identity {
    let [high, low] = n.to_be_bytes();
    let mut seed = [7; 32];
    (seed[0], seed[1]) = (high, low);
    Identity::from_seed(seed)
}

pub(crate) fn id(n: u16) -> PeerId {
    identity(n).peer_id()
}

pub(crate) async fn relay_over(store: impl Store, config: RelayConfig) -> Relay {
    let relay = Relay::builder()
        .store(Arc::new(store))
        .config(config)
        .bind(([127, 0, 0, 1], 0).into());
    relay.await.expect("a free port")
}

pub(crate) fn submit(envelope: u64, to: PeerId, class: Class, packet: impl Into<Bytes>) -> ToRelay {
    ToRelay::Submit {
        envelope: EnvelopeId(envelope),
        to,
        class,
        ttl: TTL,
        packet: packet.into(),
    }
}

pub(crate) fn encoded(messages: impl IntoIterator<Item = ToRelay>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for message in messages {
        relay::encode(&message, &mut bytes);
    }
    bytes
}

pub(crate) struct Client {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    heard: VecDeque<FromRelay>,
}

impl Client {
    /// A WebSocket on which nothing was said yet.
    pub(crate) async fn connect(relay: &Relay) -> Self {
        let url = format!("ws://{}", relay.local_addr());
        Self::connect_to(&url, Connector::Plain).await
    }

    pub(crate) async fn connect_to(url: &str, connector: Connector) -> Self {
        let connector = Some(connector);
        let connecting = connect_async_tls_with_config(url, None, true, connector);
        let (socket, _) = soon("the upgrade", Box::pin(connecting))
            .await
            .expect("a WebSocket");
        Self {
            socket,
            heard: VecDeque::new(),
        }
    }

    pub(crate) async fn sign_in(relay: &Relay, n: u16) -> Self {
        Self::connect(relay).await.signed_in(n).await
    }

    /// The same from another address of this machine.
    #[cfg(target_os = "linux")]
    pub(crate) async fn sign_in_from(from: std::net::Ipv4Addr, relay: &Relay, n: u16) -> Self {
        let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
        socket.bind((from, 0).into()).expect("a free port");
        let connecting = socket.connect(relay.local_addr());
        let stream = soon("a connection", connecting).await.expect("a relay");
        let url = format!("ws://{}", relay.local_addr());
        let upgrading = tokio_tungstenite::client_async(&url, MaybeTlsStream::Plain(stream));
        let upgraded = soon("the upgrade", Box::pin(upgrading)).await;
        let (socket, _) = upgraded.expect("a WebSocket");
        let heard = VecDeque::new();
        Self { socket, heard }.signed_in(n).await
    }

    async fn signed_in(mut self, n: u16) -> Self {
        let proof = self.challenged(n).await;
        self.say([proof]).await;
        assert!(matches!(self.hear().await, Some(FromRelay::Welcome { .. })));
        self
    }

    /// A connection on which the relay does not know us.
    pub(crate) async fn unidentified(relay: &Relay) -> Self {
        let mut client = Self::connect(relay).await;
        let version = VERSION;
        client.say([ToRelay::HelloUnidentified { version }]).await;
        assert!(matches!(
            client.hear().await,
            Some(FromRelay::WelcomeUnidentified { .. })
        ));
        client
    }

    /// Says Hello, and returns the right answer to the challenge.
    pub(crate) async fn challenged(&mut self, n: u16) -> ToRelay {
        self.say([hello(n)]).await;
        match self.hear().await {
            Some(FromRelay::Challenge { nonce, store, .. }) => {
                relay::prove(&identity(n), &nonce, store, None)
            }
            other => panic!("no challenge but {other:?}"),
        }
    }

    /// Says these in one WebSocket message.
    pub(crate) async fn say(&mut self, messages: impl IntoIterator<Item = ToRelay>) {
        self.say_raw(Message::binary(encoded(messages))).await;
    }

    pub(crate) async fn say_raw(&mut self, message: Message) {
        // The relay may have closed already; a test finds out by what it hears.
        let _ = soon("the socket to take it", self.socket.send(message)).await;
    }

    /// The next message; `None` when the relay has closed the connection.
    pub(crate) async fn hear(&mut self) -> Option<FromRelay> {
        soon("the relay to say something", self.hear_at_last()).await
    }

    async fn hear_at_last(&mut self) -> Option<FromRelay> {
        loop {
            if let Some(message) = self.heard.pop_front() {
                return Some(message);
            }
            match self.socket.next().await {
                Some(Ok(Message::Binary(bytes))) => {
                    let messages = relay::decode::<FromRelay>(&bytes).expect("messages");
                    self.heard.extend(messages);
                }
                Some(Ok(Message::Close(_)) | Err(_)) | None => return None,
                Some(Ok(_)) => {}
            }
        }
    }

    /// Hears as many Pings, and nothing else.
    pub(crate) async fn pinged(&mut self, mut times: usize) {
        while times > 0 {
            match soon("a Ping", self.socket.next()).await {
                Some(Ok(Message::Ping(_))) => times -= 1,
                other => panic!("no Ping but {other:?}"),
            }
        }
    }

    /// What was heard already, without waiting.
    pub(crate) async fn heard_by_now(&mut self) -> Option<FromRelay> {
        tokio::select! {
            biased;
            heard = self.hear() => heard,
            () = std::future::ready(()) => None,
        }
    }

    /// Waits for the goodbye and for the end behind it.
    pub(crate) async fn hear_goodbye(&mut self) -> GoodbyeReason {
        match self.hear().await {
            Some(FromRelay::Goodbye { reason }) => {
                assert_eq!(self.hear().await, None, "the connection goes on");
                reason
            }
            other => panic!("no goodbye but {other:?}"),
        }
    }

    /// Submits one envelope, and returns the answer to it.
    pub(crate) async fn submit(&mut self, submit: ToRelay) -> FromRelay {
        self.say([submit]).await;
        self.hear().await.expect("an answer")
    }

    /// The next delivery: number and packet.
    pub(crate) async fn delivery(&mut self) -> (EnvelopeId, Bytes) {
        match self.hear().await {
            Some(FromRelay::Deliver {
                envelope: Some(envelope),
                packet,
                ..
            }) => (envelope, packet),
            other => panic!("no delivery but {other:?}"),
        }
    }

    /// Waits until the relay has taken everything said before: one more envelope, to nobody who is
    /// there, is answered.
    pub(crate) async fn settle(&mut self) {
        let mark = submit(u64::MAX, id(u16::MAX), Class::NowOrNever, Bytes::new());
        let answer = self.submit(mark).await;
        let envelope = EnvelopeId(u64::MAX);
        assert_eq!(answer, FromRelay::Accepted { envelope });
    }
}

pub(crate) fn hello(n: u16) -> ToRelay {
    ToRelay::Hello {
        version: VERSION,
        peer: id(n),
    }
}

pub(crate) const fn accepted(envelope: u64) -> FromRelay {
    FromRelay::Accepted {
        envelope: EnvelopeId(envelope),
    }
}

pub(crate) fn acknowledge(from: PeerId, envelopes: impl Into<Vec<EnvelopeId>>) -> ToRelay {
    ToRelay::Acknowledge {
        from: from.into(),
        envelopes: envelopes.into(),
    }
}

//! Clients behind pipes as narrow as a test wants them.

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use outlive_core::transport::{Class, GoodbyeReason, Refusal, Sender};
use outlive_core::wire::relay::{self, FromRelay, ToRelay, VERSION};
use outlive_core::{EnvelopeId, Identity, PeerId};
use outlive_storage::{MemoryStore, StoreClock};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{WebSocketStream, client_async};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::config::RelayConfig;
use crate::directory::Directory;
use crate::health::Health;
use crate::mailbox::{Put, Request, Writer};
use crate::rate::Rate;
use crate::refusals::RefusalLog;

const BOB: u8 = 1;
const CAROL: u8 = 2;
const EVE: u8 = 3;

fn identity(n: u8) -> Identity {
    Identity::from_seed([n; 32])
}

fn id(n: u8) -> PeerId {
    identity(n).peer_id()
}

async fn listener(config: RelayConfig) -> Listener {
    let store = Arc::new(MemoryStore::new());
    let directory = Arc::new(Directory::default());
    let (health, refusals) = (Arc::<Health>::default(), Arc::<RefusalLog>::default());
    let clock = Arc::new(StoreClock::resume(None));
    let opened = Writer::open(
        store.clone(),
        clock.clone(),
        config.clone(),
        directory.clone(),
        health.clone(),
        refusals.clone(),
        Arc::default(),
    )
    .await;
    let (writer, mailboxes, store_id) = opened.expect("an empty store");
    tokio::spawn(writer.run());
    let shared = Shared {
        store,
        clock,
        store_id,
        config: Arc::new(config),
        directory,
        peers: Arc::new(Accounts::new(10)),
        sources: Arc::new(Accounts::new(10)),
        addresses: Arc::new(Accounts::new(10)),
        mailboxes,
        health,
        refusals,
        counts: Arc::default(),
        draining: CancellationToken::new(),
    };
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
    Listener::new(listener, shared, None, TaskTracker::new())
}

async fn door(config: RelayConfig) -> Door {
    listener(config).await.door
}

impl Door {
    /// Puts an envelope of Carol into Bob's mailbox.
    async fn keep(&self, packet: impl Into<Bytes>) {
        let put = Put {
            to: id(BOB),
            class: Class::Keep,
            ttl: 3_600,
            packet: packet.into(),
        };
        let (request, answers) = Request::put(id(CAROL).into(), vec![put]);
        assert!(self.shared.mailboxes.send(request).await.is_ok());
        assert_eq!(answers.await.expect("an answer"), [Ok(())]);
    }

    /// Eve sends Bob what matters only now, more than there is room for.
    fn flood(&self) {
        for _ in 0..1_000 {
            let packet = Bytes::from_static(b"flood");
            self.shared.directory.pass(id(EVE).into(), &id(BOB), packet);
        }
    }
}

struct Client {
    socket: WebSocketStream<DuplexStream>,
}

impl Client {
    /// Bob, over a pipe that the relay has the other end of.
    async fn sign_in(door: &Door, ours: DuplexStream, its: DuplexStream) -> Self {
        let mut bob = Self::connect(door, ours, its).await;
        bob.prove(BOB).await;
        assert!(matches!(bob.hear().await[..], [FromRelay::Welcome { .. }]));
        bob
    }

    /// Somebody over such a pipe.
    async fn connect(door: &Door, ours: DuplexStream, its: DuplexStream) -> Self {
        let place = Arc::new(Semaphore::new(1)).acquire_owned().await;
        let place = Place {
            _all: place.expect("a place"),
            _address: None,
        };
        tokio::spawn(door.clone().http(its, None, None, place));
        let upgraded = client_async("ws://relay/v1", ours).await;
        let (socket, _) = upgraded.expect("a WebSocket");
        Self { socket }
    }

    /// Says that it is Bob, and proves to be whoever that is.
    async fn prove(&mut self, who: u8) {
        let (version, peer) = (VERSION, id(BOB));
        self.say(ToRelay::Hello { version, peer }).await;
        let [FromRelay::Challenge { nonce, store, .. }] = &self.hear().await[..] else {
            panic!("no challenge");
        };
        let proof = relay::prove(&identity(who), nonce, *store, None);
        self.say(proof).await;
    }

    /// Sends Carol something to keep.
    async fn submit(&mut self, envelope: EnvelopeId) {
        let submit = ToRelay::Submit {
            envelope,
            to: id(CAROL),
            class: Class::Keep,
            ttl: 3_600,
            packet: "of bob".into(),
        };
        self.say(submit).await;
    }

    async fn say(&mut self, message: ToRelay) {
        let mut bytes = Vec::new();
        relay::encode(&message, &mut bytes);
        let said = self.socket.send(Message::binary(bytes)).await;
        said.expect("the relay takes it");
    }

    /// What is in the next WebSocket message.
    async fn hear(&mut self) -> Vec<FromRelay> {
        loop {
            match self.socket.next().await {
                Some(Ok(Message::Binary(bytes))) => {
                    return relay::decode(&bytes).expect("messages");
                }
                Some(Ok(Message::Ping(_))) => {}
                other => panic!("no message but {other:?}"),
            }
        }
    }
}

#[tokio::test]
async fn a_flood_of_what_matters_only_now_holds_up_nothing_else() {
    let door = door(RelayConfig::default()).await;
    let (ours, its) = tokio::io::duplex(1_024);
    let mut bob = Client::sign_in(&door, ours, its).await;
    door.flood();
    // The flood is on its way, and there is more of it whenever Bob takes a part.
    bob.hear().await;
    door.flood();
    door.keep("mail").await;
    let envelope = EnvelopeId(7);
    bob.submit(envelope).await;
    let (mut answered, mut delivered) = (false, false);
    for _ in 0..100 {
        door.flood();
        for message in bob.hear().await {
            answered |= message == FromRelay::Accepted { envelope };
            delivered |= matches!(&message, FromRelay::Deliver { from, .. } if *from == Sender::from(id(CAROL)));
        }
    }
    assert!(answered, "what Bob said was not taken");
    assert!(delivered, "his mail did not come");
}

/// Carries what the relay says at so many bytes a second, and what the client says at once.
async fn carry(relay: DuplexStream, client: DuplexStream, rate: u32) {
    let (mut from_relay, mut to_relay) = tokio::io::split(relay);
    let (mut from_client, mut to_client) = tokio::io::split(client);
    let slowly = async {
        let mut part = [0; 1_024];
        while let Ok(count @ 1..) = from_relay.read(&mut part).await {
            // How slow it is is what is staged.
            tokio::time::sleep(Duration::from_secs(count as u64) / rate).await;
            if to_client.write_all(&part[..count]).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = slowly => {}
        _ = tokio::io::copy(&mut from_client, &mut to_relay) => {}
    }
}

#[tokio::test(start_paused = true)]
async fn mail_arrives_however_slow_the_link() {
    const SILENCE: Duration = Duration::from_secs(3);
    const ENVELOPES: usize = 20;
    let config = RelayConfig {
        ping_every: Duration::from_secs(1),
        silence: SILENCE,
        ..RelayConfig::default()
    };
    let door = door(config).await;
    let (ours, near) = tokio::io::duplex(1_024);
    let (far, its) = tokio::io::duplex(1_024);
    tokio::spawn(carry(far, near, 20_000));
    let mut bob = Client::sign_in(&door, ours, its).await;
    for _ in 0..ENVELOPES {
        door.keep(vec![0; 16 * 1_024]).await;
    }
    let mut came = 0;
    while came < ENVELOPES {
        // Whoever hears nothing for so long takes the other for gone, at both ends.
        let heard = tokio::time::timeout(SILENCE, bob.hear()).await;
        came += heard.expect("a sign of life").len();
    }
}

#[tokio::test]
async fn what_is_refused_is_counted() {
    let config = RelayConfig {
        connections: 2,
        mailbox_envelopes: 1,
        peer_envelopes: Rate::new(1).map(|rate| rate.with_burst(1)),
        ..RelayConfig::default()
    };
    let door = door(config).await;
    let refused = |what| door.shared.refusals.total(what);
    let (ours, its) = tokio::io::duplex(1_024);
    let mut eve = Client::connect(&door, ours, its).await;
    eve.prove(EVE).await;
    let reason = GoodbyeReason::Signature;
    assert_eq!(eve.hear().await, [FromRelay::Goodbye { reason }]);
    assert_eq!(refused(Refused::SignIn), 1);

    let (ours, its) = tokio::io::duplex(1_024);
    let mut bob = Client::sign_in(&door, ours, its).await;
    for (number, answer) in [(1, None), (2, Some(Refusal::MailboxFull))] {
        let envelope = EnvelopeId(number);
        bob.submit(envelope).await;
        let answer = match answer {
            None => FromRelay::Accepted { envelope },
            Some(reason) => FromRelay::Refused { envelope, reason },
        };
        assert_eq!(bob.hear().await, [answer]);
    }
    assert_eq!(refused(Refused::MailboxFull), 1);
    assert_eq!(refused(Refused::Reading), 1);
    assert_eq!(refused(Refused::SignIn), 1);

    let places = door.connections.available_permits();
    let _all = door.connections.try_acquire_many(places as u32);
    let (ours, its) = tokio::io::duplex(1_024);
    let place = Place {
        _all: Arc::new(Semaphore::new(1))
            .acquire_owned()
            .await
            .expect("a place"),
        _address: None,
    };
    tokio::spawn(door.clone().http(its, None, None, place));
    assert!(client_async("ws://relay/v1", ours).await.is_err());
    assert_eq!(refused(Refused::Connections), 1);
}

#[tokio::test]
async fn connections_that_an_address_has_no_right_to_are_counted() {
    let config = RelayConfig {
        address_sign_ins: Rate::new(1).map(|rate| rate.with_burst(3)),
        address_connections: 2,
        ..RelayConfig::default()
    };
    let listener = listener(config).await;
    let refused = |what| listener.door.shared.refusals.total(what);
    let from = IpAddr::from([192, 0, 2, 7]);
    let open = [listener.admit(from), listener.admit(from)];
    assert!(open.iter().all(Option::is_some));
    assert!(listener.admit(from).is_none());
    assert_eq!(refused(Refused::AddressConnections), 1);
    drop(open);
    assert!(listener.admit(from).is_some());
    assert!(listener.admit(from).is_none());
    assert_eq!(refused(Refused::AddressSignIns), 1);
    assert_eq!(refused(Refused::AddressConnections), 1);
}

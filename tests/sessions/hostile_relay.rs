//! A relay that signs its peers in as it should, and then says what it likes. The client gives the
//! connection up at most: what goes over another relay is not touched, and nothing comes of it.

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use outlive::{Identity, Node, Refusal, StoreId};
use outlive_core::EnvelopeId;
use outlive_core::wire::relay::{
    self, Binding, FromRelay, GoodbyeReason, MESSAGE_BYTES, Sender, Slot, ToRelay, check_proof,
};
use outlive_storage::MemoryStore;
use outlive_transports::WebSocketRelay;
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use crate::world::{CHAT, id, node, relay, soon, take, until, way};

type Socket = WebSocketStream<TcpStream>;

fn said(messages: &[FromRelay]) -> Message {
    let mut bytes = Vec::new();
    for message in messages {
        relay::encode(message, &mut bytes);
    }
    Message::binary(bytes)
}

async fn heard(socket: &mut Socket) -> ToRelay {
    let message = socket.next().await.expect("it speaks").expect("a message");
    let mut messages = relay::decode(&message.into_data()).expect("whole messages");
    messages.remove(0)
}

/// Signs the next client in.
async fn signed_in(listener: &TcpListener) -> Socket {
    let (nonce, store) = ([7; 32], StoreId([66; 16]));
    let (stream, _) = listener.accept().await.expect("a client");
    let mut socket = tokio_tungstenite::accept_async(stream)
        .await
        .expect("an upgrade");
    let ToRelay::Hello { peer, .. } = heard(&mut socket).await else {
        panic!("no Hello");
    };
    let challenge = FromRelay::Challenge {
        nonce,
        store,
        binding: Binding::None,
    };
    socket.send(said(&[challenge])).await.expect("it listens");
    let ToRelay::Proof { signature } = heard(&mut socket).await else {
        panic!("no Proof");
    };
    check_proof(&peer, &nonce, store, None, &signature).expect("a good signature");
    let welcome = FromRelay::Welcome { max_ttl: 3_600 };
    socket.send(said(&[welcome])).await.expect("it listens");
    socket
}

/// Says all of it. Returns whether the client has heard it out, and is there still.
async fn is_heard_out(socket: &mut Socket, says: Vec<Message>) -> bool {
    const END: &[u8] = b"that was all";
    let (mut sink, mut stream) = socket.split();
    let saying = async {
        let end = Message::Ping(Bytes::from_static(END));
        for message in says.into_iter().chain([end]) {
            if sink.send(message).await.is_err() {
                return;
            }
        }
    };
    // A client answers a Ping when it has taken what came before.
    let hearing = async {
        loop {
            match stream.next().await {
                Some(Ok(Message::Pong(end))) if end == END => return true,
                Some(Ok(Message::Close(_)) | Err(_)) | None => return false,
                Some(Ok(_)) => {}
            }
        }
    };
    let ((), lives) = tokio::join!(saying, hearing);
    lives
}

/// Says it to a client that has another relay too, and sees that its peer and it get on, and that
/// no more strangers than this are left with them. Returns whether the client has kept the connection.
async fn survives(what: &str, says: Vec<Message>, strangers: usize) -> bool {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    let good = relay().await;
    let alice = Node::builder()
        .identity(Identity::from_seed([1; 32]))
        .store(MemoryStore::new())
        .transport(way(&good))
        .transport(WebSocketRelay::new(&url).unwrap())
        .start()
        .await
        .unwrap();
    let mut socket = soon("a client", signed_in(&listener)).await;
    let bob = node(2, &good).await;
    let to_bob = alice.session(id(2)).await.unwrap();
    let to_alice = bob.session(id(1)).await.unwrap();
    let (mut at_alice, mut at_bob) = (to_bob.inbox(CHAT).unwrap(), to_alice.inbox(CHAT).unwrap());
    until(&to_bob, "both links", |state| state.links.len() == 2).await;
    let lives = soon(what, is_heard_out(&mut socket, says)).await;
    if !lives {
        until(&to_bob, "the link to go", |state| state.links.len() == 1).await;
    }
    for n in 0..3 {
        let receipt = to_bob.send(CHAT, format!("{n}")).await.unwrap();
        assert_eq!(take(&mut at_bob).await, format!("{n}"), "{what}");
        soon("consumption", receipt.consumed()).await.unwrap();
        to_alice.send(CHAT, format!("{n} too")).await.unwrap();
        assert_eq!(take(&mut at_alice).await, format!("{n} too"), "{what}");
    }
    let known = alice.sessions(None, 1_000).await.unwrap().len();
    assert!(known <= 1 + strangers, "{what}: {known} sessions");
    soon("the end", alice.shutdown()).await.unwrap();
    lives
}

#[tokio::test]
async fn a_relay_that_breaks_the_protocol_costs_its_connection() {
    let welcome = FromRelay::Welcome { max_ttl: 1 };
    let challenge = FromRelay::Challenge {
        nonce: [1; 32],
        store: StoreId([1; 16]),
        binding: Binding::TlsExporter,
    };
    let packet = Bytes::from(vec![2; 65_537]);
    let from = Sender::Peer(id(2));
    let large = FromRelay::Deliver {
        from,
        envelope: None,
        packet,
    };
    let cut = said(&[FromRelay::Presence {
        peer: id(2),
        online: true,
    }])
    .into_data();
    let reason = GoodbyeReason::Replaced;
    for (what, says) in [
        ("an unknown kind", Message::binary(vec![0x7f])),
        ("a kind without an end", Message::binary(vec![0xff; 64])),
        (
            "half a message",
            Message::binary(cut.slice(..cut.len() - 1)),
        ),
        ("text", Message::text("hello")),
        ("a second welcome", said(&[welcome])),
        ("a second challenge", said(&[challenge])),
        ("a packet that is too large", said(&[large])),
        (
            "more than a message may be",
            Message::binary(vec![0; MESSAGE_BYTES + 1]),
        ),
        (
            "as many messages as fit",
            Message::binary([2, 1].repeat(MESSAGE_BYTES / 2)),
        ),
        ("a goodbye", said(&[FromRelay::Goodbye { reason }])),
    ] {
        assert!(!survives(what, vec![says], 0).await, "{what} was taken");
    }
}

#[tokio::test]
async fn nothing_comes_of_what_a_relay_makes_up() {
    let deliver = |from: Sender, n: u64, kind: u8| FromRelay::Deliver {
        from,
        envelope: (n > 0).then_some(EnvelopeId(n)),
        packet: Bytes::from(vec![kind; 200]),
    };
    let from = |n| Sender::Peer(id(n));
    let numbers = [0, 1, 2, 3, 1_000, u64::MAX].map(EnvelopeId);
    let accepted = numbers.map(|envelope| FromRelay::Accepted { envelope });
    let reason = Refusal::NotAllowed;
    let refused = numbers.map(|envelope| FromRelay::Refused { envelope, reason });
    let kinds = [0, 1, 2, 3, 4, 5, 0xff];
    let own: Vec<_> = kinds
        .iter()
        .map(|&kind| deliver(from(1), 1, kind))
        .collect();
    let bobs: Vec<_> = kinds
        .iter()
        .map(|&kind| deliver(from(2), 1, kind))
        .collect();
    let nobodys = kinds.map(|kind| deliver(Sender::Slot(Slot([kind; 32])), 1, kind));
    let online = (1..=250).map(|n| FromRelay::Presence {
        peer: id(n),
        online: n % 2 == 0,
    });
    let made_up = (10..=250).map(|n| deliver(from(n), u64::from(n), 3));
    let junk = (0..2_000).map(|n| deliver(from(2), n, 2));
    for (what, says, strangers) in [
        ("acceptance of what was never sent", accepted.to_vec(), 0),
        ("refusal of what was never sent", refused.to_vec(), 0),
        ("mail from oneself", own, 0),
        ("mail from a peer that it never wrote", bobs, 0),
        ("mail from nobody", nobodys.to_vec(), 0),
        (
            "presence of peers that nobody asked for",
            online.collect(),
            0,
        ),
        // As any stranger they find a place, of which there are 1,024.
        ("mail of peers that do not exist", made_up.collect(), 241),
        ("a flood in a peer's name", junk.collect(), 0),
    ] {
        let says = says.chunks(100).map(said).collect();
        assert!(
            survives(what, says, strangers).await,
            "{what} is no reason to go"
        );
    }
}

#[tokio::test]
async fn a_relay_that_accepts_everything_and_keeps_nothing_loses_no_message() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    let alice = Node::builder()
        .identity(Identity::from_seed([1; 32]))
        .store(MemoryStore::new())
        .transport(WebSocketRelay::new(&url).unwrap())
        .start()
        .await
        .unwrap();
    let mut socket = soon("a client", signed_in(&listener)).await;
    let to_bob = alice.session(id(2)).await.unwrap();
    let receipt = to_bob.send(CHAT, "only I have it").await.unwrap();
    let lying = async {
        while let Some(Ok(message)) = socket.next().await {
            let Ok(messages) = relay::decode::<ToRelay>(&message.into_data()) else {
                continue;
            };
            for message in messages {
                if let ToRelay::Submit { envelope, .. } = message {
                    let accepted = said(&[FromRelay::Accepted { envelope }]);
                    socket.send(accepted).await.expect("it listens");
                }
            }
        }
    };
    tokio::select! {
        custody = soon("custody", receipt.custody()) => custody.unwrap(),
        () = lying => panic!("the client went"),
    }
    // The next relay gets it all the same: custody empties no outbox.
    let good = relay().await;
    let bob = node(2, &good).await;
    alice.switch_relay(std::sync::Arc::new(way(&good)));
    let mut inbox = bob.session(id(1)).await.unwrap().inbox(CHAT).unwrap();
    assert_eq!(take(&mut inbox).await, "only I have it");
    soon("consumption", receipt.consumed()).await.unwrap();
}

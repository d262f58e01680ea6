//! The relay in memory behaves as the real one does: the same scripts on both.

use bytes::Bytes;
use outlive::{Identity, RelayTransport, TransportError};
use outlive_core::EnvelopeId;
use outlive_core::transport::{Class, GoodbyeReason, Incoming, Outgoing, RelayConnection};
use outlive_relay::Relay;
use outlive_transports::MemoryRelay;

use crate::world::{id, relay, soon, way};

/// A way to a relay of each kind.
async fn ways() -> [(Box<dyn RelayTransport>, Option<Relay>); 2] {
    let real = relay().await;
    let memory = MemoryRelay::new("relay");
    [(Box::new(memory), None), (Box::new(way(&real)), Some(real))]
}

async fn sign_in(way: &dyn RelayTransport, n: u8) -> RelayConnection {
    let identity = Identity::from_seed([n; 32]);
    soon("a connection", way.connect(&identity))
        .await
        .expect("signed in")
}

async fn submit(connection: &mut RelayConnection, to: u8, class: Class, text: &'static str) {
    let item = Outgoing::Submit {
        envelope: EnvelopeId(7),
        to: id(to),
        class,
        ttl: 3_600,
        packet: Bytes::from_static(text.as_bytes()),
    };
    connection.sender.send(vec![item]).await.expect("it is up");
    let accepted = Incoming::Accepted {
        envelope: EnvelopeId(7),
    };
    assert_eq!(next(connection).await, accepted);
}

async fn next(connection: &mut RelayConnection) -> Incoming {
    soon("something", connection.receiver.receive())
        .await
        .expect("it is up")
}

/// Takes the next delivery: what it says, and the relay's number for it.
async fn delivered(connection: &mut RelayConnection) -> (String, Option<EnvelopeId>) {
    match next(connection).await {
        Incoming::Deliver {
            envelope, packet, ..
        } => (String::from_utf8_lossy(&packet).into_owned(), envelope),
        other => panic!("{other:?}"),
    }
}

async fn say(connection: &mut RelayConnection, item: Outgoing) {
    connection.sender.send(vec![item]).await.expect("it is up");
}

#[tokio::test]
async fn an_envelope_comes_over_each_connection_until_it_is_acknowledged() {
    for (way, _relay) in ways().await {
        let mut alice = sign_in(&*way, 1).await;
        submit(&mut alice, 2, Class::Keep, "one").await;
        submit(&mut alice, 2, Class::Keep, "two").await;
        let mut bob = sign_in(&*way, 2).await;
        let (first, number) = delivered(&mut bob).await;
        assert_eq!((&*first, &*delivered(&mut bob).await.0), ("one", "two"));
        let again = Outgoing::Redeliver { from: id(1).into() };
        say(&mut bob, again).await;
        for text in ["one", "two"] {
            assert_eq!(delivered(&mut bob).await.0, text);
        }
        let envelopes = number.into_iter().collect();
        let done = Outgoing::Acknowledge {
            from: id(1).into(),
            envelopes,
        };
        say(&mut bob, done).await;
        // What was said before has been heard when this is answered.
        submit(&mut bob, 3, Class::Keep, "").await;
        submit(&mut bob, 3, Class::Keep, "").await;
        drop(bob);
        let mut bob = sign_in(&*way, 2).await;
        assert_eq!(delivered(&mut bob).await.0, "two");
        assert_eq!(bob.store, alice.store);
    }
}

#[tokio::test]
async fn of_control_frames_the_newest_waits_and_of_passing_ones_none() {
    for (way, _relay) in ways().await {
        let mut alice = sign_in(&*way, 1).await;
        submit(&mut alice, 2, Class::NewestOnly, "old").await;
        submit(&mut alice, 2, Class::NowOrNever, "never").await;
        submit(&mut alice, 2, Class::NewestOnly, "new").await;
        let mut bob = sign_in(&*way, 2).await;
        assert_eq!(delivered(&mut bob).await.0, "new");
        submit(&mut alice, 2, Class::NowOrNever, "now").await;
        assert_eq!(delivered(&mut bob).await, ("now".to_owned(), None));
    }
}

#[tokio::test]
async fn who_watches_a_peer_hears_it_come_and_go_but_not_that_it_changed_connections() {
    for (way, _relay) in ways().await {
        let mut alice = sign_in(&*way, 1).await;
        let peer = id(2);
        say(&mut alice, Outgoing::Watch { peers: vec![peer] }).await;
        let is = |online| Incoming::Presence { peer, online };
        assert_eq!(next(&mut alice).await, is(false));
        let mut old = sign_in(&*way, 2).await;
        assert_eq!(next(&mut alice).await, is(true));
        let new = sign_in(&*way, 2).await;
        let ended = soon("the farewell", old.receiver.receive()).await;
        let replaced = GoodbyeReason::Replaced;
        assert!(matches!(ended, Err(TransportError::Closed(why)) if why == replaced));
        drop(old);
        submit(&mut alice, 3, Class::Keep, "").await;
        drop(new);
        assert_eq!(next(&mut alice).await, is(false));
    }
}

//! The relay in memory does what the tests above it rely on, and each of its faults does what it
//! says.
#![cfg(feature = "memory")]

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use outlive_core::transport::{
    Class, GoodbyeReason, Incoming, Outgoing, Refusal, RelayConnection, RelayTransport,
    TransportError,
};
use outlive_core::{EnvelopeId, Identity, PeerId};
use outlive_transports::{MemoryRelay, Way};
use tokio::time::Instant;

const CUT: &str = "the connection broke: it was cut";

fn id(n: u8) -> PeerId {
    Identity::from_seed([n; 32]).peer_id()
}

async fn sign_in(relay: &MemoryRelay, n: u8) -> RelayConnection {
    let identity = Identity::from_seed([n; 32]);
    relay.connect(&identity).await.expect("a connection")
}

/// What a future returns if it is done when it is polled once.
async fn at_once<T>(future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    poll_fn(|context| {
        Poll::Ready(match future.as_mut().poll(context) {
            Poll::Ready(value) => Some(value),
            Poll::Pending => None,
        })
    })
    .await
}

fn submit(envelope: u64, to: u8, class: Class, text: &'static str) -> Outgoing {
    Outgoing::Submit {
        envelope: EnvelopeId(envelope),
        to: id(to),
        class,
        ttl: 60,
        packet: Bytes::from_static(text.as_bytes()),
    }
}

async fn send(connection: &mut RelayConnection, items: Vec<Outgoing>) {
    let sent = at_once(connection.sender.send(items)).await;
    sent.expect("there is room").expect("it is up");
}

/// What there is to hear now: a line for each item.
async fn heard(connection: &mut RelayConnection) -> Vec<String> {
    let mut lines = Vec::new();
    while let Some(next) = at_once(connection.receiver.receive()).await {
        let ended = next.is_err();
        lines.push(match next {
            Ok(Incoming::Accepted { envelope }) => format!("accepted {envelope}"),
            Ok(Incoming::Refused { envelope, reason }) => format!("refused {envelope}: {reason}"),
            Ok(Incoming::Deliver { packet, .. }) => String::from_utf8(packet.to_vec()).unwrap(),
            Ok(Incoming::Presence { online, .. }) => format!("online {online}"),
            Err(error) => error.to_string(),
        });
        if ended {
            break;
        }
    }
    lines
}

/// Takes the next delivery and acknowledges it.
async fn acknowledge(connection: &mut RelayConnection) {
    let next = at_once(connection.receiver.receive()).await;
    let Some(Ok(Incoming::Deliver {
        from,
        envelope: Some(envelope),
        ..
    })) = next
    else {
        panic!("no delivery but {next:?}");
    };
    let envelopes = vec![envelope];
    send(connection, vec![Outgoing::Acknowledge { from, envelopes }]).await;
}

#[tokio::test]
async fn what_is_on_its_way_is_lost_with_a_cut_in_both_directions() {
    let relay = MemoryRelay::new("relay");
    let (mut alice, mut bob) = (sign_in(&relay, 1).await, sign_in(&relay, 2).await);
    let hold = relay.faults().hold(id(1), Way::ToRelay);
    send(&mut alice, vec![submit(1, 2, Class::Keep, "unheard")]).await;
    send(&mut bob, vec![submit(1, 1, Class::Keep, "untaken")]).await;
    assert!(relay.faults().cut(id(1)));
    drop(hold);
    assert_eq!(heard(&mut alice).await, [CUT]);
    assert!(alice.sender.send(Vec::new()).await.is_err());
    assert_eq!(heard(&mut bob).await, ["accepted 1"]);
    assert!(!relay.faults().cut(id(1)), "there is no other");
    let mut alice = sign_in(&relay, 1).await;
    assert_eq!(heard(&mut alice).await, ["untaken"]);
}

#[tokio::test]
async fn held_traffic_waits_in_order_until_the_last_hold_is_gone() {
    let relay = MemoryRelay::new("relay");
    let (mut alice, mut bob) = (sign_in(&relay, 1).await, sign_in(&relay, 2).await);
    let [first, second] = [(); 2].map(|()| relay.faults().hold(id(1), Way::ToRelay));
    for (n, text) in [(1, "one"), (2, "two")] {
        send(&mut alice, vec![submit(n, 2, Class::Keep, text)]).await;
    }
    drop(first);
    assert!(heard(&mut bob).await.is_empty());
    let deaf = relay.faults().hold(id(2), Way::FromRelay);
    drop(second);
    assert_eq!(heard(&mut alice).await, ["accepted 1", "accepted 2"]);
    assert!(heard(&mut bob).await.is_empty());
    drop(deaf);
    assert_eq!(heard(&mut bob).await, ["one", "two"]);
}

#[tokio::test]
async fn a_send_waits_while_the_connection_is_full_in_either_direction() {
    let relay = MemoryRelay::new("relay");
    let mut alice = sign_in(&relay, 1).await;
    let hold = relay.faults().hold(id(1), Way::ToRelay);
    let items = (0..1_000).map(|n| submit(n, 2, Class::NowOrNever, ""));
    let mut sending = pin!(alice.sender.send(items.collect()));
    assert!(at_once(sending.as_mut()).await.is_none());
    drop(hold);
    // Answers that nobody takes fill the other direction: the relay hears no further.
    assert!(at_once(sending.as_mut()).await.is_none());
    let taking = async {
        for n in 0..1_000 {
            let next = alice.receiver.receive().await.unwrap();
            let envelope = EnvelopeId(n);
            assert_eq!(next, Incoming::Accepted { envelope });
        }
    };
    let (sent, ()) = tokio::join!(sending, taking);
    sent.unwrap();
}

#[tokio::test]
async fn a_sender_whose_mail_is_not_acknowledged_stops_only_its_own_delivery() {
    let relay = MemoryRelay::new("relay");
    let (mut alice, mut bob) = (sign_in(&relay, 1).await, sign_in(&relay, 2).await);
    for n in 0..500 {
        send(&mut alice, vec![submit(n, 2, Class::Keep, "mail")]).await;
        heard(&mut alice).await;
    }
    assert_eq!(heard(&mut bob).await.len(), 128, "the window of one sender");
    let mut carol = sign_in(&relay, 3).await;
    send(&mut carol, vec![submit(1, 2, Class::Keep, "carol's")]).await;
    assert_eq!(heard(&mut bob).await, ["carol's"]);
    assert_eq!(relay.counts().borrow().waiting, 501);
}

#[tokio::test]
async fn a_half_dead_connection_takes_everything_and_delivers_nothing() {
    let relay = MemoryRelay::new("relay");
    let (mut alice, mut bob) = (sign_in(&relay, 1).await, sign_in(&relay, 2).await);
    send(&mut alice, vec![Outgoing::Watch { peers: vec![id(2)] }]).await;
    assert_eq!(heard(&mut alice).await, ["online true"]);
    assert!(relay.faults().half_dead(id(2)));
    let items = (0..1_000).map(|n| submit(n, 1, Class::Keep, "swallowed"));
    send(&mut bob, items.collect()).await;
    send(&mut alice, vec![submit(1, 2, Class::Keep, "kept")]).await;
    assert_eq!(
        heard(&mut alice).await,
        ["accepted 1"],
        "nothing of bob, and no word that he left"
    );
    assert!(heard(&mut bob).await.is_empty());
    assert_eq!(relay.counts().borrow().delivered, 1, "into nothing");
    let mut again = sign_in(&relay, 2).await;
    assert_eq!(heard(&mut again).await, ["kept"]);
    assert!(heard(&mut bob).await.is_empty(), "it hears of no successor");
    drop(bob);
    assert_eq!(relay.counts().borrow().connected, 2);
    assert!(heard(&mut alice).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_half_dead_connection_ends_by_its_silence() {
    let relay = MemoryRelay::new("relay");
    let mut bob = sign_in(&relay, 2).await;
    relay.faults().half_dead(id(2));
    let started = Instant::now();
    let ended = bob.receiver.receive().await;
    assert!(matches!(ended, Err(TransportError::Broken(_))));
    assert!(started.elapsed() >= Duration::from_secs(50));
}

#[tokio::test]
async fn doubled_deliveries_come_twice_and_late_ones_are_overtaken() {
    let relay = MemoryRelay::new("relay");
    let (mut alice, mut bob) = (sign_in(&relay, 1).await, sign_in(&relay, 2).await);
    relay.faults().duplicate(id(2), 1);
    let late = relay.faults().delay(id(2), 1);
    let items = [(1, "one"), (2, "two"), (3, "three")];
    let items = items.map(|(n, text)| submit(n, 2, Class::Keep, text));
    send(&mut alice, items.to_vec()).await;
    assert_eq!(heard(&mut bob).await, ["two", "two", "three"]);
    drop(late);
    assert_eq!(heard(&mut bob).await, ["one"]);

    let late = relay.faults().delay(id(2), 1);
    send(&mut alice, vec![submit(4, 2, Class::Keep, "four")]).await;
    relay.faults().cut(id(2));
    drop(late);
    let mut bob = sign_in(&relay, 2).await;
    assert_eq!(heard(&mut bob).await, ["one", "two", "three", "four"]);
}

#[tokio::test]
async fn messages_are_refused_as_often_as_was_said_and_control_frames_never() {
    let relay = MemoryRelay::with_mailboxes("relay", 2);
    let mut alice = sign_in(&relay, 1).await;
    relay.faults().refuse(id(2), Refusal::NotAllowed, 1);
    let items = (1..=5).map(|n| submit(n, 2, Class::Keep, "")).collect();
    send(&mut alice, items).await;
    send(&mut alice, vec![submit(6, 2, Class::NewestOnly, "")]).await;
    assert_eq!(
        heard(&mut alice).await,
        [
            "refused 1: the relay does not allow it",
            "accepted 2",
            "accepted 3",
            "refused 4: the recipient's mailbox is full",
            "refused 5: the recipient's mailbox is full",
            "accepted 6",
        ]
    );
    relay
        .faults()
        .refuse(id(3), Refusal::Unavailable, usize::MAX);
    send(&mut alice, vec![submit(7, 3, Class::Keep, "")]).await;
    relay.faults().accept(id(3));
    send(&mut alice, vec![submit(8, 3, Class::Keep, "")]).await;
    assert_eq!(
        heard(&mut alice).await,
        ["refused 7: the relay could not store it", "accepted 8"]
    );
    assert_eq!(relay.counts().borrow().refused, 4);
}

#[tokio::test]
async fn a_relay_that_is_down_refuses_connections_and_keeps_what_it_accepted() {
    let relay = MemoryRelay::new("relay");
    let mut alice = sign_in(&relay, 1).await;
    send(&mut alice, vec![submit(1, 2, Class::Keep, "kept")]).await;
    let down = relay.faults().down();
    assert_eq!(heard(&mut alice).await, [CUT]);
    let refused = relay.connect(&Identity::from_seed([2; 32])).await;
    assert!(matches!(refused, Err(TransportError::Unreachable { .. })));
    drop(down);
    let mut bob = sign_in(&relay, 2).await;
    assert_eq!(bob.store, alice.store);
    assert_eq!(heard(&mut bob).await, ["kept"]);
}

#[tokio::test]
async fn an_unreachable_relay_lets_present_connections_live() {
    let relay = MemoryRelay::new("relay");
    let mut alice = sign_in(&relay, 1).await;
    let unreachable = relay.faults().unreachable();
    assert!(relay.connect(&Identity::from_seed([2; 32])).await.is_err());
    send(&mut alice, vec![submit(1, 2, Class::Keep, "")]).await;
    assert_eq!(heard(&mut alice).await, ["accepted 1"]);
    drop(unreachable);
    sign_in(&relay, 2).await;
}

#[tokio::test]
async fn a_held_attempt_to_connect_goes_on_when_it_is_released() {
    let relay = MemoryRelay::new("relay");
    let bob = Identity::from_seed([2; 32]);
    let hold = relay.faults().hold_dialing();
    let mut dialing = pin!(relay.connect(&bob));
    assert!(at_once(dialing.as_mut()).await.is_none());
    drop(hold);
    assert!(at_once(dialing.as_mut()).await.unwrap().is_ok());
}

#[tokio::test]
async fn a_relay_that_lost_its_store_has_a_new_id_and_no_mail() {
    let relay = MemoryRelay::new("relay");
    let mut alice = sign_in(&relay, 1).await;
    send(&mut alice, vec![submit(1, 2, Class::Keep, "gone")]).await;
    relay.faults().lose_store();
    assert_eq!(relay.counts().borrow().waiting, 0);
    let mut bob = sign_in(&relay, 2).await;
    assert_ne!(bob.store, alice.store);
    assert!(heard(&mut bob).await.is_empty());
    let other = MemoryRelay::new("other");
    assert_ne!(sign_in(&other, 1).await.store, bob.store);
}

#[tokio::test(start_paused = true)]
async fn mail_whose_time_is_over_makes_room_and_is_not_delivered() {
    let relay = MemoryRelay::with_mailboxes("relay", 1);
    let mut alice = sign_in(&relay, 1).await;
    send(&mut alice, vec![submit(1, 2, Class::Keep, "old")]).await;
    tokio::time::advance(Duration::from_secs(61)).await;
    send(&mut alice, vec![submit(2, 2, Class::Keep, "new")]).await;
    assert_eq!(heard(&mut alice).await, ["accepted 1", "accepted 2"]);
    let mut bob = sign_in(&relay, 2).await;
    assert_eq!(heard(&mut bob).await, ["new"]);
}

#[tokio::test]
async fn what_was_answered_before_a_takeover_is_still_heard() {
    let relay = MemoryRelay::new("relay");
    let mut old = sign_in(&relay, 1).await;
    send(&mut old, vec![submit(1, 2, Class::Keep, "")]).await;
    let _new = sign_in(&relay, 1).await;
    let accepted = old.receiver.receive().await;
    assert!(matches!(accepted, Ok(Incoming::Accepted { .. })));
    let ended = old.receiver.receive().await;
    assert!(matches!(
        ended,
        Err(TransportError::Closed(GoodbyeReason::Replaced))
    ));
}

#[tokio::test]
async fn an_acknowledged_envelope_leaves_the_mailbox_and_others_do_not() {
    let relay = MemoryRelay::new("relay");
    let mut alice = sign_in(&relay, 1).await;
    let items = [(1, "one"), (2, "two")].map(|(n, text)| submit(n, 2, Class::Keep, text));
    send(&mut alice, items.to_vec()).await;
    let mut bob = sign_in(&relay, 2).await;
    acknowledge(&mut bob).await;
    assert_eq!(relay.counts().borrow().waiting, 1);
    relay.faults().restart();
    let mut bob = sign_in(&relay, 2).await;
    assert_eq!(heard(&mut bob).await, ["two"]);
}

//! What waits for what.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use outlive_core::transport::{DirectLink, Lane};

use crate::wire::Wire;
use crate::{Node, at_once, hear, linked, node, number, packet, say};

/// Bytes of a lane that may wait unread at the peer.
const LANE_WINDOW: usize = 4 * 1024 * 1024;

/// Bytes that a new connection has under way at most.
const FIRST_WINDOW: usize = 240_000;

const BYTES: usize = 16 * 1024;

#[tokio::test]
async fn a_sender_waits_while_the_receiver_does_not_read() {
    const PACKETS: usize = 4 * LANE_WINDOW / BYTES;
    let (a, b) = (node(1).await, node(2).await);
    let (dialed, mut accepted) = linked(&a, &b).await;
    let DirectLink {
        sender,
        mut receiver,
        ..
    } = dialed;
    let sent = Arc::new(AtomicUsize::new(0));
    let count = sent.clone();
    let sending = tokio::spawn(async move {
        for n in 0..PACKETS as u64 {
            let sent = sender.send(Lane::Bulk, vec![packet(n, BYTES)]).await;
            sent.expect("it is up");
            count.fetch_add(BYTES, Ordering::Relaxed);
        }
        sender
    });
    // Each of these gives the sender a turn, and shows that the link is not just broken.
    let mut rounds = 0;
    let mut since_it_filled = 0;
    while since_it_filled < 1_000 {
        say(&mut accepted, Lane::Interactive, vec![packet(rounds, 8)]).await;
        assert_eq!(number(&receiver.receive().await.expect("it is up")), rounds);
        rounds += 1;
        if sent.load(Ordering::Relaxed) > LANE_WINDOW - 4 * BYTES {
            since_it_filled += 1;
        }
    }
    let sent = sent.load(Ordering::Relaxed);
    assert!(sent <= LANE_WINDOW, "{sent} bytes wait at a peer");
    for n in 0..PACKETS as u64 {
        assert_eq!(number(&hear(&mut accepted).await), n);
    }
    sending.await.expect("it has sent all");
}

#[tokio::test]
async fn closing_returns_while_the_receiver_does_not_read() {
    let (a, b) = (node(1).await, node(2).await);
    let (mut dialed, _accepted) = linked(&a, &b).await;
    let flood: Vec<Bytes> = (0..1_000).map(|n| packet(n, BYTES)).collect();
    assert!(
        at_once(dialed.sender.send(Lane::Bulk, flood))
            .await
            .is_none()
    );
    tokio::time::pause();
    dialed.sender.close().await;
    assert!(dialed.receiver.receive().await.is_err());
}

#[tokio::test]
async fn a_full_lane_does_not_fill_the_other() {
    let (a, b) = (node(1).await, node(2).await);
    let (mut dialed, mut accepted) = linked(&a, &b).await;
    let flood: Vec<Bytes> = (0..1_000).map(|n| packet(n, BYTES)).collect();
    assert!(
        at_once(dialed.sender.send(Lane::Bulk, flood))
            .await
            .is_none()
    );
    say(&mut dialed, Lane::Interactive, vec![packet(7_777, 8)]).await;
    // It may pass what was sent before it, not the other way about.
    loop {
        if number(&hear(&mut accepted).await) == 7_777 {
            break;
        }
    }
}

/// Both ends of a link that runs over a wire.
async fn linked_over(a: &Node, b: &Node) -> (Wire, DirectLink, DirectLink) {
    let wire = Wire::to(b.addresses[0]).await;
    let through = [wire.address];
    let (dialed, accepted) = tokio::join!(a.endpoint.dial(b.id, &through), b.endpoint.accept());
    let (dialed, accepted) = (dialed.expect("b answers"), accepted.expect("a dials"));
    (wire, dialed, accepted)
}

#[tokio::test]
async fn what_somebody_waits_for_goes_before_bulk_that_waits_already() {
    const BULK: u64 = 20;
    const INTERACTIVE: u64 = 64;
    /// What is under way already can't be overtaken.
    const UNDER_WAY: usize = FIRST_WINDOW / BYTES + 1;
    let (a, b) = (node(1).await, node(2).await);
    let (wire, mut dialed, mut accepted) = linked_over(&a, &b).await;
    wire.hold(true);
    let bulk = (0..BULK).map(|n| packet(n, BYTES)).collect();
    say(&mut dialed, Lane::Bulk, bulk).await;
    let interactive = (1_000..1_000 + INTERACTIVE).map(|n| packet(n, BYTES));
    say(&mut dialed, Lane::Interactive, interactive.collect()).await;
    wire.hold(false);
    let mut passed = 0;
    loop {
        match number(&hear(&mut accepted).await) {
            n if n == 1_000 + INTERACTIVE - 1 => break,
            n if n < BULK => passed += 1,
            _ => {}
        }
    }
    assert!(passed <= UNDER_WAY, "{passed} packets of bulk went before");
}

#[tokio::test]
async fn while_bulk_waits_the_other_lane_is_sent_on_and_makes_it_no_room() {
    let (a, b) = (node(1).await, node(2).await);
    let (wire, dialed, mut accepted) = linked_over(&a, &b).await;
    wire.hold(true);
    let handed = AtomicUsize::new(0);
    let mut bulk = pin!(async {
        for n in 0.. {
            let sent = dialed.sender.send(Lane::Bulk, vec![packet(n, BYTES)]);
            sent.await.expect("it is up");
            handed.fetch_add(BYTES, Ordering::Relaxed);
        }
    });
    assert!(at_once(&mut bulk).await.is_none());
    for n in 7_777..7_877 {
        let word = vec![packet(n, 8)];
        let sent = at_once(dialed.sender.send(Lane::Interactive, word)).await;
        sent.expect("it has room of its own").expect("it is up");
        assert!(at_once(&mut bulk).await.is_none());
    }
    let handed = handed.load(Ordering::Relaxed);
    assert!(handed <= 2 * FIRST_WINDOW, "{handed} bytes of bulk wait");
    wire.hold(false);
    while number(&hear(&mut accepted).await) != 7_876 {}
}

#[tokio::test]
async fn no_more_bulk_waits_here_than_the_path_has_use_for() {
    let (a, b) = (node(1).await, node(2).await);
    let (wire, mut dialed, mut accepted) = linked_over(&a, &b).await;
    wire.hold(true);
    let mut sent = 0;
    while at_once(dialed.sender.send(Lane::Bulk, vec![packet(sent, BYTES)]))
        .await
        .is_some()
    {
        sent += 1;
    }
    let bytes = sent as usize * BYTES;
    assert!(bytes >= FIRST_WINDOW, "{bytes} bytes do not fill the path");
    assert!(bytes <= 2 * FIRST_WINDOW, "{bytes} bytes wait");
    // Somebody waits for this: it has room of its own.
    say(
        &mut dialed,
        Lane::Interactive,
        vec![packet(7_777, BYTES); 64],
    )
    .await;
    wire.hold(false);
    while number(&hear(&mut accepted).await) != 7_777 {}
}

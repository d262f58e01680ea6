//! Links come up and die under sessions whose messages flow on.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use outlive::SessionEvent;

use crate::world::World;

#[tokio::test]
async fn a_session_begins_on_the_relay_and_moves_to_a_direct_link_while_messages_flow() {
    let mut world = World::new().await;
    world.talk().await;
    world.until_direct().await;
    world.talk().await;
    world.end().await;
}

#[tokio::test]
async fn a_direct_link_that_dies_without_a_word_is_replaced_by_the_relay_and_comes_back() {
    let mut world = World::new().await;
    world.until_direct().await;
    for _ in 0..2 {
        world.talk().await;
        world.close_roads();
        // Nobody is told. What was sent over it goes over the relay when it is overdue.
        world.talk().await;
        world.until_relayed().await;
        world.open_roads();
        world.until_direct().await;
    }
    world.talk().await;
    world.end().await;
}

#[tokio::test]
async fn a_message_counts_for_the_link_that_brought_it_first_and_for_no_other() {
    let mut world = World::new().await;
    world.allow_direct(false).await;
    world.until_relayed().await;
    world.talk().await;
    world.allow_direct(true).await;
    world.until_direct().await;
    world.talk().await;
    world.close_roads();
    // What is overdue goes over the relay.
    world.talk().await;
    world.open_roads();
    // And over the direct link once more.
    world.until_direct().await;
    for _ in 0..10 {
        world.talk().await;
    }
    for peer in &world.peers {
        let traffic = peer.session.traffic();
        let [relay, quic] = ["relay", "quic"].map(|of| traffic[of].messages_received);
        assert!(relay >= 2 && quic >= 1, "{traffic:?}");
        assert_eq!(relay + quic, 13, "{traffic:?}");
    }
    world.end().await;
}

#[tokio::test]
async fn both_dial_at_once_and_one_link_stays() {
    let mut world = World::new().await;
    let dials = |world: &World| [0, 1].map(|who: usize| world.peers[who].road.dials());
    let mut at_once = 0;
    for _ in 0..20 {
        let before = dials(&world);
        world.until_direct().await;
        world.talk().await;
        let after = dials(&world);
        at_once += usize::from(before[0] < after[0] && before[1] < after[1]);
        world.allow_direct(false).await;
        world.until_relayed().await;
        world.allow_direct(true).await;
    }
    world.until_direct().await;
    world.talk().await;
    assert!(at_once > 0, "one of them dialed, and the other waited");
    world.end().await;
}

#[tokio::test]
async fn the_relay_goes_and_the_direct_link_carries_on() {
    let mut world = World::new().await;
    world.until_direct().await;
    world.talk().await;
    world.stop_relay().await;
    for who in 0..2 {
        world
            .until(who, "no relay", |state| {
                state.links.iter().all(|link| link.transport == "quic")
            })
            .await;
    }
    for _ in 0..50 {
        world.talk().await;
    }
    // With the direct link gone too, messages wait.
    world.close_roads();
    for who in [0, 1] {
        world.send(who).await;
        world
            .until(who, "no link", |state| state.links.is_empty())
            .await;
        world.send(who).await;
    }
    world.start_relay().await;
    for who in [0, 1] {
        world.take(who).await;
        world.take(who).await;
    }
    world.end().await;
}

#[tokio::test]
async fn what_an_app_holds_notices_nothing_of_links_but_events() {
    let mut world = World::new().await;
    let [ups, downs, messages] = [(); 3].map(|()| Arc::new(AtomicUsize::new(0)));
    let seen = [ups.clone(), downs.clone(), messages.clone()];
    let subscription = world.peers[0].session.on_event(move |event, state| {
        let [ups, downs, messages] = &seen;
        let of = |generation| state.links.iter().any(|link| link.generation == generation);
        let count = match event {
            SessionEvent::LinkUp { generation } => {
                assert!(of(*generation), "the event came without its state");
                ups
            }
            SessionEvent::LinkDown { generation } => {
                assert!(!of(*generation), "the event came without its state");
                downs
            }
            SessionEvent::Message { .. } => messages,
            _ => return,
        };
        count.fetch_add(1, Ordering::SeqCst);
    });
    assert_eq!(world.peers[0].session.subscriptions(), 1);
    world.until_direct().await;
    let before = ups.load(Ordering::SeqCst);
    world.close_roads();
    world.talk().await;
    world.until_relayed().await;
    assert!(downs.load(Ordering::SeqCst) > 0);
    world.open_roads();
    world.until_direct().await;
    assert!(ups.load(Ordering::SeqCst) > before);
    world.talk().await;
    assert_eq!(messages.load(Ordering::SeqCst), 2, "one for each talk");
    assert_eq!(world.peers[0].session.subscriptions(), 1);
    drop(subscription);
    assert_eq!(world.peers[0].session.subscriptions(), 0);
    world.end().await;
}

#[tokio::test]
async fn a_peer_that_restarts_is_found_again() {
    let mut world = World::new().await;
    for who in [0, 1, 0] {
        world.until_direct().await;
        world.talk().await;
        world.restart(who).await;
        world.talk().await;
    }
    world.until_direct().await;
    world.end().await;
}

#[tokio::test]
async fn a_socket_that_fails_is_opened_anew() {
    let mut world = World::new().await;
    world.until_direct().await;
    world.talk().await;
    world.peers[1].road.fail();
    world.until_relayed().await;
    world.talk().await;
    world.until_direct().await;
    world.talk().await;
    world.end().await;
}

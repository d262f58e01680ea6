//! Sessions that come to a link by negotiation: where there is nothing to dial, or no dial gets
//! through.

use outlive::Connectivity;

use crate::world::World;

#[tokio::test]
async fn a_session_without_quic_moves_to_a_negotiated_link_while_messages_flow() {
    let mut world = World::negotiating().await;
    world.talk().await;
    world.until_carried_by("webrtc").await;
    for _ in 0..20 {
        world.talk().await;
    }
    world.end().await;
}

#[tokio::test]
async fn a_negotiated_link_that_dies_comes_back() {
    let mut world = World::negotiating().await;
    for who in [0, 1] {
        world.until_carried_by("webrtc").await;
        world.talk().await;
        // Its sockets go with the process.
        world.restart(who).await;
        world.talk().await;
    }
    world.until_carried_by("webrtc").await;
    world.talk().await;
    world.end().await;
}

#[tokio::test]
async fn a_session_that_must_not_has_no_negotiated_link() {
    let mut world = World::negotiating().await;
    world.until_carried_by("webrtc").await;
    let session = &world.peers[0].session;
    session.allow_direct(false).await.expect("it is so");
    let state = session.state().borrow().clone();
    assert_eq!(state.connectivity(), Connectivity::Relayed, "{state:?}");
    world.until_relayed().await;
    world.talk().await;
    let session = &world.peers[0].session;
    session.allow_direct(true).await.expect("it is so");
    world.until_carried_by("webrtc").await;
    world.talk().await;
    world.end().await;
}

#[tokio::test]
async fn a_negotiated_link_carries_where_no_dial_gets_through_until_one_does() {
    let mut world = World::with_both().await;
    world.talk().await;
    world.until_carried_by("webrtc").await;
    world.talk().await;
    world.open_roads();
    world.until_carried_by("quic").await;
    world.talk().await;
    world.end().await;
}

#[tokio::test]
async fn a_socket_that_fails_takes_no_negotiated_link_with_it() {
    let mut world = World::with_both().await;
    world.until_carried_by("webrtc").await;
    world.peers[1].road.fail();
    world.talk().await;
    world.restart(0).await;
    world.until_carried_by("webrtc").await;
    world.talk().await;
    world.end().await;
}

#[tokio::test]
async fn without_a_relay_peers_tell_new_addresses_over_the_link_they_have() {
    let mut world = World::with_both().await;
    world.until_carried_by("webrtc").await;
    world.stop_relay().await;
    world.talk().await;
    // Where either is from now on, the other can hear over that link alone.
    for peer in &world.peers {
        peer.road.fail();
    }
    world.open_roads();
    world.until_carried_by("quic").await;
    world.talk().await;
    world.end().await;
}

//! A peer whose app has let its session go: it sleeps, and is left to.

use std::time::Duration;

use outlive::Connectivity;

use crate::world::{CHAT, Peer, World, carried_by, id, soon};

/// For how long no link may come up. One that is sought comes up within less than a second.
const QUIET: Duration = Duration::from_secs(5);

async fn a_peer_that_lets_its_session_go_is_left_alone(mut world: World, transport: &'static str) {
    world.until_carried_by(transport).await;
    world.talk().await;
    let Peer {
        node,
        session,
        inbox,
        road,
        ..
    } = world.peers.remove(1);
    drop((session, inbox));
    let relayed = |state: &_| outlive::SessionState::connectivity(state) == Connectivity::Relayed;
    world.until(0, "the end of the link", relayed).await;
    let dials = [world.peers[0].road.dials(), road.dials()];
    let mut state = world.peers[0].session.state();
    let again = state.wait_for(|state| !relayed(state));
    let again = tokio::time::timeout(QUIET, again).await.is_ok();
    assert!(!again, "nobody has any use for a link");
    drop(state);
    assert_eq!(node.sessions_awake(), 0);
    assert_eq!([world.peers[0].road.dials(), road.dials()], dials);

    // It has when there is something to say, though nobody waits for it there.
    world.send(0).await;
    let carried = |state: &_| carried_by(state) == Some(transport);
    world.until(0, "another link", carried).await;
    let session = node.session(id(1)).await.expect("a session");
    let mut inbox = session.inbox(CHAT).expect("its inbox");
    let delivery = soon("the message", inbox.next()).await.expect("it lives");
    assert_eq!(&delivery.payload()[..], b"1");
    delivery.commit().await.expect("a commit");
    drop((session, inbox));
    soon("an end", node.shutdown()).await.expect("it stops");
    world.end().await;
}

#[tokio::test]
async fn a_peer_that_has_let_its_session_go_is_not_dialed_until_there_is_something_to_say() {
    a_peer_that_lets_its_session_go_is_left_alone(World::new().await, "quic").await;
}

#[tokio::test]
async fn no_link_is_negotiated_with_a_peer_that_has_let_its_session_go() {
    a_peer_that_lets_its_session_go_is_left_alone(World::negotiating().await, "webrtc").await;
}

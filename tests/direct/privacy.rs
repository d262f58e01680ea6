//! Who is told where a node is, and who is not.

use outlive::{ChannelId, Connectivity, Error};

use crate::world::World;

#[tokio::test]
async fn a_session_that_must_not_has_no_direct_link() {
    let mut world = World::new().await;
    world.until_direct().await;
    world.peers[0]
        .session
        .allow_direct(false)
        .await
        .expect("it is so");
    let state = world.peers[0].session.state().borrow().clone();
    assert_eq!(state.connectivity(), Connectivity::Relayed, "{state:?}");
    world.until_relayed().await;
    world.talk().await;
    world.until_relayed().await;
    world.peers[0]
        .session
        .allow_direct(true)
        .await
        .expect("it is so");
    world.until_direct().await;
    world.end().await;
}

#[tokio::test]
async fn the_channel_of_signals_has_no_inbox_for_apps() {
    let world = World::new().await;
    let refused = world.peers[0].session.inbox(ChannelId::SIGNALING).err();
    assert!(matches!(refused, Some(Error::Signaling(_))), "{refused:?}");
    world.end().await;
}

//! Who is told where a node is, and who is not.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use outlive::{ChannelId, Connectivity, DirectTransport, Error, Identity, Node, Strangers};
use outlive_core::limits::STEADY_TIME;
use outlive_storage::MemoryStore;
use outlive_transports::{Quic, WebSocketRelay};
use tokio::time::Instant;

use crate::road::{OverRoad, Road};
use crate::world::{World, id, quic, relay_over, soon};

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
async fn whoever_forbids_direct_links_does_not_dial_once_more_nor_is_it_dialed() {
    let mut world = World::new().await;
    world.until_direct().await;
    // A link that was up for so long is sought again at once when it is lost. The clock runs ahead while
    // they talk over it.
    let carriers =
        |world: &World| [0, 1].map(|who: usize| world.peers[who].session.state().borrow().carrier);
    let (up, link) = (Instant::now(), carriers(&world));
    tokio::time::pause();
    while up.elapsed() < STEADY_TIME {
        tokio::time::advance(Duration::from_millis(100)).await;
        world.talk().await;
    }
    tokio::time::resume();
    assert_eq!(carriers(&world), link, "it is the same");
    let dials = |world: &World| [0, 1].map(|who: usize| world.peers[who].road.dials());
    let before = dials(&world);
    let forbidden = world.peers[0].session.allow_direct(false).await;
    forbidden.expect("it is so");
    world.until_relayed().await;
    for _ in 0..20 {
        world.talk().await;
    }
    assert_eq!(dials(&world), before);
    world.end().await;
}

#[tokio::test]
async fn the_channel_of_signals_has_no_inbox_for_apps() {
    let world = World::new().await;
    let refused = world.peers[0].session.inbox(ChannelId::SIGNALING).err();
    assert!(matches!(refused, Some(Error::Signaling(_))), "{refused:?}");
    world.end().await;
}

#[tokio::test]
async fn a_stranger_that_dials_is_let_go_and_takes_no_place() {
    let free = std::net::UdpSocket::bind(("127.0.0.1", 0)).expect("a free port");
    let address = free.local_addr().expect("its address");
    drop(free);
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let ask = Strangers::Ask(Arc::new(move |_| {
        count.fetch_add(1, Ordering::SeqCst);
        true
    }));
    for policy in [Strangers::Accept, ask] {
        let node = Node::builder()
            .identity(Identity::from_seed([1; 32]))
            .store(MemoryStore::new())
            .strangers(policy)
            .direct(Quic::new().bind_to(address))
            .start()
            .await
            .expect("a node");
        let stranger = quic().bind(&Identity::from_seed([3; 32])).await;
        let stranger = stranger.expect("a socket");
        let dialed = soon("an answer", stranger.dial(id(1), &[address])).await;
        let mut link = dialed.expect("it is there");
        let heard = soon("the end of the link", link.receiver.receive()).await;
        assert!(heard.is_err(), "{heard:?}");
        assert_eq!(node.strangers(), []);
        assert_eq!(node.sessions_awake(), 0);
        drop(link);
        stranger.close().await;
        node.shutdown().await.expect("it stops");
    }
    assert_eq!(
        asked.load(Ordering::SeqCst),
        0,
        "an app was asked for a dial"
    );
}

#[tokio::test]
async fn a_stranger_is_not_told_where_we_are_until_the_app_has_to_do_with_it() {
    let relay = relay_over(MemoryStore::new()).await;
    let way = || WebSocketRelay::new(&format!("ws://{}", relay.local_addr())).expect("an address");
    let roads = [Road::new(), Road::new()];
    let start = |n: u8, road: &Road| {
        Node::builder()
            .identity(Identity::from_seed([n; 32]))
            .store(MemoryStore::new())
            .transport(way())
            .direct(OverRoad::new(quic(), road.clone()))
            .start()
    };
    let alice = start(1, &roads[0]).await.expect("a node");
    let bob = start(2, &roads[1]).await.expect("a node");
    let _answering = alice.on_request(|_| async { Ok("yes?".into()) });
    let to_alice = bob.session(id(1)).await.expect("a session");
    // Bob asks for her addresses as soon as he sees her, and she has heard it long before the last.
    for _ in 0..50 {
        let answer = soon("an answer", to_alice.request("are you there?")).await;
        answer.expect("she answers strangers too");
    }
    assert_eq!(to_alice.state().borrow().peer_online, Some(true));
    assert_eq!(roads[1].dials(), 0, "he knows where she is");
    let to_bob = alice.session(id(2)).await.expect("a session");
    let mut state = to_alice.state();
    let direct = state.wait_for(|state| state.connectivity() == Connectivity::Direct);
    drop(
        soon("a direct link", direct)
            .await
            .expect("the session lives"),
    );
    drop((to_alice, to_bob, state));
    for node in [alice, bob] {
        node.shutdown().await.expect("it stops");
    }
    relay.shutdown().await.expect("it stops");
}

#[tokio::test]
async fn what_a_session_must_not_it_must_not_after_a_restart_either() {
    let mut world = World::new().await;
    world.until_direct().await;
    let forbidden = world.peers[0].session.allow_direct(false).await;
    forbidden.expect("it is so");
    world.until_relayed().await;
    world.restart(0).await;
    // The other seeks him all the while.
    for _ in 0..100 {
        world.talk().await;
    }
    assert_eq!(world.peers[0].road.dials(), 0, "he dials");
    world.until_relayed().await;
    world.end().await;
}

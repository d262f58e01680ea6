//! Links over WebRTC, without any over QUIC: up and down, on the move, and without the relay.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use outlive::Generation;

use crate::gate::forget;
use crate::moves::{BACK, LINES, move_host};
use crate::peer::{CHATTER, LONG_PATIENCE, Peer};
use crate::storms::up_and_down;
use crate::town::{Kind, Plan, Town, figure};
use crate::weather::Weather;

const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// A round trip from peer to peer takes 40 ms.
const CALM: Weather = Weather::delayed(ms(10));

const fn plan(seed: u64, weather: Weather) -> Plan {
    Plan::new(seed, weather, Kind::WebRtc)
}

/// The link that a peer has to the other itself.
fn link(peer: &Peer) -> Option<Generation> {
    let state = peer.session.state().borrow().clone();
    let direct = state.links.iter().find(|link| link.transport == "webrtc");
    direct.map(|link| link.generation)
}

#[tokio::test]
async fn a_session_moves_up_and_down_in_calm_weather() {
    up_and_down("webrtc, calm", plan(41, Weather::delayed(ms(5)))).await;
}

#[tokio::test]
async fn a_session_moves_up_and_down_while_a_twentieth_is_lost() {
    let weather = Weather {
        loss: 0.025,
        ..CALM
    };
    up_and_down("webrtc, loss 5 %", plan(42, weather)).await;
}

#[tokio::test]
async fn a_host_gets_another_address_and_the_link_comes_back_by_a_restart_of_ice() {
    let Some(mut town) = Town::of(plan(43, CALM)).await else {
        return;
    };
    town.talk(LINES);
    town.until_direct().await;
    town.hear_more(20).await;
    let links = town.peers.each_ref().map(link);
    for (old, new) in [(2, 3), (3, 4)] {
        let moved = Instant::now();
        move_host(&town, old, new);
        town.hear_more(20).await;
        let silence = town.silence_since(moved);
        figure("webrtc, new address", "silent for", silence);
        town.until_direct().await;
        figure(
            "webrtc, new address",
            "direct again after at most",
            moved.elapsed(),
        );
        town.hear_more(20).await;
        assert!(silence <= BACK, "{silence:?}");
        // Another connection would have another link.
        assert_eq!(town.peers.each_ref().map(link), links);
    }
    town.hush().await;
    town.end().await;
}

/// Where a peer's link leads to.
fn port(peer: &Peer) -> u16 {
    let state = peer.session.state().borrow().clone();
    let direct = state.links.iter().find(|link| link.transport == "webrtc");
    let address = &direct.expect("a direct link").address;
    let address: SocketAddr = address.parse().expect("an address");
    address.port()
}

/// Packets that came to a peer over its direct links.
fn came(peer: &Peer) -> u64 {
    let traffic = peer.session.traffic();
    traffic
        .get("webrtc")
        .map_or(0, |traffic| traffic.packets_received)
}

#[tokio::test]
async fn a_way_that_is_forgotten_is_looked_for_anew_before_the_link_is_given_up() {
    let Some(mut town) = Town::of(plan(44, CALM)).await else {
        return;
    };
    town.talk(LINES);
    town.until_direct().await;
    town.hear_more(20).await;
    let links = town.peers.each_ref().map(link);
    forget(&town.router, town.peers.each_ref().map(port));
    let forgotten = Instant::now();
    // What was under way has arrived then.
    town.hear_more(20).await;
    let before = town.peers.each_ref().map(came);
    figure(
        "webrtc, way forgotten",
        "silent for",
        town.silence_since(forgotten),
    );
    while (0..2).any(|at| came(&town.peers[at]) == before[at]) {
        assert!(
            forgotten.elapsed() < LONG_PATIENCE,
            "the way is not found anew"
        );
        town.hear_more(1).await;
    }
    figure(
        "webrtc, way forgotten",
        "direct again after",
        forgotten.elapsed(),
    );
    town.hear_more(20).await;
    assert_eq!(town.peers.each_ref().map(link), links);
    town.hush().await;
    town.end().await;
}

#[tokio::test]
async fn the_relay_is_gone_and_the_negotiated_link_carries_on_with_signals_too() {
    let Some(mut town) = Town::of(plan(45, CALM)).await else {
        return;
    };
    town.talk(CHATTER);
    town.until_direct().await;
    let links = town.peers.each_ref().map(link);
    town.roads[2].cut();
    for peer in &town.peers {
        // What it has to say about that goes over the link.
        peer.network.up();
        peer.until("no relay", |state| {
            state.links.iter().all(|link| link.transport == "webrtc")
        })
        .await;
    }
    let cut = Instant::now();
    for peer in &town.peers {
        peer.network.up();
    }
    town.hear_more(300).await;
    figure("webrtc, no relay", "silent for", town.silence_since(cut));
    assert_eq!(town.peers.each_ref().map(link), links);
    // So that nobody says goodbye to it for long.
    town.roads[2].mend();
    town.hush().await;
    town.end().await;
}

//! Peers behind gates: who finds a direct link, and who stays on the relay.

use std::time::Duration;

use outlive::Connectivity;

use crate::gate::Nat;
use crate::peer::CHATTER;
use crate::town::{Stun, Town};
use crate::weather::Weather;

const CALM: Weather = Weather::delayed(Duration::from_millis(5));

/// Messages in which each would have found a way, if there were one: some seconds.
const A_WHILE: u64 = 500;

async fn comes_to_a_direct_link(seed: u64, gates: [Option<Nat>; 2], stun: Stun) {
    let Some(mut town) = Town::with_gates(seed, CALM, gates, stun).await else {
        return;
    };
    town.talk(CHATTER);
    town.until_direct().await;
    town.hear_more(50).await;
    town.hush().await;
    town.end().await;
}

async fn stays_on_the_relay(seed: u64, gates: [Option<Nat>; 2], stun: Stun) {
    let Some(mut town) = Town::with_gates(seed, CALM, gates, stun).await else {
        return;
    };
    town.talk(CHATTER);
    town.hear_more(A_WHILE).await;
    for peer in &town.peers {
        let state = peer.session.state().borrow().clone();
        assert_eq!(state.connectivity(), Connectivity::Relayed, "{state:?}");
    }
    town.hush().await;
    town.end().await;
}

#[tokio::test]
async fn a_peer_behind_a_gate_dials_the_one_who_is_not() {
    let gates = [Some(Nat::Plain), None];
    comes_to_a_direct_link(31, gates, Stun::None).await;
}

#[tokio::test]
async fn a_peer_behind_a_symmetric_gate_dials_the_one_who_is_behind_none() {
    let gates = [None, Some(Nat::Symmetric)];
    comes_to_a_direct_link(32, gates, Stun::None).await;
}

#[tokio::test]
async fn two_gates_and_nobody_to_ask_leave_a_session_on_the_relay() {
    let gates = [Some(Nat::Plain); 2];
    stays_on_the_relay(33, gates, Stun::None).await;
}

#[tokio::test]
async fn two_peers_behind_gates_find_each_other_through_the_relay_s_stun() {
    let gates = [Some(Nat::Plain); 2];
    comes_to_a_direct_link(34, gates, Stun::Asked).await;
}

#[tokio::test]
async fn symmetric_gates_leave_a_session_on_the_relay() {
    let gates = [Some(Nat::Symmetric); 2];
    stays_on_the_relay(35, gates, Stun::Asked).await;
}

//! Peers behind gates: who finds a direct link, and who stays on the relay.

use std::time::Duration;

use outlive::Connectivity;

use crate::family::Family;
use crate::gate::Nat;
use crate::peer::CHATTER;
use crate::town::{Kind, Plan, Stun, Town, figure};
use crate::weather::Weather;

const CALM: Weather = Weather::delayed(Duration::from_millis(5));

/// Messages in which each would have found a way, if there were one: some seconds.
const A_WHILE: u64 = 500;

const fn plan(seed: u64, kind: Kind, gates: [Option<Nat>; 2], stun: Stun) -> Plan {
    Plan {
        gates,
        stun,
        ..Plan::new(seed, CALM, kind)
    }
}

/// Returns how long after the relay.
async fn comes_to_a_direct_link(plan: Plan) -> Option<Duration> {
    let name = format!("{:?} through {:?}", plan.kind, plan.gates);
    let mut town = Town::of(plan).await?;
    town.until_linked().await;
    let linked = town.began.elapsed();
    town.talk(CHATTER);
    town.until_direct().await;
    let took = town.began.elapsed() - linked;
    figure(&name, "direct after the relay", took);
    town.hear_more(50).await;
    town.hush().await;
    town.end().await;
    Some(took)
}

async fn stays_on_the_relay(plan: Plan) {
    let Some(mut town) = Town::of(plan).await else {
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
    comes_to_a_direct_link(plan(31, Kind::Quic, gates, Stun::None)).await;
}

#[tokio::test]
async fn a_peer_behind_a_symmetric_gate_dials_the_one_who_is_behind_none() {
    let gates = [None, Some(Nat::Symmetric)];
    comes_to_a_direct_link(plan(32, Kind::Quic, gates, Stun::None)).await;
}

#[tokio::test]
async fn two_gates_and_nobody_to_ask_leave_a_session_on_the_relay() {
    let gates = [Some(Nat::Plain); 2];
    stays_on_the_relay(plan(33, Kind::Quic, gates, Stun::None)).await;
}

#[tokio::test]
async fn two_peers_behind_gates_find_each_other_through_the_relay_s_stun() {
    let gates = [Some(Nat::Plain); 2];
    comes_to_a_direct_link(plan(34, Kind::Quic, gates, Stun::Asked)).await;
}

#[tokio::test]
async fn symmetric_gates_leave_a_session_on_the_relay() {
    let gates = [Some(Nat::Symmetric); 2];
    stays_on_the_relay(plan(35, Kind::Quic, gates, Stun::Asked)).await;
}

#[tokio::test]
async fn a_negotiated_link_leads_out_of_a_gate() {
    let gates = [Some(Nat::Plain), None];
    comes_to_a_direct_link(plan(36, Kind::WebRtc, gates, Stun::Asked)).await;
}

#[tokio::test]
async fn a_negotiated_link_leads_through_two_gates_by_the_relay_s_stun() {
    let gates = [Some(Nat::Plain); 2];
    let took = comes_to_a_direct_link(plan(37, Kind::WebRtc, gates, Stun::Asked)).await;
    // As without gates: eleven round trips and a little. ICE does not wait half a second for a better way.
    let most = CALM.delay * 4 * 11 + Duration::from_millis(300);
    assert!(took.is_none_or(|took| took <= most), "after {took:?}");
}

#[tokio::test]
async fn symmetric_gates_and_no_turn_server_leave_no_negotiated_link() {
    let gates = [Some(Nat::Symmetric); 2];
    stays_on_the_relay(plan(38, Kind::WebRtc, gates, Stun::Asked)).await;
}

#[tokio::test]
async fn a_negotiated_link_leads_through_symmetric_gates_by_a_turn_server() {
    let gates = [Some(Nat::Symmetric); 2];
    comes_to_a_direct_link(Plan {
        turn: true,
        ..plan(39, Kind::WebRtc, gates, Stun::Asked)
    })
    .await;
}

/// Both behind gates that guard them, and hide nobody: as homes are with IPv6.
const fn guarded(seed: u64, kind: Kind) -> Plan {
    Plan {
        family: Family::V6,
        ..plan(seed, kind, [Some(Nat::Plain); 2], Stun::None)
    }
}

#[tokio::test]
async fn two_peers_that_have_ipv6_alone_find_each_other() {
    let open = plan(40, Kind::Quic, [None; 2], Stun::None);
    comes_to_a_direct_link(Plan {
        family: Family::V6,
        ..open
    })
    .await;
}

#[tokio::test]
async fn a_negotiated_link_is_made_with_ipv6_alone() {
    let open = plan(41, Kind::WebRtc, [None; 2], Stun::None);
    comes_to_a_direct_link(Plan {
        family: Family::V6,
        ..open
    })
    .await;
}

#[tokio::test]
async fn two_gates_that_let_nobody_in_open_from_inside() {
    comes_to_a_direct_link(guarded(42, Kind::Quic)).await;
}

#[tokio::test]
async fn a_negotiated_link_leads_through_gates_that_let_nobody_in() {
    comes_to_a_direct_link(guarded(43, Kind::WebRtc)).await;
}

#[tokio::test]
async fn a_negotiated_link_asks_a_stun_server_with_ipv6() {
    let gates = [Some(Nat::Plain); 2];
    let asks = plan(44, Kind::WebRtc, gates, Stun::Asked);
    comes_to_a_direct_link(Plan {
        family: Family::V6,
        ..asks
    })
    .await;
}

/// Each of them is in the network that the other is in, by the words of its address, and at its very
/// address: who dials what the other says of itself finds itself.
const fn alike(seed: u64, kind: Kind) -> Plan {
    Plan {
        homes: [1, 1],
        ..plan(seed, kind, [Some(Nat::Plain); 2], Stun::Asked)
    }
}

#[tokio::test]
async fn two_peers_with_the_same_address_at_home_find_each_other() {
    comes_to_a_direct_link(alike(45, Kind::Quic)).await;
}

#[tokio::test]
async fn a_negotiated_link_is_made_by_peers_with_the_same_address_at_home() {
    comes_to_a_direct_link(alike(46, Kind::WebRtc)).await;
}

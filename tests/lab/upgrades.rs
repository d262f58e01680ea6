//! How soon a session that is on the relay is on a direct link.
//!
//! In round trips from peer to peer, of which the relay is half as far away:
//!
//! ```text
//!   start                                    2    TCP, WebSocket, two of signing in: to the relay
//!     ▼
//!   on the relay                             0.5  is the peer there? To the relay
//!     ▼                                      0.5  where we are: to the peer
//!   dialed                                   1    QUIC
//!     ▼
//!   bound                                    1    a challenge, answered. Half of one more where both
//!     ▼                                           dialed, and it was the other's link that stays
//!   carries
//! ```
//!
//! Each waits for the one before. The bound counts from the moment at which both have their link to
//! the relay: what comes before is paid once for all sessions of a node.

use std::time::Duration;

use crate::town::{Kind, Plan, Town, figure};
use crate::weather::Weather;

const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// On roads of that delay a round trip from peer to peer takes four times as long.
async fn is_upgraded(name: &str, seed: u64, delay: Duration, kind: Kind) {
    let plan = Plan::new(seed, Weather::delayed(delay), kind);
    let Some(town) = Town::of(plan).await else {
        return;
    };
    town.until_linked().await;
    let linked = town.began.elapsed();
    town.until_carried_by(kind.name()).await;
    let took = town.began.elapsed() - linked;
    figure(name, "on the relay after", linked);
    figure(name, "direct after another", took);
    town.end().await;
    let round_trip = delay * 4;
    let most = match kind {
        Kind::Quic => round_trip * 4 + ms(300),
        // More waits for what comes before: offer and answer 1, checks of ICE 1, the way that they
        // choose 1, DTLS 3, SCTP 2, its channel 1, the challenge 1. Checks go out ten times a second.
        Kind::WebRtc => round_trip * 11 + ms(300),
    };
    assert!(took <= most, "after {took:?}");
}

#[tokio::test]
async fn a_session_is_on_a_direct_link_within_four_round_trips_and_a_little() {
    is_upgraded("RTT 20 ms, upgrade", 71, ms(5), Kind::Quic).await;
}

#[tokio::test]
async fn a_session_is_on_a_direct_link_within_four_long_round_trips_and_a_little() {
    is_upgraded("RTT 200 ms, upgrade", 72, ms(50), Kind::Quic).await;
}

#[tokio::test]
async fn a_session_without_quic_is_on_a_negotiated_link_within_eleven_round_trips_and_a_little() {
    is_upgraded("RTT 20 ms, upgrade to webrtc", 73, ms(5), Kind::WebRtc).await;
}

#[tokio::test]
async fn a_session_without_quic_on_long_roads_is_on_a_negotiated_link_within_as_many() {
    is_upgraded("RTT 200 ms, upgrade to webrtc", 74, ms(50), Kind::WebRtc).await;
}

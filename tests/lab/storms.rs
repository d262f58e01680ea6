//! Sessions go on in bad weather: up to a direct link, back to the relay, and up again.

use std::time::{Duration, Instant};

use crate::peer::{CHATTER, Talk};
use crate::town::{Kind, Plan, Town, figure};
use crate::weather::Weather;

const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// Has both talk in that weather while their session moves to a direct link, loses it, and has it
/// again.
pub(crate) async fn up_and_down(name: &str, plan: Plan) {
    // What is lost on such a link is missed for a second, while the relay has it again at once. A link
    // that began so may have to prove itself for longer than anybody waits here.
    let may_rest = plan.kind == Kind::WebRtc && plan.weather.loss > 0.0;
    let Some(mut town) = Town::of(plan).await else {
        return;
    };
    town.until_linked().await;
    let linked = town.began.elapsed();
    figure(name, "on the relay after", linked);
    town.talk(CHATTER);
    town.until_carried_by(town.kind.name()).await;
    figure(name, "direct after another", town.began.elapsed() - linked);
    town.until_direct().await;
    town.hear_more(100).await;
    let parted = Instant::now();
    town.part();
    town.hear_more(200).await;
    figure(name, "cut: silent for", town.silence_since(parted));
    town.until_relayed().await;
    figure(name, "cut: given up after", parted.elapsed());
    town.hear_more(100).await;
    town.join();
    if may_rest {
        town.until_up().await;
    } else {
        town.until_direct().await;
    }
    town.hear_more(100).await;
    town.hush().await;
    town.end().await;
}

#[tokio::test]
async fn a_session_moves_up_and_down_in_calm_weather() {
    up_and_down("calm", Plan::new(11, Weather::delayed(ms(5)), Kind::Quic)).await;
}

#[tokio::test]
async fn a_session_moves_up_and_down_while_a_twentieth_is_lost() {
    let weather = Weather {
        loss: 0.025,
        ..Weather::delayed(ms(10))
    };
    up_and_down("loss 5 %", Plan::new(12, weather, Kind::Quic)).await;
}

#[tokio::test]
async fn a_session_moves_up_and_down_while_a_round_trip_takes_long() {
    up_and_down(
        "RTT 200 ms",
        Plan::new(13, Weather::delayed(ms(50)), Kind::Quic),
    )
    .await;
}

#[tokio::test]
async fn a_session_moves_up_and_down_while_packets_are_overtaken_and_doubled() {
    let weather = Weather {
        jitter: ms(3),
        duplicate: 0.01,
        reorder: 0.05,
        late: ms(25),
        ..Weather::delayed(ms(5))
    };
    up_and_down("reordering", Plan::new(14, weather, Kind::Quic)).await;
}

#[tokio::test]
async fn large_messages_pass_a_narrow_road() {
    let weather = Weather {
        rate: Some(20_000_000),
        loss: 0.005,
        ..Weather::delayed(ms(15))
    };
    let Some(mut town) = Town::open(15, weather).await else {
        return;
    };
    town.talk(Talk {
        every: ms(50),
        bytes: 60_000,
    });
    town.until_direct().await;
    town.hear_more(50).await;
    town.part();
    town.hear_more(20).await;
    town.until_relayed().await;
    town.hear_more(20).await;
    town.hush().await;
    town.end().await;
}

/// As far as a mobile network in bad reception: connecting takes five round trips, and there is time.
#[tokio::test]
async fn a_relay_that_is_three_seconds_away_is_reached() {
    let plan = Plan::new(47, Weather::delayed(ms(1_500)), Kind::Quic);
    let Some(mut town) = Town::of(plan).await else {
        return;
    };
    town.until_linked().await;
    figure("far", "on the relay after", town.began.elapsed());
    town.talk(Talk {
        every: ms(500),
        ..CHATTER
    });
    town.hear_more(3).await;
    town.hush().await;
    town.end().await;
}

/// A link is up over roads that from then on lose all that is longer than what every network of IPv6 takes,
/// without a word: as behind a tunnel whose ends are walled. The relay is not to be reached so any more.
async fn carries_over_a_tunnel(seed: u64, kind: Kind) {
    let weather = Weather::delayed(ms(5));
    let Some(mut town) = Town::of(Plan::new(seed, weather, kind)).await else {
        return;
    };
    town.talk(Talk {
        every: ms(20),
        bytes: 10_000,
    });
    town.until_direct().await;
    town.hear_more(50).await;
    let narrowed = Instant::now();
    for road in &town.roads[..2] {
        road.set(Weather {
            longest: Some(1_280 + 14),
            ..weather
        });
    }
    town.hear_more(200).await;
    figure("tunnel", "silent for", town.silence_since(narrowed));
    town.hush().await;
    town.end().await;
}

#[tokio::test]
async fn a_link_goes_on_where_long_packets_get_lost() {
    carries_over_a_tunnel(48, Kind::Quic).await;
}

#[tokio::test]
async fn a_negotiated_link_goes_on_where_long_packets_get_lost() {
    carries_over_a_tunnel(49, Kind::WebRtc).await;
}

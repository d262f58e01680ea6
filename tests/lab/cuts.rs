//! A direct link is cut under a stream of messages: how soon the session judges that, and how soon it
//! goes on over the relay then.
//!
//! ```text
//!   cut ───────────▶ judged ───────────────────────────▶ heard
//!        detection            the relay's road one way,
//!                             and what is ours: at most 5 ms
//! ```

use std::time::{Duration, Instant};

use outlive::Padding;

use crate::peer::{CHATTER, Talk, soon};
use crate::town::{Kind, Plan, Town, figure};
use crate::weather::Weather;

const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// Fewer lines. What waits for the judgment is to fit into what TCP sends at once: how long the rest
/// of a burst takes is for it to say, and longer the longer the road is.
const SLOWER: Talk = Talk {
    every: ms(50),
    ..CHATTER
};

/// Cuts that are measured, each of a link that was not cut before: what a link was like in an outage
/// is remembered for a while.
const CUTS: u64 = 5;

/// What the session, the relay, and both hosts may take of their own. The second quickest cut tells:
/// what a machine adds that does other things at the same time is as much, and not in all of them.
const OURS: Duration = ms(5);

/// What a machine that does other things may add to the slowest judgment.
const BUSY: Duration = ms(100);

/// What there is to know of a cut.
struct Cut {
    /// From the cut until messages went over the relay too, for the link was judged.
    judged: Duration,
    /// From then until the other heard the first of them, without the time on the road.
    ours: Duration,
}

/// How the peers reach each other and the relay.
#[derive(Clone, Copy, Debug)]
struct Roads {
    /// What the link is made by.
    kind: Kind,
    /// How long each road to the router takes. A round trip to the peer takes four times as long.
    delay: Duration,
    /// That of a wire between the peers, if they have one beside. What it does to frames it does to
    /// those of the direct link alone.
    wire: Option<Weather>,
}

async fn cut(seed: u64, roads: Roads, talk: Talk) -> Option<Cut> {
    let plan = Plan {
        // A message is told by its length from what else goes over the relay.
        padding: Padding::Never,
        ..Plan::new(seed, Weather::delayed(roads.delay), roads.kind)
    };
    let mut town = Town::of(plan).await?;
    let wire = roads.wire.map(|weather| {
        let wire = town.shortcut();
        wire.set(weather);
        wire
    });
    // One alone speaks: what it says over the relay are messages then, and no answers.
    let heard = town.peers[1].count();
    town.peers[0].talk(talk, heard);
    town.until_direct().await;
    town.peers[1].hear_more(50).await;
    let road = town.road_over_relay().await;
    let relayed = town.peers[0].relayed(talk.bytes);
    let began = Instant::now();
    match &wire {
        Some(wire) => wire.cut(),
        None => town.part(),
    }
    let judged = soon("messages over the relay", relayed).await;
    let judged = judged.expect("no panic");
    let heard = town.peers[1].heard_after(judged).await;
    match &wire {
        Some(wire) => wire.mend(),
        None => town.join(),
    }
    town.hush().await;
    town.end().await;
    Some(Cut {
        judged: judged - began,
        ours: (heard - judged).saturating_sub(road),
    })
}

/// Has links cut on such roads, where a round trip to the peer takes so long.
async fn goes_on(name: &str, seed: u64, roads: Roads, round_trip: Duration, talk: Talk) {
    let (mut judged, mut ours) = (Vec::new(), Vec::new());
    for seed in seed..seed + CUTS {
        let Some(cut) = cut(seed, roads, talk).await else {
            return;
        };
        figure(name, "cut: judged after", cut.judged);
        figure(name, "cut: heard after the road and", cut.ours);
        judged.push(cut.judged);
        ours.push(cut.ours);
    }
    judged.sort_unstable();
    ours.sort_unstable();
    let (usual, slowest) = (judged[judged.len() / 2], judged[judged.len() - 1]);
    let most = round_trip * 4 + ms(200);
    assert!(usual <= most, "after {usual:?}");
    assert!(slowest <= most + BUSY, "one of them after {slowest:?}");
    let ours = ours[1];
    assert!(ours <= OURS, "it took {ours:?} beside the road");
}

#[tokio::test]
async fn what_was_on_a_link_that_is_cut_goes_over_the_relay_as_soon_as_that_is_judged() {
    let roads = Roads {
        kind: Kind::Quic,
        delay: ms(5),
        wire: None,
    };
    goes_on("RTT 20 ms", 51, roads, ms(20), CHATTER).await;
}

#[tokio::test]
async fn what_was_on_a_link_over_webrtc_does_so_too() {
    let roads = Roads {
        kind: Kind::WebRtc,
        delay: ms(5),
        wire: None,
    };
    goes_on("webrtc, RTT 20 ms", 91, roads, ms(20), CHATTER).await;
}

#[tokio::test]
async fn what_was_on_a_link_with_a_long_round_trip_does_so_too() {
    let roads = Roads {
        kind: Kind::Quic,
        delay: ms(50),
        wire: None,
    };
    goes_on("RTT 200 ms", 61, roads, ms(200), SLOWER).await;
}

#[tokio::test]
async fn what_was_on_a_link_whose_packets_overtake_each_other_does_so_too() {
    let weather = Weather {
        reorder: 0.05,
        late: ms(25),
        ..Weather::delayed(ms(10))
    };
    let roads = Roads {
        kind: Kind::Quic,
        delay: ms(5),
        wire: Some(weather),
    };
    goes_on("late frames", 71, roads, ms(20), CHATTER).await;
}

#[tokio::test]
async fn what_was_on_a_link_that_loses_packets_does_so_too() {
    let weather = Weather {
        loss: 0.05,
        ..Weather::delayed(ms(10))
    };
    let roads = Roads {
        kind: Kind::Quic,
        delay: ms(5),
        wire: Some(weather),
    };
    goes_on("loss 5 %", 81, roads, ms(20), CHATTER).await;
}

//! A direct link is cut under a stream of messages: how soon the session judges that, and how soon it
//! goes on over the relay then.
//!
//! ```text
//!   cut ───────────▶ judged ───────────────────────────▶ heard
//!        detection            the relay's road one way,
//!                             and what is ours: at most 5 ms
//! ```

use std::time::{Duration, Instant};

use crate::peer::{CHATTER, Talk, soon};
use crate::town::{Town, figure};
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

/// What there is to know of a cut.
struct Cut {
    /// From the cut until messages went over the relay too, for the link was judged.
    judged: Duration,
    /// From then until the other heard the first of them, without the time on the road.
    ours: Duration,
}

async fn cut(seed: u64, delay: Duration, talk: Talk) -> Option<Cut> {
    let mut town = Town::open(seed, Weather::delayed(delay)).await?;
    // One alone speaks: what it says over the relay are messages then, and no answers.
    let heard = town.peers[1].count();
    town.peers[0].talk(talk, heard);
    town.until_direct().await;
    town.peers[1].hear_more(50).await;
    let road = town.road_over_relay().await;
    let relayed = town.peers[0].relayed(talk.bytes);
    let began = Instant::now();
    town.part();
    let judged = soon("messages over the relay", relayed).await;
    let judged = judged.expect("no panic");
    let heard = town.peers[1].heard_after(judged).await;
    town.join();
    town.hush().await;
    town.end().await;
    Some(Cut {
        judged: judged - began,
        ours: (heard - judged).saturating_sub(road),
    })
}

/// Has links cut on roads of that delay, so that a round trip takes four times as long.
async fn goes_on(name: &str, seed: u64, delay: Duration, talk: Talk) {
    let (mut judged, mut ours) = (Vec::new(), Vec::new());
    for seed in seed..seed + CUTS {
        let Some(cut) = cut(seed, delay, talk).await else {
            return;
        };
        figure(name, "cut: judged after", cut.judged);
        figure(name, "cut: heard after the road and", cut.ours);
        judged.push(cut.judged);
        ours.push(cut.ours);
    }
    judged.sort_unstable();
    ours.sort_unstable();
    let (judged, ours) = (judged[judged.len() / 2], ours[1]);
    let round_trip = delay * 4;
    assert!(judged <= round_trip * 4 + ms(200), "after {judged:?}");
    assert!(ours <= OURS, "it took {ours:?} beside the road");
}

#[tokio::test]
async fn what_was_on_a_link_that_is_cut_goes_over_the_relay_as_soon_as_that_is_judged() {
    goes_on("RTT 20 ms", 51, ms(5), CHATTER).await;
}

#[tokio::test]
async fn what_was_on_a_link_with_a_long_round_trip_does_so_too() {
    goes_on("RTT 200 ms", 61, ms(50), SLOWER).await;
}

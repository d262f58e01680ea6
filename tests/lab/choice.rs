//! Which link carries when there are several: the one that answers, whatever its kind.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use crate::files::{Disk, send};
use crate::lab::say;
use crate::peer::{CHATTER, Peer, Talk};
use crate::town::{Town, carried_by, figure};
use crate::weather::Weather;
use crate::wire::Wire;

const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// From peer to peer and back takes 40 ms, through the relay and over the shortcut.
const ROAD: Weather = Weather::delayed(ms(10));
const SHORTCUT: Weather = Weather::delayed(ms(20));

/// Two peers who talk over a direct link, which alone goes over the wire.
async fn talking(seed: u64) -> Option<(Town, Wire)> {
    let mut town = Town::open(seed, ROAD).await?;
    let wire = town.shortcut();
    wire.set(SHORTCUT);
    town.talk(CHATTER);
    town.until_carried_by("quic").await;
    town.hear_more(100).await;
    Some((town, wire))
}

async fn yields_and_comes_back(name: &str, seed: u64, weather: Weather) {
    let Some((mut town, wire)) = talking(seed).await else {
        return;
    };
    let began = Instant::now();
    wire.set(weather);
    town.until_carried_by("relay").await;
    figure(name, "on the relay after", began.elapsed());
    town.hear_more(300).await;
    let cleared = Instant::now();
    wire.set(SHORTCUT);
    town.until_carried_by("quic").await;
    figure(name, "direct again after", cleared.elapsed());
    town.hear_more(100).await;
    town.hush().await;
    town.end().await;
}

#[tokio::test]
async fn a_direct_link_that_loses_a_fifth_yields_to_the_relay_until_the_weather_clears() {
    let weather = Weather {
        loss: 0.2,
        ..SHORTCUT
    };
    yields_and_comes_back("a fifth lost", 41, weather).await;
}

#[tokio::test]
async fn a_direct_link_that_takes_two_seconds_yields_to_the_relay_until_the_weather_clears() {
    yields_and_comes_back("RTT 2 s", 42, Weather::delayed(ms(1_000))).await;
}

#[tokio::test]
async fn a_direct_link_too_narrow_for_what_is_said_yields_to_the_relay() {
    let Some((mut town, wire)) = talking(44).await else {
        return;
    };
    town.hush().await;
    wire.set(Weather {
        rate: Some(1_000_000),
        ..SHORTCUT
    });
    let began = Instant::now();
    town.talk(Talk {
        every: ms(50),
        bytes: 60_000,
    });
    town.until_carried_by("relay").await;
    figure("1 Mbit/s", "on the relay after", began.elapsed());
    town.hear_more(50).await;
    town.hush().await;
    town.end().await;
}

#[tokio::test]
async fn a_file_goes_over_the_relay_where_the_direct_link_takes_in_little() {
    let Some((mut town, wire)) = talking(45).await else {
        return;
    };
    // It answers in time all the while: QUIC has a file wait and whoever talks not.
    wire.set(Weather {
        rate: Some(4_000_000),
        ..SHORTCUT
    });
    let disk = Disk::with(16 << 20);
    let relayed = town.peers[0].until("the relay", |state| carried_by(state) == Some("relay"));
    let (_, [began, whole]) = tokio::join!(relayed, send(&town, &disk, 1 << 20, || ()));
    let heard = town.peers[1].session.traffic();
    let over = |transport| heard.get(transport).map_or(0, |heard| heard.bytes_received);
    let (direct, relayed) = (over("quic"), over("relay"));
    say(&format!(
        "4 Mbit/s: {direct} bytes came over QUIC, {relayed} over the relay"
    ));
    figure("4 Mbit/s", "15 MiB after", whole - began);
    town.hush().await;
    town.end().await;
    assert!(relayed > direct, "{relayed} bytes, {direct} direct");
    let alone = Duration::from_secs(15 * 2);
    assert!(whole - began < alone / 2, "{:?}", whole - began);
}

/// Counts the changes of what carries, until it is dropped.
struct Watch {
    changes: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Watch {
    fn new(peer: &Peer) -> Self {
        let mut state = peer.session.state();
        let changes = Arc::<AtomicUsize>::default();
        let counted = changes.clone();
        let task = tokio::spawn(async move {
            let mut last = state.borrow().carrier;
            while state.changed().await.is_ok() {
                let carrier = state.borrow_and_update().carrier;
                if std::mem::replace(&mut last, carrier) != carrier {
                    counted.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        Self { changes, task }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[tokio::test]
async fn links_do_not_take_turns_while_a_twentieth_is_lost() {
    let Some((mut town, wire)) = talking(43).await else {
        return;
    };
    wire.set(Weather {
        loss: 0.05,
        ..SHORTCUT
    });
    let watched: Vec<_> = town.peers.iter().map(Watch::new).collect();
    town.hear_more(1_500).await;
    for watched in watched {
        let changes = watched.changes.load(Ordering::Relaxed);
        say(&format!(
            "a twentieth lost: {changes} changes of what carries"
        ));
        // Once away and back, should it look worse than it is for a while.
        assert!(changes <= 2, "{changes}");
    }
    town.hush().await;
    town.end().await;
}

//! Networks that go away and come back, and hosts that move from one to another.

use std::time::{Duration, Instant};

use crate::peer::Talk;
use crate::town::{Town, figure};
use crate::weather::Weather;

const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// Messages of a few packets, twenty a second.
pub(crate) const LINES: Talk = Talk {
    every: ms(50),
    bytes: 4_000,
};

/// A round trip from peer to peer takes 40 ms.
pub(crate) const CALM: Weather = Weather::delayed(ms(10));

/// When data is to flow again after a move: three round trips and 100 ms, and as much again for a machine
/// that does other things at the same time.
pub(crate) const BACK: Duration = ms(3 * 40 + 100 + 100);

/// Far more than a session needs to be back, and less than the timers of a link or a relay take.
const LOOSE: Duration = Duration::from_secs(4);

/// Cuts a peer off for so long. `told` is whether its app learns that the network is back.
async fn outage(name: &str, seed: u64, away: Duration, told: bool) {
    let Some(mut town) = Town::open(seed, CALM).await else {
        return;
    };
    town.talk(LINES);
    town.until_direct().await;
    town.hear_more(20).await;
    town.roads[0].cut();
    // How long it lasts is what is staged.
    tokio::time::sleep(away).await;
    town.roads[0].mend();
    let back = Instant::now();
    if told {
        town.peers[0].network.up();
    }
    town.hear_more(20).await;
    let silence = town.silence_since(back);
    figure(name, "silent after the wire was back for", silence);
    town.until_direct().await;
    figure(name, "direct again after", back.elapsed());
    town.hush().await;
    town.end().await;
    if told {
        assert!(silence < LOOSE, "{silence:?}");
    }
}

#[tokio::test]
async fn a_wire_is_down_for_four_seconds_and_nobody_is_told() {
    outage("4 s down", 21, Duration::from_secs(4), false).await;
}

#[tokio::test]
async fn a_wire_is_down_for_half_a_minute_and_nobody_is_told() {
    outage("30 s down", 22, Duration::from_secs(30), false).await;
}

#[tokio::test]
async fn a_wire_is_down_for_half_a_minute_and_the_app_says_when_it_is_back() {
    outage("30 s down, told", 23, Duration::from_secs(30), true).await;
}

/// Gives a peer's host another address in place of the old one.
fn readdress(town: &Town, old: u8, new: u8) {
    let host = &town.peers[0].host;
    let road = town.roads[0].name();
    host.ip(&format!("address del 198.18.1.{old}/24 dev {road}"));
    host.ip(&format!("address add 198.18.1.{new}/24 dev {road}"));
    host.ip("route replace default via 198.18.1.1");
}

/// The same, and tells its node.
pub(crate) fn move_host(town: &Town, old: u8, new: u8) {
    readdress(town, old, new);
    town.peers[0].network.up();
}

#[tokio::test]
async fn a_node_finds_out_by_itself_that_its_host_has_another_address() {
    let Some(mut town) = Town::watchful(27, CALM).await else {
        return;
    };
    town.talk(LINES);
    town.until_direct().await;
    town.hear_more(20).await;
    for (old, new) in [(2, 3), (3, 4)] {
        readdress(&town, old, new);
        let moved = Instant::now();
        town.hear_more(20).await;
        let silence = town.silence_since(moved);
        figure("new address, nobody tells", "silent for", silence);
        town.until_direct().await;
        assert!(silence <= BACK, "{silence:?}");
    }
    town.hush().await;
    town.end().await;
}

#[tokio::test]
async fn a_node_finds_out_by_itself_that_its_host_was_off_the_network() {
    let Some(mut town) = Town::watchful(28, CALM).await else {
        return;
    };
    town.talk(LINES);
    town.until_direct().await;
    town.hear_more(20).await;
    let road = town.roads[0].name().to_owned();
    town.peers[0].host.ip(&format!("link set {road} down"));
    // How long it is away is what is staged: longer than a direct link is waited for.
    tokio::time::sleep(Duration::from_secs(12)).await;
    let host = &town.peers[0].host;
    host.ip(&format!("link set {road} up"));
    host.ip("route add default via 198.18.1.1");
    let back = Instant::now();
    town.hear_more(20).await;
    let silence = town.silence_since(back);
    figure(
        "interface down for 12 s, nobody tells",
        "silent for",
        silence,
    );
    town.until_direct().await;
    assert!(silence < LOOSE, "{silence:?}");
    town.hush().await;
    town.end().await;
}

#[tokio::test]
async fn a_host_gets_another_address_in_the_middle_of_a_transfer() {
    let Some(mut town) = Town::open(24, CALM).await else {
        return;
    };
    town.talk(LINES);
    town.until_direct().await;
    town.hear_more(20).await;
    for (old, new) in [(2, 3), (3, 4)] {
        let moved = Instant::now();
        move_host(&town, old, new);
        town.hear_more(20).await;
        let silence = town.silence_since(moved);
        figure("new address", "silent for", silence);
        town.until_direct().await;
        figure("new address", "direct again after at most", moved.elapsed());
        assert!(silence <= BACK, "{silence:?}");
    }
    town.hush().await;
    town.end().await;
}

#[tokio::test]
async fn a_host_gets_another_address_while_the_relay_is_gone() {
    let Some(mut town) = Town::open(26, CALM).await else {
        return;
    };
    town.talk(LINES);
    town.until_direct().await;
    town.hear_more(20).await;
    town.roads[2].cut();
    town.hear_more(20).await;
    for (old, new) in [(2, 3), (3, 4)] {
        let moved = Instant::now();
        move_host(&town, old, new);
        town.hear_more(20).await;
        let silence = town.silence_since(moved);
        figure("new address, no relay", "silent for", silence);
        assert!(silence <= BACK, "{silence:?}");
    }
    town.roads[2].mend();
    for peer in &town.peers {
        peer.network.up();
    }
    town.until_direct().await;
    town.hush().await;
    town.end().await;
}

#[tokio::test]
async fn one_of_two_interfaces_dies_and_comes_back() {
    let Some(mut town) = Town::open(25, CALM).await else {
        return;
    };
    let host = &town.peers[0].host;
    let second = (host, "198.18.4.2/24");
    let second = town.lab.wire((&town.router, "198.18.4.1/24"), second);
    second.set(CALM);
    host.ip("route add default via 198.18.4.1 metric 200");
    town.peers[0].network.up();
    town.talk(LINES);
    town.until_direct().await;
    town.hear_more(20).await;
    let road = town.roads[0].name().to_owned();
    for what in ["it dies", "it is back"] {
        let moved = Instant::now();
        let host = &town.peers[0].host;
        if what == "it dies" {
            host.ip(&format!("link set {road} down"));
        } else {
            host.ip(&format!("link set {road} up"));
            host.ip("route add default via 198.18.1.1");
        }
        town.peers[0].network.up();
        town.hear_more(20).await;
        let silence = town.silence_since(moved);
        figure("two interfaces", &format!("{what}, silent for"), silence);
        town.until_direct().await;
        assert!(silence <= BACK, "{silence:?}");
    }
    town.hush().await;
    town.end().await;
}

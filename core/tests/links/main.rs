//! What a session makes of links that linger, and of pongs that are lost.

mod choice;
mod file;
mod pair;
mod turns;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use outlive_core::engine::{DropReason, SendOptions, Taken, Transmit};
use outlive_core::limits::{LINK_SILENCE, PING_IDLE};
use outlive_core::link::{LinkClass, LinkState};
use outlive_core::wire::frame::{CloseReason, Frame};
use outlive_core::wire::packet;
use outlive_core::{ChannelId, Generation, Position, StoreId};

use crate::pair::Pair;

#[test]
fn a_lost_pong_takes_no_link_down_while_anything_else_arrives() {
    let mut pair = Pair::new();
    let link = Generation::nth(1, 1);
    pair.bind(link);
    pair.lose = Box::new(|_, frame| matches!(frame, Frame::Pong(_)));
    for _ in 0..20 {
        // Long enough for a Ping, whose Pong is lost; then there is traffic, acknowledged as ever.
        pair.pass(PING_IDLE + Duration::from_secs(1));
        pair.send("hello");
        assert!(pair.delivered());
        pair.pass(LINK_SILENCE);
    }
    for peer in &pair.peers {
        assert_eq!(peer.dropped, []);
    }
    // Silence alone takes it down.
    pair.lose = Box::new(|_, _| true);
    pair.pass(PING_IDLE + LINK_SILENCE * 2);
    assert_eq!(pair.peers[0].dropped, [(link, DropReason::Silent)]);
}

#[test]
fn over_another_network_a_direct_link_carries_only_once_it_is_answered() {
    let mut pair = Pair::new();
    let [direct, relayed] = [1, 2].map(|n| Generation::nth(1, n));
    pair.bind(direct);
    pair.bind_as(relayed, LinkClass::Relayed(StoreId([7; 16])));
    pair.send("before");
    assert_eq!(pair.peers[0].engine.carrier(), Some(direct));
    // What we accepted does not follow us: nothing comes back on it.
    pair.lose = Box::new(move |generation, _| generation == direct);
    pair.peers[0].engine.network_changed(pair.now);
    assert_eq!(pair.peers[0].engine.carrier(), Some(relayed));
    pair.send("at once");
    assert_eq!(pair.arrived(), 2);
    // It was there all the time.
    pair.lose = Box::new(|_, _| false);
    pair.peers[0].engine.network_changed(pair.now);
    pair.settle();
    assert_eq!(pair.peers[0].engine.carrier(), Some(direct));
    pair.send("after");
    assert_eq!(pair.arrived(), 3);
    assert!(pair.delivered());
    // With no other, it carries until it is known to be dead.
    pair.peers[0].engine.unbind(relayed, pair.now);
    pair.peers[0].engine.network_changed(pair.now);
    assert_eq!(pair.peers[0].engine.carrier(), Some(direct));
}

#[test]
fn a_direct_link_is_connected_while_the_peer_has_answered_over_it() {
    let mut pair = Pair::new();
    let [direct, relayed] = [1, 2].map(|n| Generation::nth(1, n));
    let states = |pair: &Pair| pair.peers[0].engine.link_states().collect::<Vec<_>>();
    pair.lose = Box::new(|_, frame| matches!(frame, Frame::PathResponse(_)));
    pair.bind(direct);
    pair.bind_as(relayed, LinkClass::Relayed(StoreId([7; 16])));
    let connected = (relayed, LinkState::Connected);
    assert_eq!(states(&pair), [(direct, LinkState::Connecting), connected]);
    // One that never was connected is not interrupted.
    pair.peers[0].engine.network_changed(pair.now);
    assert_eq!(states(&pair), [(direct, LinkState::Connecting), connected]);
    pair.lose = Box::new(|_, _| false);
    pair.pass(Duration::from_secs(2));
    assert_eq!(states(&pair), [(direct, LinkState::Connected), connected]);
    pair.peers[0].engine.network_changed(pair.now);
    assert_eq!(
        states(&pair),
        [(direct, LinkState::Disconnected), connected]
    );
    pair.settle();
    assert_eq!(states(&pair), [(direct, LinkState::Connected), connected]);
    pair.peers[0].engine.unbind(direct, pair.now);
    assert_eq!(states(&pair), [connected]);
}

#[test]
fn a_lost_answer_to_a_challenge_is_asked_for_again_while_other_things_are_heard() {
    let mut pair = Pair::new();
    let [direct, relayed] = [1, 2].map(|n| Generation::nth(1, n));
    pair.bind_as(relayed, LinkClass::Relayed(StoreId([7; 16])));
    // The answer to one of them; the other takes the link, and talks on it from now on.
    let answers = Cell::new(0);
    pair.lose = Box::new(move |_, frame| {
        let answer = matches!(frame, Frame::PathResponse(_));
        answer && answers.replace(answers.get() + 1) == 1
    });
    pair.bind(direct);
    let carriers = |pair: &Pair| pair.peers.each_ref().map(|peer| peer.engine.carrier());
    assert_eq!(carriers(&pair), [Some(direct), Some(relayed)]);
    for _ in 0..20 {
        pair.send("never silent for long");
        pair.pass(Duration::from_millis(100));
    }
    assert_eq!(carriers(&pair), [Some(direct); 2]);
}

#[test]
fn a_new_link_to_a_peer_that_moved_carries_as_soon_as_it_has_answered() {
    let mut pair = Pair::new();
    let [old, new] = [1, 2].map(|n| Generation::nth(1, n));
    pair.bind(old);
    pair.send("before");
    pair.lose = Box::new(move |generation, _| generation == old);
    pair.send("lost");
    assert_eq!(pair.arrived(), 1);
    pair.bind(new);
    assert_eq!(pair.peers[0].engine.carrier(), Some(new));
    assert_eq!(pair.arrived(), 2);
    pair.send("at once");
    assert_eq!(pair.arrived(), 3);
}

#[test]
fn a_link_that_owes_an_answer_for_a_second_is_doubted_until_it_is_heard() {
    let mut pair = Pair::new();
    let direct = Generation::nth(1, 1);
    pair.bind(direct);
    pair.pass(Duration::from_secs(5));
    assert!(!pair.peers[0].engine.doubts_a_link(), "nothing is owed");
    pair.lose = Box::new(|_, _| true);
    pair.send("lost");
    pair.pass(Duration::from_millis(900));
    assert!(!pair.peers[0].engine.doubts_a_link());
    pair.pass(Duration::from_millis(200));
    assert!(pair.peers[0].engine.doubts_a_link());
    pair.lose = Box::new(|_, _| false);
    pair.pass(Duration::from_secs(3));
    assert!(!pair.peers[0].engine.doubts_a_link());
    // Of a relay it is never said: what it holds is answered when the peer is there.
    let mut pair = Pair::new();
    pair.bind_as(direct, LinkClass::Relayed(StoreId([7; 16])));
    pair.lose = Box::new(|_, _| true);
    pair.send("held");
    pair.pass(Duration::from_secs(5));
    assert!(!pair.peers[0].engine.doubts_a_link());
}

#[test]
fn a_link_behind_one_that_is_sound_is_not_doubted() {
    let mut pair = Pair::new();
    let [behind, first] = [1, 2].map(|n| Generation::nth(1, n));
    for peer in &mut pair.peers {
        peer.engine.bind(behind, LinkClass::Direct, 1, pair.now);
    }
    pair.settle();
    pair.lose = Box::new(move |generation, _| generation == behind);
    pair.send("lost");
    pair.pass(Duration::from_secs(2));
    assert!(pair.peers[0].engine.doubts_a_link(), "it is all there is");
    pair.bind(first);
    assert!(pair.delivered());
    pair.pass(Duration::from_millis(200));
    assert!(!pair.peers[0].engine.doubts_a_link());
    pair.lose = Box::new(|_, _| true);
    pair.send("lost");
    pair.pass(Duration::from_secs(2));
    assert!(pair.peers[0].engine.doubts_a_link(), "both may be dead");
}

#[test]
fn a_link_under_load_is_known_by_its_round_trip_when_it_dies() {
    let mut pair = Pair::new();
    let [direct, relayed] = [1, 2].map(|n| Generation::nth(1, n));
    pair.bind(direct);
    pair.bind_as(relayed, LinkClass::Relayed(StoreId([7; 16])));
    pair.send("before");
    pair.lose = Box::new(move |generation, _| generation == direct);
    pair.send("lost");
    assert_eq!(pair.arrived(), 1);
    // There was never a silence in which a Ping would have measured it.
    pair.pass(Duration::from_millis(200));
    assert_eq!(pair.arrived(), 2);
}

#[test]
fn an_answer_is_overdue_whether_the_clock_says_so_or_a_message_that_comes_before_it() {
    let mut pair = Pair::new();
    let [direct, relayed] = [1, 2].map(|n| Generation::nth(1, n));
    pair.bind(direct);
    pair.bind_as(relayed, LinkClass::Relayed(StoreId([7; 16])));
    pair.send("before");
    pair.lose = Box::new(move |generation, _| generation == direct);
    pair.send("lost");
    // No tick: what the app sends is what the engine hears first.
    pair.now.elapsed += Duration::from_millis(200);
    pair.send("later");
    assert_eq!(pair.arrived(), 3);
    // That these are acknowledged says nothing of the link that is dead.
    pair.send("and later");
    assert_eq!(pair.arrived(), 4);
}

#[test]
fn a_link_with_a_message_now_and_then_stays_up() {
    let mut pair = Pair::new();
    pair.bind(Generation::nth(1, 1));
    for (n, pause) in [1, 14, 15, 16, 29, 31, 60, 75, 600].into_iter().enumerate() {
        pair.pass(Duration::from_secs(pause));
        pair.send("hello");
        assert!(pair.delivered(), "after {pause} s");
        assert_eq!(pair.arrived(), n as u64 + 1);
    }
    for peer in &pair.peers {
        assert_eq!(peer.dropped, []);
    }
}

#[test]
fn the_hundredth_link_resumes_like_the_first_while_dead_ones_are_still_open() {
    let mut pair = Pair::new();
    for n in 1..=100 {
        let link = Generation::nth(1, n);
        // Nothing gets through on the links before, and neither end has heard of it yet.
        pair.lose = Box::new(move |generation, _| generation < link);
        pair.send("before");
        pair.bind(link);
        pair.pass(Duration::from_secs(3));
        assert!(pair.delivered(), "link {n}");
        pair.send("after");
        pair.pass(Duration::from_secs(3));
        assert!(pair.delivered(), "link {n}");
        assert_eq!(pair.arrived(), u64::from(n) * 2, "each once");
    }
    // What was lost comes after all, very late.
    let lost = std::mem::take(&mut pair.lost);
    assert!(lost.len() > 100);
    pair.lose = Box::new(|_, _| false);
    for (to, transmit) in lost {
        let retired = pair.peers[to].retired(transmit.generation);
        let taken = pair.deliver(to, &transmit);
        assert!(!retired || taken == Taken::No);
        pair.settle();
    }
    assert_eq!(pair.arrived(), 200);
}

/// What the first peer says over a link, in order.
fn heard_over(pair: &mut Pair, link: Generation) -> Rc<RefCell<Vec<Frame>>> {
    let heard = Rc::new(RefCell::new(Vec::new()));
    let hears = heard.clone();
    pair.lose = Box::new(move |generation, frame| {
        if generation == link {
            hears.borrow_mut().push(frame.clone());
        }
        false
    });
    heard
}

#[test]
fn a_ping_is_said_however_much_else_waits_for_the_link() {
    const MOVES: ChannelId = ChannelId(16);
    let mut pair = Pair::new();
    let link = Generation::nth(1, 1);
    pair.bind(link);
    pair.peers[1].engine.listen(MOVES, pair.now);
    pair.settle();
    pair.pass(PING_IDLE - Duration::from_secs(1));
    let (now, engine) = (pair.now, &mut pair.peers[0].engine);
    engine.writable(link, false, now);
    let payload = Bytes::from_static(b"here");
    let sent = (0..100).filter(|_| {
        let sent = engine.send_volatile(MOVES, payload.clone(), now);
        sent.expect("it is small")
    });
    assert!((1..100).contains(&sent.count()), "as many as have room");
    pair.pass(Duration::from_secs(2));
    pair.peers[0].engine.writable(link, true, pair.now);
    pair.poll(0);
    let packets: Vec<_> = pair
        .wire
        .iter()
        .map(|(_, of)| of.packet.slice(1..))
        .collect();
    let said = packets
        .iter()
        .flat_map(|packet| packet::decode(packet).expect("own packet"));
    let pings = said.filter(|frame| matches!(frame, Frame::Ping(_)));
    assert_eq!(pings.count(), 1);
}

#[test]
fn who_waits_for_the_peers_app_sends_nothing_twice() {
    let mut pair = Pair::new();
    let [direct, relayed] = [1, 2].map(|n| Generation::nth(1, n));
    pair.bind_as(relayed, LinkClass::Relayed(StoreId([7; 16])));
    pair.bind(direct);
    pair.send("to be read");
    assert!(pair.delivered());
    let (now, engine) = (pair.now, &mut pair.peers[0].engine);
    engine.await_consumed(pair::CHAT, Position(2), now);
    pair.settle();
    pair.pass(Duration::from_secs(60));
    let heard = heard_over(&mut pair, relayed);
    pair.send("more");
    assert!(pair.delivered());
    let is_data = |frame: &Frame| matches!(frame, Frame::Data(_));
    assert!(!heard.borrow().iter().any(is_data));
}

#[test]
fn behind_the_end_of_a_session_nothing_is_said() {
    let mut pair = Pair::new();
    let link = Generation::nth(1, 1);
    pair.bind(link);
    let heard = heard_over(&mut pair, link);
    let (now, engine) = (pair.now, &mut pair.peers[0].engine);
    engine.listen(ChannelId(16), now);
    engine.close(CloseReason::Closed, now);
    pair.settle();
    let heard = heard.borrow();
    assert!(matches!(heard.last(), Some(Frame::Close(_))), "{heard:?}");
}

#[test]
fn a_message_after_a_pause_is_not_asked_about_at_once() {
    let mut pair = Pair::new();
    let [direct, relayed] = [1, 2].map(|n| Generation::nth(1, n));
    pair.bind_as(relayed, LinkClass::Relayed(StoreId([7; 16])));
    pair.bind(direct);
    for pause in [5, 14, 100] {
        pair.send("hello");
        pair.settle();
        assert!(pair.delivered());
        // Nothing waits for anything: nobody looks at the time.
        pair.now.elapsed += Duration::from_secs(pause);
        let options = SendOptions::default();
        let engine = &mut pair.peers[0].engine;
        engine
            .send(pair::CHAT, &"again".into(), &options, pair.now)
            .unwrap();
        engine.tick(pair.now);
        pair.poll(0);
        let over = |(_, transmit): &(usize, Transmit)| transmit.generation == relayed;
        assert!(!pair.wire.iter().any(over), "after {pause} s");
        pair.settle();
    }
}

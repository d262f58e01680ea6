//! Which of several links carries.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use outlive_core::limits::InboxLimits;
use outlive_core::link::{LinkClass, Reads};
use outlive_core::transport::Refusal;
use outlive_core::wire::frame::Frame;
use outlive_core::{Generation, StoreId};

use crate::pair::{MUCH, Pair};

/// Talks for so long, and returns how often another link began to carry.
fn talk(pair: &mut Pair, seconds: u32) -> usize {
    let mut changes = 0;
    for _ in 0..seconds * 10 {
        let carrier = pair.peers[0].engine.carrier();
        pair.send("hello");
        pair.pass(Duration::from_millis(100));
        changes += usize::from(carrier != pair.peers[0].engine.carrier());
    }
    changes
}

#[test]
fn a_direct_link_that_answers_late_yields_to_a_relay_and_carries_again_when_it_is_well() {
    let mut pair = Pair::new();
    let [direct, relayed] = [1, 2].map(|n| Generation::nth(1, n));
    pair.bind(direct);
    pair.bind_as(relayed, LinkClass::Relayed(StoreId([7; 16])));
    assert_eq!(talk(&mut pair, 5), 0);
    assert_eq!(pair.peers[0].engine.carrier(), Some(direct));
    pair.takes = Box::new(move |generation| Duration::from_secs(u64::from(generation == direct)));
    assert_eq!(talk(&mut pair, 30), 1);
    assert_eq!(pair.peers[0].engine.carrier(), Some(relayed));
    pair.takes = Box::new(|_| Duration::ZERO);
    assert_eq!(talk(&mut pair, 60), 1);
    assert_eq!(pair.peers[0].engine.carrier(), Some(direct));
    pair.pass(Duration::from_secs(1));
    assert_eq!(pair.arrived(), 950);
    assert!(pair.delivered());
}

#[test]
fn links_that_all_answer_late_do_not_take_turns() {
    let mut pair = Pair::new();
    let [direct, relayed] = [1, 2].map(|n| Generation::nth(1, n));
    pair.bind(direct);
    pair.bind_as(relayed, LinkClass::Relayed(StoreId([7; 16])));
    pair.takes = Box::new(move |generation| {
        Duration::from_millis(if generation == direct { 600 } else { 400 })
    });
    talk(&mut pair, 5);
    assert_eq!(talk(&mut pair, 60), 0);
    assert_eq!(pair.peers[0].engine.carrier(), Some(direct));
}

/// Two peers with a narrow direct link and a wide relay, and some MB to send.
fn busy(messages: usize, bytes: usize) -> (Pair, [Generation; 2]) {
    let mut pair = Pair::sealed();
    let [direct, relayed] = [1, 2].map(|n| Generation::nth(1, n));
    pair.narrow = Some(direct);
    pair.bind(direct);
    pair.bind_as(relayed, LinkClass::Relayed(StoreId([7; 16])));
    pair.pass(Duration::from_secs(1));
    for _ in 0..messages {
        pair.send(&MUCH[..bytes]);
    }
    (pair, [direct, relayed])
}

/// Until another link carries. Returns after how many tenths of a second.
fn until_carried_by(pair: &mut Pair, link: Generation) -> usize {
    let carries = |pair: &mut Pair| {
        pair.pass(Duration::from_millis(100));
        pair.peers[0].engine.carrier() == Some(link)
    };
    let after = (1..100).find(|_| carries(pair));
    after.expect("it carries within ten seconds")
}

#[test]
fn what_a_direct_link_takes_in_slowly_goes_over_a_relay_that_is_wide() {
    let (mut pair, [direct, relayed]) = busy(600, 16 * 1024);
    let after = until_carried_by(&mut pair, relayed);
    assert!((30..=50).contains(&after), "{after}");
    pair.pass(Duration::from_secs(1));
    assert!(pair.delivered(), "at 30 segments a second it takes 20 s");
    assert_eq!(pair.arrived(), 600, "each once");
    let deadline = pair.peers[0].engine.deadline().expect("it waits for that");
    assert!(deadline < pair.now.elapsed + Duration::from_secs(4));
    let again = until_carried_by(&mut pair, direct);
    assert!((20..=40).contains(&again), "nothing was learned: {again}");
}

#[test]
fn a_link_is_narrow_by_the_bytes_that_it_takes_in_however_many_messages_they_are() {
    let (mut pair, [_, relayed]) = busy(6_000, 1_024);
    until_carried_by(&mut pair, relayed);
}

#[test]
fn the_first_refusal_ends_a_trial_whether_it_may_pass_or_not() {
    for reason in [Refusal::MailboxFull, Refusal::TooLarge] {
        let (mut pair, [direct, relayed]) = busy(600, 16 * 1024);
        pair.refuse = Some((relayed, reason));
        while pair.refused == 0 {
            assert_eq!(pair.peers[0].engine.carrier(), Some(direct));
            pair.pass(Duration::from_millis(100));
        }
        assert_eq!(pair.peers[0].engine.carrier(), Some(direct), "{reason:?}");
        let refused = pair.refused;
        pair.pass(Duration::from_secs(5));
        assert_eq!(pair.refused, refused, "{reason:?}: it is not tried again");
        assert!(!pair.delivered());
    }
}

#[test]
fn what_waits_for_room_at_the_peer_says_nothing_of_the_link() {
    let mut pair = Pair::sealed();
    let [direct, relayed] = [1, 2].map(|n| Generation::nth(1, n));
    let small = InboxLimits {
        messages: 64,
        ..InboxLimits::default()
    };
    pair.peers[1].engine.set_inbox_limits(small);
    pair.bind(direct);
    pair.bind_as(relayed, LinkClass::Relayed(StoreId([7; 16])));
    pair.pass(Duration::from_secs(1));
    for _ in 0..600 {
        pair.send(MUCH);
    }
    for _ in 0..200 {
        pair.take();
        pair.pass(Duration::from_millis(100));
        assert_eq!(pair.peers[0].engine.carrier(), Some(direct));
    }
    assert_eq!(pair.arrived(), 64, "as many as there is room for");
}

#[test]
fn what_moves_is_asked_about_now_and_then_and_goes_over_no_other_link_for_that() {
    let mut pair = Pair::new();
    let [direct, relayed] = [1, 2].map(|n| Generation::nth(1, n));
    pair.bind(direct);
    pair.bind_as(relayed, LinkClass::Relayed(StoreId([7; 16])));
    pair.takes = Box::new(move |_| Duration::from_millis(150));
    talk(&mut pair, 5);
    let [asked, astray] = [0, 0].map(|none| Rc::new(Cell::new(none)));
    let (resumes, data) = (asked.clone(), astray.clone());
    pair.lose = Box::new(move |generation, frame| {
        let count = |of: &Cell<usize>, is: bool| of.set(of.get() + usize::from(is));
        count(&resumes, matches!(frame, Frame::Resume(_)));
        let is_data = matches!(frame, Frame::Data(_));
        count(&data, is_data && generation == relayed);
        false
    });
    talk(&mut pair, 150);
    assert!(asked.get() > 0, "something is outstanding all the while");
    assert_eq!(astray.get(), 0);
}

#[test]
fn each_is_written_to_where_it_reads() {
    let mut pair = Pair::new();
    let relays = [1_u8, 2].map(|n| {
        (
            Generation::nth(1, n.into()),
            LinkClass::Relayed(StoreId([n; 16])),
        )
    });
    for (generation, class) in relays {
        pair.bind_as(generation, class);
    }
    let [one, two] = relays.map(|(generation, _)| generation);
    // Each reads at the relay that has its own number.
    pair.peers[0]
        .engine
        .peer_reads(one, Reads::Never, 0, pair.now);
    pair.peers[1]
        .engine
        .peer_reads(two, Reads::Never, 0, pair.now);
    for from in [0, 1] {
        pair.send_from(from, "hello");
        assert!(
            !pair.peers[from].engine.outstanding(),
            "its answer came over the other relay"
        );
    }
    assert_eq!(pair.peers[0].engine.carrier(), Some(two));
    assert_eq!(pair.peers[1].engine.carrier(), Some(one));
    // Nowhere: it waits, and is asked about as soon as there is a way.
    pair.peers[0]
        .engine
        .peer_reads(two, Reads::Never, 0, pair.now);
    pair.send("to nobody");
    pair.pass(Duration::from_secs(700));
    assert!(!pair.delivered());
    assert_eq!(pair.peers[0].engine.carrier(), None);
    pair.peers[0]
        .engine
        .peer_reads(one, Reads::Perhaps, 0, pair.now);
    pair.settle();
    assert!(pair.delivered());
    assert_eq!(pair.arrived(), 2);
}

#[test]
fn while_the_peer_reads_nowhere_nothing_wakes_us() {
    let mut pair = Pair::new();
    let relay = Generation::nth(1, 1);
    pair.bind_as(relay, LinkClass::Relayed(StoreId([1; 16])));
    pair.peers[0]
        .engine
        .peer_reads(relay, Reads::Never, 0, pair.now);
    pair.send("hello");
    let packets = pair.packets;
    pair.pass(Duration::from_secs(5));
    assert_eq!(pair.packets, packets);
    let next = pair.peers[0].engine.deadline();
    // That it expires is all there is to come.
    assert!(
        next.is_none_or(|at| at > pair.now.elapsed + Duration::from_secs(86_400)),
        "{next:?}"
    );
}

#[test]
fn what_came_where_nobody_is_answered_is_acknowledged_over_the_next_link() {
    let mut pair = Pair::new();
    let relays = [1_u8, 2].map(|n| {
        let class = LinkClass::Relayed(StoreId([n; 16]));
        (Generation::nth(1, n.into()), class)
    });
    let [(theirs, at_theirs), (ours, at_ours)] = relays;
    // The first sends, and leaves before the other has a way back.
    pair.bind_as(theirs, at_theirs);
    pair.peers[1]
        .engine
        .peer_reads(theirs, Reads::Never, 0, pair.now);
    pair.send("hello");
    assert!(!pair.delivered() && pair.arrived() == 1);
    assert!(pair.peers[1].engine.owes_a_word());
    pair.take();
    pair.pass(Duration::from_secs(1));
    for peer in &mut pair.peers {
        peer.engine.unbind(theirs, pair.now);
    }
    pair.peers[1].engine.bind(ours, at_ours, 0, pair.now);
    assert!(!pair.peers[1].engine.owes_a_word());
    pair.peers[1]
        .engine
        .peer_reads(ours, Reads::Never, 0, pair.now);
    assert!(
        pair.peers[1].engine.owes_a_word(),
        "it does not lead there after all"
    );
    pair.peers[1]
        .engine
        .peer_reads(ours, Reads::Always, 0, pair.now);
    pair.peers[0].engine.bind(ours, at_ours, 0, pair.now);
    pair.peers[0]
        .engine
        .peer_reads(ours, Reads::Never, 0, pair.now);
    pair.settle();
    assert!(pair.delivered());
}

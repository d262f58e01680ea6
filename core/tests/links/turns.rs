//! When what was heard is acknowledged.

use std::time::Duration;

use outlive_core::Generation;
use outlive_core::limits::ACK_DELAY;

use crate::pair::Pair;

/// How long an app takes to answer.
const AT_ONCE: Duration = Duration::from_micros(300);

/// Two apps take turns, and each answers at once.
fn take_turns(pair: &mut Pair, turns: usize) {
    for turn in 0..turns {
        pair.now.elapsed += AT_ONCE;
        pair.send_from(turn % 2, "and you?");
    }
}

#[test]
fn peers_that_take_turns_acknowledge_with_their_answers() {
    let mut pair = Pair::sealed();
    pair.bind(Generation::nth(1, 1));
    take_turns(&mut pair, 4);
    let before = pair.packets;
    take_turns(&mut pair, 10);
    assert_eq!(pair.packets - before, 10, "a packet a turn");
    pair.now.elapsed += ACK_DELAY;
    for peer in &mut pair.peers {
        assert!(peer.engine.deadline() >= Some(pair.now.elapsed));
        peer.engine.tick(pair.now);
    }
    pair.settle();
    assert_eq!(pair.packets - before, 11, "no answer came to the last");
    assert!(pair.peers.iter().all(|peer| !peer.engine.outstanding()));
}

#[test]
fn what_the_app_does_not_answer_is_acknowledged_at_once() {
    let mut pair = Pair::sealed();
    pair.bind(Generation::nth(1, 1));
    pair.send("first");
    assert!(pair.delivered(), "nothing is known of the app yet");
    take_turns(&mut pair, 4);
    pair.send("the app has taken turns before");
    assert!(!pair.delivered());
    pair.send("two are not kept waiting");
    assert!(pair.delivered());
    pair.send("nor is what follows, as no answer came between them");
    assert!(pair.delivered());

    take_turns(&mut pair, 4);
    pair.send("once more");
    assert!(!pair.delivered());
    let deadline = pair.peers[1].engine.deadline();
    let deadline = deadline.expect("an acknowledgement that waits");
    assert!(deadline <= pair.now.elapsed + ACK_DELAY);
    pair.now.elapsed = deadline;
    pair.peers[1].engine.tick(pair.now);
    pair.settle();
    assert!(pair.delivered(), "no later than its time");
    pair.send("and now it is known that no answer comes");
    assert!(pair.delivered());
}

#[test]
fn what_waits_for_an_answer_is_acknowledged_before_the_process_ends() {
    let mut pair = Pair::sealed();
    pair.bind(Generation::nth(1, 1));
    take_turns(&mut pair, 4);
    pair.send("the last");
    assert!(!pair.delivered());
    pair.peers[1].engine.hasten(pair.now);
    pair.settle();
    assert!(pair.delivered());
}

#[test]
fn an_acknowledgement_that_a_full_link_does_not_take_wakes_nobody_again_and_again() {
    let mut pair = Pair::sealed();
    let link = Generation::nth(1, 1);
    pair.bind(link);
    take_turns(&mut pair, 4);
    pair.peers[1].engine.writable(link, false, pair.now);
    pair.send("to a peer whose transport takes nothing");
    pair.now.elapsed += ACK_DELAY;
    pair.peers[1].engine.tick(pair.now);
    pair.settle();
    assert!(!pair.delivered());
    assert!(pair.peers[1].engine.deadline() > Some(pair.now.elapsed));
    pair.peers[1].engine.writable(link, true, pair.now);
    pair.settle();
    assert!(pair.delivered());
}

use std::time::Duration;

use super::*;
use crate::Identity;
use crate::limits::{CANDIDATES, STEADY_TIME, WITHDRAWN_TIME};
use crate::wire::signal::{Addresses, Answer, Offer};

const THEIR_RUN: u64 = 77;

fn at(seconds: u64) -> Now {
    Now::default().after(Duration::from_secs(seconds))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Manners {
    Polite,
    Impolite,
}

fn negotiator(manners: Manners) -> Negotiator {
    let mut peers = [1, 2].map(|n| Identity::from_seed([n; 32]).peer_id());
    peers.sort();
    if manners == Manners::Impolite {
        peers.reverse();
    }
    let [me, peer] = peers;
    Negotiator::new(
        me,
        peer,
        Round::at_start(1),
        Entropy::from_seed([manners as u8; 32]),
    )
}

fn theirs(round: u64) -> Negotiation {
    Negotiation {
        round: Round(round),
        run: THEIR_RUN,
    }
}

fn offer(round: u64, restarts: Option<ConnectionId>) -> Signal {
    Signal::Offer(Offer {
        negotiation: theirs(round),
        restarts,
        sdp: "theirs".to_owned(),
    })
}

fn answer(negotiation: Negotiation, own: u64) -> Signal {
    Signal::Answer(Answer {
        negotiation,
        own: Round(own),
        run: THEIR_RUN,
        sdp: "theirs".to_owned(),
    })
}

fn drain(negotiator: &mut Negotiator) -> Vec<Output> {
    std::iter::from_fn(|| negotiator.poll()).collect()
}

fn said(outputs: &[Output]) -> Vec<&Signal> {
    let mut said = Vec::new();
    for output in outputs {
        if let Output::Send { signal, .. } = output {
            said.push(signal);
        }
    }
    said
}

/// The offer that is asked for.
fn asked(outputs: &[Output]) -> Option<(Negotiation, bool)> {
    outputs.iter().find_map(|output| match *output {
        Output::CreateOffer {
            negotiation,
            restart,
        } => Some((negotiation, restart)),
        _ => None,
    })
}

/// Wants a connection, and has said its offer.
fn offered(manners: Manners) -> (Negotiator, Negotiation) {
    let mut negotiator = negotiator(manners);
    negotiator.want(at(0));
    let (name, _) = asked(&drain(&mut negotiator)).unwrap();
    negotiator.described(name, "ours".to_owned(), at(0));
    assert!(matches!(
        drain(&mut negotiator)[..],
        [Output::Send {
            signal: Signal::Offer(_),
            ..
        }]
    ));
    (negotiator, name)
}

/// Its offer was answered, and the connection is up.
fn connected() -> (Negotiator, ConnectionId) {
    let (mut negotiator, name) = offered(Manners::Polite);
    negotiator.receive(answer(name, 1), at(1));
    negotiator.up(name, at(1));
    drain(&mut negotiator);
    assert_eq!(negotiator.status(), Status::Up(name));
    let connection = ConnectionId {
        offer: name,
        answered: THEIR_RUN,
    };
    (negotiator, connection)
}

#[test]
fn the_offer_of_the_polite_peer_gives_way() {
    let (mut negotiator, name) = offered(Manners::Polite);
    negotiator.receive(offer(1, None), at(1));
    assert_eq!(
        drain(&mut negotiator),
        [
            Output::Cancel { negotiation: name },
            Output::Rollback,
            Output::ApplyOffer {
                negotiation: theirs(1),
                sdp: "theirs".to_owned()
            }
        ]
    );
    // What comes of the offer that was taken back is not heard.
    negotiator.found(name, "late".to_owned());
    negotiator.described(name, "late".to_owned(), at(1));
    negotiator.failed(name, at(1));
    assert_eq!(drain(&mut negotiator), []);
    negotiator.described(theirs(1), "ours".to_owned(), at(1));
    let outputs = drain(&mut negotiator);
    assert!(matches!(said(&outputs)[..], [Signal::Answer(answer)]
        if answer.negotiation == theirs(1) && answer.own == name.round));
}

#[test]
fn the_other_one_passes_over_what_crosses_its_own() {
    let (mut negotiator, name) = offered(Manners::Impolite);
    negotiator.receive(offer(1, None), at(1));
    negotiator.receive(
        Signal::Candidate(Candidate {
            negotiation: theirs(1),
            run: THEIR_RUN,
            candidate: "of what was passed over".to_owned(),
        }),
        at(1),
    );
    assert_eq!(drain(&mut negotiator), []);
    assert_eq!(negotiator.status(), Status::Negotiating(name));
}

#[test]
fn a_new_connection_goes_before_a_restart_whoever_is_polite() {
    let (mut negotiator, _) = connected();
    negotiator.polite = false;
    negotiator.restart(at(20));
    let (restart, true) = asked(&drain(&mut negotiator)).unwrap() else {
        panic!("no restart");
    };
    negotiator.receive(offer(2, None), at(20));
    assert_eq!(
        drain(&mut negotiator)[..2],
        [
            Output::Cancel {
                negotiation: restart
            },
            Output::Reset
        ]
    );
}

#[test]
fn candidates_wait_for_the_answer_and_are_bounded() {
    let (mut negotiator, name) = offered(Manners::Polite);
    for n in 0..2 * CANDIDATES {
        let signal = Signal::Candidate(Candidate {
            negotiation: name,
            run: if n == 0 { 1 } else { THEIR_RUN },
            candidate: n.to_string(),
        });
        negotiator.receive(signal, at(1));
    }
    assert_eq!(drain(&mut negotiator), []);
    negotiator.receive(answer(name, 1), at(1));
    let outputs = drain(&mut negotiator);
    assert!(matches!(outputs[0], Output::ApplyAnswer { .. }));
    // The first was found by a peer that did not make this answer.
    assert_eq!(outputs.len(), CANDIDATES);
    assert!(matches!(&outputs[1], Output::AddCandidate { candidate, .. } if candidate == "1"));
}

#[test]
fn our_candidates_wait_for_our_description() {
    let mut negotiator = negotiator(Manners::Polite);
    negotiator.want(at(0));
    let (name, _) = asked(&drain(&mut negotiator)).unwrap();
    negotiator.found(name, "early".to_owned());
    assert_eq!(drain(&mut negotiator), []);
    negotiator.described(name, "ours".to_owned(), at(0));
    negotiator.found(name, String::new());
    let outputs = drain(&mut negotiator);
    assert!(matches!(
        said(&outputs)[..],
        [Signal::Offer(_), Signal::Candidate(first), Signal::Candidate(last)]
            if first.candidate == "early" && last.candidate.is_empty()
    ));
}

#[test]
fn a_restart_that_does_not_come_up_ends_in_a_new_connection() {
    let (mut negotiator, connection) = connected();
    negotiator.down(connection.offer, at(20));
    let (restart, true) = asked(&drain(&mut negotiator)).unwrap() else {
        panic!("no restart");
    };
    negotiator.described(restart, "ours".to_owned(), at(20));
    let outputs = drain(&mut negotiator);
    assert!(matches!(said(&outputs)[..], [Signal::Offer(offer)]
        if offer.restarts == Some(connection)));
    negotiator.receive(answer(restart, 1), at(21));
    assert_eq!(negotiator.status(), Status::Connecting(restart));
    drain(&mut negotiator);
    let deadline = negotiator.deadline().unwrap();
    assert_eq!(deadline, at(20).elapsed + ICE_RESTART_TIME);
    negotiator.tick(at(20 + ICE_RESTART_TIME.as_secs()));
    let outputs = drain(&mut negotiator);
    assert!(outputs.contains(&Output::Reset));
    let (again, false) = asked(&outputs).unwrap() else {
        panic!("another restart");
    };
    assert!(again.round.is_after(restart.round));
}

#[test]
fn a_connection_that_falls_silent_is_restarted_while_it_is_wanted() {
    let (mut negotiator, connection) = connected();
    negotiator.allow();
    negotiator.silent(connection.offer, at(20));
    assert_eq!(drain(&mut negotiator), []);
    negotiator.want(at(20));
    negotiator.silent(theirs(9), at(20));
    assert_eq!(drain(&mut negotiator), []);
    negotiator.silent(connection.offer, at(20));
    let (restart, true) = asked(&drain(&mut negotiator)).unwrap() else {
        panic!("no restart");
    };
    // One at a time.
    negotiator.described(restart, "ours".to_owned(), at(20));
    drain(&mut negotiator);
    negotiator.silent(restart, at(21));
    assert_eq!(drain(&mut negotiator), []);
    negotiator.receive(answer(restart, 1), at(21));
    negotiator.silent(restart, at(22));
    negotiator.up(restart, at(22));
    assert_eq!(negotiator.status(), Status::Up(restart));
}

#[test]
fn a_restart_of_a_connection_that_is_not_there_is_declined() {
    let mut negotiator = negotiator(Manners::Polite);
    let unknown = ConnectionId {
        offer: theirs(1),
        answered: 5,
    };
    negotiator.receive(offer(2, Some(unknown)), at(0));
    let outputs = drain(&mut negotiator);
    assert!(matches!(said(&outputs)[..], [Signal::Decline(decline)]
        if decline.negotiation == theirs(2)));
}

#[test]
fn a_peer_that_counts_from_the_beginning_again_is_told_where_to_go_on() {
    let mut ahead = negotiator(Manners::Impolite);
    ahead.receive(offer(57 << 32, None), at(0));
    drain(&mut ahead);
    // It lost its store, and counts from its first start on.
    let (mut lost, first) = offered(Manners::Polite);
    let signal = Signal::Offer(Offer {
        negotiation: first,
        restarts: None,
        sdp: "ours".to_owned(),
    });
    ahead.receive(signal, at(1));
    let outputs = drain(&mut ahead);
    let [decline @ Signal::Decline(_)] = said(&outputs)[..] else {
        panic!("{outputs:?}");
    };
    lost.receive(decline.clone(), at(2));
    let outputs = drain(&mut lost);
    let (second, false) = asked(&outputs).unwrap() else {
        panic!("a restart");
    };
    assert!(second.round.is_after(Round(57 << 32)));
    // Come again, it says nothing any more.
    lost.receive(decline.clone(), at(3));
    assert_eq!(drain(&mut lost), []);
}

#[test]
fn an_answer_to_a_past_that_was_lost_tells_that_it_was() {
    let (mut negotiator, _) = connected();
    let past = Negotiation {
        round: Round(57 << 32),
        run: 5,
    };
    negotiator.receive(answer(past, 1), at(20));
    let outputs = drain(&mut negotiator);
    assert!(outputs.contains(&Output::Reset));
    let (again, _) = asked(&outputs).unwrap();
    assert!(again.round.is_after(past.round));
}

#[test]
fn failures_are_followed_by_growing_waits_but_for_the_first() {
    let (mut negotiator, mut name) = offered(Manners::Polite);
    let mut now = at(0);
    let mut waits = Vec::new();
    for _ in 0..10 {
        negotiator.failed(name, now);
        if negotiator.status() == Status::Waiting {
            let until = negotiator.deadline().unwrap();
            waits.push(until - now.elapsed);
            now.elapsed = until;
            negotiator.tick(now);
        } else {
            waits.push(Duration::ZERO);
        }
        name = asked(&drain(&mut negotiator)).unwrap().0;
    }
    assert_eq!(waits[0], Duration::ZERO);
    assert!(waits[1] >= Duration::from_millis(500));
    assert!(waits[9] > waits[1] * 50, "{waits:?}");
}

#[test]
fn nobody_hears_of_direct_links_that_are_forbidden_before_they_ask() {
    let mut negotiator = negotiator(Manners::Polite);
    negotiator.forbid();
    assert_eq!(drain(&mut negotiator), []);
    negotiator.receive(offer(1, None), at(0));
    let outputs = drain(&mut negotiator);
    assert!(matches!(said(&outputs)[..], [Signal::Withdraw(withdraw)]
        if withdraw.declines == Some(theirs(1))));
    assert_eq!(outputs.len(), 1);
}

#[test]
fn a_peer_that_wants_no_offers_is_left_alone_until_it_makes_one() {
    let (mut negotiator, name) = offered(Manners::Polite);
    let withdraw = Signal::Withdraw(Withdraw {
        round: Round(1),
        declines: Some(name),
    });
    negotiator.receive(withdraw, at(1));
    assert!(drain(&mut negotiator).contains(&Output::Reset));
    negotiator.wake(at(2));
    negotiator.restart(at(2));
    assert_eq!(drain(&mut negotiator), []);
    assert_eq!(negotiator.deadline(), Some(at(1).elapsed + WITHDRAWN_TIME));
    negotiator.receive(offer(2, None), at(3));
    assert!(matches!(
        drain(&mut negotiator)[..],
        [Output::ApplyOffer { .. }]
    ));
}

#[test]
fn addresses_are_no_concern_of_a_negotiation() {
    let mut negotiator = negotiator(Manners::Polite);
    negotiator.receive(
        Signal::Addresses(Addresses {
            round: Round(1),
            heard: None,
            addresses: Vec::new(),
            reply: true,
        }),
        at(0),
    );
    assert_eq!(drain(&mut negotiator), []);
}

#[test]
fn a_peer_that_answers_again_in_another_run_has_lost_its_connection() {
    let (mut negotiator, connection) = connected();
    negotiator.receive(answer(connection.offer, 1), at(20));
    assert_eq!(drain(&mut negotiator), []);
    let again = Signal::Answer(Answer {
        negotiation: connection.offer,
        own: Round(1),
        run: THEIR_RUN + 1,
        sdp: "theirs".to_owned(),
    });
    negotiator.receive(again, at(20));
    let outputs = drain(&mut negotiator);
    assert!(outputs.contains(&Output::Reset));
    assert!(matches!(asked(&outputs), Some((_, false))));
}

#[test]
fn a_restart_of_what_we_answered_before_we_started_anew_is_declined() {
    let mut negotiator = negotiator(Manners::Polite);
    // The offer came again after the start, and was answered again.
    negotiator.receive(offer(1, None), at(0));
    negotiator.described(theirs(1), "ours".to_owned(), at(0));
    drain(&mut negotiator);
    let ours = ConnectionId {
        offer: theirs(1),
        answered: negotiator.run,
    };
    let before = ConnectionId {
        answered: ours.answered.wrapping_add(1),
        ..ours
    };
    negotiator.receive(offer(2, Some(before)), at(1));
    let outputs = drain(&mut negotiator);
    assert!(matches!(said(&outputs)[..], [Signal::Decline(_)]));
    negotiator.receive(offer(3, Some(ours)), at(1));
    let outputs = drain(&mut negotiator);
    assert!(matches!(outputs.last(), Some(Output::ApplyOffer { .. })));
}

#[test]
fn a_connection_that_was_up_for_long_is_no_failure_when_it_ends() {
    for _ in 0..3 {
        let (mut negotiator, connection) = connected();
        // Some came to nothing before it.
        for _ in 0..5 {
            negotiator.backoff.failed(&mut negotiator.entropy);
        }
        let end = at(1 + STEADY_TIME.as_secs());
        negotiator.failed(connection.offer, end);
        let begun = asked(&drain(&mut negotiator));
        assert!(begun.is_some_and(|(_, restart)| !restart), "{begun:?}");
    }
}

#[test]
fn what_is_waited_for_is_not_forgotten_while_no_connection_is_wanted() {
    // The peer wants no offers.
    let (mut negotiator, name) = offered(Manners::Polite);
    negotiator.receive(
        Signal::Withdraw(Withdraw {
            round: Round(1),
            declines: Some(name),
        }),
        at(1),
    );
    drain(&mut negotiator);
    negotiator.allow();
    assert_eq!(negotiator.deadline(), None);
    negotiator.want(at(2));
    assert_eq!(asked(&drain(&mut negotiator)), None);
    let until = at(1).elapsed + WITHDRAWN_TIME;
    assert_eq!(negotiator.deadline(), Some(until));

    // Nothing comes of it.
    let (mut negotiator, name) = offered(Manners::Polite);
    negotiator.failed(name, at(1));
    let (name, _) = asked(&drain(&mut negotiator)).expect("the second is at once");
    negotiator.failed(name, at(2));
    let until = negotiator.deadline().expect("the third is later");
    drain(&mut negotiator);
    negotiator.allow();
    negotiator.tick(at(100));
    assert_eq!(drain(&mut negotiator), [], "nothing is wanted");
    assert_eq!(negotiator.deadline(), None);
    negotiator.want(at(2));
    assert_eq!(
        (drain(&mut negotiator), negotiator.deadline()),
        (vec![], Some(until))
    );
    // But it may work when the network changes meanwhile.
    negotiator.allow();
    negotiator.restart(at(2));
    assert_eq!(drain(&mut negotiator), [], "nothing is wanted");
    negotiator.want(at(2));
    assert!(negotiator.deadline() <= Some(at(2).elapsed));
    negotiator.tick(at(2));
    assert!(asked(&drain(&mut negotiator)).is_some());
}

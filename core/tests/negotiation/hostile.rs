//! A peer that says anything at all: nothing panics, nothing grows, and when it comes to its senses,
//! both still find each other.

use outlive_core::limits::{CANDIDATE_BYTES, CANDIDATES};
use outlive_core::wire::signal::{
    Answer, Candidate, ConnectionId, Decline, Offer, Signal, Withdraw,
};
use outlive_core::{Negotiation, Round};
use proptest::prelude::*;

use crate::world::{Act, Fault, World, both};

/// What a negotiator may hold of a peer's: held candidates, and those that came early, written out.
const WEIGHT: usize = 3 * CANDIDATES * (CANDIDATE_BYTES + 64) + 4_096;

/// What a name or a round is to be like.
#[derive(Clone, Copy, Debug)]
enum Like {
    /// The one that is going on.
    Present,
    /// The one of a round far from or near to that, in the present run of whoever.
    Off(u64),
    /// Any.
    Any(u64, u64),
}

#[derive(Clone, Debug)]
enum Forgery {
    Offer(Like, Option<(Like, u64)>, String),
    Answer(Like, Like, u64, String),
    Candidate(Like, bool, String),
    Decline(Like, Like),
    Withdraw(Like, Option<Like>),
    Bytes(Vec<u8>),
    Honest(Act),
}

fn like() -> impl Strategy<Value = Like> {
    prop_oneof![
        3 => Just(Like::Present),
        3 => prop_oneof![0..4_u64, u64::MAX - 4..=u64::MAX, Just(1 << 63), Just((1 << 63) - 1)]
            .prop_map(Like::Off),
        1 => any::<(u64, u64)>().prop_map(|(round, run)| Like::Any(round, run)),
    ]
}

fn sdp() -> impl Strategy<Value = String> {
    prop_oneof![
        "[0-9]{1,2} [0-9]{1,2} [0-9]{1,2}",
        Just(String::new()),
        Just("v".repeat(20_000)),
    ]
}

fn candidate() -> impl Strategy<Value = String> {
    prop_oneof![
        "[0-9]{1,2}",
        Just(String::new()),
        Just("c".repeat(CANDIDATE_BYTES)),
        Just("c".repeat(CANDIDATE_BYTES + 1)),
    ]
}

fn forgery() -> impl Strategy<Value = Forgery> {
    let connection = || proptest::option::of((like(), any::<u64>()));
    prop_oneof![
        1 => (like(), connection(), sdp()).prop_map(|(a, b, c)| Forgery::Offer(a, b, c)),
        1 => (like(), like(), any::<u64>(), sdp()).prop_map(|(a, b, c, d)| Forgery::Answer(a, b, c, d)),
        4 => (like(), any::<bool>(), candidate())
            .prop_map(|(a, b, c)| Forgery::Candidate(a, b, c)),
        1 => (like(), like()).prop_map(|(a, b)| Forgery::Decline(a, b)),
        1 => (like(), proptest::option::of(like())).prop_map(|(a, b)| Forgery::Withdraw(a, b)),
        1 => proptest::collection::vec(any::<u8>(), 0..80).prop_map(Forgery::Bytes),
        8 => (0..2_usize, any::<bool>()).prop_map(|(at, work)| Forgery::Honest(if work {
            Act::Work(at)
        } else {
            Act::Deliver(at)
        })),
        1 => Just(Forgery::Honest(Act::Up)),
        1 => Just(Forgery::Honest(Act::Wait(0))),
    ]
}

fn name(world: &World, like: Like) -> Negotiation {
    let present = world.name(0).unwrap_or(Negotiation {
        round: Round(0),
        run: 1,
    });
    match like {
        Like::Present => present,
        Like::Off(by) => Negotiation {
            round: Round(present.round.0.wrapping_add(by)),
            // Not the run of the one who hears it, nor of the honest peer.
            run: 7,
        },
        Like::Any(round, run) => Negotiation {
            round: Round(round),
            run,
        },
    }
}

fn make(world: &World, forgery: &Forgery) -> Option<Signal> {
    let name = |like: &Like| name(world, *like);
    Some(match forgery {
        Forgery::Offer(negotiation, restarts, sdp) => Signal::Offer(Offer {
            negotiation: name(negotiation),
            restarts: restarts.map(|(offer, answered)| ConnectionId {
                offer: name(&offer),
                answered,
            }),
            sdp: sdp.clone(),
        }),
        Forgery::Answer(negotiation, own, run, sdp) => Signal::Answer(Answer {
            negotiation: name(negotiation),
            own: name(own).round,
            run: *run,
            sdp: sdp.clone(),
        }),
        Forgery::Candidate(negotiation, right, candidate) => {
            let negotiation = name(negotiation);
            Signal::Candidate(Candidate {
                negotiation,
                run: if *right { negotiation.run } else { 3 },
                candidate: candidate.clone(),
            })
        }
        Forgery::Decline(negotiation, above) => Signal::Decline(Decline {
            negotiation: name(negotiation),
            above: name(above).round,
        }),
        Forgery::Withdraw(round, declines) => Signal::Withdraw(Withdraw {
            round: name(round).round,
            declines: declines.as_ref().map(name),
        }),
        Forgery::Bytes(bytes) => {
            let bytes = [&[1], &bytes[..]].concat();
            return Signal::decode(&bytes).ok().flatten();
        }
        Forgery::Honest(_) => return None,
    })
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 2_000,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn a_hostile_peer_wedges_nothing_and_makes_nothing_grow(
        forgeries in proptest::collection::vec(forgery(), 0..120),
        beginning in 0..3_usize,
    ) {
        let mut world = World::new(None);
        world.want(0);
        if beginning > 0 {
            world.want(1);
        }
        if beginning > 1 {
            world.settle();
        }
        for forgery in &forgeries {
            if let Forgery::Honest(act) = forgery {
                world.act(*act);
            } else if let Some(signal) = make(&world, forgery) {
                world.forge(0, signal);
            }
            prop_assert!(world.weight(0) < WEIGHT, "{} bytes", world.weight(0));
        }
        world.want(0);
        world.want(1);
        world.settle();
        prop_assert_eq!(&world.faults, &Vec::<Fault>::new());
        prop_assert!(world.is_up());
    }
}

#[test]
fn candidates_without_end_are_let_go_of() {
    let flood = |world: &mut World, negotiation: Negotiation| {
        for _ in 0..10 * CANDIDATES {
            let signal = Signal::Candidate(Candidate {
                negotiation,
                run: negotiation.run,
                candidate: "c".repeat(CANDIDATE_BYTES),
            });
            world.forge(0, signal);
        }
    };
    let mut world = World::new(None);
    world.want(0);
    for act in both(Act::Work) {
        world.act(act);
    }
    for round in 0..100 {
        // Held for an answer, and for offers that never come.
        let pending = world.name(0).expect("an offer is pending");
        flood(&mut world, pending);
        let never = Negotiation {
            round: Round(1 << 40 | round),
            run: 5,
        };
        flood(&mut world, never);
        assert!(world.weight(0) < WEIGHT, "{} bytes", world.weight(0));
    }
    assert!(
        world.weight(0) > CANDIDATES * CANDIDATE_BYTES,
        "nothing is held"
    );
}

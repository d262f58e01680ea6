//! Long stories of everything that can happen, drawn at random.

use proptest::prelude::*;

use crate::world::{Act, Fault, World};

/// Something happens, or somebody changes their mind.
#[derive(Clone, Copy, Debug)]
enum Step {
    Act(Act),
    Want(usize),
    Allow(usize),
    Forbid(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let who = || 0..2_usize;
    let act = |act: fn(usize) -> Act| who().prop_map(move |at| Step::Act(act(at)));
    prop_oneof![
        16 => act(Act::Deliver),
        16 => act(Act::Work),
        4 => Just(Step::Act(Act::Up)),
        2 => act(Act::Restart),
        1 => act(Act::Wait),
        1 => act(Act::Expire),
        1 => act(Act::Delay),
        2 => act(Act::Late),
        1 => act(Act::Fail),
        1 => act(Act::Crash),
        1 => act(Act::Lose),
        1 => act(Act::Silent),
        1 => Just(Step::Act(Act::Down)),
        2 => who().prop_map(Step::Want),
        1 => who().prop_map(Step::Allow),
        1 => who().prop_map(Step::Forbid),
    ]
}

fn play(steps: &[Step], cancels: bool, hang: bool) -> World {
    let mut world = World::new(None);
    world.cancels = cancels;
    world.restarts_hang = hang;
    for step in steps {
        match *step {
            Step::Act(act) => world.act(act),
            Step::Want(at) => world.want(at),
            Step::Allow(at) => world.allow(at),
            Step::Forbid(at) => world.forbid(at),
        }
    }
    world
}

fn config() -> ProptestConfig {
    ProptestConfig {
        cases: std::env::var("PROPTEST_CASES")
            .ok()
            .and_then(|cases| cases.parse().ok())
            .unwrap_or(2_000),
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn after_a_long_story_both_end_in_the_same_negotiation(
        steps in proptest::collection::vec(step(), 0..200),
        cancels: bool,
        hang: bool,
    ) {
        let mut world = play(&steps, cancels, hang);
        world.want(0);
        world.want(1);
        world.settle();
        prop_assert_eq!(&world.faults, &Vec::<Fault>::new());
        prop_assert!(world.is_up());
    }

    #[test]
    fn whoever_forbids_has_no_connection_in_the_end_and_the_other_leaves_off(
        steps in proptest::collection::vec(step(), 0..100),
        who in 0..2_usize,
    ) {
        let mut world = play(&steps, false, false);
        world.want(1 - who);
        world.forbid(who);
        world.settle();
        prop_assert_eq!(&world.faults, &Vec::<Fault>::new());
        prop_assert!(world.is_off());
    }
}

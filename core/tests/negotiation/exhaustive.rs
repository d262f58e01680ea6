//! All that can happen in a few steps, one by one.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};

use outlive_core::negotiator::Rule;

use crate::world::{Act, Fault, World, both};

/// What happens anyway. Everything else is a mishap.
const fn is_mishap(act: Act) -> bool {
    match act {
        Act::Deliver(_) | Act::Work(_) | Act::Up => false,
        Act::Fail(_)
        | Act::Expire(_)
        | Act::Delay(_)
        | Act::Wait(_)
        | Act::Restart(_)
        | Act::Silent(_)
        | Act::Down
        | Act::Crash(_)
        | Act::Lose(_)
        | Act::Late(_) => true,
    }
}

fn acts() -> Vec<Act> {
    let pairs = [
        Act::Deliver,
        Act::Work,
        Act::Expire,
        Act::Delay,
        Act::Wait,
        Act::Restart,
        Act::Crash,
        Act::Lose,
        Act::Late,
        Act::Fail,
    ];
    let mut acts: Vec<_> = pairs.into_iter().flat_map(both).collect();
    acts.extend([Act::Up, Act::Down]);
    acts
}

/// Goes through all stories of at most `steps` steps with at most `mishaps` mishaps.
struct Search {
    seen: HashSet<(u64, usize, usize)>,
    acts: Vec<Act>,
    path: Vec<Act>,
    fault: Option<(Vec<Act>, Fault)>,
}

impl Search {
    fn all(worlds: &[World], steps: usize, mishaps: usize) -> Self {
        let mut search = Self {
            seen: HashSet::new(),
            acts: acts(),
            path: Vec::new(),
            fault: None,
        };
        for world in worlds {
            search.visit(world, steps, mishaps);
        }
        search
    }

    fn visit(&mut self, world: &World, steps: usize, mishaps: usize) {
        if self.fault.is_some() {
            return;
        }
        let mut hasher = DefaultHasher::new();
        format!("{world:?}").hash(&mut hasher);
        if !self.seen.insert((hasher.finish(), steps, mishaps)) {
            return;
        }
        let mut end = world.clone();
        end.settle();
        if let Some(fault) = end.faults.first() {
            self.fault = Some((self.path.clone(), *fault));
            return;
        }
        let Some(steps) = steps.checked_sub(1) else {
            return;
        };
        for act in self.acts.clone() {
            let Some(mishaps) = mishaps.checked_sub(usize::from(is_mishap(act))) else {
                continue;
            };
            if world.possible(act) {
                let mut next = world.clone();
                next.act(act);
                self.path.push(act);
                self.visit(&next, steps, mishaps);
                self.path.pop();
            }
        }
    }
}

/// Both want, one wants, both are connected; with signals that can be taken back, and ones that
/// can't.
fn beginnings(broken: Option<Rule>) -> Vec<World> {
    let mut worlds = Vec::new();
    for cancels in [false, true] {
        let mut world = World::new(broken);
        world.cancels = cancels;
        let mut one = world.clone();
        one.want(0);
        let mut other = world.clone();
        other.want(1);
        world.want(0);
        world.want(1);
        let mut connected = world.clone();
        connected.settle();
        let mut hanging = connected.clone();
        hanging.restarts_hang = true;
        worlds.extend([world, one, other, connected, hanging]);
    }
    worlds
}

fn number(name: &str) -> Option<usize> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn whatever_happens_in_a_few_steps_both_end_in_the_same_negotiation() {
    let steps = number("OUTLIVE_NEGOTIATION_STEPS").unwrap_or(8);
    let mishaps = number("OUTLIVE_NEGOTIATION_MISHAPS").unwrap_or(2);
    let search = Search::all(&beginnings(None), steps, mishaps);
    println!("{} situations", search.seen.len());
    assert_eq!(search.fault, None);
}

#[test]
fn each_broken_rule_is_caught() {
    let rules = [
        Rule::TakeBack,
        Rule::Politeness,
        Rule::Generations,
        Rule::AnswersMatch,
        Rule::HoldCandidates,
        Rule::CandidatesMatch,
        Rule::NewAfterRestart,
        Rule::Decline,
    ];
    for rule in rules {
        let caught = (1..=10).find_map(|steps| {
            let search = Search::all(&beginnings(Some(rule)), steps, 2);
            search.fault
        });
        let (path, fault) = caught.unwrap_or_else(|| panic!("nobody notices that {rule:?} is off"));
        println!("{rule:?} off: {path:?} shows {fault:?}");
    }
}

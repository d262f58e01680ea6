//! Stories of stores that are lost or restored, clocks that go back, and packets that are dropped or
//! held back: in the end the two hear each other again, and seal under shared keys.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use outlive_core::WallTime;
use outlive_core::link::LinkClass;
use outlive_core::seal::KIND_SEALED;

use crate::peer::Disk;
use crate::world::{ALICE, BOB, Seen, World};

/// `OUTLIVE_STORY=S` plays one of them, `OUTLIVE_STORIES=N` plays N.
const STORIES: u64 = 200;

const DAY: u64 = 24 * 3_600;

struct Random(u64);

impl Random {
    /// SplitMix64.
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }
}

#[derive(Clone, Copy, Debug)]
enum Act {
    Restart,
    Snapshot,
    Restore,
    Lose,
    ClockBack(u64),
    ClockOn(u64),
    Send,
    Drop,
    Deliver,
    Settle,
    HoldBack,
    LetGo,
}

impl Act {
    fn any(random: &mut Random) -> Self {
        match random.below(13) {
            0 => Self::Restart,
            1 => Self::Snapshot,
            2 => Self::Restore,
            3 => Self::Lose,
            4 => Self::ClockBack(1 + random.below(40) * DAY),
            5 => Self::ClockOn(random.below(80) * DAY),
            6 | 7 => Self::Send,
            8 => Self::Drop,
            9 => Self::Deliver,
            10 => Self::Settle,
            11 => Self::HoldBack,
            _ => Self::LetGo,
        }
    }
}

fn restart(world: &mut World, who: usize) {
    world.crash(who);
    world.start(who);
    world.bind(who);
}

struct Story {
    world: World,
    snapshots: [Vec<Disk>; 2],
    held: Vec<Seen>,
}

impl Story {
    fn act(&mut self, act: Act, who: usize, random: &mut Random) {
        let world = &mut self.world;
        world.now.elapsed += Duration::from_millis(10);
        world.now.wall = world.now.wall.plus(Duration::from_millis(10));
        match act {
            Act::Restart => restart(world, who),
            Act::Snapshot => self.snapshots[who].push(world.peers[who].disk.clone()),
            Act::Restore => {
                let which = random.below(3) as usize;
                if let Some(disk) = self.snapshots[who].get(which) {
                    world.peers[who].disk.clone_from(disk);
                    restart(world, who);
                }
            }
            Act::Lose => {
                world.peers[who].disk.clear();
                restart(world, who);
            }
            Act::ClockBack(time) => {
                world.now.wall = WallTime(world.now.wall.0 - time * 1_000);
                restart(world, who);
            }
            Act::ClockOn(time) => {
                world.now.wall = world.now.wall.plus(Duration::from_secs(time));
            }
            Act::Send => {
                world.send(who, "between");
                world.flush_all(who);
            }
            Act::Drop => world.wire.clear(),
            Act::Deliver => {
                for seen in std::mem::take(&mut world.wire) {
                    world.deliver(seen.to, seen.packet);
                }
                world.flush_all(ALICE);
                world.flush_all(BOB);
            }
            Act::Settle => world.settle(),
            Act::HoldBack => self.held.extend(world.wire.drain(..)),
            Act::LetGo => {
                for seen in std::mem::take(&mut self.held) {
                    world.deliver(seen.to, seen.packet);
                }
            }
        }
    }

    /// Everything works again.
    fn end(&mut self) -> Result<(), String> {
        let world = &mut self.world;
        world.send(ALICE, "from alice");
        world.send(BOB, "from bob");
        let settled = catch_unwind(AssertUnwindSafe(|| {
            world.settle();
            for _ in 0..40 {
                // Links that were given up come again.
                world.bind(ALICE);
                world.bind(BOB);
                world.pass(Duration::from_secs(60));
            }
        }));
        if settled.is_err() {
            return Err("the wire does not fall silent".to_owned());
        }
        for (who, text) in [(ALICE, "from bob"), (BOB, "from alice")] {
            let heard = world.heard[who].iter();
            if !heard
                .clone()
                .any(|of| of.trim_start_matches("again: ") == text)
            {
                return Err(format!("{who} does not hear the other"));
            }
            if world.peers[who].outstanding() {
                return Err(format!("{who} hears of no delivery"));
            }
        }
        let before = world.seen.len();
        world.send(ALICE, "more");
        world.send(BOB, "more");
        world.settle();
        let kinds = world.kinds(before);
        if kinds.iter().any(|kind| *kind != KIND_SEALED) {
            return Err(format!("not all is under shared keys: {kinds:?}"));
        }
        Ok(())
    }
}

fn play(seed: u64) -> Result<(), String> {
    let mut random = Random(seed);
    let class = match random.below(3) {
        0 => LinkClass::Direct,
        _ => World::relayed_class(),
    };
    let mut world = match random.below(4) {
        0 => World::new(class),
        _ => World::acquainted(class),
    };
    world.bind(ALICE);
    world.bind(BOB);
    let mut story = Story {
        world,
        snapshots: [Vec::new(), Vec::new()],
        held: Vec::new(),
    };
    let mut told = vec![format!("{class:?}")];
    for _ in 0..4 + random.below(14) {
        let who = random.below(2) as usize;
        let act = Act::any(&mut random);
        told.push(format!("{act:?} {who}"));
        story.act(act, who, &mut random);
    }
    story.end().map_err(|fault| format!("{fault}: {told:?}"))
}

#[test]
fn whatever_went_back_the_two_come_to_shared_keys_again() {
    let number = |name: &str| std::env::var(name).ok().and_then(|n| n.parse::<u64>().ok());
    let seeds = match number("OUTLIVE_STORY") {
        Some(seed) => seed..seed + 1,
        None => 0..number("OUTLIVE_STORIES").unwrap_or(STORIES),
    };
    let failed: Vec<_> = seeds
        .filter_map(|seed| {
            play(seed)
                .err()
                .map(|fault| format!("story {seed}: {fault}"))
        })
        .collect();
    assert!(failed.is_empty(), "{failed:#?}");
}

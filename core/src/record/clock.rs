//! Where a store's own clock stood, with what other clocks showed beside it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Record;
use crate::{StoreTime, WallTime};

/// Where a store's own clock stood at some moment: enough to know where it stands at any later one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockRecord {
    /// Where it stood.
    pub store: StoreTime,
    /// What the other clocks showed.
    pub machine: MachineTime,
}

/// What the clocks of a machine show.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineTime {
    /// The wall clock.
    pub wall: WallTime,
    /// How long the machine has been up, asleep or not. Counts from wherever it likes if it is not known
    /// which boot it counts from.
    pub up: Duration,
    /// The boot that it counts from, if that is known: of the same one it can be told what has passed,
    /// whatever the wall clock was set to meanwhile.
    pub boot: Option<BootId>,
}

/// One run of a machine, from its boot on. No other has the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootId(pub [u8; 16]);

impl ClockRecord {
    /// The clock of a store that had none: set by the wall clock, this once.
    #[must_use]
    pub const fn first(machine: MachineTime) -> Self {
        Self {
            store: StoreTime(machine.wall.0),
            machine,
        }
    }

    /// Where the clock stands now. Never before where it stood: after a boot only the wall clock can tell
    /// what has passed, and what it can't tell did not pass.
    #[must_use]
    pub fn at(&self, machine: MachineTime) -> Self {
        let then = self.machine;
        let same_boot = then.boot.filter(|_| then.boot == machine.boot);
        let passed = same_boot
            .and_then(|_| machine.up.checked_sub(then.up))
            .unwrap_or_else(|| then.wall.until(machine.wall));
        Self {
            store: self.store.plus(passed),
            machine,
        }
    }
}

impl Record for ClockRecord {
    const WHAT: &'static str = "the record of the store's own clock";
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    fn shows(boot: Option<u8>, wall: u64, up: Duration) -> MachineTime {
        MachineTime {
            wall: WallTime(wall),
            up,
            boot: boot.map(|boot| BootId([boot; 16])),
        }
    }

    const NOW: u64 = 1_800_000_000_000;

    #[test]
    fn it_is_set_by_the_wall_clock_once() {
        let first = ClockRecord::first(shows(Some(1), NOW, DAY));
        assert_eq!(first.store, StoreTime(NOW));
    }

    #[test]
    fn as_long_as_the_machine_is_up_the_wall_clock_may_be_set_to_anything() {
        let first = ClockRecord::first(shows(Some(1), NOW, DAY));
        for wall in [0, NOW - 1, NOW, NOW * 2, u64::MAX] {
            let later = first.at(shows(Some(1), wall, DAY * 3));
            assert_eq!(later.store, StoreTime(NOW).plus(DAY * 2), "{wall}");
        }
    }

    #[test]
    fn after_a_boot_the_wall_clock_tells_what_has_passed_unless_it_went_back() {
        let first = ClockRecord::first(shows(Some(1), NOW, DAY));
        let later = WallTime(NOW).plus(DAY * 5);
        let booted = first.at(shows(Some(2), later.0, Duration::from_secs(9)));
        assert_eq!(booted.store, StoreTime(NOW).plus(DAY * 5));
        let booted = first.at(shows(Some(2), later.0, DAY * 3));
        assert_eq!(booted.store, StoreTime(NOW).plus(DAY * 5));
        // A machine without a clock of its own begins in 1970, until the network tells.
        let booted = first.at(shows(Some(2), 5, Duration::from_secs(9)));
        assert_eq!(booted.store, first.store);
        let told = booted.at(shows(Some(2), NOW * 2, Duration::from_secs(19)));
        assert_eq!(told.store, first.store.plus(Duration::from_secs(10)));
    }

    #[test]
    fn where_boots_can_not_be_told_apart_the_wall_clock_counts() {
        let first = ClockRecord::first(shows(None, NOW, DAY));
        let later = WallTime(NOW).plus(DAY * 5);
        let again = first.at(shows(None, later.0, DAY * 2));
        assert_eq!(again.store, StoreTime(NOW).plus(DAY * 5));
    }

    #[test]
    fn a_boot_that_seems_to_be_shorter_than_it_was_is_counted_by_the_wall_clock() {
        // A virtual machine that was set back to a snapshot of it.
        let first = ClockRecord::first(shows(Some(1), NOW, DAY * 2));
        let later = WallTime(NOW).plus(DAY);
        let back = first.at(shows(Some(1), later.0, DAY));
        assert_eq!(back.store, StoreTime(NOW).plus(DAY));
    }
}

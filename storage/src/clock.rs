//! The clock by which what is in a store grows old.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use outlive_core::record::{ClockRecord, MachineTime};
use outlive_core::{StoreTime, WallTime};
use tokio::sync::Notify;

/// The wall clock was set if it is as far as this from where it would be otherwise. Less comes of
/// clocks that are put right by going faster or slower for a while, and matters to nothing that expires.
const SET: u64 = 60_000;

/// As far ahead as no wall clock is.
const NEVER_WRITTEN: i64 = i64::MIN;

/// A store's own clock, which goes by what passes and not by what the wall clock is set to. That takes a
/// record in the store of where it stood: [`record`](Self::record) says what to write when the store is
/// opened, [`unwritten`](Self::unwritten) when it is time to write it anew.
///
/// On Linux and Android it goes by the time since the machine's boot, asleep or not, which outlives a process.
/// Elsewhere it goes by [`Instant`](std::time::Instant) while a process runs, and by the wall clock from
/// one to the next.
///
/// ```
/// use outlive_core::record::{ClockRecord, Record};
/// use outlive_storage::StoreClock;
///
/// let clock = StoreClock::resume(None);
/// let stored = clock.record().to_bytes();
/// // The next time.
/// let clock = StoreClock::resume(Some(ClockRecord::from_bytes(&stored)?));
/// # Ok::<(), outlive_core::record::RecordError>(())
/// ```
#[derive(Debug)]
pub struct StoreClock {
    start: ClockRecord,
    /// How far the wall clock was ahead of the time that the machine is up, in milliseconds, when that
    /// was written down last.
    written: AtomicI64,
    /// That is no longer so.
    outdated: Notify,
}

impl StoreClock {
    /// The clock of a store that has this record of it, or none yet.
    #[must_use]
    pub fn resume(record: Option<ClockRecord>) -> Self {
        let machine = machine_time();
        let start = record.map_or_else(|| ClockRecord::first(machine), |then| then.at(machine));
        Self {
            start,
            written: AtomicI64::new(NEVER_WRITTEN),
            outdated: Notify::new(),
        }
    }

    /// Where it stands, and what the wall clock shows.
    #[must_use]
    pub fn now(&self) -> (StoreTime, WallTime) {
        let record = self.record();
        if self.outdates(&record) {
            self.outdated.notify_one();
        }
        (record.store, record.machine.wall)
    }

    /// What is in the store after it was written.
    #[must_use]
    pub fn record(&self) -> ClockRecord {
        let machine = machine_time();
        // Of one process it is always known what has passed.
        let passed = machine.up.saturating_sub(self.start.machine.up);
        ClockRecord {
            store: self.start.store.plus(passed),
            machine,
        }
    }

    /// What is to be written, if this process has written nothing yet, or the wall clock was set since: the
    /// next boot would take that for time that has passed.
    #[must_use]
    pub fn unwritten(&self) -> Option<ClockRecord> {
        Some(self.record()).filter(|record| self.outdates(record))
    }

    /// Says that this record is in the store.
    pub fn written(&self, record: &ClockRecord) {
        self.written.store(ahead(record.machine), Ordering::Relaxed);
    }

    /// Returns when [`now`](Self::now) has found that there is something [unwritten](Self::unwritten).
    /// Cancellation-safe.
    pub async fn outdated(&self) {
        self.outdated.notified().await;
    }

    fn outdates(&self, record: &ClockRecord) -> bool {
        let written = self.written.load(Ordering::Relaxed);
        ahead(record.machine).abs_diff(written) > SET
    }
}

fn ahead(machine: MachineTime) -> i64 {
    let wall = i64::try_from(machine.wall.0).unwrap_or(i64::MAX);
    let up = i64::try_from(machine.up.as_millis()).unwrap_or(i64::MAX);
    wall.saturating_sub(up)
}

fn machine_time() -> MachineTime {
    let wall = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    MachineTime {
        wall: WallTime(u64::try_from(wall.as_millis()).unwrap_or(u64::MAX)),
        up: boot::up(),
        boot: boot::id(),
    }
}

#[cfg(any(target_os = "linux", target_os = "android"))]
mod boot {
    use std::sync::LazyLock;
    use std::time::Duration;

    use outlive_core::record::BootId;
    use rustix::time::{ClockId, clock_gettime};

    pub(super) fn up() -> Duration {
        let up = clock_gettime(ClockId::Boottime);
        Duration::try_from(up).unwrap_or_default()
    }

    /// None where the file is not to be seen, as in some sandboxes.
    pub(super) fn id() -> Option<BootId> {
        static ID: LazyLock<Option<BootId>> = LazyLock::new(|| {
            let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
            let digits: String = text.trim().split('-').collect();
            let id = u128::from_str_radix(&digits, 16).ok()?;
            Some(BootId(id.to_be_bytes()))
        });
        *ID
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
mod boot {
    use std::sync::LazyLock;
    use std::time::{Duration, Instant};

    use outlive_core::record::BootId;

    pub(super) fn up() -> Duration {
        static START: LazyLock<Instant> = LazyLock::new(Instant::now);
        START.elapsed()
    }

    pub(super) const fn id() -> Option<BootId> {
        None
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const HOUR: Duration = Duration::from_secs(3_600);

    /// Elsewhere the wall clock tells what has passed in between.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    #[test]
    fn it_goes_on_from_one_process_to_the_next_whatever_the_wall_clock_was() {
        let clock = StoreClock::resume(None);
        let (first, wall) = clock.now();
        assert!(first.0.abs_diff(wall.0) < 60_000, "{first:?} {wall:?}");
        let mut record = clock.record();
        // It was written when the wall clock showed 1970.
        record.store = record.store.plus(HOUR);
        record.machine.wall = WallTime(0);
        let again = StoreClock::resume(Some(record));
        let (next, _) = again.now();
        let passed = first.plus(HOUR).until(next);
        assert!(next >= first.plus(HOUR) && passed < HOUR, "{passed:?}");
    }

    #[tokio::test]
    async fn that_the_wall_clock_was_set_is_told_until_it_is_written() {
        let clock = StoreClock::resume(None);
        let is_told = async || {
            let _ = clock.now();
            let told = tokio::select! {
                biased;
                () = clock.outdated() => true,
                () = std::future::ready(()) => false,
            };
            assert_eq!(clock.unwritten().is_some(), told);
            told
        };
        assert!(is_told().await);
        clock.written(&clock.record());
        assert!(!is_told().await);
        let mut before = clock.record();
        before.machine.wall = before.machine.wall.plus(HOUR);
        clock.written(&before);
        assert!(is_told().await && is_told().await);
        before.machine.wall = WallTime(0);
        clock.written(&before);
        assert!(is_told().await);
        clock.written(&clock.record());
        assert!(!is_told().await);
    }
}

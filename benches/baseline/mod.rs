//! How the benchmarks run, and what they say in the end: for each figure how it stands to the
//! baseline that was measured beside it, in the same run.

use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

use criterion::Criterion;

/// What was measured earlier is of an earlier run.
static STARTED: LazyLock<SystemTime> = LazyLock::new(SystemTime::now);

/// Where the measurements are kept, beside what Cargo builds.
fn measurements() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_TARGET_TMPDIR"), "/../criterion"))
}

/// Short runs: all benchmarks together take a few minutes on two cores.
pub(crate) fn criterion() -> Criterion {
    LazyLock::force(&STARTED);
    Criterion::default()
        .output_directory(&measurements())
        .without_plots()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_millis(1_500))
        .configure_from_args()
}

/// A figure and what it is compared with: names of benchmarks in a group.
pub(crate) struct Pair {
    pub(crate) group: &'static str,
    pub(crate) ours: &'static str,
    pub(crate) baseline: &'static str,
}

impl Pair {
    /// Prints, for a parameter of the group, how many times the baseline's median time ours is.
    pub(crate) fn print(&self, parameter: &str) {
        let (Some(ours), Some(baseline)) = (
            self.median(self.ours, parameter),
            self.median(self.baseline, parameter),
        ) else {
            // It was not measured: a filter, or a run that only tests.
            return;
        };
        println!(
            "ratio: {}/{}/{parameter} takes {:.3} times as long as {}/{parameter} (medians {:.1} and {:.1} us)",
            self.group,
            self.ours,
            ours / baseline,
            self.baseline,
            ours / 1e3,
            baseline / 1e3,
        );
    }

    /// In nanoseconds.
    fn median(&self, name: &str, parameter: &str) -> Option<f64> {
        let mut path = measurements();
        path.extend([self.group, name, parameter, "new", "estimates.json"]);
        let measured = std::fs::metadata(&path).ok()?.modified().ok()?;
        if measured < *STARTED {
            return None;
        }
        let estimates: serde_json::Value =
            serde_json::from_slice(&std::fs::read(path).ok()?).ok()?;
        estimates["median"]["point_estimate"].as_f64()
    }
}

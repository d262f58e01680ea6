//! What this process has: tasks, descriptors, memory. A test that has things come and go a thousand
//! times looks whether any of it is left.

use std::process::Command;

/// Set where a test runs alone in its process.
const ALONE: &str = "OUTLIVE_TEST_ALONE";

/// Runs a test in a process of its own, so that it counts only what is its own, and on one thread.
/// `test` is its name, with the modules that it is in.
///
/// # Panics
///
/// When the test fails.
pub fn alone(test: &str, run: impl Future<Output = ()>) {
    if std::env::var_os(ALONE).is_none() {
        let this = std::env::current_exe().expect("a test binary");
        let alone = Command::new(this)
            .args(["--exact", "--nocapture", "--test-threads=1", test])
            .env(ALONE, "yes")
            .output()
            .expect("it runs");
        let said = String::from_utf8_lossy(&alone.stdout);
        let erred = String::from_utf8_lossy(&alone.stderr);
        assert!(alone.status.success(), "{said}{erred}");
        // None is, where no test has this name.
        assert!(said.contains("1 passed"), "{said}{erred}");
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(run);
}

/// Tasks of this runtime that have not ended.
///
/// # Panics
///
/// Outside a runtime.
#[must_use]
pub fn tasks() -> usize {
    tokio::runtime::Handle::current()
        .metrics()
        .num_alive_tasks()
}

/// Sockets, files and the like that this process has open; `None` where that can't be seen.
#[must_use]
pub fn open_descriptors() -> Option<usize> {
    std::fs::read_dir("/proc/self/fd").ok().map(Iterator::count)
}

/// Memory that this process has of its own, in pages; nothing where that can't be seen.
#[derive(Clone, Copy, Debug)]
pub struct Memory(Option<usize>);

impl Memory {
    /// What it has at present.
    #[must_use]
    pub fn now() -> Self {
        let pages = || {
            let pages = std::fs::read_to_string("/proc/self/statm").ok()?;
            pages.split(' ').nth(1)?.parse().ok()
        };
        Self(pages())
    }

    /// Looks whether it is a tenth more by now.
    ///
    /// # Panics
    ///
    /// When it is.
    pub fn has_hardly_grown(self) {
        match (self.0, Self::now().0) {
            (Some(first), Some(last)) => {
                println!("{first} pages, then {last}");
                assert!(last <= first + first / 10, "{first} pages, then {last}");
            }
            _ => println!("memory is not looked at: there is no /proc here"),
        }
    }
}

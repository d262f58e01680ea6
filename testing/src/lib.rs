//! What the tests of several crates need: patience, stores and disks that do as a test says, and a look
//! at what is left behind.
//!
//! | module | for tests that |
//! |---|---|
//! | `waiting` | wait for something to have happened |
//! | `intercepted` | do something to what a store in memory is asked |
//! | `leaks` | count the tasks, descriptors and memory that this process has |
//! | `small_disk` | fill a disk |
//!
//! Nothing but tests depends on it.

mod intercepted;
mod leaks;
mod small_disk;
mod waiting;

pub use intercepted::{Intercepted, Interceptor};
pub use leaks::{Memory, alone, open_descriptors, tasks};
pub use small_disk::SmallDisk;
pub use waiting::{LONG_PATIENCE, PATIENCE, comes, comes_true, eventually, soon};

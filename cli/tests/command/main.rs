//! The command as scripts use it: real processes, real files, and processes that are killed.

mod contract;
mod kills;
mod process;

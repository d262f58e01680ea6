//! The command as scripts use it: real processes, real files, and processes that are killed.

mod at_rest;
mod certificates;
#[cfg(unix)]
mod chat;
mod complaints;
#[cfg(target_os = "linux")]
mod connections;
mod contract;
mod direct;
mod elsewhere;
mod files;
mod kills;
mod news;
#[cfg(unix)]
mod private;
mod process;
mod queues;
mod records;
mod refusing;
mod relay;
mod sending;
mod sessions;
#[cfg(unix)]
mod shown;
#[cfg(target_os = "linux")]
mod stopped_demo;
#[cfg(unix)]
mod terminal;
mod trust;
mod usage;

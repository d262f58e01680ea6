//! A network lab: hosts with networks of their own, joined by wires with a weather, and outlive's
//! sessions over them.
//!
//! ```text
//!   Host ── Wire { Weather } ── Host (router, gate) ── Wire ── Host
//!     its own network namespace; a thread in it runs the nodes
//! ```
//!
//! The frames that a host sends on a wire come out of a TAP device, and this process carries them to
//! the other end: delayed, lost, doubled, overtaken, or not at all. That takes root, on Linux. Where it
//! is not permitted the tests say so and are skipped; with `OUTLIVE_LAB=required` they fail.

#![cfg(target_os = "linux")]

mod choice;
mod cuts;
mod family;
mod files;
mod gate;
mod gates;
mod host;
mod lab;
mod moves;
mod negotiated;
mod parts;
mod peer;
mod storms;
mod town;
mod turn;
mod upgrades;
mod weather;
mod wire;

//! Transports for outlive: the ways to a relay, one feature each.
//!
//! ```text
//!   session links ─▶ RelaySender ─▶ one connection ─▶ relay
//!   session links ◀─ RelayReceiver ◀──────┘
//! ```
//!
//! `memory` is a relay within the process itself, for tests: without sockets, with faults.

#[cfg(feature = "memory")]
mod memory;
#[cfg(feature = "websocket")]
mod websocket;

#[cfg(feature = "memory")]
pub use memory::{Counts, Faults, Hold, MAILBOX_MESSAGES, MemoryRelay, Way};
#[cfg(feature = "websocket")]
pub use websocket::WebSocketRelay;

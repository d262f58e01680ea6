//! Transports for outlive: the ways to a relay and to a peer itself, one feature each.
//!
//! ```text
//!   session links ─▶ RelaySender ─▶ one connection ─▶ relay
//!   session links ◀─ RelayReceiver ◀──────┘
//!
//!   session link ─▶ DirectSender ─▶ one connection ─▶ peer
//!   session link ◀─ DirectReceiver ◀──────┘
//! ```
//!
//! `quic` makes direct links, from one UDP socket a node; `webrtc` makes them of negotiated
//! connections, with browsers too. `memory` is a relay within the process
//! itself, for tests: without sockets, with faults.

#[cfg(any(feature = "quic", feature = "webrtc", feature = "websocket"))]
mod address;
#[cfg(feature = "memory")]
mod memory;
#[cfg(feature = "quic")]
mod quic;
#[cfg(feature = "webrtc")]
mod webrtc;
#[cfg(feature = "websocket")]
mod websocket;

#[cfg(feature = "webrtc")]
pub use self::webrtc::WebRtc;
#[cfg(feature = "memory")]
pub use memory::{Counts, Faults, Hold, MAILBOX_MESSAGES, MemoryRelay, Way};
#[cfg(feature = "quic")]
pub use quic::{Congestion, Quic};
#[cfg(feature = "websocket")]
pub use websocket::WebSocketRelay;

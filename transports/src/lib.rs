//! Transports for outlive: the ways to a relay, one feature each.
//!
//! ```text
//!   session links ─▶ RelaySender ─▶ one connection ─▶ relay
//!   session links ◀─ RelayReceiver ◀──────┘
//! ```

#[cfg(feature = "websocket")]
mod websocket;

#[cfg(feature = "websocket")]
pub use websocket::WebSocketRelay;

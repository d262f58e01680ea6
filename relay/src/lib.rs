//! The relay of outlive: an untrusted server that keeps packets for peers who are away.
//!
//! ```text
//!   sender ─ Submit ─▶ connection ─▶ mailboxes ─ one batch, one flush ─▶ store
//!   sender ◀─ Accepted ─────┘            │ wakes
//!   recipient ◀─ Deliver ─ connection ◀──┘
//!   recipient ─ Acknowledge ─▶ mailboxes ─ deletes ─▶ store
//! ```
//!
//! An envelope is accepted when it is durable, and leaves the mailbox when its recipient
//! acknowledges it or its time is over: never because it was written to a socket.

mod accounts;
mod config;
mod connection;
mod counts;
mod directory;
mod error;
mod health;
mod listener;
mod lock;
mod mailbox;
mod metrics;
mod rate;
mod records;
mod refusals;
mod server;
mod sign_in;
mod stun;
mod talk;
mod tls;
mod unidentified;
mod window;

pub use config::RelayConfig;
pub use error::RelayError;
pub use rate::Rate;
pub use server::{Relay, RelayBuilder};
pub use tls::RelayTls;

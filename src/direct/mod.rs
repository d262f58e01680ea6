//! Direct links: how a session comes to one, and what becomes of it.
//!
//! ```text
//!                      ┌─ Negotiator ◀─┐
//!                      ├─ Rendezvous ◀─┴─ signals on channel 0
//!   presence, holds ─▶ Upgrade ─▶ dial, negotiate ─┐
//!   peers ─▶ listener ────────────────▶ accepted ──┴─▶ link ─▶ Input::Bind ─▶ the session's task
//! ```
//!
//! A session begins on a relay. While the app holds it and the peer is there, the two tell each
//! other where they are, and dial each other at once. The link that comes of it is bound beside the
//! relay's: which of them carries is the engine's choice, and neither waits for the other to die.
//! Where no dial gets through within seconds, or the peer can't be dialed, they negotiate a link.

mod link;
mod listener;
mod negotiation;
mod signals;
mod upgrade;

use std::net::SocketAddr;
use std::sync::Arc;

use outlive_core::transport::{DirectEndpoint, DirectLink};
use tokio::sync::{oneshot, watch};

pub(crate) use self::listener::Listener;
pub(crate) use self::signals::let_signals_go;
pub(crate) use self::upgrade::Upgrade;

/// The node's socket for direct links.
#[derive(Clone)]
pub(crate) struct Endpoint {
    pub(crate) transport: &'static str,
    /// The one there is now: when it fails, another takes its place.
    pub(crate) socket: watch::Receiver<Arc<dyn DirectEndpoint>>,
    /// Where peers may reach it, as far as that is known.
    pub(crate) addresses: watch::Receiver<Vec<SocketAddr>>,
}

/// What a session's upgrade is asked.
pub(crate) enum Asked {
    /// The peer has dialed us.
    Accepted(DirectLink),
    /// Whether direct links to this peer may be, from now on. Answered when it is so.
    Allow(bool, oneshot::Sender<()>),
}

/// What may wait for a session's upgrade. Links beyond it are dropped.
pub(crate) const ASKED: usize = 8;

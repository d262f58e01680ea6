//! What the processes of the demo tell each other, a line each.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What a peer of the demo reports.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(super) enum Report {
    /// A message came.
    Received { number: u64, redelivered: bool },
    /// A link through the relay was back after this time.
    Rebound { micros: u64 },
    /// What came so far, by what makes the links it came over.
    Traffic { links: BTreeMap<String, Came> },
    /// Another link carries what is sent: what makes it, if there is one.
    Carrier { transport: Option<String> },
    /// Everything was sent and delivered.
    Delivered,
}

/// What came over the links of one kind.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(super) struct Came {
    pub(super) packets: u64,
    /// Messages that came over them first.
    pub(super) messages: u64,
}

/// What a peer is told.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(tag = "order", rename_all = "snake_case")]
pub(super) enum Order {
    /// Whether the roads to its sockets for negotiated links are open.
    Roads { open: bool },
    /// The roads there are lead nowhere from now on: only new sockets have new ones.
    Move,
    /// The network has changed, as its operating system might say.
    NetworkChanged,
}

//! Where a negotiation is.
//!
//! ```text
//!            begin            described          Answer
//!   Idle ─────────────▶ Making ─────▶ Offered ─────────▶ Stable: Connecting ──up──▶ Up
//!   Waiting ──(until)──▶  │ ▲            │ ▲                ▲      ▲               │
//!      ▲                  │ └────────────┼─┼── restart ─────┼──────┴── down ───────┘
//!      │                  │ Offer        │ Offer            │ described
//!      │                  ▼ (glare)      ▼ (glare)          │
//!      │                 Answering ◀─────┴── Offer ── any   │
//!      │                    └───────────────────────────────┘
//!      └── failed, Decline, or not up in its time: from every state
//! ```

use std::time::Duration;

use crate::Negotiation;
use crate::limits::{CANDIDATES, ICE_RESTART_TIME, NEGOTIATION_TIME};
use crate::wire::signal::ConnectionId;

/// The states.
#[derive(Clone, Debug)]
pub(super) enum State {
    /// No connection, and none is tried for.
    Idle,
    /// No connection. One is tried for later.
    Waiting {
        /// When.
        until: Duration,
        /// Whether there is a point in trying sooner.
        why: Why,
    },
    /// Our offer is being made.
    Making(Attempt),
    /// Our offer was said.
    Offered(Attempt),
    /// The peer's offer is being applied, and an answer made.
    Answering(Attempt),
    /// Both descriptions are set.
    Stable {
        /// The negotiation that set them.
        attempt: Attempt,
        /// The connection they are set on.
        connection: ConnectionId,
        /// What the connection makes of them.
        link: Link,
    },
}

/// Why it is waited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// The last attempt failed.
    Failed,
    /// The peer wants no offers.
    Withdrawn,
}

/// A connection whose descriptions are set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Link {
    /// Not up yet, and given up when the attempt's time is over.
    Connecting,
    /// Up since then.
    Up(Duration),
}

/// One negotiation. Holds no description: they pass through.
#[derive(Clone, Debug)]
pub(super) struct Attempt {
    /// Its name.
    pub(super) negotiation: Negotiation,
    /// The connection that it restarts ICE on. None: a new one.
    pub(super) restarts: Option<ConnectionId>,
    /// When it is given up.
    pub(super) deadline: Duration,
    /// The peer's candidates that came before its description, with the run of who found them.
    pub(super) held: Candidates<(u64, String)>,
    /// Our candidates that were found before our description was said.
    pub(super) unsaid: Candidates<String>,
}

impl Attempt {
    /// One that begins now.
    pub(super) fn new(
        negotiation: Negotiation,
        restarts: Option<ConnectionId>,
        now: Duration,
    ) -> Self {
        let time = match restarts {
            Some(_) => ICE_RESTART_TIME,
            None => NEGOTIATION_TIME,
        };
        Self {
            negotiation,
            restarts,
            deadline: now.saturating_add(time),
            held: Candidates::default(),
            unsaid: Candidates::default(),
        }
    }

    /// The connection it is about once it was answered in `run`.
    pub(super) fn connection(&self, run: u64) -> ConnectionId {
        self.restarts.unwrap_or(ConnectionId {
            offer: self.negotiation,
            answered: run,
        })
    }
}

/// Candidates of one side of a negotiation, from the first to the last that is let in.
#[derive(Clone, Debug)]
pub(super) struct Candidates<T> {
    count: usize,
    waiting: Vec<T>,
}

impl<T> Default for Candidates<T> {
    fn default() -> Self {
        Self {
            count: 0,
            waiting: Vec::new(),
        }
    }
}

impl<T> Candidates<T> {
    /// Whether there is room for one more. It counts, wherever it goes.
    pub(super) const fn admit(&mut self) -> bool {
        if self.count >= CANDIDATES {
            return false;
        }
        self.count += 1;
        true
    }

    /// Keeps one for later.
    pub(super) fn hold(&mut self, candidate: T) {
        if self.admit() {
            self.waiting.push(candidate);
        }
    }

    /// Those that waited.
    pub(super) fn release(&mut self) -> Vec<T> {
        std::mem::take(&mut self.waiting)
    }
}

impl State {
    /// The negotiation that is going on or was the last to succeed.
    pub(super) const fn attempt(&self) -> Option<&Attempt> {
        match self {
            Self::Idle | Self::Waiting { .. } => None,
            Self::Making(attempt)
            | Self::Offered(attempt)
            | Self::Answering(attempt)
            | Self::Stable { attempt, .. } => Some(attempt),
        }
    }

    /// When time changes something.
    pub(super) const fn deadline(&self) -> Option<Duration> {
        match self {
            Self::Idle
            | Self::Stable {
                link: Link::Up(_), ..
            } => None,
            Self::Waiting { until, .. } => Some(*until),
            Self::Making(attempt)
            | Self::Offered(attempt)
            | Self::Answering(attempt)
            | Self::Stable {
                attempt,
                link: Link::Connecting,
                ..
            } => Some(attempt.deadline),
        }
    }
}

//! What becomes of the direct links in the course of the demo, again and again.
//!
//! ```text
//!   Dialed ── cut ──▶ Negotiated ──▶ Restarted ── cut ──▶ Relayed ──┐
//!     ▲                                                             │
//!     └──────────────────── all roads are open again ◀──────────────┘
//! ```
//!
//! Those are left out whose kind of links is not asked for.

use std::time::{Duration, Instant};

use crate::args::Direct;

/// How long a phase is given until its link carries. Then the demo goes on without.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// QUIC carries.
    Dialed,
    /// WebRTC carries: the road of QUIC is closed.
    Negotiated,
    /// One peer has moved, and ICE is restarted.
    Restarted,
    /// All roads are closed: the relay carries.
    Relayed,
}

impl Phase {
    /// What makes the link that is to carry in it. None: whatever carries by itself.
    const fn carrier(self) -> Option<&'static str> {
        match self {
            Self::Dialed => Some("quic"),
            Self::Negotiated | Self::Restarted => Some("webrtc"),
            // Nobody is told, and what was sent goes over the relay too when it is overdue.
            Self::Relayed => None,
        }
    }

    /// How long it lasts from then on: so that links of each kind carry a good part.
    const fn lasts(self) -> Duration {
        Duration::from_millis(match self {
            Self::Dialed => 2_500,
            Self::Negotiated | Self::Relayed => 1_000,
            Self::Restarted => 1_500,
        })
    }
}

/// Where the demo is with them.
pub(super) struct Phases {
    all: Vec<Phase>,
    at: usize,
    since: Instant,
    /// When its link was seen to carry at both ends.
    carries: Option<Instant>,
    /// All were there once.
    pub(super) seen: bool,
}

impl Phases {
    pub(super) fn of(kinds: &[Direct]) -> Self {
        let mut all = Vec::new();
        if kinds.contains(&Direct::Quic) {
            all.push(Phase::Dialed);
        }
        if kinds.contains(&Direct::Webrtc) {
            all.extend([Phase::Negotiated, Phase::Restarted]);
        }
        if !all.is_empty() {
            all.push(Phase::Relayed);
        }
        Self {
            seen: all.is_empty(),
            all,
            at: 0,
            since: Instant::now(),
            carries: None,
        }
    }

    /// Looks at what carries now, and returns the phase that begins, if one does.
    pub(super) fn look(&mut self, carriers: [Option<&str>; 2]) -> Option<Phase> {
        let phase = self.all.get(self.at)?;
        let carrier = phase.carrier();
        if carrier.is_none() || carriers == [carrier; 2] {
            self.carries.get_or_insert_with(Instant::now);
        }
        let over = match self.carries {
            Some(since) => since.elapsed() >= phase.lasts(),
            None => self.since.elapsed() >= PATIENCE,
        };
        if !over {
            return None;
        }
        self.at += 1;
        if self.at >= self.all.len() {
            self.at = 0;
            self.seen = true;
        }
        self.since = Instant::now();
        self.carries = None;
        self.all.get(self.at).copied()
    }
}

//! What the relay did, counted for whoever asks. Nothing here knows of a peer or of an address, and to
//! count is one addition that waits for nobody.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use outlive_core::transport::{Class, Refusal};

/// How often something happened. It only grows.
#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    /// It happened so many times more.
    pub(crate) fn add(&self, times: usize) {
        self.0.fetch_add(times as u64, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Connections whose clients said who they are, or that they do not say it.
#[derive(Debug, Default)]
pub(crate) struct Connections {
    opened: Count,
    now: AtomicU64,
}

impl Connections {
    /// How many there ever were.
    pub(crate) fn opened(&self) -> u64 {
        self.opened.get()
    }

    /// How many there are.
    pub(crate) fn now(&self) -> u64 {
        self.now.load(Ordering::Relaxed)
    }
}

/// What is counted, but for what is [turned away](crate::refusals) for being too much.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) signed_in: Connections,
    pub(crate) unidentified: Connections,
    pub(crate) accepted_to_keep: Count,
    pub(crate) accepted_newest: Count,
    pub(crate) accepted_now: Count,
    /// Bytes of the packets in these.
    pub(crate) accepted_bytes: Count,
    /// Envelopes whose token opens no mailbox.
    pub(crate) no_token: Count,
    /// Envelopes that the store did not take.
    pub(crate) unavailable: Count,
    pub(crate) delivered: Count,
    pub(crate) stun_answers: Count,
}

impl Counts {
    /// An envelope was accepted, with a packet of so many bytes.
    pub(crate) fn accepted(&self, class: Class, bytes: usize) {
        let of_class = match class {
            Class::Keep => &self.accepted_to_keep,
            Class::NewestOnly => &self.accepted_newest,
            Class::NowOrNever => &self.accepted_now,
        };
        of_class.add(1);
        self.accepted_bytes.add(bytes);
    }

    /// An envelope was refused, for another reason than that its mailbox is full, which is counted with
    /// what else is too much.
    pub(crate) fn refused(&self, reason: Refusal) {
        match reason {
            Refusal::Token => self.no_token.add(1),
            Refusal::Unavailable => self.unavailable.add(1),
            // No other is said here.
            _ => {}
        }
    }
}

/// Which connections one is counted with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    SignedIn,
    Unidentified,
}

/// A connection that is counted as open until this is dropped.
#[derive(Debug)]
pub(crate) struct Counted {
    counts: Arc<Counts>,
    kind: Kind,
}

impl Counted {
    pub(crate) fn open(counts: Arc<Counts>, kind: Kind) -> Self {
        let counted = Self { counts, kind };
        let connections = counted.connections();
        connections.opened.add(1);
        connections.now.fetch_add(1, Ordering::Relaxed);
        counted
    }

    fn connections(&self) -> &Connections {
        match self.kind {
            Kind::SignedIn => &self.counts.signed_in,
            Kind::Unidentified => &self.counts.unidentified,
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.connections().now.fetch_sub(1, Ordering::Relaxed);
    }
}

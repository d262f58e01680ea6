//! What waits for one recipient.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use bytes::Bytes;
use outlive_core::transport::Class;
use outlive_core::{EnvelopeId, PeerId};
use tokio::time::Instant;

/// Envelopes of one sender that may be on their way unacknowledged: a sender whose envelopes are
/// not acknowledged stops only its own delivery.
const SENDER_ENVELOPES: usize = 128;

/// An envelope that waits.
#[derive(Debug)]
pub(super) struct Envelope {
    pub(super) class: Class,
    pub(super) expires: Instant,
    pub(super) packet: Bytes,
}

/// The mail of one sender.
#[derive(Debug, Default)]
struct Mail {
    envelopes: BTreeMap<EnvelopeId, Envelope>,
    /// Its only envelope of class newest-only.
    newest: Option<EnvelopeId>,
}

/// What of one sender's mail is on its way over a connection.
#[derive(Debug, Default)]
pub(super) struct Window {
    /// The last envelope that was sent.
    last: EnvelopeId,
    unacknowledged: BTreeSet<EnvelopeId>,
    /// Whether some of the envelopes before are left in the mailbox.
    parked: bool,
}

impl Window {
    fn let_go(&mut self, numbers: &[EnvelopeId]) {
        for number in numbers {
            self.unacknowledged.remove(number);
        }
    }
}

/// The windows of one connection, by sender.
pub(super) type Windows = BTreeMap<PeerId, Window>;

/// The envelopes of one recipient, by sender and in order.
#[derive(Debug, Default)]
pub(super) struct Mailbox {
    senders: BTreeMap<PeerId, Mail>,
    messages: usize,
    /// The sender whose turn was last.
    turn: Option<PeerId>,
}

impl Mailbox {
    /// Messages that wait: envelopes of class keep.
    pub(super) const fn messages(&self) -> usize {
        self.messages
    }

    pub(super) fn is_empty(&self) -> bool {
        self.senders.is_empty()
    }

    /// Keeps an envelope. One of class newest-only takes the place of the one before it.
    pub(super) fn put(&mut self, sender: PeerId, number: EnvelopeId, envelope: Envelope) {
        let mail = self.senders.entry(sender).or_default();
        if envelope.class == Class::NewestOnly {
            if let Some(old) = mail.newest.replace(number) {
                mail.envelopes.remove(&old);
            }
        } else {
            self.messages = self.messages.saturating_add(1);
        }
        mail.envelopes.insert(number, envelope);
    }

    /// The recipient has this one, or its time is over.
    pub(super) fn remove(&mut self, sender: PeerId, number: EnvelopeId) {
        let Some(mail) = self.senders.get_mut(&sender) else {
            return;
        };
        match mail.envelopes.remove(&number) {
            Some(envelope) if envelope.class == Class::NewestOnly => mail.newest = None,
            Some(_) => self.messages = self.messages.saturating_sub(1),
            None => {}
        }
        if mail.envelopes.is_empty() {
            self.senders.remove(&sender);
        }
    }

    /// Forgets what has expired.
    pub(super) fn expire(&mut self, now: Instant) {
        let mut expired = Vec::new();
        for (sender, mail) in &self.senders {
            let of = mail.envelopes.iter().filter(|(_, of)| of.expires <= now);
            expired.extend(of.map(|(number, _)| (*sender, *number)));
        }
        for (sender, number) in expired {
            self.remove(sender, number);
        }
    }

    /// The next envelope to send over a connection: each sender in its turn.
    pub(super) fn next(
        &mut self,
        windows: &mut Windows,
        now: Instant,
    ) -> Option<(PeerId, EnvelopeId, Bytes)> {
        let turn = self.turn;
        let behind = |sender: &PeerId| turn.is_none_or(|turn| *sender > turn);
        let (later, earlier): (Vec<_>, Vec<_>) = self.senders.keys().copied().partition(behind);
        for sender in later.into_iter().chain(earlier) {
            let window = windows.entry(sender).or_default();
            if window.unacknowledged.len() >= SENDER_ENVELOPES {
                continue;
            }
            while let Some((number, packet, expires)) = self.behind(sender, window.last) {
                window.last = number;
                if expires <= now {
                    self.remove(sender, number);
                    continue;
                }
                window.unacknowledged.insert(number);
                self.turn = Some(sender);
                return Some((sender, number, packet));
            }
        }
        None
    }

    fn behind(&self, sender: PeerId, last: EnvelopeId) -> Option<(EnvelopeId, Bytes, Instant)> {
        let rest = (Bound::Excluded(last), Bound::Unbounded);
        let (&number, of) = self.senders.get(&sender)?.envelopes.range(rest).next()?;
        Some((number, of.packet.clone(), of.expires))
    }
}

/// The recipient has these of a sender: the sender's window opens by as many.
pub(super) fn acknowledged(windows: &mut Windows, sender: PeerId, numbers: &[EnvelopeId]) {
    if let Some(window) = windows.get_mut(&sender) {
        window.let_go(numbers);
        if window.unacknowledged.is_empty() && !window.parked {
            // All that was sent is gone from the mailbox: what comes later is found from the
            // beginning.
            windows.remove(&sender);
        }
    }
}

/// The recipient has no room for these: they stay, and what is behind them comes.
pub(super) fn parked(windows: &mut Windows, sender: PeerId, numbers: &[EnvelopeId]) {
    if let Some(window) = windows.get_mut(&sender) {
        window.let_go(numbers);
        window.parked = true;
    }
}

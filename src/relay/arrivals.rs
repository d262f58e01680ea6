//! What a relay sends on a connection, on its way to the sessions; and what nobody here takes.

use std::collections::{BTreeSet, VecDeque};
use std::pin::Pin;
use std::sync::Mutex;

use bytes::Bytes;
use outlive_core::seal::{self, OneWay};
use outlive_core::transport::{Class, Incoming, Outgoing, Sender, Slot};
use outlive_core::wire::frame::{Close, CloseReason, Frame};
use outlive_core::wire::packet::PacketBuilder;
use outlive_core::{EnvelopeId, Generation, Padding, PeerId};
use tokio::sync::mpsc;
use tokio::time::Sleep;

use super::envelopes::Envelopes;
use super::links::{Links, Shared};
use super::slots::Slots;
use crate::entropy::fresh_entropy;
use crate::lock::lock;
use crate::node::Inner;
use crate::task::{Arrival, Input, STORE_RETRY, ToLink, pending_or};

/// Peers whose mail is asked for again when the store works. That of others comes with the next
/// connection.
const LET_BY: usize = 256;

/// Envelopes that nobody here takes, and of which the relay does not know so yet because it reads
/// nothing: as many as it has on their way. Of one more it hears over the next connection.
const LET_GO: usize = 4_096;

/// What came, and is not in the hands of a session.
#[derive(Default)]
pub(super) struct LetBy {
    /// Whose mail was let go by, because the store could not say whether it may come.
    peers: BTreeSet<PeerId>,
    retry: Option<Pin<Box<Sleep>>>,
    /// What nobody takes, while the link has no room to say so.
    unsaid: VecDeque<(Sender, EnvelopeId)>,
}

impl LetBy {
    fn note(&mut self, peer: PeerId) {
        if self.peers.len() < LET_BY {
            self.peers.insert(peer);
        }
        self.retry
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(STORE_RETRY)));
    }

    /// Has the relay drop an envelope that nobody here takes. Nobody may wait here, where whoever
    /// empties the link waits too.
    fn let_go(&mut self, from: Sender, envelope: EnvelopeId, link: &mpsc::Sender<ToLink>) {
        let item = ToLink::from_relay(acknowledge(from, envelope));
        let waits = self.has_unsaid()
            || matches!(link.try_send(item), Err(mpsc::error::TrySendError::Full(_)));
        if waits && self.unsaid.len() < LET_GO {
            self.unsaid.push_back((from, envelope));
        }
    }

    /// Whether there is something to say as soon as the link has room.
    pub(super) fn has_unsaid(&self) -> bool {
        !self.unsaid.is_empty()
    }

    pub(super) fn say(&mut self, room: mpsc::Permit<'_, ToLink>) {
        if let Some((from, envelope)) = self.unsaid.pop_front() {
            room.send(ToLink::from_relay(acknowledge(from, envelope)));
        }
    }

    /// Waits until the store is to be tried again; for ever if nothing was let by. Cancellation-safe.
    pub(super) async fn retry(&mut self) {
        pending_or(&mut self.retry).await;
    }
}

fn acknowledge(from: Sender, envelope: EnvelopeId) -> Outgoing {
    Outgoing::Acknowledge {
        from,
        envelopes: vec![envelope],
    }
}

/// What comes over one connection.
pub(super) struct Arrivals<'a> {
    pub(super) links: Links<'a>,
    pub(super) let_by: LetBy,
}

impl<'a> Arrivals<'a> {
    pub(super) fn new(links: Links<'a>) -> Self {
        Self {
            links,
            let_by: LetBy::default(),
        }
    }

    /// Asks for the mail that was let by, as far as the store works again.
    pub(super) async fn ask_again(&mut self) {
        let Shared { inner, link, .. } = &self.links.shared;
        for peer in std::mem::take(&mut self.let_by.peers) {
            let asked = inner.admits(peer).await.is_ok() && {
                // Whoever is not admitted hears so when it comes again.
                let from = peer.into();
                let item = ToLink::from_relay(Outgoing::Redeliver { from });
                link.try_send(item).is_ok()
            };
            if !asked {
                self.let_by.note(peer);
            }
        }
    }

    /// Takes what came. `envelopes` are those that went over the same connection.
    pub(super) async fn take(&mut self, incoming: Incoming, envelopes: &Mutex<Envelopes>) {
        match incoming {
            Incoming::Accepted { envelope } => {
                self.answered(envelope, envelopes, |generation, envelope| {
                    Input::Accepted {
                        generation,
                        envelope,
                    }
                });
            }
            Incoming::Refused { envelope, reason } => {
                self.answered(envelope, envelopes, |generation, envelope| Input::Refused {
                    generation,
                    envelope,
                    reason,
                });
            }
            Incoming::Presence { peer, online } => {
                self.links
                    .hand(peer, |generation| Input::Presence { generation, online });
            }
            Incoming::Deliver {
                from,
                envelope,
                packet,
            } => self.delivered(from, envelope, packet).await,
        }
    }

    /// The relay has answered an envelope. Its session hears of it if its link is still the same.
    fn answered(
        &mut self,
        number: EnvelopeId,
        envelopes: &Mutex<Envelopes>,
        input: impl FnOnce(Generation, EnvelopeId) -> Input,
    ) {
        let claimed = lock(envelopes).claim(number);
        if let Some((peer, of, envelope)) = claimed
            && self.links.generation(peer) == Some(of)
        {
            self.links
                .hand(peer, |generation| input(generation, envelope));
        }
    }

    async fn delivered(&mut self, from: Sender, envelope: Option<EnvelopeId>, packet: Bytes) {
        let Some((peer, packet)) = self.opened(from, envelope, packet) else {
            return;
        };
        let claimed = matches!(from, Sender::Slot(_));
        if !self.links.is_awake(peer) {
            let admitted = self.admits(peer, envelope, claimed).await;
            if !admitted || !self.links.wake(peer) {
                return;
            }
        }
        let arrived = self.links.hand(peer, |generation| {
            Input::Packet(Arrival {
                generation,
                envelope,
                packet,
                claimed,
            })
        });
        if !arrived && envelope.is_some() {
            // The session's task ended between the two: the next one asks for the mail again.
            self.links.wake(peer);
        }
    }

    /// Whom an envelope is from, or claims to be, and its packet; none if nobody here takes it.
    fn opened(
        &mut self,
        from: Sender,
        envelope: Option<EnvelopeId>,
        packet: Bytes,
    ) -> Option<(PeerId, Bytes)> {
        let Shared {
            inner, link, slots, ..
        } = &self.links.shared;
        let slot = match from {
            Sender::Peer(peer) => return Some((peer, packet)),
            Sender::Slot(slot) => slot,
        };
        let Some((peer, packet)) = unwrap(inner, &packet) else {
            if let Some(envelope) = envelope {
                self.let_by.let_go(from, envelope, link);
            }
            return None;
        };
        noted(slots, peer, slot, envelope).then_some((peer, packet))
    }

    /// Whether a peer may have come by this relay. Where we have no mailbox nobody is to make peers up for us:
    /// what is of others stays there.
    async fn knows(&mut self, peer: PeerId, envelope: Option<EnvelopeId>) -> bool {
        let Shared {
            inner,
            link,
            slots,
            used,
            ..
        } = &self.links.shared;
        if inner.reads_at(used) {
            return true;
        }
        match inner.admits_link(peer).await {
            Ok(true) => return true,
            Ok(false) => {
                let slot = lock(slots).dropped(peer, envelope);
                let of_peer = || envelope.map(|envelope| (peer.into(), envelope));
                if let Some((from, envelope)) = slot.or_else(of_peer) {
                    let envelopes = vec![envelope];
                    // Without room to say so it counts as on its way until the connection ends.
                    let _ = link.try_send(ToLink::from_relay(Outgoing::Park { from, envelopes }));
                }
            }
            Err(_) if envelope.is_some() => self.let_by.note(peer),
            Err(_) => {}
        }
        false
    }

    /// Whether a peer whose session sleeps may have one. If not, the relay drops what it sent.
    async fn admits(&mut self, peer: PeerId, envelope: Option<EnvelopeId>, claimed: bool) -> bool {
        if !self.knows(peer, envelope).await {
            return false;
        }
        let Shared {
            inner, link, slots, ..
        } = &self.links.shared;
        match inner.admits(peer).await {
            Ok(true) => return true,
            Ok(false) if claimed => {
                // An answer would tell the relay whom we take it to be from.
                let drop = lock(slots).dropped(peer, envelope);
                if let Some((from, envelope)) = drop {
                    self.let_by.let_go(from, envelope, link);
                }
            }
            Ok(false) => {
                refuse(inner, peer, link);
                if let Some(envelope) = envelope {
                    self.let_by.let_go(peer.into(), envelope, link);
                }
            }
            // Nobody is refused because the store fails: it stays in the mailbox.
            Err(_) if envelope.is_some() => self.let_by.note(peer),
            Err(_) => {}
        }
        false
    }
}

/// Whom an envelope out of a slot claims to be from, and its packet; none if it was not made for
/// us, or claims to be our own.
fn unwrap(inner: &Inner, packet: &[u8]) -> Option<(PeerId, Bytes)> {
    let opened = seal::unwrap(&inner.identity, packet);
    opened
        .ok()
        .filter(|(peer, _)| *peer != inner.identity.peer_id())
}

/// A peer whose session is not accepted hears so.
fn refuse(inner: &Inner, peer: PeerId, link: &mpsc::Sender<ToLink>) {
    if let Some(packet) = refusal(inner, peer) {
        let item = Outgoing::Submit {
            envelope: EnvelopeId(0),
            to: peer,
            class: Class::NowOrNever,
            ttl: 0,
            packet,
        };
        // Full or closed: then it hears so another time.
        let _ = link.try_send(ToLink::from_relay(item));
    }
}

/// The packet that tells a peer so, sealed by itself: there is no session with it.
fn refusal(inner: &Inner, peer: PeerId) -> Option<Bytes> {
    let mut builder = PacketBuilder::new();
    let reason = CloseReason::NotAccepted;
    if !builder.push(&Frame::Close(Close { reason })) {
        return None;
    }
    if inner.padding == Padding::Relayed {
        builder.pad();
    }
    let mut entropy = fresh_entropy().ok()?;
    let now = inner.clock.now().wall;
    OneWay::new(entropy.start())
        .seal(&inner.identity, &peer, &builder.finish(), &mut entropy, now)
        .ok()
}

/// Remembers which slot an envelope came out of. Says whether there is room for that.
fn noted(slots: &Mutex<Slots>, peer: PeerId, slot: Slot, envelope: Option<EnvelopeId>) -> bool {
    let mut slots = lock(slots);
    envelope.is_none_or(|envelope| slots.note(peer, slot, envelope))
}

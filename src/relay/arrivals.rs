//! What a relay sends on a connection, on its way to the sessions; and what nobody here takes.

use std::collections::{BTreeSet, HashMap};
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use outlive_core::seal::{self, OneWay};
use outlive_core::transport::{Class, Incoming, Outgoing, Sender, Slot};
use outlive_core::wire::frame::{Close, CloseReason, Frame};
use outlive_core::wire::packet::PacketBuilder;
use outlive_core::{Entropy, EnvelopeId, Generation, PeerId};
use tokio::sync::mpsc;
use tokio::time::Sleep;

use super::attached::Attached;
use super::envelopes::Envelopes;
use super::slots::Slots;
use super::{Link, RelayTask, Shared};
use crate::task::{Input, STORE_RETRY, ToLink, pending_or};

/// Peers whose mail is asked for again when the store works. That of others comes with the next
/// connection.
const LET_BY: usize = 256;

/// Whose mail was let go by, because the store could not say whether it may come.
#[derive(Default)]
pub(super) struct LetBy {
    peers: BTreeSet<PeerId>,
    retry: Option<Pin<Box<Sleep>>>,
}

impl LetBy {
    fn note(&mut self, peer: PeerId) {
        if self.peers.len() < LET_BY {
            self.peers.insert(peer);
        }
        self.retry
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(STORE_RETRY)));
    }

    /// Waits until the store is to be tried again; for ever if nothing was let by. Cancellation-safe.
    pub(super) async fn retry(&mut self) {
        pending_or(&mut self.retry).await;
    }
}

impl RelayTask {
    /// Asks for the mail that was let by, as far as the store works again.
    pub(super) async fn ask_again(&self, let_by: &mut LetBy, link: &mpsc::Sender<ToLink>) {
        for peer in std::mem::take(&mut let_by.peers) {
            let asked = self.inner.admits(peer).await.is_ok() && {
                // Whoever is not admitted hears so when it comes again.
                let from = peer.into();
                let item = ToLink::from_relay(Outgoing::Redeliver { from });
                link.try_send(item).is_ok()
            };
            if !asked {
                let_by.note(peer);
            }
        }
    }

    pub(super) async fn deliver(
        &self,
        incoming: Incoming,
        links: &mut HashMap<PeerId, Link>,
        attached: &mut Attached,
        shared: &Shared,
        envelopes: &Mutex<Envelopes>,
        let_by: &mut LetBy,
    ) {
        let Shared { link, slots, .. } = shared;
        let claim = |envelope: &EnvelopeId| {
            envelopes
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .claim(*envelope)
        };
        let kept = matches!(
            incoming,
            Incoming::Deliver {
                envelope: Some(_),
                ..
            }
        );
        let (peer, generation, input): (_, _, Box<dyn FnOnce(Generation) -> Input + Send>) =
            match incoming {
                Incoming::Accepted { envelope } => {
                    let Some((peer, of, envelope)) = claim(&envelope) else {
                        return;
                    };
                    (
                        peer,
                        Some(of),
                        Box::new(move |generation| Input::Accepted {
                            generation,
                            envelope,
                        }),
                    )
                }
                Incoming::Refused { envelope, reason } => {
                    let Some((peer, of, envelope)) = claim(&envelope) else {
                        return;
                    };
                    (
                        peer,
                        Some(of),
                        Box::new(move |generation| Input::Refused {
                            generation,
                            envelope,
                            reason,
                        }),
                    )
                }
                Incoming::Presence { peer, online } => (
                    peer,
                    None,
                    Box::new(move |generation| Input::Presence { generation, online }),
                ),
                Incoming::Deliver {
                    from,
                    envelope,
                    packet,
                } => {
                    let claimed = matches!(from, Sender::Slot(_));
                    let opened = match from {
                        Sender::Peer(peer) => Some((peer, packet)),
                        Sender::Slot(slot) => self.unwrap(slot, envelope, &packet, slots, link),
                    };
                    let Some((from, packet)) = opened else {
                        return;
                    };
                    let alive = links
                        .get(&from)
                        .is_some_and(|link| !link.inputs.is_closed());
                    if !alive {
                        match self.inner.admits(from).await {
                            Ok(true) => {}
                            Ok(false) if claimed => {
                                // An answer would tell the relay whom we take it to be from.
                                let drop = slots
                                    .lock()
                                    .unwrap_or_else(PoisonError::into_inner)
                                    .dropped(from, envelope);
                                return self.let_go(drop, link);
                            }
                            Ok(false) => return self.refuse(from, envelope, link),
                            // Nobody is refused because the store fails: it stays in the mailbox.
                            Err(_) if kept => return let_by.note(from),
                            Err(_) => return,
                        }
                        let Ok(inputs) = self.inner.inputs(from) else {
                            return;
                        };
                        if attached.insert(from, inputs.clone()) {
                            shared.prune(links);
                        }
                        self.bind(attached, links, from, inputs, shared);
                    }
                    (
                        from,
                        None,
                        Box::new(move |generation| Input::Packet {
                            generation,
                            envelope,
                            packet,
                            claimed,
                        }),
                    )
                }
            };
        let Some(bound) = links.get(&peer) else {
            return;
        };
        if generation.is_none_or(|of| of == bound.generation)
            && !attached.hand(peer, input(bound.generation))
            && kept
            && let Ok(inputs) = self.inner.inputs(peer)
        {
            // The session's task ended between the two: the next one asks for the mail again.
            attached.insert(peer, inputs.clone());
            self.bind(attached, links, peer, inputs, shared);
        }
    }

    /// Whom an envelope out of a slot claims to be from, and its packet. One that was not made for
    /// us, or claims to be our own, is let go.
    fn unwrap(
        &self,
        slot: Slot,
        envelope: Option<EnvelopeId>,
        packet: &[u8],
        slots: &Mutex<Slots>,
        link: &mpsc::Sender<ToLink>,
    ) -> Option<(PeerId, Bytes)> {
        let identity = &self.inner.identity;
        let opened = seal::unwrap(identity, packet);
        let Some((peer, packet)) = opened.ok().filter(|(peer, _)| *peer != identity.peer_id())
        else {
            let envelope = envelope.map(|envelope| (Sender::Slot(slot), envelope));
            self.let_go(envelope, link);
            return None;
        };
        let mut slots = slots.lock().unwrap_or_else(PoisonError::into_inner);
        let noted = envelope.is_none_or(|envelope| slots.note(peer, slot, envelope));
        noted.then_some((peer, packet))
    }

    /// Has the relay drop an envelope that nobody here takes.
    fn let_go(&self, envelope: Option<(Sender, EnvelopeId)>, link: &mpsc::Sender<ToLink>) {
        let Some((from, envelope)) = envelope else {
            return;
        };
        let item = Outgoing::Acknowledge {
            from,
            envelopes: vec![envelope],
        };
        // Full or closed: then it comes again with the next connection.
        let _ = link.try_send(ToLink::from_relay(item));
    }

    /// A peer whose session is not accepted hears so, and what it sent is let go.
    fn refuse(&self, peer: PeerId, envelope: Option<EnvelopeId>, link: &mpsc::Sender<ToLink>) {
        if let Some(packet) = self.refusal(peer) {
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
        if let Some(envelope) = envelope {
            let item = Outgoing::Acknowledge {
                from: peer.into(),
                envelopes: vec![envelope],
            };
            // Full or closed: then it is let go over the next connection. Nobody may wait here, where
            // whoever empties the link waits too.
            let _ = link.try_send(ToLink::from_relay(item));
        }
    }

    /// The packet that tells a peer so, sealed by itself: there is no session with it.
    fn refusal(&self, peer: PeerId) -> Option<Bytes> {
        let mut builder = PacketBuilder::new();
        let reason = CloseReason::NotAccepted;
        if !builder.push(&Frame::Close(Close { reason })) {
            return None;
        }
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).ok()?;
        let mut entropy = Entropy::from_seed(seed);
        let now = self.inner.clock.now().wall;
        OneWay::new(entropy.start())
            .seal(
                &self.inner.identity,
                &peer,
                &builder.finish(),
                &mut entropy,
                now,
            )
            .ok()
    }
}

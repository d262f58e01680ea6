//! What a relay sends on a connection, on its way to the sessions; and what nobody here takes.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::pin::Pin;
use std::sync::Mutex;

use bytes::Bytes;
use outlive_core::seal::{self, OneWay};
use outlive_core::transport::{Class, Incoming, Outgoing, Sender, Slot};
use outlive_core::wire::frame::{Close, CloseReason, Frame};
use outlive_core::wire::packet::PacketBuilder;
use outlive_core::{EnvelopeId, Generation, PeerId};
use tokio::sync::mpsc;
use tokio::time::Sleep;

use super::attached::Attached;
use super::envelopes::Envelopes;
use super::slots::Slots;
use super::{Link, RelayTask, Shared};
use crate::entropy::fresh_entropy;
use crate::lock::lock;
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
        let claim = |envelope: &EnvelopeId| lock(envelopes).claim(*envelope);
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
                        Sender::Slot(slot) => {
                            let opened = self.unwrap(&packet);
                            if opened.is_none()
                                && let Some(envelope) = envelope
                            {
                                let_by.let_go(from, envelope, link);
                            }
                            opened.filter(|(peer, _)| noted(slots, *peer, slot, envelope))
                        }
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
                                let drop = lock(slots).dropped(from, envelope);
                                if let Some((from, envelope)) = drop {
                                    let_by.let_go(from, envelope, link);
                                }
                                return;
                            }
                            Ok(false) => {
                                self.refuse(from, link);
                                if let Some(envelope) = envelope {
                                    let_by.let_go(from.into(), envelope, link);
                                }
                                return;
                            }
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
                        Box::new(move |generation| {
                            Input::Packet(Arrival {
                                generation,
                                envelope,
                                packet,
                                claimed,
                            })
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

    /// Whom an envelope out of a slot claims to be from, and its packet; none if it was not made for
    /// us, or claims to be our own.
    fn unwrap(&self, packet: &[u8]) -> Option<(PeerId, Bytes)> {
        let identity = &self.inner.identity;
        let opened = seal::unwrap(identity, packet);
        opened.ok().filter(|(peer, _)| *peer != identity.peer_id())
    }

    /// A peer whose session is not accepted hears so.
    fn refuse(&self, peer: PeerId, link: &mpsc::Sender<ToLink>) {
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
    }

    /// The packet that tells a peer so, sealed by itself: there is no session with it.
    fn refusal(&self, peer: PeerId) -> Option<Bytes> {
        let mut builder = PacketBuilder::new();
        let reason = CloseReason::NotAccepted;
        if !builder.push(&Frame::Close(Close { reason })) {
            return None;
        }
        let mut entropy = fresh_entropy().ok()?;
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

/// Remembers which slot an envelope came out of. Says whether there is room for that.
fn noted(slots: &Mutex<Slots>, peer: PeerId, slot: Slot, envelope: Option<EnvelopeId>) -> bool {
    let mut slots = lock(slots);
    envelope.is_none_or(|envelope| slots.note(peer, slot, envelope))
}

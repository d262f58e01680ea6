//! What the task does with what its engine wants done.

use futures_util::future::select_all;
use outlive_core::engine::{Ending, Engine, Event, Output, Transmit};
use outlive_core::link::LinkClass;
use outlive_core::transport::{Lane, Outgoing};
use outlive_core::{ChannelId, EnvelopeId, Generation, Position};
use tokio::sync::mpsc;
use tracing::warn;

use super::input::{GivenUp, ToLink};
use super::{Found, Task, WAITING_WORDS};
use crate::direct;
use crate::event::SessionEvent;
use crate::files;
use crate::request;

impl Task {
    pub(super) fn carry_out(&mut self, engine: &mut Engine, output: Output) {
        match output {
            Output::Transmit(transmit) => self.transmit(engine, transmit),
            Output::Write(batch) => {
                let store = self.inner.store.clone();
                self.flight = std::mem::take(&mut self.next);
                let arriving = self.hub.files.arriving();
                let diverted = arriving.and_then(|arriving| {
                    files::divert(arriving, self.peer, &batch, &mut self.course)
                });
                self.write = Some(Box::pin(files::commit(store, batch, diverted)));
            }
            Output::Read { range, limit } => {
                let store = self.inner.store.clone();
                self.read = Some(Box::pin(async move {
                    let rows = store.range(range, limit).await;
                    Ok(Found::Rows(rows?))
                }));
            }
            Output::Content(extent) => {
                let file = self.files.get(&extent.transfer).cloned();
                self.read = Some(Box::pin(async move {
                    let content = files::read(file, extent).await;
                    Ok(Found::Content(extent.transfer, content))
                }));
            }
            Output::Release {
                generation,
                envelope,
            } => self.acknowledge(generation, envelope),
            Output::Park {
                generation,
                envelope,
            } => self.park(generation, envelope),
            Output::Redeliver { generation } => self.redeliver(generation),
            Output::Drop { generation, reason } => {
                warn!(peer = %self.peer.short(), %generation, %reason, "link given up");
                self.give_up(generation);
                self.lost(engine, generation);
            }
            Output::Event(event) => self.tell(engine, event),
        }
    }

    fn transmit(&mut self, engine: &mut Engine, transmit: Transmit) {
        let Transmit {
            generation,
            envelope,
            class,
            expires,
            lane,
            packet,
        } = transmit;
        let now = self.inner.clock.now();
        let ttl = now.store.until(expires).as_secs().saturating_add(1);
        let ttl = u32::try_from(ttl).unwrap_or(u32::MAX);
        if let Some(bound) = self.links.get(&generation) {
            self.hub.traffic.sent(bound.transport, packet.len());
        }
        let to = self.peer;
        let direct = self
            .links
            .get(&generation)
            .is_some_and(|bound| bound.class == LinkClass::Direct);
        // The peer itself knows who sends.
        let unidentified = self.naming.unidentified().filter(|_| !direct);
        let item = match unidentified {
            None => Some(Outgoing::Submit {
                envelope,
                to,
                class,
                ttl,
                packet,
            }),
            Some(unidentified) => {
                let from = self.inner.identity.peer_id();
                unidentified.submit(&from, to, envelope, class, ttl, &packet)
            }
        };
        let Some(item) = item else {
            // The engine leaves room for what is put around a packet.
            return warn!(peer = %to.short(), "a packet is too large to be wrapped");
        };
        self.push_on(generation, lane, item);
        if self
            .links
            .get(&generation)
            .is_some_and(|bound| !bound.waiting.is_empty())
        {
            engine.writable(generation, false, now);
        }
    }

    /// Has a relay forget what came in this envelope.
    fn acknowledge(&mut self, generation: Generation, envelope: EnvelopeId) {
        let item = Outgoing::Acknowledge {
            from: self.peer.into(),
            envelopes: vec![envelope],
        };
        self.push(generation, item);
    }

    /// Leaves what came in this envelope in its mailbox, where it counts as on its way no more.
    pub(super) fn park(&mut self, generation: Generation, envelope: EnvelopeId) {
        let item = Outgoing::Park {
            from: self.peer.into(),
            envelopes: vec![envelope],
        };
        self.push(generation, item);
    }

    /// Asks a relay once more for what it has of the peer's.
    pub(super) fn redeliver(&mut self, generation: Generation) {
        let from = self.peer.into();
        self.push(generation, Outgoing::Redeliver { from });
    }

    /// Hands an item to a link, or keeps it until the link has room. What is kept is bounded: the
    /// engine stops at the first packet, and of the rest there are at most [`WAITING_WORDS`].
    pub(super) fn push(&mut self, generation: Generation, item: Outgoing) {
        self.push_on(generation, Lane::Interactive, item);
    }

    fn push_on(&mut self, generation: Generation, lane: Lane, item: Outgoing) {
        let Some(bound) = self.links.get_mut(&generation) else {
            return;
        };
        if !bound.waiting.is_empty() {
            if is_packet(&item) || bound.waiting.len() < WAITING_WORDS {
                bound.waiting.push_back((lane, item));
            }
            return;
        }
        match bound.link.try_send(ToLink {
            generation,
            lane,
            item,
        }) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(ToLink { item, .. })) => {
                bound.waiting.push_back((lane, item));
            }
            Err(mpsc::error::TrySendError::Closed(_)) => {
                self.ended.insert(generation);
            }
        }
    }

    pub(super) fn unblock(
        &mut self,
        engine: &mut Engine,
        reserved: (Generation, Option<mpsc::OwnedPermit<ToLink>>),
    ) {
        let (generation, permit) = reserved;
        let Some(bound) = self.links.get_mut(&generation) else {
            return;
        };
        let Some(permit) = permit else {
            bound.waiting.clear();
            self.ended.insert(generation);
            return;
        };
        if let Some((lane, item)) = bound.waiting.pop_front() {
            permit.send(ToLink {
                generation,
                lane,
                item,
            });
        }
        if bound.waiting.is_empty() {
            engine.writable(generation, true, self.inner.clock.now());
        }
    }

    /// Has another link bound in place of one that is given up. With no room to say so, the session
    /// goes without until the next connection.
    fn give_up(&self, generation: Generation) {
        let bound = self.links.get(&generation);
        if let Some(given_up) = bound.and_then(|bound| bound.given_up.as_ref()) {
            let peer = self.peer;
            let _ = given_up.try_send(GivenUp { peer, generation });
        }
    }

    /// Messages wait in an inbox: for the app, or for what serves requests.
    pub(super) fn arrived(&self, channel: ChannelId, end: Position) {
        self.hub.inboxes.grew(channel, end);
        self.hub.talked(channel);
        if channel == ChannelId::REQUESTS {
            request::poke(self.route());
        } else if channel == ChannelId::FILE_REPLIES {
            files::read_replies(self.route());
        } else if channel == ChannelId::SIGNALING {
            if self.inner.makes_direct_links() {
                self.hub.signaled.notify_one();
            } else {
                direct::let_signals_go(self.route());
            }
        } else {
            self.inner.message_arrived(self.peer);
        }
    }

    fn tell(&mut self, engine: &mut Engine, event: Event) {
        let event = match event {
            Event::Progress {
                channel,
                stage,
                below,
            } => {
                self.hub.progress.reached(channel, stage, below);
                if channel == ChannelId::FILES {
                    self.forget_files(engine);
                }
                let outstanding = engine.outstanding();
                self.hub.state.send_if_modified(|state| {
                    std::mem::replace(&mut state.outstanding, outstanding) != outstanding
                });
                self.room = !self.sends.is_empty();
                self.tell_stopped(engine);
                return;
            }
            Event::Inbox { channel, end } => {
                self.arrived(channel, end);
                if matches!(
                    channel,
                    ChannelId::REQUESTS | ChannelId::SIGNALING | ChannelId::FILE_REPLIES
                ) {
                    return;
                }
                SessionEvent::Message { channel }
            }
            Event::Ended {
                channel,
                id,
                end,
                how,
            } => {
                self.hub.progress.ended(channel, id, end, how);
                if channel == ChannelId::FILES {
                    self.file_message_ended(engine, end, how);
                } else if channel == ChannelId::SIGNALING && how == Ending::Expired {
                    self.signal_expired(engine, id);
                }
                SessionEvent::Ended { channel, id, how }
            }
            Event::Held {
                channel,
                first,
                id,
                reason,
            } => {
                self.hub.progress.held(channel, first, id, reason);
                SessionEvent::Held {
                    channel,
                    id,
                    reason,
                }
            }
            Event::Gap {
                channel,
                epoch,
                first,
                last,
            } => SessionEvent::Gap {
                channel,
                epoch,
                first,
                last,
            },
            Event::PeerReset { epoch } => {
                self.forget_told(engine);
                SessionEvent::PeerReset { epoch }
            }
            Event::Renewed { epoch } => {
                self.forget_told(engine);
                SessionEvent::Renewed { epoch }
            }
            Event::Volatile { channel, payload } => {
                self.hub.talked(channel);
                SessionEvent::Volatile { channel, payload }
            }
            Event::Listening { channel, listening } => {
                self.hub.peer_listens_to(engine.peer_listens());
                SessionEvent::Listening { channel, listening }
            }
            Event::PeerClosed { reason } => {
                self.hub.peer_listens_to(engine.peer_listens());
                SessionEvent::PeerClosed { reason }
            }
            _ => return,
        };
        if let SessionEvent::Gap { .. } | SessionEvent::Message { .. } = event {
            let gaps: Vec<_> = engine.session().gaps().collect();
            self.hub.state.send_if_modified(|state| {
                let changed = state.gaps != gaps;
                state.gaps = gaps;
                changed
            });
        }
        self.hub.tell(&event);
    }
}

/// Waits for room on the first of these links that has some; for ever if there are none. None of them is
/// to wait for another. Cancellation-safe.
pub(super) async fn room(
    of: &[(Generation, mpsc::Sender<ToLink>)],
) -> (Generation, Option<mpsc::OwnedPermit<ToLink>>) {
    if of.is_empty() {
        return std::future::pending().await;
    }
    let each = |(generation, link): &(Generation, mpsc::Sender<ToLink>)| {
        let (generation, link) = (*generation, link.clone());
        Box::pin(async move { (generation, link.reserve_owned().await.ok()) })
    };
    select_all(of.iter().map(each)).await.0
}

const fn is_packet(item: &Outgoing) -> bool {
    matches!(
        item,
        Outgoing::Submit { .. } | Outgoing::SubmitUnidentified { .. }
    )
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn a_link_that_takes_nothing_holds_no_other_up() {
        let ((stuck, _stuck), (busy, mut taken)) = (mpsc::channel(1), mpsc::channel(1));
        let links = [stuck, busy].map(|link| {
            let probe = ToLink::from_relay(Outgoing::Redeliver {
                from: outlive_core::Identity::from_seed([1; 32]).peer_id().into(),
            });
            assert!(link.try_send(probe).is_ok());
            link
        });
        let [stuck, busy] = [1, 2].map(|n| Generation::nth(1, n));
        let links: Vec<_> = [stuck, busy].into_iter().zip(links).collect();
        assert!(room(&links).now_or_never().is_none());
        assert!(taken.recv().await.is_some());
        let found = room(&links).now_or_never();
        let (generation, permit) = found.expect("one has room");
        assert_eq!(generation, busy);
        assert!(permit.is_some());
        assert!(room(&[]).now_or_never().is_none());
    }
}

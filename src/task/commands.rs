//! What the task does with what comes to it.

use std::collections::VecDeque;

use outlive_core::Generation;
use outlive_core::engine::{Engine, Skipped, Taken};
use outlive_core::link::LinkState;
use outlive_core::wire::frame::CloseReason;
use tokio::sync::oneshot;
use tracing::debug;

use super::files::OfferedFile;
use super::input::{Arrival, Binding, Command, Input};
use super::sends::WaitingSend;
use super::{Bound, Done, Task, Waiter};
use crate::error::Error;
use crate::event::SessionEvent;
use crate::payload::without_payload;
use crate::route::Route;
use crate::state::LinkInfo;
use crate::trust::{Trust, trust_of};

impl Task {
    pub(super) async fn take(&mut self, engine: &mut Engine, input: Input) -> Option<Done> {
        // Events come in the order of what they are about.
        while let Some(output) = engine.poll_following() {
            self.carry_out(engine, output);
        }
        let now = self.inner.clock.now();
        match input {
            Input::Command(command) => return self.command(engine, command).await,
            Input::Bind(binding) => {
                engine.bind(binding.generation, binding.class, binding.rank, now);
                self.bound(binding, engine.outstanding());
                // Before anything that comes over it.
                self.seek_mailboxes(engine);
            }
            Input::Lost { generation } => self.lost(engine, generation),
            Input::Packet(arrival) => self.arrive(engine, arrival),
            Input::Missed { generation } => self.redeliver(generation),
            Input::Accepted {
                generation,
                envelope,
            } => engine.accepted(generation, envelope, now),
            Input::Refused {
                generation,
                envelope,
                reason,
            } => {
                engine.refused(generation, envelope, reason, now);
            }
            Input::NetworkChanged => engine.network_changed(self.inner.clock.now()),
            Input::Presence { generation, online } => {
                if self.links.contains_key(&generation) {
                    if online {
                        engine.peer_appeared(generation, now);
                    }
                    self.presence(generation, online);
                }
            }
        }
        None
    }

    /// A packet came over a link.
    pub(super) fn arrive(&mut self, engine: &mut Engine, arrival: Arrival) {
        self.count_received(arrival.generation, arrival.packet.len());
        if self.allowance.takes_more() {
            self.receive(engine, arrival);
        } else {
            // It stays in its mailbox. As long as it counted as on its way, the relay would hold back
            // what others send.
            if let Some(envelope) = arrival.envelope {
                self.park(arrival.generation, envelope);
            }
            // Only the app can let it in: its message may be too large for a stranger's.
            self.inner.message_arrived(self.peer);
        }
    }

    fn receive(&mut self, engine: &mut Engine, arrival: Arrival) {
        let Arrival {
            generation,
            envelope,
            packet,
            claimed,
        } = arrival;
        let (now, length) = (self.inner.clock.now(), packet.len());
        let before = engine.messages_received();
        let taken = if claimed {
            engine.receive_claimed(generation, envelope, packet, now)
        } else {
            engine.receive(generation, envelope, packet, now)
        };
        if !claimed || taken != Taken::No {
            // One that did not open may be from anybody, who is not to use up what is the peer's.
            self.allowance.took(length);
        }
        if let Some(bound) = self.links.get(&generation).filter(|_| taken != Taken::No) {
            self.mail.came_over(bound);
        }
        self.count_messages(generation, engine.messages_received() - before);
    }

    fn count_received(&self, generation: Generation, bytes: usize) {
        if let Some(bound) = self.links.get(&generation) {
            self.hub.traffic.received(bound.transport, bytes);
        }
    }

    fn count_messages(&self, generation: Generation, messages: u64) {
        if let Some(bound) = self.links.get(&generation).filter(|_| messages > 0) {
            self.hub
                .traffic
                .messages_received(bound.transport, messages);
        }
    }

    pub(super) fn lost(&mut self, engine: &mut Engine, generation: Generation) {
        engine.unbind(generation, self.inner.clock.now());
        self.unbound(generation, engine.outstanding());
    }

    /// Notes a link that is bound, and tells of it.
    pub(super) fn bound(&mut self, binding: Binding, outstanding: bool) {
        let Binding {
            generation,
            class,
            home,
            rank,
            transport,
            address,
            link,
            given_up,
            again,
        } = binding;
        self.links.insert(
            generation,
            Bound {
                class,
                home,
                rank,
                transport,
                address: address.clone(),
                online: None,
                link,
                given_up,
                watches: false,
                waiting: VecDeque::new(),
            },
        );
        debug!(peer = %self.peer.short(), %generation, "link bound");
        let info = LinkInfo {
            generation,
            class,
            // The engine tells soon.
            state: LinkState::Connecting,
            transport,
            address,
        };
        self.hub.change(|state| {
            state.links.push(info);
            state.outstanding = outstanding;
            true
        });
        self.mail.stale = true;
        self.hub.tell(&SessionEvent::LinkUp { generation });
        self.watch();
        if again {
            self.redeliver(generation);
        }
    }

    /// Forgets a link that is gone, and tells of it.
    pub(super) fn unbound(&mut self, generation: Generation, outstanding: bool) {
        if self.links.remove(&generation).is_none() {
            return;
        }
        debug!(peer = %self.peer.short(), %generation, "link lost");
        self.mail.stale = true;
        let said = self.links.values().filter_map(|bound| bound.online);
        let online = said.reduce(|one, other| one || other);
        self.hub.change(|state| {
            state.links.retain(|link| link.generation != generation);
            state.carrier = state.carrier.filter(|carrier| *carrier != generation);
            state.outstanding = outstanding;
            // While no relay says anything, the last word counts as long as there is a link.
            if online.is_some() || state.links.is_empty() {
                state.peer_online = online;
            }
            true
        });
        self.hub.tell(&SessionEvent::LinkDown { generation });
    }

    /// The peer came to the relay of a link, or left it. It is there if it is at any of them.
    pub(super) fn presence(&mut self, generation: Generation, online: bool) {
        let Some(bound) = self.links.get_mut(&generation) else {
            return;
        };
        if !self.mail.may_watch(bound) {
            // Nobody asked.
            return;
        }
        bound.online = Some(online);
        self.mail.stale = true;
        let anywhere = self.links.values().any(|bound| bound.online == Some(true));
        let known = Some(anywhere);
        self.hub
            .change(|state| std::mem::replace(&mut state.peer_online, known) != known);
        // That it is not at one of them says nothing while it is at another.
        if online == anywhere {
            self.hub.tell(&SessionEvent::Presence { online });
        }
    }

    async fn command(&mut self, engine: &mut Engine, command: Command) -> Option<Done> {
        let now = self.inner.clock.now();
        match command {
            Command::Send {
                channel,
                payload,
                options,
                wait,
                reply,
            } => {
                let send = WaitingSend::message(channel, payload, options, wait, reply);
                self.send_or_wait(engine, send).await;
            }
            Command::Request {
                payload,
                until,
                reply,
            } => {
                let send = WaitingSend::request(payload, until, reply);
                self.send_or_wait(engine, send).await;
            }
            Command::Settle {
                in_hand,
                answer: None,
                reply,
            } => self.settle(engine, &in_hand, reply),
            Command::Settle {
                in_hand,
                answer: Some((payload, ttl)),
                reply,
            } => {
                let send = WaitingSend::answer(in_hand, payload, ttl, reply);
                self.send_or_wait(engine, send).await;
            }
            Command::Cancel { ticket, reply } => {
                if engine.cancel(ticket, now) {
                    self.next.waiters.push(Waiter::Cancel(reply));
                } else {
                    // The caller may have gone away.
                    let _ = reply.send(false);
                }
            }
            Command::AwaitConsumed { channel, position } => {
                engine.await_consumed(channel, position, now);
            }
            Command::Hand {
                channel,
                position,
                record,
            } => {
                engine.hand(channel, position, &record);
                self.hub.inboxes.put_in_hand((channel, position), record);
            }
            Command::HandAgain {
                channel,
                position,
                record,
                attempts,
                reply,
            } => match self.is_kept(channel, position).await {
                Ok(true) if engine.hand_again(channel, position, &record, attempts) => {
                    let record = without_payload(record);
                    self.hub.inboxes.put_in_hand((channel, position), record);
                    self.next.waiters.push(Waiter::HandAgain(reply));
                }
                // The consumer may have gone away.
                Ok(_) => drop(reply.send(Ok(false))),
                Err(error) => drop(reply.send(Err(error))),
            },
            Command::Commit { in_hand, reply } => match self.recall(engine, &in_hand).await {
                Ok(()) => self.commit(engine, &in_hand, reply),
                // The caller may have gone away.
                Err(error) => drop(reply.send(Err(error))),
            },
            Command::Skip {
                in_hand,
                payload,
                attempts,
                reason,
                reply,
            } => match self.recall(engine, &in_hand).await {
                Ok(()) => {
                    let skipped = Skipped {
                        record: &in_hand.record,
                        payload: &payload,
                        bytes: in_hand.bytes,
                        attempts,
                        reason: &reason,
                    };
                    engine.skip(in_hand.channel, in_hand.position, skipped, now);
                    self.leaves(&in_hand, reply);
                }
                // The caller may have gone away.
                Err(error) => drop(reply.send(Err(error))),
            },
            Command::Listen { channel, on: true } => engine.listen(channel, now),
            Command::Listen { channel, on: false } => engine.unlisten(channel, now),
            Command::Volatile {
                channel,
                payload,
                reply,
            } => {
                let sent = engine
                    .send_volatile(channel, payload, now)
                    .map_err(Error::from);
                if matches!(sent, Ok(true)) {
                    self.hub.talked(channel);
                }
                let _ = reply.send(sent);
            }
            Command::SendFile {
                transfer,
                record,
                reply,
            } => {
                let file = OfferedFile {
                    transfer,
                    record,
                    reply,
                };
                self.send_file(engine, file).await;
            }
            Command::CancelFile { transfer, reply } => self.cancel_file(engine, transfer, reply),
            Command::FileReply {
                transfer,
                outcome,
                reply,
            } => self.file_reply(engine, transfer, outcome, reply),
            Command::Weight { channel, weight } => engine.set_weight(channel, weight),
            Command::Unidentified { token, reply } => {
                let waiter = Waiter::Noted(reply);
                match self.send_unidentified(engine, token) {
                    Ok(()) => self.next.waiters.push(waiter),
                    Err(error) => waiter.answer(Err(error)),
                }
            }
            Command::Reads {
                epoch,
                mailboxes,
                reply,
            } => self.hear_mailboxes(engine, epoch, mailboxes, reply).await,
            Command::ReadsAt { relays, reply } => self.name_mailboxes(engine, relays, reply).await,
            Command::Exposed(exposed) => self.may_be_exposed(exposed),
            Command::Wake { reply } => self.wake(engine, reply),
            Command::Close { reply } => return Some(self.close_by_app(engine, reply).await),
            Command::Trust { reply } => return self.trust(engine, reply).await,
        }
        None
    }

    /// The app has opened the session.
    fn wake(&mut self, engine: &mut Engine, reply: oneshot::Sender<()>) {
        engine.keep(self.inner.clock.now());
        self.accepted();
        self.hub.held.notify_one();
        // Nobody may be waiting for it.
        let _ = reply.send(());
    }

    async fn close_by_app(&mut self, engine: &mut Engine, reply: oneshot::Sender<()>) -> Done {
        self.leave(engine, CloseReason::Closed).await;
        // The caller may have gone away.
        let _ = reply.send(());
        Done::Closed
    }

    /// Goes by what was decided about the peer: with one that is blocked there is no session.
    async fn trust(&mut self, engine: &mut Engine, reply: oneshot::Sender<()>) -> Option<Done> {
        let blocked = self.decided().await == Trust::Blocked;
        if blocked {
            self.leave(engine, CloseReason::NotAccepted).await;
        }
        // The caller may have gone away.
        let _ = reply.send(());
        blocked.then_some(Done::Blocked)
    }

    /// Tells what was decided about the peer, and goes by it. Of two who decide at the same time the second
    /// may be heard first: what counts is what the store says by now.
    pub(super) async fn decided(&mut self) -> Trust {
        let trust = if self.inner.admission.is_blocked(self.peer) {
            Trust::Blocked
        } else {
            let decided = trust_of(&*self.inner.store, self.peer).await;
            decided.unwrap_or_else(|_| self.hub.state.borrow().trust)
        };
        self.hub.change(|state| {
            state.trust = trust;
            true
        });
        self.hub.tell(&SessionEvent::TrustChanged { trust });
        self.accepted();
        trust
    }

    /// If the peer is a stranger no more, what it was kept from leaving here may come.
    fn accepted(&mut self) {
        self.mail.stale = true;
        if !self.inner.admission.is_stranger(self.peer) && self.allowance.lift() {
            self.ask_for_what_was_missed();
        }
    }

    pub(super) fn route(&self) -> Route {
        Route::new(self.inner.clone(), self.hub.hold())
    }
}

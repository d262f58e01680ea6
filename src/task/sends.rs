//! How messages are taken for sending: once under a key, and as there is room.

use std::time::Duration;

use bytes::Bytes;
use outlive_core::ChannelId;
use outlive_core::engine::{Engine, SendError, SendOptions, Ticket};
use outlive_core::record::{Ending, Key, OnceRecord, Record};

use super::files::OfferedFile;
use super::input::Reply;
use super::{InHand, Task, Waiter};
use crate::error::Error;
use crate::receipt::Receipt;

/// Sends that may wait for room in the outbox. One more fails at once.
const WAITING_SENDS: usize = 1_024;

/// A message that is to be sent.
pub(super) struct WaitingSend {
    pub(super) channel: ChannelId,
    pub(super) payload: Bytes,
    pub(super) options: SendOptions,
    /// Whether it waits for room in the outbox.
    pub(super) wait: bool,
    pub(super) then: Then,
}

impl WaitingSend {
    pub(super) const fn message(
        channel: ChannelId,
        payload: Bytes,
        options: SendOptions,
        wait: bool,
        reply: Reply<Receipt>,
    ) -> Self {
        Self {
            channel,
            payload,
            options,
            wait,
            then: Then::Receipt(reply),
        }
    }

    /// A request, which waits for room until `until` has elapsed.
    pub(super) fn request(payload: Bytes, until: Duration, reply: Reply<Receipt>) -> Self {
        Self {
            channel: ChannelId::REQUESTS,
            payload,
            // How long it may live depends on how long it waits.
            options: SendOptions::default(),
            wait: true,
            then: Then::Request(until, reply),
        }
    }

    /// The answer to a request, which leaves the inbox with the same write.
    pub(super) const fn answer(
        request: InHand,
        payload: Bytes,
        ttl: Duration,
        reply: Reply<()>,
    ) -> Self {
        Self {
            channel: ChannelId::REQUESTS,
            payload,
            options: SendOptions {
                ttl: Some(ttl),
                once: None,
            },
            wait: true,
            then: Then::Commit(request, reply),
        }
    }
}

/// What a message brings with it when it is taken for sending.
pub(super) enum Then {
    /// A receipt.
    Receipt(Reply<Receipt>),
    /// A receipt, and its end when so much time has elapsed.
    Request(Duration, Reply<Receipt>),
    /// The commit of the request it answers.
    Commit(InHand, Reply<()>),
    /// The parts of the file that it is the beginning of.
    File(OfferedFile),
}

impl Then {
    pub(super) fn fail(self, error: Error) {
        // The caller may have gone away.
        match self {
            Self::Receipt(reply) | Self::Request(_, reply) => drop(reply.send(Err(error))),
            Self::Commit(_, reply) => drop(reply.send(Err(error))),
            Self::File(file) => drop(file.reply.send(Err(error.into()))),
        }
    }
}

/// A write that something hangs on.
enum On {
    Next,
    Flight,
}

/// A message that was sent under a key.
struct Before {
    ticket: Ticket,
    /// The write it hangs on if it is not durable yet.
    hanging: Option<On>,
    /// How it ended, if it did before it was delivered.
    ended: Option<Ending>,
}

impl Task {
    pub(super) async fn send_or_wait(&mut self, engine: &mut Engine, send: WaitingSend) {
        if send.wait && !self.sends.is_empty() {
            self.wait_for_room(send);
        } else if self.sends.iter().any(|of| of.channel == send.channel) {
            // There may be room for this one, but it would overtake another (I3).
            send.then.fail(SendError::Full.into());
        } else if let Some(full) = self.send(engine, send).await {
            self.wait_for_room(full);
        }
    }

    /// Takes a message for sending, or gives it back if it has to wait for room.
    async fn send(&mut self, engine: &mut Engine, mut send: WaitingSend) -> Option<WaitingSend> {
        if let Then::Request(until, _) = &send.then {
            let left = until.saturating_sub(self.inner.clock.now().elapsed);
            if left.is_zero() {
                send.then.fail(Ending::Expired.into());
                return None;
            }
            send.options.ttl = Some(left);
        }
        if let Some(hash) = send.options.once {
            match self.sent_before(hash).await {
                Ok(None) => {}
                Ok(Some(before)) => {
                    self.was_sent(engine, before, send.then);
                    return None;
                }
                Err(error) => {
                    send.then.fail(error);
                    return None;
                }
            }
        }
        let now = self.inner.clock.now();
        match engine.send(send.channel, &send.payload, &send.options, now) {
            Ok(ticket) => {
                self.hub.talked(send.channel);
                if let Some(hash) = send.options.once {
                    self.next.once.insert(hash, ticket);
                }
                match send.then {
                    Then::Receipt(reply) | Then::Request(_, reply) => {
                        // Made before the message can come to its end, so that it hears of it.
                        let receipt = Receipt::new(ticket, self.hub.clone(), self.route());
                        self.next.waiters.push(Waiter::Send(reply, receipt));
                    }
                    Then::Commit(in_hand, reply) => self.settle(engine, &in_hand, reply),
                    Then::File(file) => self.file_begun(engine, ticket, file),
                }
            }
            Err(SendError::Full) if send.wait => return Some(send),
            Err(error) => send.then.fail(error.into()),
        }
        None
    }

    /// The message was sent before, under the same key.
    fn was_sent(&mut self, engine: &mut Engine, before: Before, then: Then) {
        let Before {
            ticket,
            hanging,
            ended,
        } = before;
        let reply = match then {
            Then::Receipt(reply) | Then::Request(_, reply) => reply,
            Then::Commit(in_hand, reply) => return self.settle(engine, &in_hand, reply),
            // No file is sent under a key.
            Then::File(_) => return,
        };
        let receipt = Receipt::new(ticket, self.hub.clone(), self.route());
        if let Some(how) = ended {
            // That was told to whoever held a receipt then.
            let (channel, id, end) = (ticket.channel, ticket.id, ticket.end);
            self.hub.progress.ended(channel, id, end, how);
        }
        let waiter = Waiter::Send(reply, receipt);
        match hanging {
            Some(On::Next) => self.next.waiters.push(waiter),
            Some(On::Flight) => self.flight.waiters.push(waiter),
            None => waiter.answer(Ok(())),
        }
    }

    /// Goes on with the messages that waited for room, in their order.
    pub(super) async fn send_waiting(&mut self, engine: &mut Engine) {
        while let Some(first) = self.sends.pop_front() {
            if let Some(full) = self.send(engine, first).await {
                self.sends.push_front(full);
                return;
            }
        }
    }

    /// The message that was sent under this key before.
    async fn sent_before(&mut self, hash: [u8; 32]) -> Result<Option<Before>, Error> {
        let hanging = |ticket: &Ticket, on| Before {
            ticket: *ticket,
            hanging: Some(on),
            ended: None,
        };
        if let Some(ticket) = self.next.once.get(&hash) {
            return Ok(Some(hanging(ticket, On::Next)));
        }
        if let Some(ticket) = self.flight.once.get(&hash) {
            return Ok(Some(hanging(ticket, On::Flight)));
        }
        let key = Key::Once(self.peer, hash).to_bytes();
        let Some(value) = self.inner.store.get(key).await? else {
            return Ok(None);
        };
        let OnceRecord {
            id,
            channel,
            first,
            end,
            ended,
        } = OnceRecord::from_bytes(&value)?;
        let ticket = Ticket {
            id,
            channel,
            first,
            end,
        };
        Ok(Some(Before {
            ticket,
            hanging: None,
            ended,
        }))
    }

    fn wait_for_room(&mut self, send: WaitingSend) {
        if self.sends.len() >= WAITING_SENDS {
            self.give_up_late_requests();
        }
        if self.sends.len() < WAITING_SENDS {
            self.sends.push_back(send);
        } else {
            send.then.fail(SendError::Full.into());
        }
    }

    /// Takes no more room from others by requests that nobody waits for any more.
    fn give_up_late_requests(&mut self) {
        let now = self.inner.clock.now().elapsed;
        for send in std::mem::take(&mut self.sends) {
            match send.then {
                Then::Request(until, _) if until <= now => send.then.fail(Ending::Expired.into()),
                _ => self.sends.push_back(send),
            }
        }
    }
}

//! The serving of one session's requests channel: sorts what came, has requests answered, and gives
//! answers to those who wait for them.
//!
//! It is a task of its own, there only while there is something to do, so that a handler can neither
//! hold up nor bring down its session. Requests wait in the store, by position, until a handler and a
//! place among those at work are free; answers never wait behind them. What came is committed when it
//! has been seen to: an answer of ours and the commit of its request are one write, so a handler that
//! runs twice because the first run was cut off sends one answer.

use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use outlive_core::engine::SendError;
use outlive_core::limits::MESSAGE_TTL;
use outlive_core::record::{InboxRecord, Key, Record};
use outlive_core::store::{ReadLimit, StoreError};
use outlive_core::wire::request::{self, Kind, Message};
use outlive_core::{ChannelId, Position};
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::task::JoinSet;
use tracing::{Instrument, Span, debug, error, warn};

use super::handler::{HandlerSlot, Request};
use super::letter::{Letter, first_part};
use crate::error::Error;
use crate::event::SessionEvent;
use crate::session::Route;
use crate::task::{Command, STORE_RETRY, pending_or};

/// Handlers of one session at work at once. More requests wait in the store.
pub const SESSION_HANDLERS: usize = 32;

/// Handlers of a node at work at once, over all sessions. More requests wait in the store.
pub const NODE_HANDLERS: usize = 256;

/// Messages looked at in one step.
const AHEAD: ReadLimit = ReadLimit {
    records: 64,
    bytes: 256 * 1024,
};

/// How far the channel has been sorted.
#[derive(Debug, Default)]
pub(super) struct Mail {
    /// The first message that was not looked at.
    cursor: Position,
    /// Requests that wait for a handler, in order. No more than the inbox holds, which is bounded by
    /// [`INBOX_MESSAGES`](outlive_core::limits::INBOX_MESSAGES).
    waiting: VecDeque<Position>,
}

impl Mail {
    pub(super) fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// A request that found no handler goes back to its place.
    fn put_back(&mut self, position: Position) {
        let place = self.waiting.partition_point(|&other| other < position);
        self.waiting.insert(place, position);
    }
}

/// What became of a request.
enum Ran {
    /// It has been seen to, or is gone.
    Settled,
    /// It has not been in a handler's hands.
    Waits(Position),
}

/// Serves until there is nothing left to do for now.
pub(super) async fn serve(route: Route, mut mail: Mail) {
    let requests = &route.hub().requests;
    let mut running = JoinSet::new();
    let mut place = None;
    // Kept while others have all places, so that its turn comes.
    let mut free = None;
    loop {
        requests.heed();
        let sorted = tokio::select! {
            biased;
            () = route.ended() => break,
            sorted = sort(&route, &mut mail) => sorted,
        };
        if let Err(error) = &sorted {
            warn!(peer = %route.hub().peer.short(), %error, "requests can't be read");
        }
        let crowded = start(&route, &mut mail, &mut running, place.take());
        if !crowded {
            free = None;
        } else if free.is_none() {
            let handlers = route.inner().handlers.clone();
            free = Some(Box::pin(handlers.acquire_owned()));
        }
        if running.is_empty() && !crowded && sorted.is_ok() {
            match requests.rest(mail) {
                None => return,
                Some(more) => mail = more,
            }
            continue;
        }
        tokio::select! {
            () = route.ended() => break,
            () = requests.poked() => {}
            Some(ran) = running.join_next() => match ran {
                Ok(Ran::Settled) => {}
                Ok(Ran::Waits(position)) => mail.put_back(position),
                Err(error) => error!(%error, "an answer ended by itself"),
            },
            got = pending_or(&mut free) => place = got.ok(),
            () = tokio::time::sleep(STORE_RETRY), if sorted.is_err() => {}
        }
    }
    // What was not answered comes again, marked.
    running.shutdown().await;
}

/// Hands requests that wait to a handler, as many as may be at work. Returns whether more could be,
/// were it not for other sessions.
fn start(
    route: &Route,
    mail: &mut Mail,
    running: &mut JoinSet<Ran>,
    mut place: Option<OwnedSemaphorePermit>,
) -> bool {
    while running.len() < SESSION_HANDLERS
        && let Some(&position) = mail.waiting.front()
        && let Some(handler) = handler(route)
    {
        let free = || route.inner().handlers.clone().try_acquire_owned().ok();
        let Some(place) = place.take().or_else(free) else {
            return true;
        };
        mail.waiting.pop_front();
        let answering = answer(route.clone(), position, handler, place);
        running.spawn(answering.instrument(Span::current()));
    }
    false
}

/// The session's own handler, or that of the node.
fn handler(route: &Route) -> Option<Arc<HandlerSlot>> {
    let own = route.hub().requests.handler.current();
    own.or_else(|| route.inner().handler.current())
}

/// Looks at what came.
async fn sort(route: &Route, mail: &mut Mail) -> Result<(), Error> {
    let hub = route.hub();
    loop {
        let end = hub.inbox(ChannelId::REQUESTS).end;
        if mail.cursor >= end {
            return Ok(());
        }
        let range = Key::inbox(hub.peer, ChannelId::REQUESTS, mail.cursor, end);
        let rows = route.inner().store.range(range, AHEAD).await?;
        if rows.is_empty() {
            mail.cursor = end;
        }
        for (key, value) in rows {
            let Ok(Key::Inbox(_, _, position)) = Key::from_bytes(&key) else {
                continue;
            };
            let sorted = match InboxRecord::from_bytes(&value) {
                Ok(record) => sort_one(route, mail, position, record).await,
                Err(error) => Err(error.into()),
            };
            match sorted {
                // It stays where it is; the others must not wait for it.
                Err(error) if is_damage(&error) => {
                    warn!(peer = %hub.peer.short(), %error, "a request is unreadable");
                }
                sorted => sorted?,
            }
            mail.cursor = position.next();
        }
    }
}

async fn sort_one(
    route: &Route,
    mail: &mut Mail,
    position: Position,
    record: InboxRecord,
) -> Result<(), Error> {
    let head = request::peek(&first_part(route, &record).await?);
    // Each is taken in hand in its turn: the peer hears that it was consumed in its turn too.
    let hand = Command::Hand {
        channel: ChannelId::REQUESTS,
        position,
        record: InboxRecord {
            body: crate::inbox::without_payload(&record.body),
            ..record.clone()
        },
    };
    route.send(hand).await?;
    if let Ok((Kind::Request, _)) = head {
        mail.waiting.push_back(position);
        return Ok(());
    }
    let letter = Letter::open(route, position, record).await?;
    let pending = &route.hub().requests.pending;
    let taken = head.and_then(|(_, id)| {
        if !pending.awaits(id) {
            return Ok(false);
        }
        let answer = match Message::decode(&letter.payload)? {
            Message::Request { .. } => return Ok(false),
            Message::Response { payload, .. } => Ok(payload),
            Message::Failure { text, .. } => Err(text),
        };
        Ok(pending.resolve(id, answer))
    });
    match taken {
        Ok(true) => {}
        Ok(false) => debug!(id = %letter.record.id, "an answer that nobody waits for"),
        Err(error) => tell_malformed(route, &letter, &error),
    }
    commit(route, &letter).await
}

/// Whether an error will be the same at the next try.
const fn is_damage(error: &Error) -> bool {
    matches!(
        error,
        Error::Record(_) | Error::Store(StoreError::Damaged { .. })
    )
}

fn tell_malformed(route: &Route, letter: &Letter, error: &outlive_core::wire::WireError) {
    let hub = route.hub();
    warn!(peer = %hub.peer.short(), id = %letter.record.id, %error, "a malformed request");
    let event = SessionEvent::MalformedRequest {
        id: letter.record.id,
    };
    hub.tell(&event, |_| {});
}

/// Has a message leave the inbox, and does not wait for it: if that fails it comes again.
async fn commit(route: &Route, letter: &Letter) -> Result<(), Error> {
    let (reply, _) = oneshot::channel();
    route.send(settle(letter, None, reply)).await
}

fn settle(
    letter: &Letter,
    answer: Option<(Message, Duration)>,
    reply: oneshot::Sender<Result<(), Error>>,
) -> Command {
    Command::Settle {
        position: letter.position,
        record: letter.record.clone(),
        bytes: letter.payload.len() as u64,
        answer: answer.map(|(message, ttl)| (message.to_bytes(), ttl)),
        reply,
    }
}

/// Has one request answered.
async fn answer(
    route: Route,
    position: Position,
    handler: Arc<HandlerSlot>,
    _place: OwnedSemaphorePermit,
) -> Ran {
    let letter = match Letter::read(&route, position).await {
        Ok(Some(letter)) => letter,
        Ok(None) => return Ran::Settled,
        Err(error) => {
            warn!(peer = %route.hub().peer.short(), %error, "a request can't be read");
            if is_damage(&error) {
                return Ran::Settled;
            }
            tokio::time::sleep(STORE_RETRY).await;
            return Ran::Waits(position);
        }
    };
    let (id, ttl, payload) = match Message::decode(&letter.payload) {
        Ok(Message::Request { id, ttl, payload }) => (id, ttl, payload),
        // It was sorted as a request, so it is one that is cut off.
        other => {
            let cut_off = outlive_core::wire::WireError::Length("a request");
            tell_malformed(&route, &letter, &other.err().unwrap_or(cut_off));
            store(&route, &letter, None).await;
            return Ran::Settled;
        }
    };
    let ttl = ttl.min(MESSAGE_TTL);
    let expires = letter.record.received.plus(ttl);
    if expires <= route.inner().clock.now().wall {
        debug!(%id, "a request that has expired");
        store(&route, &letter, None).await;
        return Ran::Settled;
    }
    let hub = route.hub();
    let request = Request {
        from: hub.peer,
        id,
        message: letter.record.id,
        redelivered: letter.record.redelivered
            || letter.record.start != route.inner().start
            || hub.was_handed(ChannelId::REQUESTS, position),
        received: letter.record.received,
        expires,
        payload,
    };
    let work = async {
        let entered = handler.enter(|handler| {
            hub.handed(ChannelId::REQUESTS, position);
            handler(request)
        });
        match entered {
            Some(answering) => Some(answering.await),
            None => None,
        }
    };
    // A handler that panics has failed at this request, and at no other.
    let message = match AssertUnwindSafe(work).catch_unwind().await {
        Ok(None) => return Ran::Waits(position),
        Ok(Some(Ok(payload))) => Message::Response { id, payload },
        Ok(Some(Err(failure))) => Message::Failure {
            id,
            text: failure.into_text(),
        },
        Err(_) => {
            error!(peer = %hub.peer.short(), %id, "the handler panicked");
            Message::Failure {
                id,
                text: "the handler failed unexpectedly".to_owned(),
            }
        }
    };
    store(&route, &letter, Some((message, ttl))).await;
    Ran::Settled
}

/// Stores an answer and commits its request, in one write. Tries until it is done or the session
/// ends; then the request comes again.
async fn store(route: &Route, letter: &Letter, mut answer: Option<(Message, Duration)>) {
    loop {
        let (reply, stored) = oneshot::channel();
        let sent = route.send(settle(letter, answer.clone(), reply)).await;
        let result = match sent {
            Ok(()) => stored.await.unwrap_or_else(|_| Err(route.gone())),
            Err(error) => Err(error),
        };
        let Err(error) = result else { return };
        if route.hub().ended.is_cancelled() {
            return;
        }
        warn!(peer = %route.hub().peer.short(), %error, "an answer can't be stored");
        answer = match (error, answer) {
            (Error::Send(error @ SendError::TooLarge { .. }), Some((message, ttl))) => {
                let text = format!("the answer is too large: {error}");
                let id = match message {
                    Message::Request { id, .. }
                    | Message::Response { id, .. }
                    | Message::Failure { id, .. } => id,
                };
                Some((Message::Failure { id, text }, ttl))
            }
            // The session has no channel for answers: the one who asks hears that it expired.
            (Error::Send(SendError::Channels { .. }), _) => None,
            (_, answer) => {
                tokio::time::sleep(STORE_RETRY).await;
                answer
            }
        };
    }
}

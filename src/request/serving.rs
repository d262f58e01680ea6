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

use bytes::Bytes;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use outlive_core::engine::SendError;
use outlive_core::limits::MESSAGE_TTL;
use outlive_core::record::{InboxRecord, Key, Record};
use outlive_core::store::ReadLimit;
use outlive_core::wire::WireError;
use outlive_core::wire::request::{self, Kind, Message};
use outlive_core::{ChannelId, Position, RequestId};
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::task::JoinSet;
use tracing::{Instrument, Span, debug, error, warn};

use super::handler::{HandlerCallback, Request};
use super::letter::{self, Letter, first_part};
use crate::error::Error;
use crate::event::SessionEvent;
use crate::payload::without_payload;
use crate::route::Route;
use crate::task::{Command, InHand, STORE_RETRY, pending_or};

/// Handlers of one session at work at once. More requests wait in the store.
pub const SESSION_HANDLERS: usize = 32;

/// Handlers of a node at work at once, over all sessions. More requests wait in the store.
pub const NODE_HANDLERS: usize = 256;

/// Bytes of requests in the hands of a node's handlers at once, over all sessions. More requests wait
/// in the store. No less than the largest message, or that would wait for ever.
pub const HANDLED_BYTES: usize = 64 * 1024 * 1024;

/// Messages looked at in one step. While the commits of as many are on their way, no more are looked
/// at.
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

    /// Whether something came that was not looked at.
    fn is_behind(&self, route: &Route) -> bool {
        self.cursor < route.hub().inboxes.point(ChannelId::REQUESTS).end
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
    let mut settling = FuturesUnordered::new();
    let mut place = None;
    // Kept while others have all places, so that its turn comes.
    let mut free = None;
    loop {
        requests.heed();
        let (mut sorted, mut seen) = (Ok(()), Vec::new());
        if settling.len() < AHEAD.records {
            sorted = tokio::select! {
                biased;
                () = route.ended() => break,
                sorted = sort(&route, &mut mail, &mut seen) => sorted,
            };
        }
        settling.extend(seen.into_iter().map(|seen| store(&route, seen, None)));
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
        let more = mail.is_behind(&route);
        if more && settling.len() < AHEAD.records && sorted.is_ok() {
            continue;
        }
        let idle = running.is_empty() && settling.is_empty() && !crowded && !more;
        if idle && sorted.is_ok() {
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
            Some(()) = settling.next() => {}
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
fn handler(route: &Route) -> Option<Arc<HandlerCallback>> {
    let own = route.hub().requests.handler.current();
    own.or_else(|| route.inner().handler.current())
}

/// Looks at some of what came. What was seen to with that is added to `seen`.
async fn sort(route: &Route, mail: &mut Mail, seen: &mut Vec<InHand>) -> Result<(), Error> {
    let hub = route.hub();
    let end = hub.inboxes.point(ChannelId::REQUESTS).end;
    if mail.cursor >= end {
        return Ok(());
    }
    let range = Key::inbox(hub.peer, ChannelId::REQUESTS, mail.cursor, end);
    let rows = route.inner().store.range(range, AHEAD).await?;
    if rows.is_empty() {
        mail.cursor = end;
    }
    for (key, value) in rows {
        let Ok(Key::Inbox(_, _, position)) = Key::of_peer(hub.peer, &key) else {
            continue;
        };
        let sorted = match InboxRecord::from_bytes(&value) {
            Ok(record) => sort_one(route, mail, position, record).await,
            Err(error) => Err(error.into()),
        };
        match sorted {
            Ok(in_hand) => seen.extend(in_hand),
            // It stays where it is; the others must not wait for it.
            Err(error) if error.is_damage() => {
                warn!(peer = %hub.peer.short(), %error, "a request is unreadable");
            }
            Err(error) => return Err(error),
        }
        mail.cursor = position.next();
    }
    Ok(())
}

/// Looks at one message. Returns it if that was all there is to do about it.
async fn sort_one(
    route: &Route,
    mail: &mut Mail,
    position: Position,
    record: InboxRecord,
) -> Result<Option<InHand>, Error> {
    let head = request::peek(&first_part(route, &record).await?);
    // Each is taken in hand in its turn: the peer hears that it was consumed in its turn too.
    let hand = Command::Hand {
        channel: ChannelId::REQUESTS,
        position,
        record: without_payload(record.clone()),
    };
    route.send(hand).await?;
    if let Ok((Kind::Request, _)) = head {
        mail.waiting.push_back(position);
        return Ok(None);
    }
    let Letter { in_hand, payload } = Letter::open(route, position, record).await?;
    let pending = &route.hub().requests.pending;
    let taken = head.and_then(|(_, id)| {
        if !pending.awaits(id) {
            return Ok(false);
        }
        let answer = match Message::decode(&payload)? {
            Message::Request { .. } => return Ok(false),
            Message::Response { payload, .. } => Ok(payload),
            Message::Failure { text, .. } => Err(text),
        };
        Ok(pending.resolve(id, answer))
    });
    match taken {
        Ok(true) => {}
        Ok(false) => debug!(id = %in_hand.record.id, "an answer that nobody waits for"),
        Err(error) => tell_malformed(route, &in_hand, &error),
    }
    Ok(Some(in_hand))
}

fn tell_malformed(route: &Route, in_hand: &InHand, error: &WireError) {
    let (hub, id) = (route.hub(), in_hand.record.id);
    warn!(peer = %hub.peer.short(), %id, %error, "a malformed request");
    // Not behind the last event of a session that was closed meanwhile.
    if !hub.ended.is_cancelled() {
        hub.tell(&SessionEvent::MalformedRequest { id });
    }
}

/// Has one request answered.
async fn answer(
    route: Route,
    position: Position,
    handler: Arc<HandlerCallback>,
    place: OwnedSemaphorePermit,
) -> Ran {
    let (letter, bytes) = match read(&route, position).await {
        Ok(Some(read)) => read,
        Ok(None) => return Ran::Settled,
        Err(error) => {
            warn!(peer = %route.hub().peer.short(), %error, "a request can't be read");
            if error.is_damage() {
                return Ran::Settled;
            }
            tokio::time::sleep(STORE_RETRY).await;
            return Ran::Waits(position);
        }
    };
    let Letter { in_hand, payload } = letter;
    let (id, ttl, payload) = match Message::decode(&payload) {
        Ok(Message::Request { id, ttl, payload }) => (id, ttl.min(MESSAGE_TTL), payload),
        // It was sorted as a request, so it is one that is cut off.
        other => {
            let cut_off = WireError::Length("a request");
            tell_malformed(&route, &in_hand, &other.err().unwrap_or(cut_off));
            store(&route, in_hand, None).await;
            return Ran::Settled;
        }
    };
    let expires = in_hand.record.received.plus(ttl);
    if expires <= route.inner().clock.now().wall {
        debug!(%id, "a request that has expired");
        store(&route, in_hand, None).await;
        return Ran::Settled;
    }
    let hub = route.hub();
    let request = Request {
        from: hub.peer,
        id,
        message: in_hand.record.id,
        redelivered: in_hand.record.redelivered
            || in_hand.record.start != route.inner().start
            || hub.inboxes.was_handed(ChannelId::REQUESTS, position),
        received: in_hand.record.received,
        expires,
        payload,
    };
    let work = async {
        let entered = handler.enter(|handler| {
            hub.inboxes.note_handed(ChannelId::REQUESTS, position);
            (!hub.ended.is_cancelled()).then(|| handler(request))
        });
        match entered.flatten() {
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
    // Others go to work while the answer waits for room, or for the store. Of those of this session no more
    // wait than may be at work.
    drop((place, bytes));
    store(&route, in_hand, Some((id, message.to_bytes(), ttl))).await;
    Ran::Settled
}

/// A request and its share of [`HANDLED_BYTES`], if the request is still there.
async fn read(
    route: &Route,
    position: Position,
) -> Result<Option<(Letter, OwnedSemaphorePermit)>, Error> {
    let Some(record) = letter::record(route, position).await? else {
        return Ok(None);
    };
    let bytes = u32::try_from(letter::weight(&record)).unwrap_or(u32::MAX);
    let share = route
        .inner()
        .handled_bytes
        .clone()
        .acquire_many_owned(bytes);
    let share = share.await.map_err(|_| route.gone())?;
    let letter = Letter::open(route, position, record).await?;
    Ok(Some((letter, share)))
}

/// Has a message leave the inbox and stores its answer, if there is one, in one write. Tries until it
/// is done or the session ends; then the message comes again.
async fn store(route: &Route, in_hand: InHand, mut answer: Option<(RequestId, Bytes, Duration)>) {
    loop {
        let (reply, stored) = oneshot::channel();
        let settle = Command::Settle {
            in_hand: in_hand.clone(),
            answer: answer.clone().map(|(_, message, ttl)| (message, ttl)),
            reply,
        };
        let result = match route.send(settle).await {
            Ok(()) => stored.await.unwrap_or_else(|_| Err(route.gone())),
            Err(error) => Err(error),
        };
        let Err(error) = result else { return };
        if route.hub().ended.is_cancelled() {
            return;
        }
        warn!(peer = %route.hub().peer.short(), %error, "an answer can't be stored");
        answer = match (error, answer) {
            (Error::Send(error @ SendError::TooLarge { .. }), Some((id, _, ttl))) => {
                let text = format!("the answer is too large: {error}");
                let failure = Message::Failure { id, text };
                Some((id, failure.to_bytes(), ttl))
            }
            // The session has no channel for answers: the one who asks hears that it expired.
            (Error::Send(SendError::Channels { .. }), _) => None,
            (_, answer) => {
                tokio::time::sleep(STORE_RETRY).await;
                // What failed to be written may be there all the same.
                if let Ok(None) = letter::record(route, in_hand.position).await {
                    return;
                }
                answer
            }
        };
    }
}

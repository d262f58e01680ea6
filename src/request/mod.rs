//! Requests and responses on top of a session.
//!
//! ```text
//!   request(..) ─▶ Pending ─▶ outbox ═════▶ inbox ─▶ Serving ─▶ handler
//!        ▲            ▲                                           │
//!        └────────────┴── Serving ◀─ inbox ◀═════ outbox ◀────────┘
//! ```
//!
//! Both ways are durable messages on [`ChannelId::REQUESTS`](crate::ChannelId::REQUESTS), so nothing
//! that happens to links touches them; what a request is to the one who asks lives in memory, and
//! ends with its future. The channel's inbox belongs to the [serving](serving) and to nobody else.

mod handler;
mod letter;
mod pending;
mod serving;

use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use outlive_core::engine::Ending;
use outlive_core::wire::request::Message;
use thiserror::Error;
use tokio::sync::{Notify, oneshot};
use tracing::Instrument;

pub use self::handler::{HandlerError, Request, RequestHandler};
pub(crate) use self::handler::{HandlerPlace, Place};
pub use self::pending::PENDING_REQUESTS;
use self::pending::Pending;
use self::serving::Mail;
pub use self::serving::{HANDLED_BYTES, NODE_HANDLERS, SESSION_HANDLERS};
use crate::error::Error;
use crate::lock::lock;
use crate::route::Route;
use crate::task::{Command, Input};

/// Why a request has no answer.
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum RequestError {
    /// No answer came in time. The peer's handler may have run all the same, or may run yet.
    #[error("the request expired before an answer came")]
    Expired,
    /// The peer's handler had no answer, and says why.
    #[error("the peer has no answer: {0}")]
    Failed(String),
    /// The request could not be sent, or its session ended.
    #[error(transparent)]
    Session(#[from] Error),
}

/// What a session has of requests, whichever way they go.
#[derive(Debug, Default)]
pub(crate) struct Requests {
    pub(crate) pending: Pending,
    pub(crate) handler: HandlerPlace,
    serving: Mutex<Serving>,
    poked: Notify,
}

/// Whether the channel is being served.
#[derive(Debug)]
enum Serving {
    /// It is not; this is how far it was.
    Rests(Mail),
    /// It is.
    Runs {
        /// Whether something came since it last looked.
        poked: bool,
    },
}

impl Default for Serving {
    fn default() -> Self {
        Self::Rests(Mail::default())
    }
}

impl Requests {
    fn serving(&self) -> MutexGuard<'_, Serving> {
        lock(&self.serving)
    }

    /// Whether requests wait for a handler.
    pub(crate) fn is_waiting(&self) -> bool {
        match &*self.serving() {
            Serving::Rests(mail) => mail.is_waiting(),
            Serving::Runs { .. } => true,
        }
    }

    /// Has the serving look at what came.
    fn heed(&self) {
        if let Serving::Runs { poked } = &mut *self.serving() {
            *poked = false;
        }
    }

    async fn poked(&self) {
        self.poked.notified().await;
    }

    /// Lets the serving end, unless something came since it last looked: then it gets its mail back.
    fn rest(&self, mail: Mail) -> Option<Mail> {
        let mut serving = self.serving();
        if let Serving::Runs { poked: true } = *serving {
            return Some(mail);
        }
        *serving = Serving::Rests(mail);
        None
    }
}

/// There is, or may be, something to do on the session's requests channel.
pub(crate) fn poke(route: Route) {
    let requests = &route.hub().requests;
    let mut serving = requests.serving();
    match &mut *serving {
        Serving::Runs { poked } => {
            *poked = true;
            requests.poked.notify_one();
        }
        Serving::Rests(mail) => {
            if route.hub().ended.is_cancelled() {
                return;
            }
            let mail = std::mem::take(mail);
            *serving = Serving::Runs { poked: false };
            drop(serving);
            let span = tracing::info_span!("requests", peer = %route.hub().peer.short());
            let tasks = route.inner().tasks.clone();
            tasks.spawn(serving::serve(route, mail).instrument(span));
        }
    }
}

/// Asks the peer, and waits for its answer for at most `ttl`.
pub(crate) async fn ask(
    route: &Route,
    payload: Bytes,
    ttl: Duration,
) -> Result<Bytes, RequestError> {
    let until = route.inner().clock.now().elapsed.saturating_add(ttl);
    match tokio::time::timeout(ttl, wait(route, payload, until)).await {
        Ok(answered) => answered,
        Err(_) => Err(RequestError::Expired),
    }
}

async fn wait(route: &Route, payload: Bytes, until: Duration) -> Result<Bytes, RequestError> {
    let pending = &route.hub().requests.pending;
    let room = tokio::select! {
        room = pending.room() => room.ok_or_else(|| route.gone())?,
        () = route.ended() => return Err(route.gone().into()),
    };
    // From here to the queue nothing waits: a request either has its number and its place, or
    // neither.
    let queue = route.reserve().await?;
    let (reply, queued) = oneshot::channel();
    let number = || route.inner().next_request();
    let mut asked = pending.ask(room, number, |id| {
        // What it waited for its turn is over.
        let ttl = until.saturating_sub(route.inner().clock.now().elapsed);
        let request = Message::Request { id, ttl, payload };
        queue.send(Input::Command(Command::Request {
            payload: request.to_bytes(),
            until,
            reply,
        }));
    });
    let queued = queued.await.unwrap_or_else(|_| Err(route.gone()));
    let receipt = queued.map_err(not_sent)?;
    let answer = tokio::select! {
        biased;
        answer = &mut asked.answer => answer,
        delivered = receipt.delivered() => match delivered {
            Ok(()) => tokio::select! {
                biased;
                answer = &mut asked.answer => answer,
                () = route.ended() => return Err(route.gone().into()),
            },
            Err(error) => return Err(not_sent(error)),
        },
    };
    match answer {
        Ok(Ok(payload)) => Ok(payload),
        Ok(Err(text)) => Err(RequestError::Failed(text)),
        Err(_) => Err(route.gone().into()),
    }
}

/// What became of a request that does not get to the peer.
fn not_sent(error: Error) -> RequestError {
    match error {
        Error::Ended(Ending::Expired) => RequestError::Expired,
        error => error.into(),
    }
}

//! What answers requests: the app's handler, and the place it is registered at.

use std::fmt;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use outlive_core::{MessageId, PeerId, RequestId, WallTime};

use crate::callback::Callback;
use crate::lock::lock;
use crate::node::Inner;
use crate::route::Route;

/// A request of the peer's, in its handler's hands.
#[derive(Clone)]
pub struct Request {
    pub(super) from: PeerId,
    pub(super) id: RequestId,
    pub(super) message: MessageId,
    pub(super) redelivered: bool,
    pub(super) received: WallTime,
    pub(super) expires: WallTime,
    pub(super) payload: Bytes,
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("from", &self.from)
            .field("id", &self.id)
            .field("bytes", &self.payload.len())
            .field("redelivered", &self.redelivered)
            .finish_non_exhaustive()
    }
}

impl Request {
    /// Who asks.
    #[must_use]
    pub const fn from(&self) -> PeerId {
        self.from
    }

    /// The peer's number for it: grows with each of its requests, across its restarts too.
    #[must_use]
    pub const fn id(&self) -> RequestId {
        self.id
    }

    /// The name of the message it came in: the same when it comes again, and no other's.
    #[must_use]
    pub const fn message_id(&self) -> MessageId {
        self.message
    }

    /// Whether a handler may have had it in hand before, without its answer having been stored:
    /// this process or the session ended meanwhile, or one of the peers lost its state. Its
    /// [`message_id`](Self::message_id) is then the same.
    #[must_use]
    pub const fn redelivered(&self) -> bool {
        self.redelivered
    }

    /// When it was complete here.
    #[must_use]
    pub const fn received(&self) -> WallTime {
        self.received
    }

    /// When the one who asks has certainly given up, by this device's clock.
    #[must_use]
    pub const fn expires(&self) -> WallTime {
        self.expires
    }

    /// What is asked.
    #[must_use]
    pub const fn payload(&self) -> &Bytes {
        &self.payload
    }
}

/// Why a handler has no answer. The peer gets the text, up to
/// [`FAILURE_BYTES`](crate::limits::FAILURE_BYTES) of it. Any error becomes one with `?`; mind that
/// its words are shown to the peer.
pub struct HandlerError {
    text: String,
}

impl HandlerError {
    /// A failure in these words.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self { text: text.into() }
    }

    pub(super) fn into_text(self) -> String {
        self.text
    }
}

impl fmt::Debug for HandlerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("HandlerError").field(&self.text).finish()
    }
}

// It is no `Error` itself, so that it can be made from every one.
impl<E: std::error::Error> From<E> for HandlerError {
    fn from(error: E) -> Self {
        Self::new(error.to_string())
    }
}

pub(super) type Answering = BoxFuture<'static, Result<Bytes, HandlerError>>;

type Handler = Box<dyn FnMut(Request) -> Answering + Send>;

pub(super) type HandlerCallback = Callback<Handler>;

/// Where one handler can be registered: a session, or the node.
#[derive(Default)]
pub(crate) struct HandlerPlace {
    handler: Mutex<Option<Arc<HandlerCallback>>>,
}

impl fmt::Debug for HandlerPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HandlerPlace({})", lock(&self.handler).is_some())
    }
}

impl HandlerPlace {
    /// Registers a handler, unless there is one.
    fn take(&self, handler: &Arc<HandlerCallback>) -> bool {
        let mut place = lock(&self.handler);
        let free = place.is_none();
        if free {
            *place = Some(handler.clone());
        }
        free
    }

    fn leave(&self, handler: &Arc<HandlerCallback>) {
        let mut place = lock(&self.handler);
        if place.as_ref().is_some_and(|at| Arc::ptr_eq(at, handler)) {
            *place = None;
        }
    }

    pub(super) fn current(&self) -> Option<Arc<HandlerCallback>> {
        lock(&self.handler).clone()
    }
}

/// Where a handler is registered.
pub(crate) enum Place {
    Session(Route),
    Node(Arc<Inner>),
}

impl Place {
    fn place(&self) -> &HandlerPlace {
        match self {
            Self::Session(route) => &route.hub().requests.handler,
            Self::Node(inner) => &inner.handler,
        }
    }
}

/// A registered handler. Dropping it ends it: when `drop` has returned, the handler is not entered
/// again. Answers it is at work on are finished and sent.
///
/// While it lives, the session it is registered on stays awake; a handler of the node keeps none
/// awake.
#[must_use = "a handler ends when its registration is dropped"]
pub struct RequestHandler {
    place: Place,
    callback: Arc<HandlerCallback>,
}

impl RequestHandler {
    /// Registers a handler. `None` if the place is taken.
    pub(crate) fn register<F, A>(place: Place, mut handler: F) -> Option<Self>
    where
        F: FnMut(Request) -> A + Send + 'static,
        A: Future<Output = Result<Bytes, HandlerError>> + Send + 'static,
    {
        let handler: Handler = Box::new(move |request| Box::pin(handler(request)));
        let callback = Arc::new(Callback::new(handler));
        let taken = place.place().take(&callback);
        taken.then(|| Self { place, callback })
    }
}

impl Drop for RequestHandler {
    fn drop(&mut self) {
        self.place.place().leave(&self.callback);
        self.callback.close();
    }
}

impl fmt::Debug for RequestHandler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.place {
            Place::Session(_) => "RequestHandler(session)",
            Place::Node(_) => "RequestHandler(node)",
        })
    }
}

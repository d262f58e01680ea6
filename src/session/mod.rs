//! A handle on a session.

mod events;
mod exposure;
mod mailboxes;
mod sending;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use outlive_core::limits::{GIVEN_ADDRESSES, MESSAGE_TTL, SKIPPED_RECORDS};
use outlive_core::record::{Key, Record, SkippedRecord};
use outlive_core::store::{Batch, ReadLimit};
use outlive_core::{ChannelId, MessageId, PeerId};
use tokio::sync::{oneshot, watch};

pub use self::events::Events;
pub use self::sending::{Queuing, Sending};
use crate::error::Error;
use crate::event::SessionEvent;
use crate::event_queue::event_queue;
use crate::files::{self, FileError, FileInbox, SendingFile};
use crate::hub::Hub;
use crate::inbox::Inbox;
use crate::request::{self, HandlerError, Place, Request, RequestError, RequestHandler};
use crate::route::Route;
use crate::state::SessionState;
use crate::subscription::Subscription;
use crate::task::{Command, Input};
use crate::traffic::Traffic;

/// Whether an app may use a channel. What went over another would come to no app at the peer.
const fn for_apps(channel: ChannelId) -> Result<(), Error> {
    match channel {
        ChannelId::REQUESTS => Err(Error::Requests(channel)),
        ChannelId::SIGNALING => Err(Error::Signaling(channel)),
        _ if channel.is_for_apps() => Ok(()),
        _ => Err(Error::Reserved(channel)),
    }
}

/// A handle on the session with one peer. Cheap to clone; the same session for ever.
#[derive(Clone)]
pub struct Session {
    hub: Arc<Hub>,
    route: Route,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("peer", &self.hub.peer)
            .finish_non_exhaustive()
    }
}

impl Session {
    pub(crate) fn new(route: Route) -> Self {
        let hub = route.hub().clone();
        Self { hub, route }
    }

    pub(crate) const fn route(&self) -> &Route {
        &self.route
    }

    /// Has the session run. If it is being closed, waits until it is clear whether that came first.
    pub(crate) async fn wake(&self) -> Result<(), Error> {
        let (reply, awake) = oneshot::channel();
        self.route.send(Command::Wake { reply }).await?;
        if !self.hub.is_closing() {
            return Ok(());
        }
        match awake.await {
            Err(_) if self.hub.ended.is_cancelled() => Err(self.route.gone()),
            // A panic may have ended the task: the session is there, and has another when it is used.
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// The peer at the other end.
    #[must_use]
    pub fn peer(&self) -> PeerId {
        self.hub.peer
    }

    /// Asks the peer, and returns the answer of its handler (see [`on_request`](Self::on_request)),
    /// however often links and relays change meanwhile. The request waits for its peer, and for a
    /// handler there, for up to [`MESSAGE_TTL`](crate::limits::MESSAGE_TTL).
    ///
    /// The request is a durable message; who waits for its answer is not: after a restart of this
    /// process nobody does, and the answer is let go of. Dropped half-way, the request has either
    /// been queued, and is answered to nobody, or nothing was touched. At most
    /// [`PENDING_REQUESTS`](crate::PENDING_REQUESTS) wait at once, one more waits for its turn.
    ///
    /// # Errors
    /// [`RequestError`].
    pub async fn request(&self, payload: impl Into<Bytes>) -> Result<Bytes, RequestError> {
        self.request_within(payload, MESSAGE_TTL).await
    }

    /// As [`request`](Self::request), for an answer within `ttl`. After that a request that is still on this
    /// device, wherever it waits, is let go of. One that has left is good for `ttl` from when it is complete
    /// at the peer: no handler begins with it later than that, and the answer, which nobody waits for, is kept
    /// for no longer than `ttl` either.
    ///
    /// # Errors
    /// As [`request`](Self::request), and [`RequestError::Expired`] when the time is over.
    pub async fn request_within(
        &self,
        payload: impl Into<Bytes>,
        ttl: Duration,
    ) -> Result<Bytes, RequestError> {
        request::ask(&self.route, payload.into(), ttl).await
    }

    /// How many requests wait for their answer.
    #[must_use]
    pub fn requests_pending(&self) -> usize {
        self.hub.requests.pending.len()
    }

    /// Has `handler` answer the peer's requests until the registration is dropped. It goes before
    /// the handler of the [node](crate::Node::on_request). Requests that came before wait for it.
    ///
    /// Requests are handed over in their order, and up to
    /// [`SESSION_HANDLERS`](crate::SESSION_HANDLERS) are answered at once; the handler itself must
    /// not block. An answer is sent once. But if this process or the session ends before the answer
    /// is stored, the request comes again, marked as
    /// [`redelivered`](crate::Request::redelivered) and under the same
    /// [`message_id`](crate::Request::message_id): an app whose handler does more than look
    /// something up goes by these. Handlers at work when the node shuts down are stopped.
    ///
    /// ```
    /// # use outlive::{HandlerError, Session};
    /// # fn register(session: &Session) -> Result<(), outlive::Error> {
    /// let _answering = session.on_request(|request| async move {
    ///     let question = std::str::from_utf8(request.payload())?;
    ///     match question {
    ///         "ping" => Ok("pong".into()),
    ///         other => Err(HandlerError::new(format!("what is {other}?"))),
    ///     }
    /// })?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::HandlerTaken`] while another one is registered on this session, [`Error::Closed`] or
    /// [`Error::Shutdown`].
    pub fn on_request<F, A>(&self, handler: F) -> Result<RequestHandler, Error>
    where
        F: FnMut(Request) -> A + Send + 'static,
        A: Future<Output = Result<Bytes, HandlerError>> + Send + 'static,
    {
        if self.hub.ended.is_cancelled() {
            return Err(self.route.gone());
        }
        let place = Place::Session(self.route.clone());
        let registered = RequestHandler::register(place, handler).ok_or(Error::HandlerTaken)?;
        request::poke(self.route.clone());
        Ok(registered)
    }

    /// The messages of a channel, for its one consumer.
    ///
    /// # Errors
    /// [`Error::InboxTaken`] while another one is held, [`Error::Requests`] for the channel of
    /// requests, whose messages go to their handlers, [`Error::Signaling`] for that of signals,
    /// which make direct links, and [`Error::Reserved`] for those that are reserved.
    pub fn inbox(&self, channel: ChannelId) -> Result<Inbox, Error> {
        for_apps(channel)?;
        if self.hub.inboxes.take(channel) {
            Ok(Inbox::new(self.hub.clone(), self.route.clone(), channel))
        } else {
            Err(Error::InboxTaken(channel))
        }
    }

    /// Sends a file. Waits while the outbox is full, as one of the sends that may
    /// ([`send`](Self::send)), and returns when the file's messages are durable on this device. Its
    /// content stays where it is, and is read as links take it: whatever happens to links and
    /// processes, the file goes on where it stopped. If it changes or vanishes before it has left, the
    /// transfer ends as [`StopReason::Changed`](crate::StopReason::Changed) on both sides.
    ///
    /// A file larger than [`FILE_BYTES`](outlive_core::limits::FILE_BYTES) is refused. Files go one
    /// after another, and yield to everything else. Dropped half-way, the file is either on its way,
    /// or nothing was touched.
    ///
    /// # Errors
    /// [`FileError`], with [`SendError::Full`](outlive_core::engine::SendError::Full) in its
    /// [`FileError::Session`] if too many sends wait for room already.
    pub async fn send_file(&self, path: impl Into<PathBuf>) -> Result<SendingFile, FileError> {
        files::offer(&self.route, path.into()).await
    }

    /// The files on their way to the peer, those included that were sent before a restart.
    /// Cancellation-safe: it only reads.
    ///
    /// # Errors
    /// [`FileError::Session`].
    pub async fn sending_files(&self) -> Result<Vec<SendingFile>, FileError> {
        files::list(&self.route).await
    }

    /// The files that the peer sends, for their one consumer. Those that were accepted before a
    /// restart go on by themselves.
    ///
    /// Dropped half-way, the place of the consumer is free again; but if what was there of a file was
    /// gone, the word of that may be lost with it.
    ///
    /// # Errors
    /// [`FileError::Session`], with [`Error::InboxTaken`] in it while another one is held. If what is
    /// there of a file that was accepted can't be looked at or removed, [`FileInbox::next`] says so.
    pub async fn files(&self) -> Result<FileInbox, FileError> {
        let inbox = self.inbox(ChannelId::FILES)?;
        FileInbox::open(&self.route, inbox).await
    }

    /// The messages of a channel that were skipped, oldest first: the last
    /// [`SKIPPED_RECORDS`](outlive_core::limits::SKIPPED_RECORDS) of them, as far as they were not
    /// forgotten. Cancellation-safe: it only reads.
    ///
    /// # Errors
    /// [`Error::Store`] or [`Error::Record`].
    pub async fn skipped(&self, channel: ChannelId) -> Result<Vec<SkippedRecord>, Error> {
        let rows = self.skipped_rows(channel).await?;
        let record = |(_, value): &(Bytes, Bytes)| SkippedRecord::from_bytes(value);
        Ok(rows.iter().map(record).collect::<Result<_, _>>()?)
    }

    /// Forgets that a message of a channel was skipped. Returns whether it had been known.
    /// Dropped half-way, it may or may not be forgotten.
    ///
    /// # Errors
    /// [`Error::Store`] or [`Error::Record`].
    pub async fn forget_skipped(&self, channel: ChannelId, id: MessageId) -> Result<bool, Error> {
        let mut batch = Batch::new();
        for (key, value) in self.skipped_rows(channel).await? {
            if SkippedRecord::from_bytes(&value)?.id == id {
                batch.delete(key);
            }
        }
        if batch.is_empty() {
            return Ok(false);
        }
        self.route.inner().store.commit(batch).await?;
        Ok(true)
    }

    async fn skipped_rows(&self, channel: ChannelId) -> Result<Vec<(Bytes, Bytes)>, Error> {
        let limit = ReadLimit {
            records: usize::try_from(SKIPPED_RECORDS).unwrap_or(usize::MAX),
            bytes: usize::MAX,
        };
        let range = Key::skipped(self.hub.peer, channel);
        Ok(self.route.inner().store.range(range, limit).await?)
    }

    /// Has `callback` entered for every event, with the state as of it, until the subscription is
    /// dropped. It runs on the session's task and must not block: the session stands still
    /// meanwhile, and others don't. One that panics is ended, and an error is logged. Dropping the
    /// [`Subscription`] waits for a run of it.
    pub fn on_event(
        &self,
        mut callback: impl FnMut(&SessionEvent, &SessionState) + Send + 'static,
    ) -> Subscription {
        let hold = Some(self.route.hold());
        let observer = move |_, event: &SessionEvent, state: &SessionState| callback(event, state);
        self.hub.registry.add(observer, hold)
    }

    /// The events as a stream of bounded length: when `capacity` of them wait, the newest are left
    /// out until some were taken ([`Events::missed`]). A `capacity` of 0 is taken for 1, and one beyond
    /// 65,536 for that.
    #[must_use]
    pub fn events(&self, capacity: usize) -> Events {
        let (sender, receiver) = event_queue(capacity);
        let subscription = self.on_event(move |event, state| {
            sender.put((event.clone(), state.clone()));
        });
        Events {
            receiver,
            _subscription: subscription,
        }
    }

    /// The present state. Whoever subscribes late sees the present. Does not keep the session awake, and
    /// ends when nothing else of it is held. Of a session that is over, closed or with its node, a handle,
    /// a receipt or a delivery may be held still: until the last is gone, its last state stands.
    ///
    /// The session waits to change its state while somebody borrows it: clone what is to be used across an
    /// `await`, or across another call to the session.
    #[must_use]
    pub fn state(&self) -> watch::Receiver<SessionState> {
        self.hub.state.subscribe()
    }

    /// What went over which kind of link since the session was last opened, by the name of the
    /// [transport](crate::LinkInfo::transport).
    #[must_use]
    pub fn traffic(&self) -> BTreeMap<&'static str, Traffic> {
        self.hub.traffic.all()
    }

    /// How many callbacks are registered on this session.
    #[must_use]
    pub fn subscriptions(&self) -> usize {
        self.hub.registry.len()
    }

    /// Listens to a volatile channel: its messages come as [`SessionEvent::Volatile`], as long as the session
    /// is held. It is not kept on disk: listen again after a restart.
    ///
    /// ```no_run
    /// # use outlive::{ChannelId, Error, Session, SessionEvent};
    /// # async fn run(session: Session) -> Result<(), Error> {
    /// const TYPING: ChannelId = ChannelId(ChannelId::FIRST_APP.0 + 1);
    /// session.listen(TYPING).await?;
    /// let mut events = session.events(64);
    /// if session.state().borrow().peer_listens.contains(&TYPING) {
    ///     session.send_volatile(TYPING, "").await?;
    /// }
    /// while let Some((event, _)) = events.next().await {
    ///     if let SessionEvent::Volatile { channel: TYPING, .. } = event {
    ///         println!("{} is typing", session.peer());
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// Dropped half-way, the session may or may not listen, and may begin to later: call it or
    /// [`unlisten`](Self::unlisten) again.
    ///
    /// # Errors
    /// [`Error::Shutdown`], [`Error::Closed`] or [`Error::Blocked`], and for a channel that is not for
    /// apps as [`send`](Self::send).
    pub async fn listen(&self, channel: ChannelId) -> Result<(), Error> {
        for_apps(channel)?;
        self.hub.listen(channel, true);
        self.route.send(Command::Listen { channel, on: true }).await
    }

    /// Ceases to listen to a volatile channel. Dropped half-way, the session may or may not listen
    /// still, and may cease to later: call it again.
    ///
    /// # Errors
    /// [`Error::Shutdown`], [`Error::Closed`] or [`Error::Blocked`].
    pub async fn unlisten(&self, channel: ChannelId) -> Result<(), Error> {
        self.hub.listen(channel, false);
        self.route
            .send(Command::Listen { channel, on: false })
            .await
    }

    /// Sends on a volatile channel. Returns whether it went towards a listener; without one,
    /// nothing is sent. Dropped half-way, it may or may not be sent.
    ///
    /// # Errors
    /// [`Error::Send`] if the message is too large, [`Error::Shutdown`], [`Error::Closed`] or
    /// [`Error::Blocked`], the store's failure while the session can't be loaded, and for a channel
    /// that is not for apps as [`send`](Self::send).
    pub async fn send_volatile(
        &self,
        channel: ChannelId,
        payload: impl Into<Bytes>,
    ) -> Result<bool, Error> {
        for_apps(channel)?;
        let (reply, answer) = oneshot::channel();
        let payload = payload.into();
        self.route
            .send(Command::Volatile {
                channel,
                payload,
                reply,
            })
            .await?;
        answer.await.map_err(|_| self.route.gone())?
    }

    /// Sets the share a channel gets of a link when several have something to send (1 to 255;
    /// 4 if not said, 1 for files; 0 is taken for 1). Signaling goes before all. Holds as long as the
    /// session is held. Dropped half-way, it may or may not be set: call it again.
    ///
    /// # Errors
    /// [`Error::Shutdown`], [`Error::Closed`] or [`Error::Blocked`].
    pub async fn set_weight(&self, channel: ChannelId, weight: u8) -> Result<(), Error> {
        self.hub.weigh(channel, weight);
        self.route.send(Command::Weight { channel, weight }).await
    }

    /// Tells where the peer can be reached, for links to the peer itself, beside what it says of its
    /// own: an address from a directory, or of a server. It is dialed there even while no relay says
    /// that it is there, and none has to be in use at all. In place of what was told before; known as
    /// long as somebody holds the session, and not kept on disk. At most
    /// [`GIVEN_ADDRESSES`](outlive_core::limits::GIVEN_ADDRESSES), the first of these.
    pub fn found_at(&self, addresses: impl IntoIterator<Item = SocketAddr>) {
        let addresses = addresses.into_iter().take(GIVEN_ADDRESSES).collect();
        self.hub.found_at.send_replace(addresses);
    }

    /// Closes what the app holds of the session: the peer is told if it is there, every subscription
    /// ends, and whoever waits on another handle, receipt or inbox of it hears [`Error::Closed`].
    ///
    /// The session itself goes on. What is queued stays on disk, and is sent as soon as something has the
    /// session run again: the next connection to a relay, something that comes of the peer, or
    /// [`Node::session`](crate::Node::session), with which it is opened again. What comes meanwhile waits
    /// in its inboxes. [`Node::block`](crate::Node::block) ends all that.
    ///
    /// Dropped half-way, it is either closed, perhaps a little later, or nothing was touched.
    ///
    /// # Errors
    /// [`Error::Shutdown`], [`Error::Closed`] if it was closed before, or [`Error::Blocked`].
    pub async fn close(self) -> Result<(), Error> {
        let (reply, answer) = oneshot::channel();
        let place = self.route.reserve().await?;
        self.hub.mark_closing();
        place.send(Input::Command(Command::Close { reply }));
        answer.await.map_err(|_| self.route.gone())
    }
}

//! Sessions that outlive their connections: the messaging core of an app.
//!
//! A *session* with a peer lives on disk, with what is queued and what arrived. *Links* come and go
//! under it: a reconnect binds a new link and touches nothing the app holds.
//!
//! ```text
//!   app ─▶ Session ─▶ engine ─▶ outbox ─▶ link ─▶ relay ─▶ link ─▶ inbox ─▶ app
//!             ▲                                                             │
//!             └──────────────── Receipt: custody, delivered, consumed ◀─────┘
//! ```

mod alarm;
mod backoff;
mod callback;
mod clock;
mod delivery;
mod direct;
mod entropy;
mod error;
mod event;
mod event_queue;
mod files;
mod hub;
mod inbox;
mod inboxes;
mod lock;
mod mailboxes;
mod network;
mod node;
mod payload;
mod receipt;
mod relay;
mod request;
mod route;
mod session;
mod state;
mod subscription;
mod task;
mod traffic;
mod trust;

pub use bytes::Bytes;
pub use delivery::Delivery;
pub use entropy::new_seed;
pub use error::Error;
pub use event::SessionEvent;
pub use files::{
    FileError, FileEvent, FileInbox, FileOffer, FileProgress, ReceivedFile, SENDING_FILES,
    SendingFile,
};
pub use inbox::Inbox;
pub use network::NetworkMonitor;
pub use node::{
    Node, NodeBuilder, NodeEvents, Queued, SessionInfo, Strangers, list_sessions, queued_for,
    store_owner,
};
pub use outlive_core::engine::{Ending, SendError, Stage};
pub use outlive_core::link::{LinkClass, LinkState};
pub use outlive_core::record::{Gap, SkippedRecord};
pub use outlive_core::store::{Store, StoreError, store_is_empty};
pub use outlive_core::transport::{
    DeliveryToken, DirectTransport, GoodbyeReason, NegotiatedTransport, Refusal, RelayTransport,
    TokenError, TransportError,
};
pub use outlive_core::wire::file::{FileInfo, StopReason};
pub use outlive_core::wire::frame::CloseReason;
pub use outlive_core::{
    ChannelId, Contact, ContactError, Epoch, Generation, IdError, Identity, MessageId, Padding,
    PeerId, PeerIdError, Position, RequestId, SafetyNumber, SafetyNumberError, Seq, StoreId,
    StoreTime, TransferId, WallTime, limits, record, store, transport,
};
pub use receipt::{Receipt, ReceiptState, Waiting};
pub use relay::RelayState;
pub use request::{
    HANDLED_BYTES, HandlerError, NODE_HANDLERS, PENDING_REQUESTS, Request, RequestError,
    RequestHandler, SESSION_HANDLERS,
};
pub use session::{Events, Queuing, Sending, Session};
pub use state::{Connectivity, LinkInfo, SessionState};
pub use subscription::{Subscription, SubscriptionSet};
pub use traffic::Traffic;
pub use trust::Trust;

/// The README's example, compiled.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

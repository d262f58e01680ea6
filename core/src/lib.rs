//! Sessions that outlive their connections: the sans-IO core of outlive.

mod contact;
pub mod engine;
mod entropy;
mod id;
mod identity;
pub mod limits;
pub mod link;
mod mailbox;
pub mod negotiator;
pub mod record;
mod runs;
mod safety_number;
pub mod seal;
pub mod store;
mod time;
pub mod transport;
pub mod wire;

pub use contact::{Contact, ContactError};
pub use entropy::Entropy;
pub use id::{
    ChannelId, Digest, EnvelopeId, Epoch, Generation, IdError, MessageId, Negotiation, Position,
    RequestId, ResumeId, Round, Seq, StoreId, TransferId,
};
pub use identity::{BadSignature, Identity, PeerId, PeerIdError};
pub use mailbox::{Mailbox, is_relay_address};
pub use runs::{Counter, RunSet};
pub use safety_number::{SafetyNumber, SafetyNumberError};
pub use seal::OpenError;
pub use time::{Now, StoreTime, WallTime};
pub use wire::padding::Padding;

//! Sessions that outlive their connections: the sans-IO core of outlive.

pub mod engine;
mod entropy;
mod id;
mod identity;
pub mod limits;
pub mod link;
pub mod record;
mod runs;
pub mod seal;
pub mod store;
mod time;
pub mod transport;
pub mod wire;

pub use entropy::Entropy;
pub use id::{
    ChannelId, Digest, EnvelopeId, Epoch, Generation, MessageId, Position, RequestId, ResumeId,
    Seq, StoreId,
};
pub use identity::{BadSignature, Identity, PeerId, PeerIdError};
pub use runs::{Counter, RunSet};
pub use seal::OpenError;
pub use time::{Now, WallTime};

//! Sessions that outlive their connections: the sans-IO core of outlive.

mod id;
mod identity;
pub mod limits;
mod seal;
pub mod store;
mod time;
pub mod transport;
pub mod wire;

pub use id::{
    ChannelId, Digest, EnvelopeId, Epoch, Generation, MessageId, Position, ResumeId, Seq, StoreId,
};
pub use identity::{BadSignature, Identity, PeerId, PeerIdError};
pub use seal::{KIND_PLAIN, OpenError, Plain, Sealer};
pub use time::{Now, WallTime};

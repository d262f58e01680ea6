//! Stores for outlive sessions: [`SledStore`] keeps them on disk, [`MemoryStore`] in memory with
//! faults to inject. Both are a [`Store`](outlive_core::store::Store): atomic batches and range reads.
//! With the feature `encryption`, `EncryptedStore` is one around any of them.
//!
//! ```text
//! session A ── commit ─┐                        ┌─ one write, one flush ─► log on disk
//! session B ── commit ─┼─► bounded queue ─► committer
//! session C ── commit ─┘   (first polled,       └─ one answer to each commit
//!                           first written)
//! session A ── get, range ─────────────────────────────────────────────► cache, log
//! ```
//!
//! The committer takes all batches that wait and writes them together (group commit): the cost of
//! making data durable is shared by all sessions of a node.

mod clock;
#[cfg(feature = "encryption")]
mod encryption;
#[cfg(feature = "memory")]
mod memory;
#[cfg(feature = "sled")]
mod sled;

#[cfg(feature = "sled")]
pub use self::sled::{Durability, FORMAT_VERSION, MAX_KEY_BYTES, SledOptions, SledStore};
pub use clock::StoreClock;
#[cfg(feature = "encryption")]
pub use encryption::{Cost, EncryptedStore, MAX_SECRET_BYTES, SealedSecret, Unlock, UnlockError};
#[cfg(feature = "memory")]
pub use memory::{Counts, Faults, Flush, Hold, MemoryStore, Snapshot};

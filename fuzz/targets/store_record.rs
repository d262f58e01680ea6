//! Any bytes in the store: keys and every kind of record, and an engine opened over them.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use outlive_core::engine::{Engine, Stored};
use outlive_core::record::{
    ClockRecord, InboxRecord, Key, OnceRecord, OutboxRecord, Record, SegmentRecord, Session,
    SkippedRecord, TrustRecord,
};
use outlive_core::{Entropy, Identity, Now, PeerId};

/// Made once: it costs more than all else.
static PEER: LazyLock<PeerId> = LazyLock::new(|| Identity::from_seed([1; 32]).peer_id());
static SELF: LazyLock<Identity> = LazyLock::new(|| Identity::from_seed([2; 32]));

fn same<R: Record + PartialEq + std::fmt::Debug>(data: &[u8]) {
    if let Ok(record) = R::from_bytes(data) {
        assert_eq!(R::from_bytes(&record.to_bytes()), Ok(record));
    }
}

fuzz_target!(|data: &[u8]| {
    if let Ok(key) = Key::from_bytes(data) {
        assert_eq!(key.to_bytes(), data);
    }
    same::<ClockRecord>(data);
    same::<InboxRecord>(data);
    same::<OnceRecord>(data);
    same::<OutboxRecord>(data);
    same::<SegmentRecord>(data);
    same::<Session>(data);
    same::<SkippedRecord>(data);
    same::<TrustRecord>(data);
    if let Ok(stored) = Stored::new(Some(data)) {
        let entropy = Entropy::from_seed([2; 32]);
        let mut engine = Engine::open(&SELF, *PEER, 1, stored, entropy, Now::default());
        for _ in 0..1_000 {
            if engine.poll().is_none() {
                break;
            }
        }
    }
});

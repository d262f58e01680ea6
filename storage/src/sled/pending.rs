//! What was committed to the journal and is not in sled yet, by key. Reads look here first.
//!
//! sled writes to its file twice for each batch, in threads of its own, flushed or not. So short
//! commits wait here, and enter sled together as one write; what is deleted again meanwhile never
//! does. Bounded by the journal, which holds all of it.

use std::collections::BTreeMap;
use std::collections::btree_map;
use std::ops::Range;

use bytes::Bytes;
use outlive_core::store::Batch;

#[derive(Debug, Default)]
pub(super) struct Pending {
    /// `None`: the key is removed.
    writes: BTreeMap<Bytes, Option<Bytes>>,
}

impl Pending {
    pub(super) fn add(&mut self, group: &[Batch]) {
        for (key, value) in group.iter().flat_map(Batch::ops) {
            // Copied: it may be a small part of something large.
            let copy = Bytes::copy_from_slice;
            self.writes.insert(copy(key), value.as_deref().map(copy));
        }
    }

    /// What is to become of `key`, if anything is.
    pub(super) fn get(&self, key: &Bytes) -> Option<&Option<Bytes>> {
        self.writes.get(key)
    }

    /// In the order of keys. The range must not be empty.
    pub(super) fn range(&self, range: Range<Bytes>) -> btree_map::Range<'_, Bytes, Option<Bytes>> {
        self.writes.range(range)
    }

    pub(super) fn iter(&self) -> btree_map::Iter<'_, Bytes, Option<Bytes>> {
        self.writes.iter()
    }

    pub(super) fn clear(&mut self) {
        self.writes.clear();
    }
}

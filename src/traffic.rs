//! What went over which kind of link.

use std::collections::BTreeMap;
use std::sync::Mutex;

use crate::lock::lock;

/// What a session had of the links of one transport, since it was last opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Packets handed to such links.
    pub packets_sent: u64,
    /// Their bytes.
    pub bytes_sent: u64,
    /// Packets that came over them.
    pub packets_received: u64,
    /// Their bytes.
    pub bytes_received: u64,
    /// Messages that became whole by such a packet. One that came over several links counts for the
    /// first, and signals not at all.
    pub messages_received: u64,
}

/// What went over all links of a session, by transport.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    by_transport: Mutex<BTreeMap<&'static str, Traffic>>,
}

impl Counters {
    pub(crate) fn sent(&self, transport: &'static str, bytes: usize) {
        self.count(transport, |traffic| {
            traffic.packets_sent += 1;
            traffic.bytes_sent += bytes as u64;
        });
    }

    pub(crate) fn received(&self, transport: &'static str, bytes: usize) {
        self.count(transport, |traffic| {
            traffic.packets_received += 1;
            traffic.bytes_received += bytes as u64;
        });
    }

    pub(crate) fn messages_received(&self, transport: &'static str, messages: u64) {
        self.count(transport, |traffic| traffic.messages_received += messages);
    }

    pub(crate) fn all(&self) -> BTreeMap<&'static str, Traffic> {
        lock(&self.by_transport).clone()
    }

    fn count(&self, transport: &'static str, count: impl FnOnce(&mut Traffic)) {
        let mut counted = lock(&self.by_transport);
        count(counted.entry(transport).or_default());
    }
}

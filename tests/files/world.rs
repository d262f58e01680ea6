//! Two peers on a relay in memory, with a disk each.

use std::path::{Path, PathBuf};

use outlive::limits::{InboxLimits, OUTBOX_BYTES};
use outlive::record::{self, Key, OutboxRecord, Record};
use outlive::{
    ChannelId, FileError, FileEvent, FileInbox, Identity, Node, PeerId, Position, ReceivedFile,
    Session, StopReason, Store, TransferId,
};
use outlive_core::store::{Batch, ReadLimit, StoreError};
use outlive_storage::{MemoryStore, Snapshot};
// Whole files take their time.
pub(crate) use outlive_testing::eventually as soon;
use outlive_transports::MemoryRelay;
use tempfile::TempDir;

pub(crate) const APP: ChannelId = ChannelId::FIRST_APP;

pub(crate) fn id(n: u8) -> PeerId {
    Identity::from_seed([n; 32]).peer_id()
}

/// A peer, its store, and its disk.
pub(crate) struct Peer {
    n: u8,
    relay: MemoryRelay,
    pub(crate) store: MemoryStore,
    node: Option<Node>,
    pub(crate) disk: TempDir,
}

impl Peer {
    pub(crate) async fn new(n: u8, relay: &MemoryRelay) -> Self {
        let mut peer = Self {
            n,
            relay: relay.clone(),
            store: MemoryStore::new(),
            node: None,
            disk: tempfile::tempdir().expect("a directory"),
        };
        peer.start().await;
        peer
    }

    pub(crate) async fn start(&mut self) {
        let node = Node::builder()
            .identity(Identity::from_seed([self.n; 32]))
            .store(self.store.clone())
            .inbox_limits(InboxLimits {
                bytes: 4 << 20,
                ..InboxLimits::default()
            })
            .transport(self.relay.clone())
            .start();
        self.node = Some(node.await.expect("a node"));
    }

    pub(crate) async fn stop(&mut self) {
        if let Some(node) = self.node.take() {
            node.shutdown().await.expect("it ends");
        }
    }

    /// Its store, while nothing runs on it.
    pub(crate) async fn stopped(&mut self) -> &MemoryStore {
        self.stop().await;
        self.store = self.store.faults().crash();
        &self.store
    }

    /// The process dies with what was not flushed, and comes again.
    pub(crate) async fn crash(&mut self) {
        self.store = self.store.faults().crash();
        if let Some(node) = self.node.take() {
            // The dead process has lost its store.
            let _ = node.shutdown().await;
        }
        self.start().await;
    }

    /// The process dies, and comes again on a backup of its store.
    pub(crate) async fn go_back(&mut self, backup: &Snapshot) {
        self.store = self.store.faults().restore(backup);
        if let Some(node) = self.node.take() {
            // The dead process has lost its store.
            let _ = node.shutdown().await;
        }
        self.start().await;
    }

    /// Whether a write of what is known of a file that comes from this peer is held.
    pub(crate) fn is_writing(&self, from: u8, file: TransferId) -> bool {
        let key = Key::ReceivingFile(id(from), file).to_bytes();
        self.store.faults().is_writing(&key)
    }

    /// Has the next write of that fail.
    pub(crate) fn fail_write(&self, from: u8, file: TransferId) {
        let key = Key::ReceivingFile(id(from), file).to_bytes();
        self.store.faults().fail_write(key, &StoreError::Full);
    }

    pub(crate) async fn session(&self, with: u8) -> Session {
        let node = self.node.as_ref().expect("it runs");
        node.session(id(with)).await.expect("a session")
    }

    pub(crate) fn put(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.disk.path().join(name);
        std::fs::write(&path, content).expect("room on the disk");
        path
    }

    /// What lies on the disk, by name: `a.part` is what is there of a file that comes, of whichever
    /// transfer.
    pub(crate) fn names(&self) -> Vec<String> {
        let mut names = self.entries();
        for name in &mut names {
            if let Some((file, transfer)) = part_of(name) {
                assert!(transfer.bytes().all(|digit| digit.is_ascii_hexdigit()));
                *name = format!("{file}.part");
            }
        }
        names.sort();
        names
    }

    /// Where the parts of the one file lie that comes.
    pub(crate) fn part(&self) -> PathBuf {
        let mut parts = self.entries();
        parts.retain(|name| part_of(name).is_some());
        assert_eq!(parts.len(), 1, "{parts:?}");
        self.disk.path().join(&parts[0])
    }

    fn entries(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.disk.path()).expect("a directory");
        let name = |entry: std::io::Result<std::fs::DirEntry>| {
            let name = entry.expect("an entry").file_name();
            name.into_string().expect("UTF-8")
        };
        entries.map(name).collect()
    }
}

/// The name of a file that comes, and of its transfer.
fn part_of(name: &str) -> Option<(&str, &str)> {
    name.strip_suffix(".part")?.rsplit_once('.')
}

/// Bytes that a session has sent and received since its process began.
pub(crate) fn carried(session: &Session) -> (u64, u64) {
    let traffic = session.traffic();
    let sent = traffic.values().map(|of| of.bytes_sent).sum();
    (sent, traffic.values().map(|of| of.bytes_received).sum())
}

pub(crate) fn stopped(result: Result<(), FileError>) -> StopReason {
    match result {
        Err(FileError::Stopped(reason)) => reason,
        other => panic!("{other:?} is no stop"),
    }
}

/// Makes a pipe: to open it is to wait for who is at its other end.
pub(crate) fn pipe(path: &Path) {
    let made = std::process::Command::new("mkfifo").arg(path).status();
    assert!(made.expect("mkfifo").success());
}

pub(crate) async fn pair(relay: &MemoryRelay) -> (Peer, Peer) {
    (Peer::new(1, relay).await, Peer::new(2, relay).await)
}

pub(crate) fn content(bytes: usize) -> Vec<u8> {
    let mut n = 1_u32;
    (0..bytes)
        .map(|_| {
            n = n.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (n >> 24) as u8
        })
        .collect()
}

/// Accepts whatever is offered until a file is whole.
pub(crate) async fn receive(files: &mut FileInbox, into: &Path) -> ReceivedFile {
    match end(files, into).await {
        Ok(file) => file,
        Err(reason) => panic!("the file failed: {reason}"),
    }
}

/// Accepts whatever is offered until a file has come to its end.
pub(crate) async fn end(files: &mut FileInbox, into: &Path) -> Result<ReceivedFile, StopReason> {
    loop {
        match soon("the file", files.next()).await.expect("it comes") {
            FileEvent::Offered(mut offer) => offer.accept(into).await.expect("room"),
            FileEvent::Progress(..) => {}
            FileEvent::Received(file) => return Ok(file),
            FileEvent::Failed(_, reason) => return Err(reason),
        }
    }
}

/// Receives until so much of a file is here. Returns how much was here first.
pub(crate) async fn receive_some(files: &mut FileInbox, into: &Path, bytes: u64) -> u64 {
    let mut first = None;
    loop {
        match soon("a part", files.next()).await.expect("it comes") {
            FileEvent::Offered(mut offer) => offer.accept(into).await.expect("room"),
            FileEvent::Progress(_, progress) => {
                let first = *first.get_or_insert(progress.done);
                if progress.done >= bytes {
                    return first;
                }
            }
            other => panic!("{other:?} came too early"),
        }
    }
}

/// Has a message wait that counts for as much as an outbox holds, behind a file if one is given,
/// until the relay can be reached.
pub(crate) async fn fill_outbox(
    relay: &MemoryRelay,
    alice: &mut Peer,
    file: Option<PathBuf>,
) -> impl Drop + use<> {
    let away = relay.faults().unreachable();
    relay.faults().cut(id(1));
    let to_bob = alice.session(2).await;
    if let Some(path) = file {
        to_bob.send_file(path).await.expect("it works");
    }
    drop(to_bob.send(APP, "a heavy one").await.expect("it works"));
    drop(to_bob);
    let store = alice.stopped().await;
    let limit = ReadLimit {
        records: 10,
        bytes: usize::MAX,
    };
    let range = Key::outbox(id(2), APP, Position(0), Position(10));
    let rows = store.range(range, limit).await.expect("it works");
    let (key, record) = rows.last().expect("the message");
    let mut record = OutboxRecord::from_bytes(record).expect("it works");
    record.tally.bytes += OUTBOX_BYTES;
    let mut batch = Batch::new();
    batch.put(key.clone(), record.to_bytes());
    let key = Key::Session(id(2)).to_bytes();
    let stored = store.get(key.clone()).await.expect("it works");
    let mut stored = record::Session::from_bytes(&stored.expect("the session")).expect("it works");
    let out = stored.out.get_mut(&APP).expect("its channel");
    out.next_tally.bytes += OUTBOX_BYTES;
    batch.put(key, stored.to_bytes());
    store.commit(batch).await.expect("it works");
    alice.start().await;
    away
}

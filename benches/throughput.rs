//! Durable messages per second, one way: from `send` through a relay to `next` and `commit` at the
//! receiver, each of the three with a store on disk of its own, in `Sync`.
//!
//! The baseline is one sled that gets the same payloads in batches, each flushed and synced. A
//! message through outlive is written three times (outbox, mailbox, inbox) and deleted three times.

mod baseline;

use std::fs::OpenOptions;
use std::path::Path;
use std::sync::Arc;

use baseline::Pair;
use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput};
use futures_util::stream::{FuturesUnordered, StreamExt};
use outlive::{ChannelId, Identity, Inbox, Node, Session};
use outlive_relay::Relay;
use outlive_storage::SledStore;
use outlive_transports::WebSocketRelay;
use tokio::runtime::Runtime;

const CHAT: ChannelId = ChannelId::MESSAGES;
const GROUP: &str = "durable";

/// Sizes of messages, and how many go in one round.
const ROUNDS: [(usize, u64); 2] = [(256, 2_000), (16 * 1024, 250)];

/// Messages, and commits, that wait for a disk at once.
const AT_ONCE: usize = 256;

struct World {
    sender: Node,
    session: Session,
    receiver: Node,
    inbox: Inbox,
    relay: Relay,
    dir: tempfile::TempDir,
}

impl World {
    async fn new() -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?;
        let store = |name: &str| SledStore::open(dir.path().join(name));
        let relay = Relay::builder()
            .store(Arc::new(store("relay")?))
            .bind(([127, 0, 0, 1], 0).into())
            .await?;
        let node = |seed, store: SledStore| {
            let way = WebSocketRelay::new(&format!("ws://{}", relay.local_addr()))?;
            let identity = Identity::from_seed([seed; 32]);
            let node = Node::builder().identity(identity).store(store);
            anyhow::Ok(node.transport(way).start())
        };
        let sender = node(1, store("sender")?)?.await?;
        let receiver = node(2, store("receiver")?)?.await?;
        let session = sender.session(receiver.peer_id()).await?;
        let inbox = receiver.session(sender.peer_id()).await?.inbox(CHAT)?;
        Ok(Self {
            sender,
            session,
            receiver,
            inbox,
            relay,
            dir,
        })
    }

    /// Sends a number of messages, and returns when the last of them is committed.
    async fn round(&mut self, payload: &Bytes, count: u64) -> anyhow::Result<()> {
        let session = &self.session;
        let sending = futures_util::stream::iter(0..count)
            .map(|_| session.send(CHAT, payload.clone()))
            .buffered(AT_ONCE)
            .for_each(async |receipt| drop(receipt.expect("queued")));
        let inbox = &mut self.inbox;
        let receiving = async {
            let mut commits = FuturesUnordered::new();
            let mut taken = 0;
            while taken < count || !commits.is_empty() {
                tokio::select! {
                    delivery = inbox.next(), if taken < count && commits.len() < AT_ONCE => {
                        commits.push(delivery?.commit());
                        taken += 1;
                    }
                    Some(done) = commits.next() => done?,
                }
            }
            anyhow::Ok(())
        };
        let ((), received) = tokio::join!(sending, receiving);
        received
    }

    async fn end(self) -> anyhow::Result<()> {
        drop((self.session, self.inbox));
        self.sender.shutdown().await?;
        self.receiver.shutdown().await?;
        self.relay.shutdown().await?;
        Ok(self.dir.close()?)
    }
}

/// Appends payloads to one sled, as many together as outlive has on their way.
fn append(db: &sled::Db, dir: &Path, first: u64, payload: &Bytes, count: u64) {
    let log = OpenOptions::new().write(true).open(dir.join("db"));
    let log = log.expect("sled's log");
    let numbers: Vec<_> = (first..first + count).collect();
    for part in numbers.chunks(AT_ONCE) {
        let mut batch = sled::Batch::default();
        for number in part {
            batch.insert(&number.to_be_bytes(), &payload[..]);
        }
        db.apply_batch(batch).expect("applied");
        db.flush().expect("flushed");
        log.sync_data().expect("synced");
    }
}

fn durable(criterion: &mut Criterion, runtime: &Runtime) -> anyhow::Result<()> {
    let mut group = criterion.benchmark_group(GROUP);
    for (size, count) in ROUNDS {
        let payload = Bytes::from(vec![0xa5; size]);
        group.throughput(Throughput::Elements(count));
        let mut world = runtime.block_on(World::new())?;
        group.bench_function(BenchmarkId::new("one-way", size), |bencher| {
            bencher.iter(|| {
                runtime
                    .block_on(world.round(&payload, count))
                    .expect("sent");
            });
        });
        runtime.block_on(world.end())?;

        let dir = tempfile::tempdir()?;
        let config = sled::Config::new().path(dir.path()).flush_every_ms(None);
        let db = config.cache_capacity(16 << 20).open()?;
        let mut next = 0;
        group.bench_function(BenchmarkId::new("sled", size), |bencher| {
            bencher.iter(|| {
                append(&db, dir.path(), next, &payload, count);
                next += count;
            });
        });
    }
    group.finish();
    Ok(())
}

fn main() -> anyhow::Result<()> {
    let runtime = Runtime::new()?;
    let mut criterion = baseline::criterion();
    durable(&mut criterion, &runtime)?;
    criterion.final_summary();
    let pair = Pair {
        group: GROUP,
        ours: "one-way",
        baseline: "sled",
    };
    for (size, _) in ROUNDS {
        pair.print(&size.to_string());
    }
    Ok(())
}

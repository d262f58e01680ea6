//! Sessions that have moved to a link of one transport.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use futures_util::stream::{FuturesUnordered, StreamExt};
use outlive::{ChannelId, FileEvent, Identity, Inbox, Node, Session};
use outlive_relay::Relay;
use outlive_storage::{Durability, MemoryStore, SledOptions};
use outlive_transports::{Quic, WebRtc, WebSocketRelay};
use tempfile::TempDir;

use crate::rows::{Ends, Goal, Goodput, Kind};

const CHAT: ChannelId = ChannelId::MESSAGES;

/// Bytes of a durable message: as much as one segment holds of it.
const MESSAGE: usize = 16 * 1024;

/// Messages that wait at once for the disk, and for the peer.
const AT_ONCE: usize = 256;

/// Between a commit and its sync.
const FLUSH_EVERY: Duration = Duration::from_secs(1);

/// Longer than a link takes to come up in any weather here.
const PATIENCE: Duration = Duration::from_secs(120);

struct Peer {
    node: Node,
    session: Session,
    inbox: Inbox,
    dir: TempDir,
}

impl Peer {
    async fn start(n: u8, relay: String, kind: Kind) -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?;
        let durability = Durability::Buffered {
            flush_every: FLUSH_EVERY,
        };
        let options = SledOptions::new(dir.path().join("store"));
        let store = options.durability(durability).open()?;
        let node = Node::builder()
            .identity(Identity::from_seed([n; 32]))
            .store(store)
            .transport(WebSocketRelay::new(&relay)?);
        let node = match kind {
            Kind::Quic => node.direct(Quic::new()),
            Kind::WebRtc => node.negotiated(WebRtc::new()),
        };
        let node = node.start().await?;
        let session = node
            .session(Identity::from_seed([3 - n; 32]).peer_id())
            .await?;
        let inbox = session.inbox(CHAT)?;
        Ok(Self {
            node,
            session,
            inbox,
            dir,
        })
    }

    /// Until it is carried by the link that is measured.
    async fn carried(&self, kind: Kind) -> anyhow::Result<()> {
        let carried = async {
            let mut state = self.session.state();
            state
                .wait_for(|state| {
                    let carrier = state
                        .links
                        .iter()
                        .find(|link| Some(link.generation) == state.carrier);
                    carrier.is_some_and(|link| link.transport == kind.name())
                })
                .await?;
            anyhow::Ok(())
        };
        tokio::time::timeout(PATIENCE, carried)
            .await
            .context("no direct link came up")?
    }
}

/// Two peers, and the relay by which they found each other, at the first one's host.
pub(crate) struct Pair {
    peers: [Peer; 2],
    relay: Relay,
}

impl Pair {
    pub(crate) async fn open(ends: &Ends, kind: Kind) -> anyhow::Result<Self> {
        let at = (Ends::ADDRESSES[0], 0).into();
        let relay = Relay::builder().store(Arc::new(MemoryStore::new()));
        let relay = ends.hosts[0]
            .run(async move { relay.bind(at).await })
            .await?;
        let url = format!("ws://{}", relay.local_addr());
        let near = ends.hosts[0].run(Peer::start(1, url.clone(), kind)).await?;
        let far = ends.hosts[1].run(Peer::start(2, url, kind)).await?;
        for peer in [&near, &far] {
            peer.carried(kind).await?;
        }
        Ok(Self {
            peers: [near, far],
            relay,
        })
    }

    async fn close(self, ends: &Ends) -> anyhow::Result<()> {
        let [near, far] = self.peers;
        for (host, peer) in ends.hosts.iter().zip([near, far]) {
            let Peer {
                node,
                session,
                inbox,
                dir,
            } = peer;
            drop((session, inbox));
            host.run(async move { node.shutdown().await }).await?;
            dir.close()?;
        }
        let relay = self.relay;
        Ok(ends.hosts[0]
            .run(async move { relay.shutdown().await })
            .await?)
    }

    /// Sends a file of so many bytes.
    pub(crate) async fn file(self, ends: &Ends, bytes: u64) -> anyhow::Result<Goodput> {
        let path = self.peers[0].dir.path().join("file");
        write(path.clone(), bytes)?;
        let into = self.peers[1].dir.path().join("files");
        std::fs::create_dir(&into)?;
        let began = Instant::now();
        let receiver = self.peers[1].session.clone();
        let receiving = ends.hosts[1].start(async move {
            let mut files = receiver.files().await?;
            loop {
                match files.next().await? {
                    FileEvent::Offered(mut offer) => offer.accept(&into).await?,
                    FileEvent::Progress(..) => {}
                    FileEvent::Received(file) => {
                        let took = began.elapsed();
                        file.commit().await?;
                        return anyhow::Ok(took);
                    }
                    FileEvent::Failed(_, reason) => anyhow::bail!("the file failed: {reason}"),
                }
            }
        });
        let sender = self.peers[0].session.clone();
        let sending = ends.hosts[0].run(async move { sender.send_file(path).await });
        let _sending = sending.await?;
        let took = receiving.await??;
        self.close(ends).await?;
        Ok(Goodput { bytes, took })
    }

    /// Sends durable messages until the goal is reached.
    pub(crate) async fn messages(mut self, ends: &Ends, goal: Goal) -> anyhow::Result<Goodput> {
        let session = self.peers[0].session.clone();
        let began = Instant::now();
        let sending = ends.hosts[0].start(async move {
            let payload = vec![0xa5; MESSAGE];
            let mut waiting = FuturesUnordered::new();
            loop {
                if waiting.len() >= AT_ONCE {
                    waiting.next().await;
                }
                let session = session.clone();
                let payload = payload.clone();
                waiting.push(async move {
                    match session.send(CHAT, payload).await {
                        Ok(receipt) => receipt.delivered().await.is_ok(),
                        Err(_) => false,
                    }
                });
            }
        });
        let peer = &mut self.peers[1];
        let session = peer.session.clone();
        let inbox = std::mem::replace(&mut peer.inbox, session.inbox(ChannelId(1_000))?);
        let came = ends.hosts[1].run(receive(inbox, goal, began)).await;
        sending.abort();
        let came = came?;
        self.close(ends).await?;
        Ok(came)
    }

    /// Round trips of a small message. It is committed with its answer: polled together, both are in one
    /// write.
    pub(crate) async fn round_trips(
        mut self,
        ends: &Ends,
        time: Duration,
    ) -> anyhow::Result<Vec<Duration>> {
        let take = |peer: &mut Peer| {
            let other = peer.session.inbox(ChannelId(1_000))?;
            anyhow::Ok((
                peer.session.clone(),
                std::mem::replace(&mut peer.inbox, other),
            ))
        };
        let [near, far] = &mut self.peers;
        let ((session, mut inbox), (answers, mut questions)) = (take(near)?, take(far)?);
        let echo = ends.hosts[1].start(async move {
            loop {
                let delivery = questions.next().await?;
                let payload = delivery.payload().clone();
                let answer = answers.send(CHAT, payload);
                drop(tokio::try_join!(delivery.commit(), answer)?);
            }
            #[expect(unreachable_code, reason = "it says what the errors are")]
            anyhow::Ok(())
        });
        let took = ends.hosts[0].run(async move {
            let (began, mut took) = (Instant::now(), Vec::new());
            while began.elapsed() < time {
                let said = Instant::now();
                drop(session.send(CHAT, vec![0xa5; 32]).await?);
                let delivery = inbox.next().await?;
                took.push(said.elapsed());
                delivery.commit().await?;
            }
            anyhow::Ok(took)
        });
        let took = took.await?;
        echo.abort();
        self.close(ends).await?;
        Ok(took)
    }
}

async fn receive(mut inbox: Inbox, goal: Goal, began: Instant) -> anyhow::Result<Goodput> {
    let (mut bytes, mut commits) = (0, FuturesUnordered::new());
    while let Some(left) = goal.left(began, bytes) {
        tokio::select! {
            delivery = inbox.next(), if commits.len() < AT_ONCE => {
                commits.push(delivery?.commit());
            }
            Some(done) = commits.next() => {
                done?;
                bytes += MESSAGE as u64;
            }
            () = tokio::time::sleep(left) => break,
        }
    }
    Ok(Goodput {
        bytes,
        took: began.elapsed(),
    })
}

/// What one sled takes of the same payloads in that time, each batch given to the system.
pub(crate) fn sled(goal: Goal) -> anyhow::Result<Goodput> {
    let dir = tempfile::tempdir()?;
    let config = sled::Config::new()
        .path(dir.path())
        .flush_every_ms(Some(1_000));
    let db = config.cache_capacity(16 << 20).open()?;
    let (began, mut number) = (Instant::now(), 0_u64);
    let payload = vec![0xa5; MESSAGE];
    while goal.left(began, number * MESSAGE as u64).is_some() {
        let mut batch = sled::Batch::default();
        for _ in 0..64 {
            batch.insert(&number.to_be_bytes(), &payload[..]);
            number += 1;
        }
        db.apply_batch(batch)?;
        db.flush()?;
    }
    Ok(Goodput {
        bytes: number * MESSAGE as u64,
        took: began.elapsed(),
    })
}

fn write(path: PathBuf, bytes: u64) -> anyhow::Result<()> {
    let mut random = fastrand::Rng::with_seed(7);
    let mut file = std::io::BufWriter::new(std::fs::File::create(path)?);
    let mut left = bytes;
    while left > 0 {
        let part = left.min(64 * 1024);
        let content: Vec<u8> = (0..part / 8 + 1)
            .flat_map(|_| random.u64(..).to_le_bytes())
            .collect();
        std::io::Write::write_all(&mut file, &content[..part as usize])?;
        left -= part;
    }
    // What the system still has to write would share the disk with what is measured.
    file.into_inner()?.sync_all()?;
    Ok(())
}

//! From a connection that is cut to a durable message that flows again, over a relay on loopback:
//! the loss is noticed, the relay dialed, the peer signed in, the link bound, the message handed
//! over, stored by the relay and by the receiver, and given to the app.
//!
//! `at-once` dials when the loss is known, as a network that comes up makes it; `back-off` waits
//! its random time before, as after any other loss. The baseline connects with tokio-tungstenite
//! and gets one echo.

mod baseline;
mod wire;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use baseline::Pair;
use criterion::{BenchmarkId, Criterion};
use futures_util::{SinkExt, StreamExt};
use outlive::{ChannelId, Identity, Inbox, NetworkMonitor, Node, RelayState, Session};
use outlive_relay::Relay;
use outlive_storage::SledStore;
use outlive_transports::WebSocketRelay;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio_tungstenite::tungstenite::Message;
use wire::Wire;

const CHAT: ChannelId = ChannelId::MESSAGES;
const GROUP: &str = "rebind";
const BYTES: usize = 256;

/// Two nodes, a relay, and the wire from the sender to it.
struct World {
    sender: Node,
    network: NetworkMonitor,
    session: Session,
    relay_state: watch::Receiver<RelayState>,
    receiver: Node,
    inbox: Inbox,
    relay: Relay,
    wire: Wire,
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
        let wire = Wire::to(relay.local_addr()).await?;
        let network = NetworkMonitor::new();
        let sender = Node::builder()
            .identity(Identity::from_seed([1; 32]))
            .store(store("sender")?)
            .transport(WebSocketRelay::new(&format!("ws://{}", wire.address))?)
            .network(network.clone())
            .start()
            .await?;
        let receiver = Node::builder()
            .identity(Identity::from_seed([2; 32]))
            .store(store("receiver")?)
            .transport(WebSocketRelay::new(&format!(
                "ws://{}",
                relay.local_addr()
            ))?)
            .start()
            .await?;
        let session = sender.session(receiver.peer_id()).await?;
        let inbox = receiver.session(sender.peer_id()).await?.inbox(CHAT)?;
        let (_, relay_state) = sender.relays().swap_remove(0);
        let mut world = Self {
            sender,
            network,
            session,
            relay_state,
            receiver,
            inbox,
            relay,
            wire,
            dir,
        };
        world.message().await?;
        Ok(world)
    }

    async fn message(&mut self) -> anyhow::Result<()> {
        let receipt = self.session.send(CHAT, vec![0xa5; BYTES]).await?;
        self.inbox.next().await?.commit().await?;
        receipt.delivered().await?;
        Ok(())
    }

    async fn cut(&mut self, at_once: bool) -> anyhow::Result<Duration> {
        let started = Instant::now();
        self.wire.cut();
        if at_once {
            self.relay_state
                .wait_for(|state| matches!(state, RelayState::Failing(_)))
                .await?;
            self.network.up();
        }
        let receipt = self.session.send(CHAT, vec![0xa5; BYTES]).await?;
        let delivery = self.inbox.next().await?;
        let took = started.elapsed();
        delivery.commit().await?;
        receipt.delivered().await?;
        Ok(took)
    }

    async fn end(self) -> anyhow::Result<()> {
        drop((self.session, self.inbox));
        self.sender.shutdown().await?;
        self.receiver.shutdown().await?;
        self.relay.shutdown().await?;
        self.wire.end().await;
        Ok(self.dir.close()?)
    }
}

async fn echo(listener: TcpListener) {
    while let Ok((socket, _)) = listener.accept().await {
        let Ok(mut socket) = tokio_tungstenite::accept_async(socket).await else {
            continue;
        };
        while let Some(Ok(message)) = socket.next().await {
            if message.is_close() || socket.send(message).await.is_err() {
                break;
            }
        }
    }
}

async fn connect_and_echo(address: SocketAddr) -> anyhow::Result<Duration> {
    let started = Instant::now();
    let (mut socket, _) = tokio_tungstenite::connect_async(format!("ws://{address}")).await?;
    socket.send(Message::binary(vec![0xa5; BYTES])).await?;
    let answer = socket.next().await;
    let took = started.elapsed();
    anyhow::ensure!(matches!(answer, Some(Ok(_))), "no echo");
    socket.close(None).await?;
    Ok(took)
}

fn rebind(criterion: &mut Criterion, runtime: &Runtime) -> anyhow::Result<()> {
    let mut group = criterion.benchmark_group(GROUP);
    // A round takes as long as the back-off says; more of them would say no more.
    group.sampling_mode(criterion::SamplingMode::Flat);
    let mut world = runtime.block_on(World::new())?;
    for (name, at_once, samples) in [("at-once", true, 30), ("back-off", false, 30)] {
        group.sample_size(samples);
        group.bench_function(BenchmarkId::new(name, BYTES), |bencher| {
            bencher.iter_custom(|rounds| {
                runtime.block_on(async {
                    let mut took = Duration::ZERO;
                    for _ in 0..rounds {
                        took += world.cut(at_once).await.expect("a message");
                    }
                    took
                })
            });
        });
    }
    runtime.block_on(world.end())?;

    let listener = runtime.block_on(TcpListener::bind(("127.0.0.1", 0)))?;
    let address = listener.local_addr()?;
    let echoing = runtime.spawn(echo(listener));
    group.bench_function(BenchmarkId::new("tungstenite", BYTES), |bencher| {
        bencher.iter_custom(|rounds| {
            runtime.block_on(async {
                let mut took = Duration::ZERO;
                for _ in 0..rounds {
                    took += connect_and_echo(address).await.expect("an echo");
                }
                took
            })
        });
    });
    echoing.abort();
    group.finish();
    Ok(())
}

fn main() -> anyhow::Result<()> {
    // One thread, so that the word of the network can't come before the loss is known.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let mut criterion = baseline::criterion();
    rebind(&mut criterion, &runtime)?;
    criterion.final_summary();
    for ours in ["at-once", "back-off"] {
        let pair = Pair {
            group: GROUP,
            ours,
            baseline: "tungstenite",
        };
        pair.print(&BYTES.to_string());
    }
    Ok(())
}

//! Messages are sent without a network, wait on disk over a restart, and arrive once.
//!
//! `cargo run -p outlive --example offline_queue`

use std::path::Path;
use std::sync::Arc;

use anyhow::{Result, ensure};
use outlive::{ChannelId, Identity, Node};
use outlive_relay::Relay;
use outlive_storage::{MemoryStore, SledStore};
use outlive_transports::WebSocketRelay;

const CHAT: ChannelId = ChannelId::MESSAGES;

fn alice() -> Identity {
    Identity::from_seed([1; 32])
}

async fn write_offline(dir: &Path, bob: outlive::PeerId) -> Result<()> {
    let node = Node::builder()
        .identity(alice())
        .store(SledStore::open(dir)?)
        .start()
        .await?;
    let session = node.session(bob).await?;
    for n in 1..=3 {
        session.send(CHAT, format!("written offline, {n}")).await?;
    }
    println!("three messages are on disk, and nobody was there");
    drop(session);
    node.shutdown().await?;
    Ok(())
}

#[tokio::main]
async fn main() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let bob = Identity::from_seed([2; 32]);
    write_offline(dir.path(), bob.peer_id()).await?;

    let store = Arc::new(MemoryStore::new());
    let relay = Relay::builder()
        .store(store)
        .bind(([127, 0, 0, 1], 0).into())
        .await?;
    let url = format!("ws://{}", relay.local_addr());
    // Nothing is sent here: the outbox drains by itself once there is a relay.
    let sender = Node::builder()
        .identity(alice())
        .store(SledStore::open(dir.path())?)
        .transport(WebSocketRelay::new(&url)?)
        .start()
        .await?;
    let receiver = Node::builder()
        .identity(bob)
        .store(MemoryStore::new())
        .transport(WebSocketRelay::new(&url)?)
        .start()
        .await?;
    let mut inbox = receiver.session(sender.peer_id()).await?.inbox(CHAT)?;
    for n in 1..=3 {
        let delivery = inbox.next().await?;
        let text = String::from_utf8_lossy(delivery.payload()).into_owned();
        ensure!(
            text == format!("written offline, {n}"),
            "out of order: {text}"
        );
        println!("arrived: {text}");
        delivery.commit().await?;
    }
    drop(inbox);
    sender.shutdown().await?;
    receiver.shutdown().await?;
    relay.shutdown().await?;
    Ok(())
}

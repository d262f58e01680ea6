//! A peer that uses the library's own channels as no app can.

use std::time::Duration;

use bytes::Bytes;
use outlive::{ChannelId, Identity, MessageId, Store};
use outlive_core::engine::{Engine, Output, SendOptions, Stored};
use outlive_core::record::Key;
use outlive_core::{Entropy, Now};

use crate::world::id;

/// Puts messages into the outbox that a node will find in its store when it is started. Returns
/// their names.
pub(crate) async fn queue(
    store: &impl Store,
    (from, to): (u8, u8),
    channel: ChannelId,
    payloads: impl IntoIterator<Item = Bytes>,
) -> Vec<MessageId> {
    let identity = Identity::from_seed([from; 32]);
    let session = store.get(Key::Session(id(to)).to_bytes()).await.unwrap();
    let stored = Stored::new(session.as_deref()).unwrap();
    let now = Now {
        elapsed: Duration::from_secs(1),
        ..Now::default().after(present())
    };
    let entropy = Entropy::from_seed([from; 32]);
    let mut engine = Engine::open(&identity, id(to), 0, stored, entropy, now);
    let options = SendOptions::default();
    let mut names = Vec::new();
    for payload in payloads {
        let ticket = engine.send(channel, &payload, &options, now).unwrap();
        names.push(ticket.id);
        while let Some(output) = engine.poll() {
            if let Output::Write(batch) = output {
                store.commit(batch).await.unwrap();
                engine.written(now);
            }
        }
    }
    names
}

fn present() -> Duration {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.unwrap()
}

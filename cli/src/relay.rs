//! `outlive relay`.

use std::sync::Arc;

use anyhow::{Context, Result};
use outlive_relay::{Relay, RelayConfig};
use outlive_storage::SledStore;
use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};

#[derive(Serialize)]
struct Listening {
    event: &'static str,
    addr: String,
}

pub(crate) async fn run(args: crate::args::Relay, _json: bool) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let store = SledStore::open(args.data.join("mailboxes"))
        .with_context(|| format!("can't open {}", args.data.display()))?;
    let mut config = RelayConfig::default();
    if let Some(envelopes) = args.mailbox_envelopes {
        config.mailbox_envelopes = envelopes;
    }
    let relay = Relay::builder()
        .store(Arc::new(store))
        .config(config)
        .bind(args.listen)
        .await?;
    let addr = relay.local_addr().to_string();
    // Always JSON: scripts wait for this line.
    crate::output::json(&Listening {
        event: "listening",
        addr,
    })?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    eprintln!("outlive: draining");
    relay.shutdown().await?;
    Ok(())
}

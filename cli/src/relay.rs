//! `outlive relay`.

use std::io::IsTerminal;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use outlive_relay::{Rate, Relay, RelayConfig, RelayTls};
use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;
use tracing::{info, warn};
use zeroize::Zeroizing;

#[derive(Serialize)]
struct Listening {
    event: &'static str,
    addr: String,
    /// Where STUN requests are answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    stun: Option<String>,
    /// Where the numbers are told.
    #[serde(skip_serializing_if = "Option::is_none")]
    metrics: Option<String>,
}

fn config(args: &crate::args::Relay) -> RelayConfig {
    let mut config = RelayConfig::default();
    config.mailbox_envelopes = args.mailbox_envelopes;
    config.mailbox_bytes = args.mailbox_bytes;
    config.max_ttl = Duration::from_secs(args.max_ttl);
    config.connections = args.connections;
    config.peer_envelopes = Rate::new(args.peer_envelopes);
    config.peer_bytes = Rate::new(args.peer_bytes);
    config.peer_watches = Rate::new(args.peer_watches);
    config.address_peers = args.address_peers;
    config.address_stun = Rate::new(args.address_stun);
    config.address_sign_ins = Rate::new(args.address_sign_ins);
    config.address_connections = args.address_connections;
    config
}

/// Reads the key of a certificate.
fn key(path: &Path) -> Result<Zeroizing<Vec<u8>>> {
    let pem = Zeroizing::new(crate::data::pem(path)?);
    let says = |what: &[u8]| pem.windows(what.len()).any(|part| part == what);
    if says(b"BEGIN ENCRYPTED PRIVATE KEY") || says(b"Proc-Type: 4,ENCRYPTED") {
        let path = path.display();
        bail!(
            "the key in {path} is encrypted; give one that is not, as `openssl pkey -in {path} -out FILE` \
             writes it"
        );
    }
    Ok(pem)
}

/// Reads the certificate and its key, if the relay is to have any.
fn tls(args: &crate::args::Relay) -> Result<Option<RelayTls>> {
    let (Some(cert), Some(key)) = (&args.tls_cert, &args.tls_key) else {
        return Ok(None);
    };
    let tls = RelayTls::from_pem(&crate::data::pem(cert)?, &self::key(key)?);
    let files = || format!("can't use {} with {}", cert.display(), key.display());
    tls.with_context(files).map(Some)
}

/// The certificate and its key, being read again: on a thread of its own, for a disk may hang.
type Reading = JoinHandle<Result<Option<RelayTls>>>;

/// Waits until they are read; for ever if they are not being read.
async fn read(reading: &mut Option<Reading>) -> Result<Option<RelayTls>> {
    let Some(under_way) = reading else {
        return std::future::pending().await;
    };
    let read = under_way.await;
    *reading = None;
    read?
}

/// Shows what was read. Whatever is wrong with it is no reason to end.
fn renew(relay: &Relay, read: Result<Option<RelayTls>>) {
    let renewed = match read {
        Ok(Some(tls)) => relay.reload_tls(tls).map_err(Into::into),
        Ok(None) => return info!("there is no certificate to read again"),
        Err(error) => Err(error),
    };
    match renewed {
        Ok(()) => info!("the certificate was read again; whoever connects now is shown it"),
        Err(error) => {
            let error = format!("{error:#}");
            warn!(%error, "the certificate can't be renewed; the one before stays in use");
        }
    }
}

pub(crate) async fn run(args: crate::args::Relay, _json: bool) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    // Then it means that the terminal is closed, and with it what was started there.
    let in_terminal = std::io::stdin().is_terminal();
    let store = crate::data::open(&args.data, "mailboxes")?;
    let mut builder = Relay::builder()
        .store(Arc::new(store))
        .config(config(&args));
    if let Some(tls) = tls(&args)? {
        builder = builder.tls(tls);
    }
    if let Some(address) = args.stun {
        builder = builder.stun(address);
    }
    if let Some(address) = args.metrics {
        builder = builder.metrics(address);
    }
    let relay = builder.bind(args.listen).await?;
    let addr = relay.local_addr().to_string();
    // Always JSON: scripts wait for this line.
    crate::output::json(&Listening {
        event: "listening",
        addr,
        stun: relay.stun_addr().map(|address| address.to_string()),
        metrics: relay.metrics_addr().map(|address| address.to_string()),
    })?;
    let args = Arc::new(args);
    let mut reading = None;
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            // While they are read, one that comes waits.
            _ = hang_up.recv(), if reading.is_none() => {
                if in_terminal {
                    break;
                }
                let args = args.clone();
                reading = Some(tokio::task::spawn_blocking(move || tls(&args)));
            }
            read = read(&mut reading) => renew(&relay, read),
        }
    }
    crate::output::say("draining");
    relay.shutdown().await?;
    Ok(())
}

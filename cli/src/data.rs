//! The data directory: an identity and a store.

use std::fs;
use std::io::{ErrorKind, Write};
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
use data_encoding::HEXLOWER;
use outlive::{Identity, Node, StoreError};
use outlive_storage::SledStore;
use outlive_transports::WebSocketRelay;
use serde::Serialize;

/// The file with the identity's secret, in hex.
const IDENTITY: &str = "identity";

/// The identity of a data directory, made if it is new.
pub(crate) fn identity(dir: &Path) -> Result<Identity> {
    let path = dir.join(IDENTITY);
    match fs::read_to_string(&path) {
        Ok(text) => {
            let seed = HEXLOWER.decode(text.trim().as_bytes()).ok();
            let Some(seed) = seed.and_then(|seed| <[u8; 32]>::try_from(seed).ok()) else {
                bail!(
                    "{} is damaged; restore it from a backup: who has it is this peer",
                    path.display()
                );
            };
            Ok(Identity::from_seed(seed))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => make(dir, &path),
        Err(error) => Err(error).with_context(|| format!("can't read {}", path.display())),
    }
}

fn make(dir: &Path, path: &Path) -> Result<Identity> {
    fs::create_dir_all(dir).with_context(|| format!("can't make {}", dir.display()))?;
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).context("the operating system gave no random numbers")?;
    let new = path.with_extension("new");
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let written = || -> std::io::Result<()> {
        let mut file = options.open(&new)?;
        file.write_all(HEXLOWER.encode(&seed).as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, path)
    };
    written().with_context(|| format!("can't write {}", path.display()))?;
    Ok(Identity::from_seed(seed))
}

/// Opens the store of a data directory.
pub(crate) fn store(dir: &Path) -> Result<SledStore> {
    open(dir, "store")
}

/// Opens a store in a data directory, and says what to do if that does not work.
pub(crate) fn open(dir: &Path, name: &str) -> Result<SledStore> {
    SledStore::open(dir.join(name)).map_err(|error| match error {
        StoreError::Io(error) => {
            let what_to_do = match error.kind() {
                ErrorKind::PermissionDenied => {
                    "; run this as the user it belongs to, or choose another directory with --data"
                }
                ErrorKind::ReadOnlyFilesystem => "; choose another directory with --data",
                ErrorKind::AlreadyExists | ErrorKind::NotADirectory => {
                    "; there is a file where a directory has to be, choose another one with --data"
                }
                _ => "",
            };
            anyhow!("can't open {}: {error}{what_to_do}", dir.display())
        }
        error => anyhow!("can't open {}: {error}", dir.display()),
    })
}

/// Reads a PEM file.
pub(crate) fn pem(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("can't read {}", path.display()))
}

/// Starts the node of a data directory.
pub(crate) async fn node(dir: &Path, relay: Option<&str>, ca: Option<&Path>) -> Result<Node> {
    let trusting = |relay: WebSocketRelay| match ca {
        Some(ca) => relay
            .with_root_certificates(&pem(ca)?)
            .with_context(|| format!("can't use {}", ca.display())),
        None => Ok(relay),
    };
    let transport = relay.map(WebSocketRelay::new).transpose()?;
    let transport = transport.map(trusting).transpose()?;
    let mut builder = Node::builder().identity(identity(dir)?).store(store(dir)?);
    if let Some(transport) = transport {
        builder = builder.transport(transport);
    }
    Ok(builder.start().await?)
}

/// Says on stderr, once, when the relay can't be reached: it goes on trying.
pub(crate) async fn complain(node: &Node) {
    for (address, mut state) in node.relays() {
        while state.changed().await.is_ok() {
            let failing = match &*state.borrow_and_update() {
                outlive::RelayState::Failing(reason) => Some(reason.clone()),
                _ => None,
            };
            if let Some(reason) = failing {
                eprintln!("outlive: no connection to {address} yet ({reason}); trying on");
                break;
            }
        }
    }
    std::future::pending::<()>().await;
}

#[derive(Serialize)]
struct Peer {
    peer: String,
}

/// Prints the peer id.
pub(crate) fn id(dir: &Path, json: bool) -> Result<()> {
    let peer = identity(dir)?.peer_id().to_string();
    if json {
        crate::output::json(&Peer { peer })?;
    } else {
        crate::output::line(peer.as_bytes())?;
    }
    Ok(())
}

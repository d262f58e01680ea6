//! The data directory: an identity and a store.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, anyhow, bail};
use outlive::{
    Contact, Identity, NetworkMonitor, Node, RelayState, RelayTransport, Session, Store,
    StoreError, TransportError,
};
use outlive_storage::{EncryptedStore, SledStore, Unlock};
use outlive_transports::{Quic, WebRtc, WebSocketRelay};
use serde::Serialize;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::args::{Data, Direct, Foreign, Ways};
use crate::given::WrongUsage;
use crate::identity::{STORE, Secrets};
use crate::{passphrase, secret};

/// A data directory whose secrets are known.
pub(crate) struct Directory {
    dir: PathBuf,
    secrets: Secrets,
}

impl Directory {
    /// Opens a data directory, and makes it if it is new.
    pub(crate) fn open(data: &Data) -> Result<Self> {
        let passphrase = passphrase::current(data)?;
        Ok(Self {
            dir: data.dir.clone(),
            secrets: Secrets::of(&data.dir, passphrase.as_ref())?,
        })
    }

    /// Opens a data directory that has to be there, for what only reads it.
    pub(crate) fn existing(data: &Data) -> Result<Self> {
        if !Secrets::were_in(&data.dir) {
            let dir = data.dir.display();
            bail!(
                "there is no data directory at {dir}; check --data, or make one with `outlive id`"
            );
        }
        Self::open(data)
    }

    pub(crate) fn identity(&self) -> Identity {
        self.secrets.identity()
    }

    /// Its store.
    pub(crate) async fn store(&self) -> Result<Arc<dyn Store>> {
        let store = open(&self.dir, STORE)?;
        Ok(match &self.secrets.store_key {
            None => Arc::new(store),
            Some(key) => {
                let opened = EncryptedStore::open(store, &Unlock::key(**key)).await;
                let can_t_open = || format!("can't open {}", self.dir.display());
                Arc::new(opened.with_context(can_t_open)?)
            }
        })
    }
}

/// Opens a store in a data directory, and says what to do if that does not work.
pub(crate) fn open(dir: &Path, name: &str) -> Result<SledStore> {
    let opened = crate::panics::told_as_errors(|| SledStore::open(dir.join(name)));
    opened.map_err(|error| match error {
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
            anyhow!("can't open {error}{what_to_do}")
        }
        // It says where.
        error @ StoreError::Damaged { .. } => anyhow!("{error}"),
        error => anyhow!("can't open {}: {error}", dir.display()),
    })
}

/// Reads a PEM file.
pub(crate) fn pem(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("can't read {}", path.display()))
}

/// Starts the node of a data directory without any way to peers.
pub(crate) async fn alone(data: &Data) -> Result<Node> {
    let directory = Directory::open(data)?;
    let builder = Node::builder().identity(directory.identity());
    Ok(builder.store(directory.store().await?).start().await?)
}

/// Starts the node of a data directory, over these relays and what else is allowed. Returns it with
/// its store, for who only looks. `contact` is who was named.
pub(crate) async fn node(
    data: &Data,
    relays: &[String],
    ways: &Ways,
    contact: Option<&Contact>,
) -> Result<(Node, Arc<dyn Store>)> {
    let directory = Directory::open(data)?;
    let store = directory.store().await?;
    let node = node_over(&directory, store.clone(), relays, ways, contact).await?;
    Ok((node, store))
}

/// The same over its store, which is open already.
pub(crate) async fn node_over(
    directory: &Directory,
    store: Arc<dyn Store>,
    relays: &[String],
    ways: &Ways,
    contact: Option<&Contact>,
) -> Result<Node> {
    let mut builder = Node::builder()
        .identity(directory.identity())
        .network(NetworkMonitor::system());
    let ca = ways
        .relay_ca
        .as_deref()
        .map(|ca| Ok::<_, anyhow::Error>((ca.to_owned(), pem(ca)?)));
    let ca = ca.transpose()?;
    for address in relays {
        builder = builder.transport(relay(address, ca.as_ref())?);
    }
    // With the relays of a contact in place of one of its own, a node has none to read at.
    if ways.relay.is_some() && ways.foreign_relays != Foreign::Never {
        let named = ways.foreign(contact).to_vec();
        let allowed = ways.foreign_relays;
        builder = builder.foreign_relays(move |address| {
            let is_named = named.iter().any(|named| named == address);
            if !is_named && !allowed.allows(address) {
                return None;
            }
            let relay = relay(crate::given::relay(address).ok()?.as_str(), ca.as_ref()).ok()?;
            Some(Arc::new(relay) as Arc<dyn RelayTransport>)
        });
    }
    if ways.allow(Direct::Quic) {
        let quic = ways.stun.iter().fold(Quic::new(), Quic::ask_stun);
        builder = builder.direct(quic);
    }
    if ways.allow(Direct::Webrtc) {
        builder = builder.negotiated(webrtc(ways)?);
    }
    Ok(builder.store(store).start().await?)
}

/// The way to a relay, with an authority that is trusted too.
fn relay(address: &str, ca: Option<&(PathBuf, Vec<u8>)>) -> Result<WebSocketRelay> {
    let relay = WebSocketRelay::new(address)?;
    let Some((path, pem)) = ca else {
        return Ok(relay);
    };
    relay.with_root_certificates(pem).map_err(|error| {
        let ca = path.display();
        match error {
            // It names the relay, where nothing is wrong.
            TransportError::Address { reason, .. } => anyhow!("can't use {ca}: {reason}"),
            error => anyhow!("can't use {ca}: {error}"),
        }
    })
}

/// The variable that holds the password of a TURN server where no file does.
const TURN_PASSWORD: &str = "OUTLIVE_TURN_PASSWORD";

fn webrtc(ways: &Ways) -> Result<WebRtc> {
    let ask = |webrtc: WebRtc, server| webrtc.with_stun(format!("stun:{server}"));
    let webrtc = ways.stun.iter().fold(WebRtc::new(), ask);
    let (Some(server), Some(user)) = (&ways.turn, &ways.turn_user) else {
        return Ok(webrtc);
    };
    let file = ways.turn_password_file.as_deref();
    let Some(password) = secret::given("password", file, TURN_PASSWORD)? else {
        bail!(WrongUsage::new(
            "the password for the TURN server is missing; give it with --turn-password-file FILE or in OUTLIVE_TURN_PASSWORD",
        ))
    };
    let password =
        std::str::from_utf8(&password).context("the password for the TURN server is no text")?;
    Ok(webrtc.with_turn(format!("turn:{server}"), user, password))
}

/// The session with a contact, which reads at the relays that it names. Where it holds a token, the relay is
/// not told who sends.
pub(crate) async fn session(node: &Node, contact: &Contact, ways: &Ways) -> Result<Session> {
    let session = node.session(contact.peer()).await?;
    let relays = ways.foreign(Some(contact));
    if !relays.is_empty() {
        session.mailboxes_at(relays).await?;
    }
    if let Some(token) = contact.token() {
        session.send_unidentified(Some(token.clone())).await?;
    }
    Ok(session)
}

/// Says on stderr, once for each relay, when it can't be reached: it goes on being tried.
pub(crate) async fn complain(node: &Node) {
    let mut complaints = JoinSet::new();
    for (address, state) in node.relays() {
        complaints.spawn(complain_of(address, state));
    }
    while complaints.join_next().await.is_some() {}
    std::future::pending::<()>().await;
}

/// What is said of a certificate that nobody issued who is trusted.
const NO_AUTHORITY: &str = "no authority that is trusted here";

async fn complain_of(address: String, mut state: watch::Receiver<RelayState>) {
    let failing = |state: &RelayState| matches!(state, RelayState::Failing(_));
    if let Ok(state) = state.wait_for(failing).await
        && let RelayState::Failing(reason) = &*state
    {
        let hint = if reason.contains(NO_AUTHORITY) {
            " with --relay-ca"
        } else {
            ""
        };
        crate::output::say(format_args!(
            "no connection to {address} yet ({reason}{hint}); trying on"
        ));
    }
}

/// What to say when the time is over: which relays were not reached, if there are such.
pub(crate) fn time_is_over(node: &Node) -> String {
    let relays = node.relays().into_iter().chain(node.relays_elsewhere());
    let missed = relays.filter_map(|(address, state)| {
        let connected = *state.borrow() == RelayState::Connected;
        (!connected).then_some(address)
    });
    let missed: Vec<_> = missed.collect();
    if missed.is_empty() {
        return "the time is over".to_owned();
    }
    format!(
        "the time is over, and there is no connection to {}",
        missed.join(", ")
    )
}

#[derive(Serialize)]
struct Peer {
    peer: String,
}

/// Prints the peer id.
pub(crate) fn id(data: &Data, json: bool) -> Result<()> {
    let peer = Directory::open(data)?.identity().peer_id().to_string();
    if json {
        crate::output::json(&Peer { peer })?;
    } else {
        crate::output::line(peer.as_bytes())?;
    }
    Ok(())
}

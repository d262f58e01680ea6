//! What a relay hears and keeps, and a search in it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite::Message;

/// Ends the WebSockets of clients, goes on to the relay, and writes down what either side says. Raw
/// bytes would not do: what a client says is masked in them (RFC 6455, 5.3).
pub(crate) struct Tap {
    pub(crate) address: String,
    said: Arc<Mutex<[Vec<u8>; 2]>>,
    _serving: JoinSet<()>,
}

const BY_CLIENTS: usize = 0;
const BY_THE_RELAY: usize = 1;

impl Tap {
    pub(crate) async fn before(relay: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("its address");
        let said: Arc<Mutex<[Vec<u8>; 2]>> = Arc::default();
        let (mut serving, noted) = (JoinSet::new(), said.clone());
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                let noted = noted.clone();
                connections.spawn(async move {
                    let client = tokio_tungstenite::accept_async(socket).await;
                    let relay = tokio_tungstenite::connect_async(format!("ws://{relay}")).await;
                    let (Ok(client), Ok((relay, _))) = (client, relay) else {
                        return;
                    };
                    let (mut to_client, mut from_client) = client.split();
                    let (mut to_relay, mut from_relay) = relay.split();
                    loop {
                        let (who, message) = tokio::select! {
                            message = from_client.next() => (BY_CLIENTS, message),
                            message = from_relay.next() => (BY_THE_RELAY, message),
                        };
                        let Some(Ok(message)) = message else { return };
                        if let Message::Binary(bytes) = &message {
                            noted.lock().expect("no panic")[who].extend_from_slice(bytes);
                        }
                        let sent = if who == BY_CLIENTS {
                            to_relay.send(message).await
                        } else {
                            to_client.send(message).await
                        };
                        if sent.is_err() {
                            return;
                        }
                    }
                });
            }
        });
        Self {
            address: format!("ws://{address}"),
            said,
            _serving: serving,
        }
    }

    /// What the clients said, and what the relay said.
    pub(crate) fn said(&self) -> [Vec<u8>; 2] {
        self.said.lock().expect("no panic").clone()
    }
}

/// All that is in the files of a directory.
pub(crate) fn contents(directory: &Path) -> Vec<u8> {
    let entries = std::fs::read_dir(directory).expect("a directory");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let read = |path: PathBuf| {
        if path.is_dir() {
            contents(&path)
        } else {
            std::fs::read(path).expect("a file")
        }
    };
    paths.flat_map(read).collect()
}

pub(crate) fn holds(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

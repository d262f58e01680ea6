//! What a process tells others of its sessions while it holds their store: at a socket in the data
//! directory, to its owner, as lines of JSON.

use std::fs;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use outlive::{Node, Store, queued_for};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, BufWriter};
use tokio::net::{UnixListener, UnixSocket, UnixStream};

use crate::row::{PAGE, Row};

const SOCKET: &str = "sessions.sock";

/// Processes that may wait to be told. Further ones try again for a while.
const BACKLOG: u32 = 16;

/// How soon one tries again who found no room among those that wait.
const AGAIN: Duration = Duration::from_millis(50);

/// How long one who asks may take to read; others wait meanwhile. Also the pause after a failure.
const PATIENCE: Duration = Duration::from_secs(5);

/// The path of a socket has to be shorter than this.
const PATH_BYTES: usize = 108;

/// A path that leads to the socket of a data directory, as long as this is held.
struct Way {
    path: PathBuf,
    /// Open where the path begins at it.
    _dir: Option<File>,
}

impl Way {
    fn to(dir: &Path) -> io::Result<Self> {
        let path = dir.join(SOCKET);
        if path.as_os_str().len() < PATH_BYTES || !cfg!(target_os = "linux") {
            return Ok(Self { path, _dir: None });
        }
        // There every open file has a short path, so each data directory has a socket.
        let dir = File::open(dir)?;
        Ok(Self {
            path: format!("/proc/self/fd/{}/{SOCKET}", dir.as_raw_fd()).into(),
            _dir: Some(dir),
        })
    }
}

/// Gone when nobody listens at it any more.
struct Socket(PathBuf);

impl Drop for Socket {
    fn drop(&mut self) {
        // Left behind it is in nobody's way: the next process takes its place.
        let _ = fs::remove_file(&self.0);
    }
}

/// Answers those who ask, until it is dropped. Where there can't be a socket nobody is answered, and
/// all else works.
pub(crate) async fn serve(node: &Node, store: &dyn Store, dir: &Path) {
    let path = dir.join(SOCKET);
    // The store is ours, so nobody listens at one that is there.
    let _ = fs::remove_file(&path);
    let Ok(listener) = Way::to(dir).and_then(|way| listen(&way.path)) else {
        return std::future::pending().await;
    };
    let _socket = Socket(path);
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                // Who asked may have gone away, or read nothing.
                let _ = tokio::time::timeout(PATIENCE, tell(node, store, stream)).await;
            }
            Err(_) => tokio::time::sleep(PATIENCE).await,
        }
    }
}

/// Listens at a socket that only its owner can open: it takes nobody before it has its mode.
fn listen(path: &Path) -> io::Result<UnixListener> {
    let socket = UnixSocket::new_stream()?;
    socket.bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    socket.listen(BACKLOG)
}

async fn tell(node: &Node, store: &dyn Store, stream: UnixStream) -> Result<()> {
    let mut stream = BufWriter::new(stream);
    let mut after = None;
    loop {
        let page = node.sessions(after, PAGE).await?;
        let Some(last) = page.last() else { break };
        after = Some(last.peer);
        for info in &page {
            let queued = queued_for(store, info.peer).await;
            let row = Row::new(info, queued, node.state(info.peer))?;
            let mut line = serde_json::to_vec(&row)?;
            line.push(b'\n');
            stream.write_all(&line).await?;
        }
    }
    // The last line says that there are no more.
    stream.write_all(b"\n").await?;
    Ok(stream.flush().await?)
}

/// Waits for room among those that wait to be told.
async fn connect(path: &Path) -> io::Result<UnixStream> {
    loop {
        match UnixStream::connect(path).await {
            // Linux says so of a listener whose backlog is full; elsewhere it looks as if nobody were there.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                tokio::time::sleep(AGAIN).await;
            }
            connected => return connected,
        }
    }
}

/// Asks the process that holds the store of a data directory. Hands over each session, or returns
/// that there is no such process.
pub(crate) async fn ask(dir: &Path, mut each: impl FnMut(&Row) -> Result<()>) -> Result<bool> {
    // Without a directory there is no process that holds it.
    let Ok(way) = Way::to(dir) else {
        return Ok(false);
    };
    // Somebody else may be told before us.
    let connecting = tokio::time::timeout(PATIENCE * 2, connect(&way.path)).await;
    let connected = connecting
        .context("the process that holds this data directory is busy with others; try again")?;
    let stream = match connected {
        Ok(stream) => stream,
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            return Err(error).with_context(|| format!("can't ask about {}", dir.display()));
        }
        Err(_) => return Ok(false),
    };
    let mut lines = BufReader::new(stream).lines();
    loop {
        let line = tokio::time::timeout(PATIENCE * 2, lines.next_line()).await;
        let line = line.map_err(|_| {
            anyhow!(
                "the process that holds this data directory does not answer; it may be stopped: let it go \
                 on, or end it"
            )
        })?;
        let ended = || "the process that holds this data directory ended; try again";
        let line = line.with_context(ended)?;
        match line.with_context(ended)? {
            line if line.is_empty() => return Ok(true),
            line => each(&serde_json::from_str(&line).with_context(ended)?)?,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A socket at which nobody is let in, and all who may wait there.
    async fn crowded(dir: &Path) -> (UnixListener, Vec<UnixStream>) {
        let path = dir.join(SOCKET);
        let listener = listen(&path).unwrap();
        let mut waiting = Vec::new();
        while let Ok(stream) = UnixStream::connect(&path).await {
            waiting.push(stream);
        }
        (listener, waiting)
    }

    #[tokio::test]
    async fn a_process_that_many_ask_at_once_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let (listener, waiting) = crowded(dir.path()).await;
        drop(waiting);
        let answers = async {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                // Those who waited are gone.
                let _ = stream.write_all(b"\n").await;
            }
        };
        tokio::select! {
            // It finds no room at first.
            biased;
            told = ask(dir.path(), |_| Ok(())) => assert!(told.unwrap(), "nobody is there"),
            () = answers => {}
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_process_that_lets_nobody_in_is_busy_and_not_gone() {
        let dir = tempfile::tempdir().unwrap();
        let (_listener, _waiting) = crowded(dir.path()).await;
        let busy = ask(dir.path(), |_| Ok(())).await.unwrap_err();
        assert!(busy.to_string().contains("busy"), "{busy:#}");
    }

    #[tokio::test]
    async fn a_socket_that_a_process_left_behind_is_nobody() {
        let dir = tempfile::tempdir().unwrap();
        drop(listen(&dir.path().join(SOCKET)).unwrap());
        assert!(!ask(dir.path(), |_| Ok(())).await.unwrap());
    }
}

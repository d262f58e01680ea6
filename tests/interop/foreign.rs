//! Peers that are not ours, as processes.

use std::io::Write;
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

/// How long an end may take. It is reached only by one that never comes.
const PATIENCE: Duration = Duration::from_secs(60);

/// A peer of another make. Dropped, it is killed.
pub(crate) struct Foreign {
    way: Way,
    child: Child,
    /// Where a browser keeps its things; gone with it.
    _home: Option<TempDir>,
}

/// How it is spoken to.
enum Way {
    Pipes(ChildStdin, Lines<BufReader<ChildStdout>>),
    Socket(Box<WebSocketStream<TcpStream>>),
}

/// What a browser tells of where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Addresses {
    Told,
    /// Names in multicast DNS in place of them: what browsers do for pages without more rights.
    Hidden,
}

impl Foreign {
    /// aiortc, or none if it is not here.
    pub(crate) async fn aiortc() -> Option<Self> {
        let python = match python().await {
            Ok(python) => python,
            Err(why) => return skipped(&why),
        };
        let mut child = Command::new(python)
            .arg(here("aiortc_peer.py"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("python starts");
        let stdin = child.stdin.take().expect("its input");
        let stdout = child.stdout.take().expect("its output");
        Some(Self {
            way: Way::Pipes(stdin, BufReader::new(stdout).lines()),
            child,
            _home: None,
        })
    }

    /// A browser, or none if it is not here.
    pub(crate) async fn chromium(addresses: Addresses) -> Option<Self> {
        let chromium = match chromium().await {
            Ok(chromium) => chromium,
            Err(why) => return skipped(&why),
        };
        if addresses == Addresses::Hidden && !multicast() {
            // That is this network's, and nothing that can be installed.
            say_skipped("no address can be hidden, for there is no multicast here");
            return None;
        }
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let page = here("chromium_peer.html");
        let home = TempDir::new().expect("a directory");
        let mut command = Command::new(chromium);
        command
            .args([
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--no-first-run",
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-default-apps",
                "--disable-extensions",
                "--disable-sync",
                "--disable-quic",
                // All there is to try is on this host.
                "--allow-loopback-in-peer-connection",
            ])
            .arg(format!("--user-data-dir={}", home.path().display()))
            .arg(format!("file://{}#{port}", page.display()))
            .env("TMPDIR", home.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true);
        if addresses == Addresses::Told {
            command.arg("--disable-features=WebRtcHideLocalIpsWithMdns");
        }
        let mut child = command.spawn().expect("chromium starts");
        let (stream, _) = tokio::select! {
            accepted = listener.accept() => accepted.expect("its page"),
            ended = child.wait() => panic!("chromium ended: {ended:?}"),
        };
        let socket = tokio_tungstenite::accept_async(stream).await;
        Some(Self {
            way: Way::Socket(Box::new(socket.expect("a WebSocket"))),
            child,
            _home: Some(home),
        })
    }

    /// Tells it something. Not cancellation-safe.
    pub(crate) async fn say(&mut self, kind: &str, text: &str) {
        let line = serde_json::to_string(&(kind, text)).expect("JSON");
        match &mut self.way {
            Way::Pipes(stdin, _) => {
                let line = line + "\n";
                stdin.write_all(line.as_bytes()).await.expect("it listens");
            }
            Way::Socket(socket) => {
                let sent = socket.send(Message::text(line)).await;
                sent.expect("it listens");
            }
        }
    }

    /// The next thing that it tells. Cancellation-safe.
    pub(crate) async fn hear(&mut self) -> (String, String) {
        let line = match &mut self.way {
            Way::Pipes(_, lines) => lines.next_line().await.expect("a line").expect("more"),
            Way::Socket(socket) => loop {
                match socket.next().await.expect("more").expect("a message") {
                    Message::Text(text) => break text.to_string(),
                    _ => continue,
                }
            },
        };
        serde_json::from_str(&line).expect("its kind, and a text")
    }

    /// Ends it, and waits until it is gone, with all processes that it has made.
    pub(crate) async fn end(mut self) {
        let id = self.child.id().and_then(|id| id.try_into().ok());
        let id = id.and_then(Pid::from_raw).expect("it runs");
        kill_process(id, Signal::TERM).expect("it can be told");
        let ended = tokio::time::timeout(PATIENCE, self.child.wait()).await;
        ended.expect("it ends").expect("how it ended");
    }
}

/// Where a file beside this one is.
fn here(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/interop")
        .join(file)
}

/// The Python that has aiortc: that of the environment `interop` beside what is built, or the one
/// of this system.
async fn python() -> Result<PathBuf, String> {
    let built = Path::new(env!("CARGO_TARGET_TMPDIR")).join("../interop/bin/python");
    for python in [built, "python3".into()] {
        if works(&python, &["-c", "import aiortc"]).await {
            return Ok(python);
        }
    }
    Err("there is no Python with aiortc, see tests/interop/requirements.txt".to_owned())
}

async fn chromium() -> Result<PathBuf, String> {
    for chromium in ["chromium", "chromium-browser", "google-chrome"] {
        if works(chromium.as_ref(), &["--version"]).await {
            return Ok(chromium.into());
        }
    }
    Err("there is no chromium".to_owned())
}

fn multicast() -> bool {
    let socket = UdpSocket::bind("0.0.0.0:0");
    socket.is_ok_and(|socket| socket.connect("224.0.0.251:5353").is_ok())
}

async fn works(program: &Path, arguments: &[&str]) -> bool {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null());
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command.status().await.is_ok_and(|status| status.success())
}

/// Tells that a test is skipped, whether it is shown what tests say or not. With
/// `OUTLIVE_INTEROP=required` it fails.
fn skipped<T>(why: &str) -> Option<T> {
    let required = std::env::var_os("OUTLIVE_INTEROP").is_some_and(|is| is == "required");
    assert!(!required, "foreign peers are required, but {why}");
    say_skipped(why);
    None
}

fn say_skipped(why: &str) {
    let test = std::thread::current();
    let name = test.name().unwrap_or_default();
    let line = format!("interop: SKIPPED {name}: {why}\n");
    // Nobody may be reading.
    let _ = std::io::stderr().write_all(line.as_bytes());
}

//! Debian's TURN server (the package `coturn`), as a process of a host.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tokio::net::UdpSocket;

use crate::host::Host;
use crate::lab::skip;
use crate::peer::soon;

pub(crate) const USER: &str = "lab";
pub(crate) const PASSWORD: &str = "secret";

const COMMAND: &str = "turnserver";
const PORT: u16 = 3_479;

/// How long an answer of a server takes that is up.
const ANSWER: Duration = Duration::from_millis(100);

/// A server. It ends with this.
pub(crate) struct Turn {
    address: SocketAddr,
    process: Child,
}

impl Turn {
    /// Whether there can be one. If not, the test is skipped, and says so.
    pub(crate) fn is_installed() -> bool {
        let mut command = Command::new(COMMAND);
        command.arg("--version");
        let asked = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
        let installed = asked.is_ok();
        if !installed {
            skip("there is no turnserver here: install coturn");
        }
        installed
    }

    /// Starts it at a host, and waits until it answers.
    pub(crate) async fn start(host: &Host, ip: &str) -> Self {
        let flags = format!(
            "-n --listening-ip {ip} --relay-ip {ip} --listening-port {PORT} --lt-cred-mech \
             --user {USER}:{PASSWORD} --realm lab --no-tls --no-dtls --no-tcp --no-cli \
             --no-multicast-peers --log-file stdout --pidfile /dev/null --userdb :memory:"
        );
        let process = host.enter(|| {
            let mut command = Command::new(COMMAND);
            command.args(flags.split_whitespace());
            command.stdin(Stdio::null());
            command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()
        });
        let address = SocketAddr::new(ip.parse().expect("an address"), PORT);
        let answers = host.run(async move { soon("the TURN server", answers(address)).await });
        let turn = Self {
            address,
            process: process.expect("one that is installed"),
        };
        answers.await;
        turn
    }

    pub(crate) fn url(&self) -> String {
        format!("turn:{}", self.address)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Asks it where we are until it says so.
async fn answers(address: SocketAddr) {
    let socket = UdpSocket::bind("0.0.0.0:0").await.expect("a socket");
    let mut request = vec![0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42];
    request.extend([7; 12]);
    loop {
        // Nobody may be there yet. A socket that is not connected is not told so, and waits.
        let _ = socket.send_to(&request, address).await;
        let mut answer = [0; 256];
        let answered = tokio::time::timeout(ANSWER, socket.recv_from(&mut answer)).await;
        if let Ok(Ok(_)) = answered {
            return;
        }
    }
}

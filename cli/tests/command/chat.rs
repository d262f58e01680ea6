//! `outlive chat` in a terminal, as a person uses it.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::Child;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::process::{Running, feed, id, outlive, relay};

/// Longer than anything here takes; only a test that fails waits for it.
const PATIENCE: Duration = Duration::from_secs(30);

/// A terminal with a program in it.
struct Terminal {
    keys: File,
    screen: Receiver<Vec<u8>>,
    shown: Vec<u8>,
    child: Child,
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Terminal {
    fn run(command: &mut std::process::Command) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let path = ptsname(&master, Vec::new()).unwrap();
        let flags = OFlags::RDWR | OFlags::NOCTTY;
        let slave: OwnedFd = rustix::fs::open(path, flags, Mode::empty()).unwrap();
        let size = Winsize {
            ws_row: 40,
            ws_col: 120,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tcsetwinsize(&slave, size).unwrap();
        let end = || slave.try_clone().unwrap();
        let child = command.stdin(end()).stdout(end()).stderr(end()).spawn();
        let keys = File::from(master);
        let mut reading = keys.try_clone().unwrap();
        let (show, screen) = channel();
        std::thread::spawn(move || {
            let mut bytes = [0; 4_096];
            // It fails when the program is gone, and its end of the terminal with it.
            while let Ok(count @ 1..) = reading.read(&mut bytes) {
                if show.send(bytes[..count].to_vec()).is_err() {
                    return;
                }
            }
        });
        Self {
            keys,
            screen,
            shown: Vec::new(),
            child: child.unwrap(),
        }
    }

    fn type_in(&mut self, text: &str) {
        self.keys.write_all(text.as_bytes()).unwrap();
    }

    /// Waits until this is shown behind what was waited for before.
    fn shows(&mut self, text: &str) {
        let until = Instant::now() + PATIENCE;
        loop {
            let at = self
                .shown
                .windows(text.len())
                .position(|part| part == text.as_bytes());
            if let Some(at) = at {
                self.shown.drain(..at + text.len());
                return;
            }
            let left = until.saturating_duration_since(Instant::now());
            match self.screen.recv_timeout(left) {
                Ok(more) => self.shown.extend(more),
                Err(_) => panic!("no {text:?} in {:?}", String::from_utf8_lossy(&self.shown)),
            }
        }
    }
}

#[test]
fn two_people_see_what_they_write_and_how_far_it_got() {
    let dir = tempfile::tempdir().unwrap();
    let (alice, bob) = (dir.path().join("alice"), dir.path().join("bob"));
    let (_relay, address) = relay(&dir.path().join("relay"), "127.0.0.1:0");
    let url = format!("ws://{address}");
    let (hers, his) = (id(&alice), id(&bob));
    let mut chat = outlive();
    chat.args(["chat", "--relay", &url, "--with", &his, "--data"]);
    let mut terminal = Terminal::run(chat.arg(&alice));
    terminal.shows(&hers);
    // The peer is away: the line is kept.
    terminal.shows("[peer away] >");
    terminal.type_in("hello bob\r");
    terminal.shows("✓  hello bob");
    let mut listening = outlive();
    listening.args(["listen", "--relay", &url, "--count", "1", "--data"]);
    let mut listening = Running::start(listening.arg(&bob));
    assert_eq!(listening.lines.next().unwrap().unwrap(), "hello bob");
    terminal.shows("✓✓ hello bob");
    assert!(listening.child.wait().unwrap().success());
    // What comes is shown without what would play with the terminal.
    let mut sending = outlive();
    sending.args(["send", "--relay", &url, "--timeout", "60", "--to", &hers]);
    let sent = feed(sending.arg("--data").arg(&bob), b"hello \x1b[2Jalice\n");
    assert!(sent.status.success());
    terminal.shows("<  hello [2Jalice");
    terminal.type_in("\x04");
    assert!(terminal.child.wait().unwrap().success());
}

/// Whether this host has an address that others could reach; links over WebRTC pass by its loopback.
fn has_an_address() -> bool {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
    // Nothing is sent: this only asks which address it would go out by.
    socket.connect("192.0.2.1:9").is_ok()
}

#[test]
fn a_chat_shows_that_a_link_over_webrtc_carries() {
    if !has_an_address() {
        return eprintln!("SKIPPED: this host has no address but that of its loopback");
    }
    let dir = tempfile::tempdir().unwrap();
    let (_relay, address) = relay(&dir.path().join("relay"), "127.0.0.1:0");
    let url = format!("ws://{address}");
    let dirs = ["alice", "bob"].map(|name| dir.path().join(name));
    let ids = [id(&dirs[0]), id(&dirs[1])];
    let mut terminals = [0, 1].map(|me| {
        let mut chat = outlive();
        chat.args(["chat", "--relay", &url, "--direct", "webrtc"]);
        chat.args(["--with", &ids[1 - me], "--data"]);
        Terminal::run(chat.arg(&dirs[me]))
    });
    for terminal in &mut terminals {
        terminal.shows("[webrtc] >");
    }
    terminals[0].type_in("hello bob\r");
    terminals[1].shows("<  hello bob");
    terminals[0].shows("✓✓ hello bob");
    for mut terminal in terminals {
        terminal.type_in("\x04");
        assert!(terminal.child.wait().unwrap().success());
    }
}

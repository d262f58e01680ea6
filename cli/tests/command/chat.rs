//! `outlive chat` in a terminal, as a person uses it.

use crate::process::{Running, feed, id, outlive, relay};
use crate::terminal::Terminal;

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
    let sent = feed(
        sending.arg("--data").arg(&bob),
        "hello \u{1b}[2J\u{202e}alice\n".as_bytes(),
    );
    assert!(sent.status.success());
    terminal.shows("<  hello [2Jalice");
    terminal.type_in("\x04");
    assert!(terminal.ends_well());
}

#[test]
fn a_chat_ends_when_its_terminal_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let to = id(&dir.path().join("bob"));
    let mut chat = outlive();
    chat.args(["chat", "--relay", "ws://127.0.0.1:1", "--with", &to]);
    let mut terminal = Terminal::run(chat.arg("--data").arg(dir.path().join("alice")));
    terminal.shows("[offline] >");
    assert!(terminal.ends_when_it_is_closed(), "it goes on");
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
        assert!(terminal.ends_well());
    }
}

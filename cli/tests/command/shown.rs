//! What a terminal shows of what peers write.

use std::path::Path;

use crate::process::{feed, id, outlive, relay};
use crate::terminal::Terminal;

/// What would clear the screen, and turn what is behind it around.
const LINE: &str = "hello \u{1b}[2J\u{9b}\u{202e}\u{2066}bob\n";

/// Has Alice write to Bob, who listens in a terminal. Returns it with her id.
fn listening(dir: &Path, flags: &[&str]) -> (Terminal, String) {
    let (alice, bob) = (dir.join("alice"), dir.join("bob"));
    let (_relay, address) = relay(&dir.join("relay"), "127.0.0.1:0");
    let url = format!("ws://{address}");
    let (hers, his) = (id(&alice), id(&bob));
    let mut sending = outlive();
    sending.args(["send", "--relay", &url, "--to", &his, "--wait", "custody"]);
    sending.args(["--timeout", "60", "--data"]).arg(&alice);
    assert!(feed(&mut sending, LINE.as_bytes()).status.success());
    let mut command = outlive();
    command.args(["listen", "--relay", &url, "--count", "1"]);
    command.args(["--timeout", "60", "--data"]).arg(&bob);
    if flags == ["--from"] {
        command.args(["--from", &hers]);
    } else {
        command.args(flags);
    }
    let mut terminal = Terminal::run(&mut command);
    assert!(terminal.ends_well());
    (terminal, hers)
}

#[test]
fn a_listener_in_a_terminal_sees_no_control_characters_of_a_peer() {
    let dir = tempfile::tempdir().unwrap();
    let (mut terminal, _) = listening(dir.path(), &["--from"]);
    terminal.shows("hello [2Jbob\r\n");
}

#[test]
fn a_listener_in_a_terminal_sees_who_wrote_where_that_may_be_several() {
    let dir = tempfile::tempdir().unwrap();
    let (mut terminal, hers) = listening(dir.path(), &[]);
    terminal.shows(&format!("{}  hello", &hers[..8]));
}

#[test]
fn an_object_in_a_terminal_has_control_characters_escaped() {
    let dir = tempfile::tempdir().unwrap();
    let (mut terminal, _) = listening(dir.path(), &["--json"]);
    terminal.shows(r"hello \u001b[2J\u009b\u202e\u2066bob");
}

//! What `outlive send` tells of its messages while they are on their way.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{ChildStdin, Stdio};

use crate::process::{Running, feed, id, outlive, relay};

/// Starts to send to a peer, and returns where to write what is sent.
fn sending(data: &Path, url: &str, to: &str) -> (Running, ChildStdin) {
    let mut command = outlive();
    command.args(["send", "--relay", url, "--to", to, "--timeout", "30"]);
    command.arg("--data").arg(data);
    command.stdin(Stdio::piped()).stderr(Stdio::piped());
    let mut running = Running::start(&mut command);
    let input = running.child.stdin.take().unwrap();
    (running, input)
}

/// The next line: the number of a message, and how far it got.
fn next(running: &mut Running) -> (String, String) {
    let line = running.lines.next().expect("a line").unwrap();
    let words: Vec<_> = line.split(' ').collect();
    let [number, _, state] = words[..] else {
        panic!("{line}")
    };
    (number.to_owned(), state.to_owned())
}

fn told(number: &str, state: &str) -> (String, String) {
    (number.to_owned(), state.to_owned())
}

#[test]
fn receipts_come_before_the_input_ends() {
    let dir = tempfile::tempdir().unwrap();
    let (_relay, address) = relay(&dir.path().join("relay"), "127.0.0.1:0");
    let (alice, bob) = (dir.path().join("alice"), dir.path().join("bob"));
    let (mut running, mut input) = sending(&alice, &format!("ws://{address}"), &id(&bob));
    for number in ["1", "2"] {
        input.write_all(b"hello\n").unwrap();
        assert_eq!(next(&mut running), told(number, "queued"));
        assert_eq!(next(&mut running), told(number, "custody"));
    }
}

#[test]
fn a_message_for_a_peer_that_is_away_is_told_to_be_at_the_relay() {
    let dir = tempfile::tempdir().unwrap();
    let (_relay, address) = relay(&dir.path().join("relay"), "127.0.0.1:0");
    let (alice, bob) = (dir.path().join("alice"), dir.path().join("bob"));
    let (mut running, mut input) = sending(&alice, &format!("ws://{address}"), &id(&bob));
    input.write_all(b"hello\n").unwrap();
    drop(input);
    assert_eq!(next(&mut running), told("1", "queued"));
    assert_eq!(next(&mut running), told("1", "custody"));
    running.terminate();
    assert_eq!(running.child.wait().unwrap().code(), Some(1));
    let mut said = String::new();
    let mut stderr = running.child.stderr.take().unwrap();
    stderr.read_to_string(&mut said).unwrap();
    assert!(said.contains("1 is at the relay, 0 are queued"), "{said}");
}

#[test]
fn who_stops_is_told_what_of_a_long_input_was_not_read() {
    let dir = tempfile::tempdir().unwrap();
    let (_relay, address) = relay(&dir.path().join("relay"), "127.0.0.1:0");
    let (alice, bob) = (dir.path().join("alice"), dir.path().join("bob"));
    let (mut running, mut input) = sending(&alice, &format!("ws://{address}"), &id(&bob));
    let writing = std::thread::spawn(move || {
        // It is stopped before it has read all of this.
        let _ = input.write_all(&b"hello\n".repeat(100_000));
    });
    while next(&mut running) != told("4096", "custody") {}
    running.terminate();
    for _ in running.lines.by_ref() {}
    assert_eq!(running.child.wait().unwrap().code(), Some(1));
    writing.join().unwrap();
    let said = std::io::read_to_string(running.child.stderr.take().unwrap()).unwrap();
    assert!(
        said.contains("4096 are at the relay, 0 are queued"),
        "{said}"
    );
    assert!(said.contains("read up to message 4096"), "{said}");
}

#[test]
fn who_stops_is_told_how_far_an_input_was_read_that_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let (_relay, address) = relay(&dir.path().join("relay"), "127.0.0.1:0");
    let (alice, bob) = (dir.path().join("alice"), dir.path().join("bob"));
    let (mut running, mut input) = sending(&alice, &format!("ws://{address}"), &id(&bob));
    input.write_all(b"hello\n").unwrap();
    assert_eq!(next(&mut running), told("1", "queued"));
    assert_eq!(next(&mut running), told("1", "custody"));
    running.terminate();
    assert_eq!(running.child.wait().unwrap().code(), Some(1));
    let said = std::io::read_to_string(running.child.stderr.take().unwrap()).unwrap();
    assert!(said.contains("1 is at the relay, 0 are queued"), "{said}");
    assert!(said.contains("read up to message 1"), "{said}");
}

#[test]
fn who_stops_is_told_of_no_relay_where_nobody_looks_what_gets_there() {
    let dir = tempfile::tempdir().unwrap();
    let to = id(&dir.path().join("bob"));
    let mut command = outlive();
    command.args(["send", "--wait", "queued", "--to", &to, "--data"]);
    command.arg(dir.path().join("alice")).stdin(Stdio::piped());
    let mut running = Running::start(command.stderr(Stdio::piped()));
    let mut input = running.child.stdin.take().unwrap();
    input.write_all(b"hello\n").unwrap();
    assert_eq!(next(&mut running), told("1", "queued"));
    running.terminate();
    assert_eq!(running.child.wait().unwrap().code(), Some(1));
    let said = std::io::read_to_string(running.child.stderr.take().unwrap()).unwrap();
    assert!(!said.contains("at the relay"), "{said}");
    assert!(said.contains("read up to message 1"), "{said}");
}

#[test]
fn an_input_that_fails_is_told_of_at_once_and_not_again() {
    let dir = tempfile::tempdir().unwrap();
    let (_relay, address) = relay(&dir.path().join("relay"), "127.0.0.1:0");
    let (alice, bob) = (dir.path().join("alice"), dir.path().join("bob"));
    let (mut running, mut input) = sending(&alice, &format!("ws://{address}"), &id(&bob));
    input.write_all(b"hello\n\xff\nlater\n").unwrap();
    assert_eq!(next(&mut running), told("1", "queued"));
    let mut said = BufReader::new(running.child.stderr.take().unwrap()).lines();
    let first = said.next().expect("a complaint").unwrap();
    assert!(first.contains("line 2 is not UTF-8"), "{first}");
    running.terminate();
    assert_eq!(running.child.wait().unwrap().code(), Some(1));
    let rest: Vec<_> = said.map(Result::unwrap).collect();
    assert!(
        rest.iter()
            .any(|line| line.contains("read up to message 1")),
        "{rest:?}"
    );
    assert!(!rest.iter().any(|line| line.contains("UTF-8")), "{rest:?}");
}

#[test]
fn an_input_that_fails_fails_the_command_once_what_comes_before_is_sent() {
    let dir = tempfile::tempdir().unwrap();
    let to = id(&dir.path().join("bob"));
    let mut command = outlive();
    command.args(["send", "--wait", "queued", "--to", &to, "--data"]);
    command.arg(dir.path().join("alice"));
    let sent = feed(&mut command, b"hello\n\xff\nlater\n");
    let said = String::from_utf8_lossy(&sent.stderr);
    assert_eq!(sent.status.code(), Some(1), "{said}");
    assert_eq!(said.matches("line 2 is not UTF-8").count(), 1, "{said}");
    assert!(said.contains("read up to message 1"), "{said}");
    assert_eq!(String::from_utf8_lossy(&sent.stdout).lines().count(), 1);
}

#[test]
fn another_line_under_a_key_is_sent_and_the_same_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let (alice, bob) = (dir.path().join("alice"), id(&dir.path().join("bob")));
    let queue = |input: &[u8]| -> Vec<String> {
        let mut sending = outlive();
        sending.args(["send", "--wait", "queued", "--once", "F", "--to", &bob]);
        let sent = feed(sending.arg("--data").arg(&alice), input);
        assert!(sent.status.success());
        let told = String::from_utf8(sent.stdout).unwrap();
        let ids = told.lines().filter_map(|line| line.split(' ').nth(1));
        ids.map(str::to_owned).collect()
    };
    let first = queue(b"1\n2\n3\n");
    assert_eq!(first.len(), 3);
    assert_eq!(queue(b"1\n2\n3\n"), first, "sent a second time");
    let other = queue(b"ALERT\n");
    assert!(!first.contains(&other[0]), "it was not sent");
    // What grew since is sent from where it did.
    let grown = queue(b"1\n2\n3\n4\n");
    assert_eq!(grown[..3], first);
    assert!(!first.contains(&grown[3]), "it was not sent");
}

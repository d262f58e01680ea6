//! `outlive sessions` beside a process that has the directory open, and where the directory is not what it
//! seems.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::process::{Running, feed, id, outlive, relay};

fn sessions(data: &Path) -> Output {
    let mut command = outlive();
    command.args(["sessions", "--data"]).arg(data);
    command.output().unwrap()
}

fn queue(data: &Path, to: &str) {
    let mut sending = outlive();
    sending.args(["send", "--wait", "queued", "--to", to, "--data"]);
    assert!(feed(sending.arg(data), b"hello\n").status.success());
}

/// A peer that listens, and has received something.
fn listening(dir: &Path, bob: &Path) -> [Running; 2] {
    let (relay, address) = relay(&dir.join("relay"), "127.0.0.1:0");
    let (url, to) = (format!("ws://{address}"), id(bob));
    let mut command = outlive();
    command.args(["listen", "--relay", &url, "--data"]);
    let mut running = Running::start(command.arg(bob));
    let mut sending = outlive();
    sending.args(["send", "--relay", &url, "--timeout", "60", "--to", &to]);
    sending.arg("--data").arg(dir.join("alice"));
    assert!(feed(&mut sending, b"hello\n").status.success());
    assert_eq!(running.lines.next().unwrap().unwrap(), "hello");
    [running, relay]
}

fn signal(running: &Running, name: &str) {
    let process = running.child.id().to_string();
    let told = Command::new("kill").args([name, &process]).status();
    assert!(told.unwrap().success());
}

#[test]
fn a_process_that_is_stopped_does_not_answer_and_is_not_waited_for_for_ever() {
    let dir = tempfile::tempdir().unwrap();
    let bob = dir.path().join("bob");
    let [running, _relay] = listening(dir.path(), &bob);
    signal(&running, "-STOP");
    let listed = sessions(&bob);
    signal(&running, "-CONT");
    assert_eq!(listed.status.code(), Some(1));
    let said = String::from_utf8_lossy(&listed.stderr);
    assert!(said.contains("it may be stopped"), "{said}");
}

#[cfg(target_os = "linux")]
#[test]
fn a_process_is_asked_also_where_the_path_is_too_long_for_a_socket() {
    let dir = tempfile::tempdir().unwrap();
    let bob: PathBuf = dir.path().join("b".repeat(150));
    let [_running, _relay] = listening(dir.path(), &bob);
    let listed = sessions(&bob);
    assert!(listed.status.success(), "{listed:?}");
    let listed = String::from_utf8(listed.stdout).unwrap();
    assert!(listed.contains("carried by relay"), "{listed}");
}

#[test]
fn a_directory_with_the_identity_of_another_peer_shows_no_sessions() {
    let dir = tempfile::tempdir().unwrap();
    let (alice, bob) = (dir.path().join("alice"), dir.path().join("bob"));
    let (hers, his) = (id(&alice), id(&bob));
    queue(&alice, &his);
    fs::copy(bob.join("identity"), alice.join("identity")).unwrap();
    let listed = sessions(&alice);
    assert_eq!(listed.status.code(), Some(1), "{listed:?}");
    assert!(listed.stdout.is_empty(), "{listed:?}");
    let said = String::from_utf8_lossy(&listed.stderr);
    assert!(said.contains(&hers) && said.contains(&his), "{said}");
}

#[test]
fn an_identity_full_of_junk_is_damaged() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("identity"), [0xff; 64]).unwrap();
    let listed = sessions(dir.path());
    assert_eq!(listed.status.code(), Some(1));
    let said = String::from_utf8_lossy(&listed.stderr);
    assert!(said.contains("is damaged; restore it"), "{said}");
}

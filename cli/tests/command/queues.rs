//! What `outlive sessions` says is queued.

use std::io::Write;
use std::path::Path;
use std::process::Stdio;

use outlive::record::Key;
use outlive::{ChannelId, Position, TransferId};

use crate::process::{Running, feed, id, outlive, relay};
use crate::records;
use crate::refusing::refusing_relay;

fn session(data: &Path) -> serde_json::Value {
    let mut command = outlive();
    command.args(["--json", "sessions", "--data"]).arg(data);
    serde_json::from_slice(&command.output().unwrap().stdout).unwrap()
}

#[test]
fn a_message_of_several_segments_is_one_that_is_queued() {
    let dir = tempfile::tempdir().unwrap();
    let (alice, to) = (dir.path().join("alice"), id(&dir.path().join("bob")));
    let mut sending = outlive();
    sending.args(["send", "--wait", "queued", "--to", &to, "--data"]);
    let long = format!("{}\nshort\n", "x".repeat(100_000));
    assert!(feed(sending.arg(&alice), long.as_bytes()).status.success());
    let session = session(&alice);
    assert_eq!(session["queued"], 2, "{session}");
    assert_eq!(session["queued_bytes"], 100_005, "{session}");
}

#[test]
fn a_message_that_ended_is_not_queued() {
    let dir = tempfile::tempdir().unwrap();
    let (alice, to) = (dir.path().join("alice"), id(&dir.path().join("bob")));
    let mut sending = outlive();
    sending.args(["send", "--timeout", "60", "--to", &to]);
    sending.args(["--relay", &refusing_relay()]);
    let sent = feed(sending.arg("--data").arg(&alice), b"one\ntwo\n");
    let said = String::from_utf8_lossy(&sent.stderr);
    assert!(said.contains("was not delivered"), "{said}");
    let session = session(&alice);
    assert_eq!(session["queued"], 0, "{session}");
    assert_eq!(session["queued_bytes"], 0, "{session}");
}

#[test]
fn a_file_that_waits_is_listed_with_its_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let (alice, to) = (dir.path().join("alice"), id(&dir.path().join("bob")));
    let file = dir.path().join("large.bin");
    std::fs::write(&file, vec![7; 3_000_000]).unwrap();
    let mut sending = outlive();
    sending.args(["send-file", "--relay", "ws://127.0.0.1:1", "--to", &to]);
    sending.args(["--timeout", "5", "--data"]).arg(&alice);
    assert_eq!(sending.arg(&file).status().unwrap().code(), Some(1));
    let session = session(&alice);
    assert_eq!(session["files"], 1, "{session}");
    assert_eq!(session["file_bytes"], 3_000_000, "{session}");
    assert_eq!(session["queued"], 0, "{session}");
}

#[test]
fn nothing_is_queued_once_a_file_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let (_relay, address) = relay(&dir.path().join("relay"), "127.0.0.1:0");
    let url = format!("ws://{address}");
    let (alice, bob) = (dir.path().join("alice"), dir.path().join("bob"));
    let (into, file) = (dir.path().join("into"), dir.path().join("small"));
    std::fs::create_dir(&into).unwrap();
    std::fs::write(&file, b"hi").unwrap();
    let mut receiving = outlive();
    receiving.args(["receive-files", "--relay", &url, "--into"]);
    // It stays until its sender has heard of the file.
    let receiving = Running::start(receiving.arg(&into).arg("--data").arg(&bob));
    let mut sending = outlive();
    sending.args(["send-file", "--timeout", "60", "--relay", &url]);
    sending.args(["--to", &id(&bob), "--data"]);
    assert!(sending.arg(&alice).arg(&file).status().unwrap().success());
    drop(receiving);
    let session = session(&alice);
    assert_eq!(session["queued"], 0, "{session}");
    assert_eq!(session["files"], 0, "{session}");
}

#[test]
fn a_queue_that_can_not_be_read_is_unknown_and_hides_no_other_session() {
    let dir = tempfile::tempdir().unwrap();
    let [alice, bob, carol, dave] =
        ["alice", "bob", "carol", "dave"].map(|name| dir.path().join(name));
    let file = dir.path().join("file");
    std::fs::write(&file, b"hi").unwrap();
    for to in [&bob, &dave] {
        let mut sending = outlive();
        sending.args(["send", "--wait", "queued", "--to", &id(to), "--data"]);
        assert!(feed(sending.arg(&alice), b"hello\n").status.success());
    }
    let mut sending = outlive();
    sending.args(["send-file", "--relay", "ws://127.0.0.1:1", "--timeout", "5"]);
    sending.args(["--to", &id(&carol), "--data"]).arg(&alice);
    assert_eq!(sending.arg(&file).status().unwrap().code(), Some(1));
    let peer = |data: &Path| id(data).parse().unwrap();
    let outbox = Key::Outbox(peer(&bob), ChannelId::MESSAGES, Position(1));
    assert!(records::get(&alice, outbox).is_some(), "it lies elsewhere");
    records::put(&alice, outbox, b"\x01");
    let file = Key::SendingFile(peer(&carol), TransferId([0; 16]));
    records::put(&alice, file, b"\x01");
    let listed = |json: &[&str]| {
        let mut command = outlive();
        command.args(json).args(["sessions", "--data"]).arg(&alice);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let are_shown = || {
        let rows = listed(&["--json"]);
        let rows: Vec<serde_json::Value> = rows
            .lines()
            .map(|row| serde_json::from_str(row).unwrap())
            .collect();
        assert_eq!(rows.len(), 3, "{rows:?}");
        for row in rows {
            for count in ["queued", "queued_bytes", "files", "file_bytes"] {
                let known = row["peer"] == id(&dave);
                assert_eq!(row[count].is_u64(), known, "{count}: {row}");
                assert_eq!(row[count].is_null(), !known, "{count}: {row}");
            }
        }
        let rows = listed(&[]);
        let unknown = rows
            .lines()
            .filter(|row| row.contains("queued ? (? bytes)"));
        assert_eq!(unknown.count(), 2, "{rows}");
    };
    are_shown();
    // The same of a process that has the directory open.
    let mut sending = outlive();
    sending.args(["send", "--wait", "queued", "--to", &id(&dave), "--data"]);
    let mut running = Running::start(sending.arg(&alice).stdin(Stdio::piped()));
    let mut input = running.child.stdin.take().unwrap();
    input.write_all(b"hello\n").unwrap();
    running.lines.next().expect("a line").unwrap();
    are_shown();
}

#[test]
fn of_files_of_which_some_can_not_be_sent_none_is_queued() {
    let dir = tempfile::tempdir().unwrap();
    let (alice, to) = (dir.path().join("alice"), id(&dir.path().join("bob")));
    id(&alice);
    let there = dir.path().join("there");
    std::fs::write(&there, b"hi").unwrap();
    let (missing, directory) = (dir.path().join("missing"), dir.path().join("directory"));
    std::fs::create_dir(&directory).unwrap();
    let mut sending = outlive();
    sending.args(["send-file", "--relay", "ws://127.0.0.1:1", "--timeout", "5"]);
    sending.args(["--to", &to, "--data"]).arg(&alice);
    let sent = sending
        .args([&there, &missing, &directory])
        .output()
        .unwrap();
    assert_eq!(sent.status.code(), Some(1));
    let said = String::from_utf8_lossy(&sent.stderr);
    for name in [&missing, &directory] {
        assert!(said.contains(&*name.to_string_lossy()), "{said}");
    }
    assert!(said.contains("nothing is queued"), "{said}");
    let mut listing = outlive();
    let listed = listing.args(["sessions", "--data"]).arg(&alice).output();
    let listed = String::from_utf8(listed.unwrap().stdout).unwrap();
    assert!(!listed.contains("files"), "{listed}");
}

//! What the command says where something is wrong, and how it ends.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

use crate::process::{Running, feed, id, outlive, relay};

#[test]
fn a_peer_id_with_a_typo_is_wrong_usage_and_says_where() {
    let dir = tempfile::tempdir().unwrap();
    let mut to = id(&dir.path().join("bob"));
    to.replace_range(10..11, "1");
    let mut sending = outlive();
    sending
        .args(["send", "--wait", "queued", "--to", &to, "--data"])
        .arg(dir.path());
    let sent = sending.output().unwrap();
    assert_eq!(sent.status.code(), Some(2));
    let said = String::from_utf8_lossy(&sent.stderr);
    assert!(said.contains("character 11"), "{said}");
}

fn is_told_that_it_is_in_use(command: &mut Command) {
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{command:?}");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("in use"), "{said}");
}

#[test]
fn a_second_process_on_the_same_directory_is_told_so() {
    let dir = tempfile::tempdir().unwrap();
    let (data, bob) = (dir.path().join("relay"), dir.path().join("bob"));
    let (_relay, address) = relay(&data, "127.0.0.1:0");
    let mut second = outlive();
    second.args(["relay", "--listen", "127.0.0.1:0", "--data"]);
    is_told_that_it_is_in_use(second.arg(&data));
    // The same of two clients: one listens, and shows that it has begun.
    let url = format!("ws://{address}");
    let to = id(&bob);
    let mut listening = outlive();
    listening.args(["listen", "--relay", &url, "--data"]);
    let mut listening = Running::start(listening.arg(&bob));
    let mut sending = outlive();
    sending.args(["send", "--relay", &url, "--timeout", "60", "--to", &to]);
    sending.arg("--data").arg(dir.path().join("alice"));
    assert!(feed(&mut sending, b"hello\n").status.success());
    assert_eq!(listening.lines.next().unwrap().unwrap(), "hello");
    let mut second = outlive();
    second.args(["listen", "--relay", &url, "--data"]);
    is_told_that_it_is_in_use(second.arg(&bob));
    let mut third = outlive();
    third.args(["block", &to, "--data"]);
    is_told_that_it_is_in_use(third.arg(&bob));
    // And the first is not disturbed.
    assert!(feed(&mut sending, b"still there\n").status.success());
    assert_eq!(listening.lines.next().unwrap().unwrap(), "still there");
}

#[test]
fn a_peer_of_whom_nothing_was_ever_heard_is_named_where_a_message_waits_for_it() {
    const HINT: &str = "nothing was ever heard of";
    let dir = tempfile::tempdir().unwrap();
    let (_relay, address) = relay(&dir.path().join("relay"), "127.0.0.1:0");
    let url = format!("ws://{address}");
    let (alice, bob) = (dir.path().join("alice"), dir.path().join("bob"));
    let send = |to: &str, flags: &[&str]| {
        let mut sending = outlive();
        sending.args(["send", "--relay", &url, "--to", to, "--data"]);
        let sent = feed(sending.arg(&alice).args(flags), b"hello\n");
        String::from_utf8_lossy(&sent.stderr).into_owned()
    };
    let to = id(&bob);
    // Whoever does not wait for a peer need not have heard of it, and this one is known too well.
    let said = send(&to, &["--wait", "custody", "--timeout", "60"]);
    assert!(!said.contains(HINT), "{said}");
    let said = send(&id(&alice), &["--timeout", "60"]);
    assert!(said.contains("is this node itself"), "{said}");
    assert!(!said.contains(HINT), "{said}");
    let said = send(&to, &["--timeout", "1"]);
    assert!(said.contains(HINT) && said.contains(&to), "{said}");
    let mut listening = outlive();
    listening.args(["listen", "--relay", &url, "--data"]);
    let mut listening = Running::start(listening.arg(&bob));
    assert_eq!(listening.lines.next().unwrap().unwrap(), "hello");
    let said = send(&to, &["--timeout", "60"]);
    assert!(!said.contains(HINT), "{said}");
    // And the list says how long ago it was.
    let listed = outlive()
        .args(["sessions", "--data"])
        .arg(&alice)
        .output()
        .unwrap();
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    assert!(
        listed.contains("last seen") && listed.ends_with(" ago\n"),
        "{listed}"
    );
}

#[test]
fn a_chat_without_a_terminal_says_what_to_use() {
    let dir = tempfile::tempdir().unwrap();
    let to = id(&dir.path().join("bob"));
    let mut chat = outlive();
    chat.args([
        "chat",
        "--relay",
        "ws://127.0.0.1:1",
        "--with",
        &to,
        "--data",
    ]);
    let ended = chat.arg(dir.path().join("alice")).output().unwrap();
    assert_eq!(ended.status.code(), Some(1));
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(
        said.contains("terminal") && said.contains("outlive send"),
        "{said}"
    );
}

#[test]
fn a_relay_that_does_not_answer_keeps_the_messages_queued() {
    let dir = tempfile::tempdir().unwrap();
    let to = id(&dir.path().join("bob"));
    // It accepts connections into its backlog, and never says a word.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://{}", silent.local_addr().unwrap());
    let alice = dir.path().join("alice");
    let mut sending = outlive();
    sending
        .args([
            "send",
            "--relay",
            &url,
            "--timeout",
            "5",
            "--to",
            &to,
            "--data",
        ])
        .arg(&alice);
    let sent = feed(&mut sending, b"kept\n");
    assert_eq!(sent.status.code(), Some(1));
    let said = String::from_utf8_lossy(&sent.stderr);
    assert!(said.contains(&url), "{said}");
    let listed = outlive()
        .args(["--json", "sessions", "--data"])
        .arg(&alice)
        .output()
        .unwrap();
    let session: serde_json::Value = serde_json::from_slice(&listed.stdout).unwrap();
    assert_eq!(session["queued"], 1);
}

#[test]
fn a_truncated_store_is_reported_as_damaged() {
    let dir = tempfile::tempdir().unwrap();
    let to = id(&dir.path().join("bob"));
    let alice = dir.path().join("alice");
    let mut sending = outlive();
    sending
        .args(["send", "--to", &to, "--wait", "queued", "--data"])
        .arg(&alice);
    assert!(
        feed(&mut sending, &b"a line\n".repeat(2_000))
            .status
            .success()
    );
    let log = alice.join("store").join("log-0").join("db");
    let length = fs::metadata(&log).unwrap().len();
    let file = fs::OpenOptions::new().write(true).open(&log).unwrap();
    file.set_len(length / 3).unwrap();
    let listed = outlive()
        .args(["sessions", "--data"])
        .arg(&alice)
        .output()
        .unwrap();
    assert_eq!(listed.status.code(), Some(1));
    let said = String::from_utf8_lossy(&listed.stderr);
    assert!(said.contains("damaged"), "{said}");
}

#[test]
fn a_channel_of_the_librarys_own_is_a_wrong_usage() {
    let dir = tempfile::tempdir().unwrap();
    let to = id(&dir.path().join("bob"));
    for channel in ["0", "3", "4", "15", "65536", "chat"] {
        let mut sending = outlive();
        sending.args([
            "send",
            "--wait",
            "queued",
            "--channel",
            channel,
            "--to",
            &to,
        ]);
        let sent = feed(
            sending.arg("--data").arg(dir.path().join("alice")),
            b"lost\n",
        );
        let listened = outlive()
            .args([
                "listen",
                "--relay",
                "ws://127.0.0.1:9",
                "--channel",
                channel,
            ])
            .arg("--data")
            .arg(dir.path().join("bob"))
            .output()
            .unwrap();
        for output in [sent, listened] {
            assert_eq!(output.status.code(), Some(2), "{channel}");
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(said.contains("--channel"), "{said}");
            assert!(said.contains("use 1, 2, or 16 to 65535"), "{said}");
        }
    }
}

#[test]
fn what_can_not_be_read_is_named_with_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let to = id(&dir.path().join("bob"));
    let send = |file: &Path| {
        let mut sending = outlive();
        sending.args(["send", "--wait", "queued", "--to", &to, "--data"]);
        sending.arg(dir.path().join("alice")).arg(file);
        let sent = sending.output().unwrap();
        assert_eq!(sent.status.code(), Some(1));
        String::from_utf8_lossy(&sent.stderr).into_owned()
    };
    let said = send(dir.path());
    let named = format!("{} is a directory; ", dir.path().display());
    assert!(said.contains(&named), "{said}");
    // It can be opened, and its first bytes can't be read.
    let unreadable = Path::new("/proc/self/mem");
    if unreadable.exists() {
        let said = send(unreadable);
        assert!(said.contains("can't read /proc/self/mem"), "{said}");
        assert!(said.contains("line 1"), "{said}");
    }
}

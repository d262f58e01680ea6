//! What scripts depend on.

use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::path::Path;

use crate::process::{Running, feed, id, outlive, relay};
use crate::refusing::refusing_relay;

/// Sends `input` from one peer to another, and returns what the other printed.
fn carry(input: &[u8], send: &[&str], listen: &[&str], messages: usize) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let (_relay, address) = relay(&dir.path().join("relay"), "127.0.0.1:0");
    let url = format!("ws://{address}");
    let (alice, bob) = (dir.path().join("alice"), dir.path().join("bob"));
    let to = id(&bob);
    let mut sending = outlive();
    sending.args([
        "send",
        "--relay",
        &url,
        "--to",
        &to,
        "--wait",
        "custody",
        "--timeout",
        "60",
    ]);
    let sent = feed(sending.arg("--data").arg(&alice).args(send), input);
    assert!(
        sent.status.success(),
        "{}",
        String::from_utf8_lossy(&sent.stderr)
    );
    let mut listening = outlive();
    listening.args([
        "listen",
        "--relay",
        &url,
        "--timeout",
        "60",
        "--count",
        &messages.to_string(),
    ]);
    let heard = listening
        .arg("--data")
        .arg(&bob)
        .args(listen)
        .output()
        .unwrap();
    assert!(
        heard.status.success(),
        "{}",
        String::from_utf8_lossy(&heard.stderr)
    );
    heard.stdout
}

#[test]
fn a_text_file_arrives_as_it_is() {
    // Empty lines, CRLF, Unicode, a line of 1 MiB.
    let mut text = "first\n\n\r\nwith CR\r\n\u{1F980} ünï \u{202E}code\n\u{0}zero\n".to_owned();
    text.push_str(&"x".repeat(1 << 20));
    text.push('\n');
    let lines = text.lines().count();
    assert!(carry(text.as_bytes(), &[], &[], lines) == text.as_bytes());
}

/// The texts of this repository, which every machine that runs this has.
const TEXTS: [&str; 4] = [
    include_str!("../../../LICENSE-APACHE"),
    include_str!("../../../docs/PROTOCOL.md"),
    include_str!("../../../docs/SECURITY.md"),
    include_str!("../../../Cargo.lock"),
];

#[test]
fn texts_of_some_thousand_lines_arrive_with_the_same_bytes() {
    let mut text = TEXTS.concat();
    // Those of the system beside them, where it has some.
    for name in ["GPL-2", "GPL-3", "LGPL-2.1", "MPL-2.0", "GFDL-1.3"] {
        let path = Path::new("/usr/share/common-licenses").join(name);
        text.extend(fs::read_to_string(path));
    }
    if !text.ends_with('\n') {
        text.push('\n');
    }
    let lines = text.lines().count();
    assert!(lines > 4_000, "{lines} lines are no real text");
    assert!(carry(text.as_bytes(), &[], &[], lines) == text.as_bytes());
}

#[test]
fn bytes_that_are_no_text_arrive_with_binary() {
    let bytes: Vec<u8> = (0..3_000_000u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    assert!(carry(&bytes, &["--binary"], &["--binary"], 3) == bytes);
}

#[test]
fn json_has_one_object_a_line_with_the_promised_fields() {
    let heard = carry(b"hello\n", &[], &["--json"], 1);
    let message: serde_json::Value = serde_json::from_slice(&heard).unwrap();
    assert_eq!(message["text"], "hello");
    assert_eq!(message["channel"], 1);
    assert_eq!(message["seq"], 1);
    assert_eq!(message["redelivered"], false);
    assert_eq!(message["from"].as_str().unwrap().len(), 52);
    assert_eq!(message["id"].as_str().unwrap().len(), 32);
}

#[test]
fn an_input_that_ends_within_a_line_is_sent_as_it_is() {
    assert_eq!(carry(b"whole\nhal", &[], &[], 2), b"whole\nhal\n");
}

#[test]
fn waiting_for_queued_needs_no_network() {
    let dir = tempfile::tempdir().unwrap();
    let to = id(&dir.path().join("bob"));
    let alice = dir.path().join("alice");
    let mut sending = outlive();
    sending
        .args(["--json", "send", "--to", &to, "--wait", "queued", "--data"])
        .arg(&alice);
    let sent = feed(&mut sending, b"one\ntwo\n");
    assert!(
        sent.status.success(),
        "{}",
        String::from_utf8_lossy(&sent.stderr)
    );
    let listed = outlive()
        .args(["--json", "sessions", "--data"])
        .arg(&alice)
        .output()
        .unwrap();
    let session: serde_json::Value = serde_json::from_slice(&listed.stdout).unwrap();
    assert_eq!(session["peer"], to.as_str());
    assert_eq!(session["queued"], 2);
}

#[test]
fn a_directory_that_is_not_there_has_no_sessions_and_is_not_made() {
    let dir = tempfile::tempdir().unwrap();
    let mistyped = dir.path().join("alcie");
    let listed = outlive()
        .args(["sessions", "--data"])
        .arg(&mistyped)
        .output()
        .unwrap();
    assert_eq!(listed.status.code(), Some(1));
    let said = String::from_utf8_lossy(&listed.stderr);
    assert!(said.contains(&*mistyped.to_string_lossy()), "{said}");
    assert!(!mistyped.exists());
}

#[test]
fn the_sessions_of_a_process_that_runs_are_shown_with_their_links() {
    let dir = tempfile::tempdir().unwrap();
    let (alice, bob) = (dir.path().join("alice"), dir.path().join("bob"));
    let (_relay, address) = relay(&dir.path().join("relay"), "127.0.0.1:0");
    let url = format!("ws://{address}");
    let mut listening = outlive();
    listening.args(["listen", "--relay", &url, "--data"]);
    let mut listening = Running::start(listening.arg(&bob));
    let mut sending = outlive();
    sending.args([
        "send",
        "--relay",
        &url,
        "--timeout",
        "60",
        "--to",
        &id(&bob),
    ]);
    sending.arg("--data").arg(&alice);
    assert!(feed(&mut sending, b"hello\n").status.success());
    assert_eq!(listening.lines.next().unwrap().unwrap(), "hello");
    let sessions = |json: &[&str]| {
        let mut command = outlive();
        command.args(json).args(["sessions", "--data"]).arg(&bob);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let shown: serde_json::Value = serde_json::from_str(&sessions(&["--json"])).unwrap();
    assert_eq!(shown["peer"], id(&alice));
    let link = serde_json::json!([{ "transport": "relay", "address": url, "state": "connected", "carries": true }]);
    assert_eq!(shown["links"], link);
    assert!(sessions(&[]).contains(&format!("carried by relay {url}")));
    // Killed, it leaves its socket behind, which tells nothing.
    listening.child.kill().unwrap();
    listening.child.wait().unwrap();
    let shown: serde_json::Value = serde_json::from_str(&sessions(&["--json"])).unwrap();
    assert_eq!(shown["links"], serde_json::json!([]));
}

#[test]
fn of_processes_that_make_a_directory_at_once_all_are_the_same_peer() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("bob");
    let started = [(); 8].map(|()| {
        let mut command = outlive();
        command.args(["id", "--data"]).arg(&data);
        Running::start(&mut command)
    });
    let ids = started.map(|mut one| one.lines.next().map(Result::unwrap));
    assert!(
        ids.iter().all(|of| of.as_ref() == Some(&id(&data))),
        "{ids:?}"
    );
    let left: Vec<_> = fs::read_dir(&data).unwrap().flatten().collect();
    assert_eq!(left.len(), 1, "{left:?}");
}

#[test]
fn garbage_on_the_relay_port_harms_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let (_relay, address) = relay(&dir.path().join("relay"), "127.0.0.1:0");
    let mut sockets = Vec::new();
    for n in 0..20u8 {
        let mut socket = TcpStream::connect(&address).unwrap();
        // The relay may have closed already.
        let _ = socket.write_all(&[n.wrapping_mul(37); 4_096]);
        sockets.push(socket);
    }
    let url = format!("ws://{address}");
    let to = id(&dir.path().join("bob"));
    let mut sending = outlive();
    sending.args([
        "send",
        "--relay",
        &url,
        "--wait",
        "custody",
        "--timeout",
        "30",
    ]);
    sending
        .args(["--to", &to, "--data"])
        .arg(dir.path().join("alice"));
    assert!(feed(&mut sending, b"through\n").status.success());
}

#[test]
fn messages_that_end_are_told_one_by_one_and_leave_none_out() {
    let dir = tempfile::tempdir().unwrap();
    let to = id(&dir.path().join("bob"));
    let mut sending = outlive();
    sending.args(["--json", "send", "--timeout", "60", "--to", &to]);
    sending.args(["--relay", &refusing_relay()]);
    let sent = feed(
        sending.arg("--data").arg(dir.path().join("alice")),
        b"one\ntwo\nthree\n",
    );
    assert_eq!(sent.status.code(), Some(1));
    let said = String::from_utf8_lossy(&sent.stderr);
    assert!(said.contains("message 1 was not delivered"), "{said}");
    let rows = String::from_utf8(sent.stdout).unwrap();
    let rows: Vec<serde_json::Value> = rows
        .lines()
        .map(|row| serde_json::from_str(row).unwrap())
        .collect();
    for number in 1..=3 {
        let mut states = rows.iter().filter(|row| row["number"] == number);
        assert_eq!(states.next().unwrap()["state"], "queued");
        let state = states.next_back().expect("how it ended")["state"].clone();
        assert!(
            state
                .as_str()
                .unwrap()
                .starts_with("the message was refused: "),
            "{state}"
        );
    }
}

#[test]
fn a_listen_that_is_stopped_before_its_count_has_failed() {
    let dir = tempfile::tempdir().unwrap();
    let (_relay, address) = relay(&dir.path().join("relay"), "127.0.0.1:0");
    let (url, bob) = (format!("ws://{address}"), dir.path().join("bob"));
    let to = id(&bob);
    for (count, code) in [(&["--count", "2"][..], 1), (&[], 0)] {
        let mut listening = outlive();
        listening.args(["listen", "--relay", &url]).args(count);
        let mut listening = Running::start(listening.arg("--data").arg(&bob));
        let mut sending = outlive();
        sending.args(["send", "--relay", &url, "--timeout", "60", "--to", &to]);
        sending.arg("--data").arg(dir.path().join("alice"));
        assert!(feed(&mut sending, b"hello\n").status.success());
        assert_eq!(listening.lines.next().unwrap().unwrap(), "hello");
        listening.terminate();
        assert_eq!(listening.child.wait().unwrap().code(), Some(code));
    }
}

//! What is for nobody else on the machine: secrets on their way in, in files that a kill left behind,
//! and what a process tells of its sessions.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use outlive::record::Key;

use crate::process::{Running, feed, id, outlive, relay};
use crate::records;

#[test]
fn a_contact_with_a_token_comes_from_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let (alice, bob) = (dir.path().join("alice"), dir.path().join("bob"));
    let mut contact = outlive();
    contact.args(["contact", "--token", "--data"]).arg(&bob);
    let file = dir.path().join("bob.contact");
    fs::write(&file, contact.output().unwrap().stdout).unwrap();
    let named = format!("@{}", file.display());
    let mut sending = outlive();
    sending.args(["send", "--wait", "queued", "--to", &named, "--data"]);
    let sent = feed(sending.arg(&alice), b"hello\n");
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
    assert_eq!(session["peer"], id(&bob));
}

#[test]
fn a_token_on_the_command_line_is_warned_of_and_works() {
    let dir = tempfile::tempdir().unwrap();
    let (alice, bob) = (dir.path().join("alice"), dir.path().join("bob"));
    let contact = |options: &[&str]| {
        let mut contact = outlive();
        contact.arg("contact").args(options).arg("--data").arg(&bob);
        String::from_utf8(contact.output().unwrap().stdout).unwrap()
    };
    let (with_token, without) = (contact(&["--token"]), contact(&[]));
    let file = dir.path().join("bob.contact");
    fs::write(&file, &with_token).unwrap();
    let named = format!("@{}", file.display());
    for (to, warned) in [
        (with_token.trim(), true),
        (without.trim(), false),
        (&named, false),
    ] {
        let mut sending = outlive();
        sending.args(["--json", "send", "--wait", "queued", "--to", to, "--data"]);
        let sent = feed(sending.arg(&alice), b"hello\n");
        let said = String::from_utf8_lossy(&sent.stderr);
        assert!(sent.status.success(), "{said}");
        assert_eq!(said.contains("@FILE"), warned, "{to}: {said}");
        let token = with_token.trim().rsplit('=').next().unwrap();
        assert!(!said.contains(token), "{said}");
        let out = String::from_utf8(sent.stdout).unwrap();
        for line in out.lines() {
            serde_json::from_str::<serde_json::Value>(line).unwrap();
        }
    }
}

#[test]
fn a_file_that_holds_no_contact_is_named_and_not_shown() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("contact");
    let named = format!("@{}", file.display());
    for text in [
        None,
        Some(""),
        Some("secret"),
        Some("outlive:secret?token=secret"),
    ] {
        if let Some(text) = text {
            fs::write(&file, text).unwrap();
        }
        let mut blocking = outlive();
        blocking.args(["block", &named, "--data"]);
        let blocked = blocking.arg(dir.path().join("alice")).output().unwrap();
        assert_eq!(blocked.status.code(), Some(2));
        let said = String::from_utf8_lossy(&blocked.stderr);
        assert!(said.contains(&named), "{said}");
        assert!(!said.contains("secret"), "{said}");
    }
}

#[test]
fn what_a_kill_left_of_an_identity_goes_when_the_next_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("alice");
    id(&data);
    let left = data.join("identity.4711.new");
    fs::copy(data.join("identity"), &left).unwrap();
    fs::write(data.join("identity.note"), "somebody else's").unwrap();
    let secret = dir.path().join("passphrase");
    fs::write(&secret, "correct horse battery staple\n").unwrap();
    let mut sealing = outlive();
    sealing.arg("passphrase").arg("--data").arg(&data);
    sealing.arg("--new-passphrase-file").arg(&secret);
    assert!(sealing.output().unwrap().status.success());
    assert!(!left.exists(), "the seed is there in the clear");
    assert!(data.join("identity.note").exists());
}

#[test]
fn who_asks_for_the_sessions_is_their_owner() {
    let dir = tempfile::tempdir().unwrap();
    let (_relay, address) = relay(&dir.path().join("relay"), "127.0.0.1:0");
    let (url, bob) = (format!("ws://{address}"), dir.path().join("bob"));
    let to = id(&bob);
    let mut listening = outlive();
    listening.args(["listen", "--relay", &url, "--data"]);
    let mut listening = Running::start(listening.arg(&bob));
    let mut sending = outlive();
    sending.args(["send", "--relay", &url, "--timeout", "60", "--to", &to]);
    sending.arg("--data").arg(dir.path().join("alice"));
    assert!(feed(&mut sending, b"hello\n").status.success());
    assert_eq!(listening.lines.next().unwrap().unwrap(), "hello");
    let socket = fs::metadata(bob.join("sessions.sock")).unwrap();
    assert_eq!(socket.permissions().mode() & 0o777, 0o600);
}

#[test]
fn a_file_goes_with_the_token_of_a_contact_and_without_our_name() {
    let dir = tempfile::tempdir().unwrap();
    let (alice, bob) = (dir.path().join("alice"), dir.path().join("bob"));
    let mut contact = outlive();
    contact.args(["contact", "--token", "--data"]).arg(&bob);
    let (named, file) = (dir.path().join("bob.contact"), dir.path().join("file"));
    fs::write(&named, contact.output().unwrap().stdout).unwrap();
    fs::write(&file, b"hi").unwrap();
    let mut sending = outlive();
    sending.args(["send-file", "--relay", "ws://127.0.0.1:1", "--timeout", "5"]);
    sending.args(["--to", &format!("@{}", named.display()), "--data"]);
    let sent = sending.arg(&alice).arg(&file).status().unwrap();
    assert_eq!(sent.code(), Some(1));
    let kept = records::get(&alice, Key::Unidentified(id(&bob).parse().unwrap()));
    assert!(kept.is_some(), "the relay would be told who sends");
}

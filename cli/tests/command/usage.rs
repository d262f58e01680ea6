//! Arguments that can't be right, and outputs that nobody reads.

use std::path::Path;
use std::process::{Command, Output};

use crate::process::{id, outlive};

fn on(data: &Path, args: &[&str]) -> Command {
    let mut command = outlive();
    command.args(args).arg("--data").arg(data);
    command
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_relay_that_is_no_address_is_wrong_usage() {
    let dir = tempfile::tempdir().unwrap();
    let to = id(&dir.path().join("bob"));
    for url in ["relay.example", "http://relay.example", "ws://"] {
        for args in [
            &["send", "--relay", url, "--to", &to][..],
            &["listen", "--relay", url],
            &["contact", "--relay", url],
        ] {
            let alice = dir.path().join("alice");
            let output = on(&alice, args).output().unwrap();
            let said = said(&output);
            assert_eq!(output.status.code(), Some(2), "{args:?}: {said}");
            assert!(said.contains("--relay <URL>"), "{said}");
            assert!(!alice.exists(), "nothing is made for a typo");
        }
    }
}

#[test]
fn wrong_usage_shows_how_the_command_is_used() {
    let dir = tempfile::tempdir().unwrap();
    let to = id(&dir.path().join("bob"));
    let alice = dir.path().join("alice");
    for args in [
        &["send", "--to", &to][..],
        &[
            "listen",
            "--relay",
            "ws://h",
            "--turn",
            "h:1",
            "--turn-user",
            "me",
        ],
        &["passphrase"],
    ] {
        let output = on(&alice, args).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        let usage = format!("Usage: outlive {} ", args[0]);
        assert!(said(&output).contains(&usage), "{}", said(&output));
    }
}

#[test]
fn a_log_that_goes_to_no_terminal_has_no_colours() {
    let dir = tempfile::tempdir().unwrap();
    let to = id(&dir.path().join("bob"));
    let args = [
        "send",
        "--relay",
        "ws://127.0.0.1:1",
        "--timeout",
        "1",
        "--to",
        &to,
    ];
    let mut command = on(&dir.path().join("alice"), &args);
    let said = said(&command.env("OUTLIVE_LOG", "trace").output().unwrap());
    assert!(said.contains("TRACE") || said.contains("DEBUG"), "{said}");
    assert!(!said.contains('\u{1b}'), "{said}");
}

//! Arguments that can't be right, and outputs that nobody reads.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::process::{Running, id, outlive};

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
    for url in [
        "relay.example",
        "http://relay.example",
        "ws://",
        "ws://127.0.0.1:99999",
        "ws://[::1]:0",
        "wss://relay.example:443x",
    ] {
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
fn a_password_in_the_address_of_a_relay_is_refused_and_not_repeated() {
    let dir = tempfile::tempdir().unwrap();
    let alice = dir.path().join("alice");
    let to = id(&dir.path().join("bob"));
    let url = "wss://me:hunter2@relay.example";
    let contact = format!("outlive:{to}?relay=wss%3A%2F%2Fme%3Ahunter2%40relay.example");
    for args in [
        &["send", "--timeout", "1", "--to", &to, "--relay", url][..],
        &["send", "--timeout", "1", "--to", &contact],
        &["contact", "--relay", url],
        &[
            "listen",
            "--timeout",
            "1",
            "--relay",
            "wss:/me:hunter2@relay.example",
        ],
        &["contact", "--relay", "wss://me:hunter2/more@relay.example"],
        &["contact", "--relay", "wss://me:hunter2?more@relay.example"],
        &["contact", "--relay", "wss://me:hunter2#more@relay.example"],
        &["contact", "--relay", "wss://me:/hunter2@relay.example"],
        &[
            "contact",
            "--relay",
            "wss://me:123456/hunter2@relay.example",
        ],
    ] {
        let output = on(&alice, args).output().unwrap();
        let said = said(&output);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains("password"), "{said}");
        assert!(!said.contains("hunter2"), "{said}");
    }
}

#[test]
fn an_at_behind_the_host_of_a_relay_is_no_password() {
    let dir = tempfile::tempdir().unwrap();
    for url in [
        "wss://relay.example/@home",
        "wss://relay.example?of=me@home",
        "ws://relay.example:4400/of/me@home?a@b",
        "ws://[::1]:4400/@home",
        "ws://[::1]/@home",
    ] {
        let output = on(dir.path(), &["contact", "--relay", url])
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", said(&output));
    }
}

#[test]
fn a_mistyped_contact_is_told_of_without_its_token() {
    let dir = tempfile::tempdir().unwrap();
    let bob = dir.path().join("bob");
    let contact = on(&bob, &["contact", "--token"]).output().unwrap();
    let contact = String::from_utf8(contact.stdout).unwrap();
    let mistyped = contact.trim().replace("token=", "tokne=");
    let (_, token) = mistyped.split_once("tokne=").unwrap();
    for (args, flag) in [
        (&["send", "--to"][..], "--to <PEER>"),
        (&["verify"], "<PEER>"),
    ] {
        let mut command = on(&dir.path().join("alice"), args);
        if flag == "<PEER>" {
            command.arg(&mistyped);
        } else {
            command = outlive();
            command
                .args(args)
                .arg(&mistyped)
                .arg("--data")
                .arg(dir.path());
        }
        let output = command.output().unwrap();
        let said = said(&output);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(flag) && said.contains("character"), "{said}");
        assert!(!said.contains(token), "{said}");
    }
}

#[test]
fn an_output_that_nobody_reads_ends_a_command_without_a_word() {
    let dir = tempfile::tempdir().unwrap();
    let (nobody, output) = std::io::pipe().unwrap();
    drop(nobody);
    let mut command = on(&dir.path().join("alice"), &["id"]);
    command.stdout(output).stderr(Stdio::piped());
    let ended = command.spawn().unwrap().wait_with_output().unwrap();
    assert_eq!(said(&ended), "");
    assert_eq!(ended.status.code(), Some(1));
}

#[test]
fn a_log_that_goes_to_no_terminal_has_no_colours() {
    let dir = tempfile::tempdir().unwrap();
    let args = ["listen", "--relay", "ws://127.0.0.1:1", "--timeout", "30"];
    let mut command = on(&dir.path().join("alice"), &args);
    command.env("OUTLIVE_LOG", "debug").stderr(Stdio::piped());
    let mut running = Running::start(&mut command);
    let mut lines = BufReader::new(running.child.stderr.take().unwrap()).lines();
    // It tells that there is no relay.
    let logged = lines.find_map(|line| line.ok().filter(|line| line.contains("DEBUG")));
    let logged = logged.expect("something is logged");
    assert!(!logged.contains('\u{1b}'), "{logged}");
}

#[test]
fn a_level_of_the_log_that_is_none_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let said_with = |log: &str| {
        let mut command = on(&dir.path().join("alice"), &["id"]);
        let output = command.env("OUTLIVE_LOG", log).output().unwrap();
        assert!(output.status.success());
        said(&output)
    };
    for wrong in ["bogus", "info,bogus", "outlive=loud"] {
        let said = said_with(wrong);
        assert!(
            said.contains("OUTLIVE_LOG") && said.contains("debug"),
            "{said}"
        );
    }
    for right in [
        "",
        "info",
        "DEBUG",
        "off",
        "outlive_relay",
        "outlive=debug,sled=warn",
    ] {
        assert_eq!(said_with(right), "", "{right}");
    }
}

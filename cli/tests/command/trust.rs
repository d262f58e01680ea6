//! What people decide about peers, and how they give each other their contact.

use std::path::Path;
use std::process::Command;

use crate::process::{Running, done, feed, id, on, relay};

fn json(command: &mut Command) -> serde_json::Value {
    serde_json::from_str(&done(&command.output().unwrap())).unwrap()
}

#[test]
fn two_people_compare_their_number_and_it_is_remembered() {
    let dir = tempfile::tempdir().unwrap();
    let (alice, bob) = (dir.path().join("alice"), dir.path().join("bob"));
    let (hers, his) = (id(&alice), id(&bob));
    let seen = json(&mut on(&alice, &["--json", "verify", &his]));
    assert_eq!(seen["trust"], "unknown");
    let other = json(&mut on(&bob, &["--json", "verify", &hers]));
    assert_eq!(seen["safety_number"], other["safety_number"]);
    assert_eq!(seen["safety_number"].as_str().unwrap().len(), 71);

    let mut sending = on(&alice, &["send", "--wait", "queued", "--to", &his]);
    done(&feed(&mut sending, b"hello\n"));
    let text = done(&on(&alice, &["verify", &his, "--confirm"]).output().unwrap());
    let number = seen["safety_number"].as_str().unwrap();
    assert_eq!(text, format!("{number}\nverified\n"));
    let session = json(&mut on(&alice, &["--json", "sessions"]));
    assert_eq!(session["trust"], "verified");
}

#[test]
fn nobody_verifies_oneself() {
    let dir = tempfile::tempdir().unwrap();
    let alice = dir.path().join("alice");
    let output = on(&alice, &["verify", &id(&alice)]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn a_contact_is_enough_to_reach_a_peer() {
    let dir = tempfile::tempdir().unwrap();
    let (_relay, address) = relay(&dir.path().join("relay"), "127.0.0.1:0");
    let url = format!("ws://{address}");
    let (alice, bob) = (dir.path().join("alice"), dir.path().join("bob"));
    let contact = |data| done(&on(data, &["contact", "--relay", &url]).output().unwrap());
    let (hers, his) = (contact(&alice), contact(&bob));
    assert!(his.starts_with(&format!(
        "outlive:{}?relay=ws%3A%2F%2F127.0.0.1%3A",
        id(&bob)
    )));
    let mut sending = on(&alice, &["send", "--wait", "custody", "--timeout", "60"]);
    done(&feed(sending.args(["--to", his.trim()]), b"by contact\n"));
    let mut listening = on(&bob, &["listen", "--count", "1", "--timeout", "60"]);
    let heard = listening.args(["--from", hers.trim()]).output().unwrap();
    assert_eq!(done(&heard), "by contact\n");
}

#[test]
fn a_contact_is_drawn_for_a_camera() {
    let dir = tempfile::tempdir().unwrap();
    let drawn = done(&on(dir.path(), &["contact", "--qr"]).output().unwrap());
    let mut lines = drawn.lines();
    assert_eq!(lines.next().unwrap(), format!("outlive:{}", id(dir.path())));
    let widths: Vec<_> = lines.map(|line| line.chars().count()).collect();
    // 33 modules and a margin of 4 on each side; two rows share a line.
    assert_eq!(widths, [41; 21]);
}

#[test]
fn a_typo_in_a_contact_is_wrong_usage_and_says_where() {
    let dir = tempfile::tempdir().unwrap();
    let peer = id(dir.path());
    for (contact, place) in [
        (format!("outlive:{peer}?rely=ws://h"), "character 62"),
        (format!("outlive:{peer}?relay=ws://h#"), "character 74"),
        (format!("outlive:{peer}?relay=http://h"), "relay 1"),
        (format!("outlive:1{}", &peer[1..]), "character 1 "),
        (format!("outlife:{peer}"), "`outlive:`"),
    ] {
        let args = ["send", "--wait", "queued", "--to", &contact];
        let output = on(dir.path(), &args).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{contact}");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains(place), "{contact}: {said}");
    }
}

#[test]
fn without_any_relay_it_is_wrong_usage() {
    let dir = tempfile::tempdir().unwrap();
    let peer = id(&dir.path().join("bob"));
    for args in [
        &["send", "--to", &peer][..],
        &["listen"],
        &["listen", "--from", &peer],
        &["chat", "--with", &peer],
    ] {
        let output = on(&dir.path().join("alice"), args).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("no relay is known"), "{said}");
    }
}

#[test]
fn a_blocked_peer_is_not_heard_until_it_is_unblocked() {
    let dir = tempfile::tempdir().unwrap();
    let (_relay, address) = relay(&dir.path().join("relay"), "127.0.0.1:0");
    let url = format!("ws://{address}");
    let data = |name: &str| dir.path().join(name);
    let (alice, bob, carol) = (data("alice"), data("bob"), data("carol"));
    let (hers, to) = (id(&alice), id(&bob));
    let send = |from: &Path, wait: &str, line: &str| {
        let mut sending = on(from, &["send", "--timeout", "60", "--relay", &url]);
        sending.args(["--wait", wait, "--to", &to]);
        done(&feed(&mut sending, line.as_bytes()));
    };
    let listen = |count: &str| {
        let mut listening = on(&bob, &["listen", "--timeout", "60", "--relay", &url]);
        listening.args(["--count", count]);
        listening
    };
    send(&alice, "custody", "before\nleft behind\n");
    assert_eq!(done(&listen("1").output().unwrap()), "before\n");

    let blocked = json(&mut on(&bob, &["--json", "block", &hers]));
    assert_eq!(blocked["trust"], "blocked");
    let session = json(&mut on(&bob, &["--json", "sessions"]));
    assert_eq!(session["trust"], "blocked");
    send(&alice, "custody", "while blocked\n");
    send(&carol, "custody", "from carol\n");
    assert_eq!(done(&listen("1").output().unwrap()), "from carol\n");
    let mut sending = on(&bob, &["send", "--wait", "queued", "--to", &hers]);
    let refused = feed(&mut sending, b"to a blocked peer\n");
    assert_eq!(refused.status.code(), Some(1));
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(said.contains("is blocked"), "{said}");
    let confirmed = on(&bob, &["verify", &hers, "--confirm"]).output().unwrap();
    assert_eq!(confirmed.status.code(), Some(1), "that would unblock it");

    let unblocked = json(&mut on(&bob, &["--json", "unblock", &hers]));
    assert_eq!(unblocked["trust"], "unknown");
    // What was refused is still with its sender, and comes in its place.
    let mut listening = Running::start(&mut listen("3"));
    send(&alice, "delivered", "after\n");
    let heard: Vec<_> = (&mut listening.lines).map(Result::unwrap).collect();
    assert_eq!(heard, ["left behind", "while blocked", "after"]);
}

//! Links to the peer itself, and what helps to find them.

use std::net::UdpSocket;
use std::time::Duration;

use serde_json::Value;

use crate::process::{Running, outlive};

#[test]
fn the_demo_moves_between_relay_and_direct_links_of_each_kind_and_loses_nothing() {
    let output = outlive()
        .args(["demo", "--json", "--messages", "3000", "--cuts", "60"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let verdict: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    assert_eq!(verdict["received"], 3000);
    for wrong in ["lost", "duplicated", "out_of_order"] {
        assert_eq!(verdict[wrong], 0, "{verdict}");
    }
    let mut told = 0;
    for transport in ["relay", "quic", "webrtc"] {
        for what in ["packets", "messages"] {
            assert!(verdict[what][transport].as_u64() > Some(0), "{verdict}");
        }
        told += verdict["messages"][transport].as_u64().unwrap();
    }
    assert_eq!(told, 3000, "each came over one of them: {verdict}");
    assert!(verdict["ice_restarts"].as_u64() > Some(0), "{verdict}");
}

#[test]
fn a_demo_without_direct_links_keeps_to_the_relay() {
    let output = outlive()
        .args(["demo", "--json", "--messages", "200", "--cuts", "2"])
        .args(["--direct", "never"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let verdict: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    for transport in ["quic", "webrtc"] {
        assert_eq!(verdict["packets"][transport], Value::Null, "{verdict}");
        assert_eq!(verdict["messages"][transport], Value::Null, "{verdict}");
    }
    assert_eq!(verdict["messages"]["relay"], 200, "{verdict}");
    assert_eq!(verdict["lost"], 0);
}

#[test]
fn a_relay_with_stun_says_where_and_answers() {
    let dir = tempfile::tempdir().unwrap();
    let mut relay = Running::start(
        outlive()
            .args(["relay", "--listen", "127.0.0.1:0", "--stun", "127.0.0.1:0"])
            .arg("--data")
            .arg(dir.path()),
    );
    let line = relay.lines.next().unwrap().unwrap();
    let listening: Value = serde_json::from_str(&line).unwrap();
    let server = listening["stun"].as_str().unwrap();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(server).unwrap();
    // Longer than it takes; a datagram on loopback is not lost.
    socket
        .set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    let mut request = vec![0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42];
    request.extend([7; 12]);
    socket.send(&request).unwrap();
    let mut answer = [0; 64];
    let length = socket.recv(&mut answer).unwrap();
    assert_eq!(
        (length, &answer[..2], &answer[8..20]),
        (32, &[1, 1][..], &[7; 12][..])
    );
}

/// What `listen` says of these flags.
fn listen_with(flags: &[&str]) -> (Option<i32>, String) {
    let dir = tempfile::tempdir().unwrap();
    let mut listening = outlive();
    listening.args(["listen", "--relay", "ws://127.0.0.1:9", "--timeout", "0"]);
    listening.args(flags).arg("--data").arg(dir.path());
    // Of whoever runs the test, if at all.
    listening.env_remove("OUTLIVE_TURN_PASSWORD");
    let output = listening.output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    (output.status.code(), said)
}

#[test]
fn kinds_of_direct_links_that_contradict_each_other_are_wrong_usage() {
    let (code, said) = listen_with(&["--direct", "quic,never"]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("--direct is either never"), "{said}");
    let turn = ["--turn", "turn.example:3478", "--turn-user", "me"];
    let (code, said) = listen_with(&[&["--direct", "quic"], &turn[..]].concat());
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("--direct webrtc"), "{said}");
}

#[test]
fn a_turn_server_without_a_name_or_a_password_is_wrong_usage() {
    let webrtc = ["--direct", "quic,webrtc", "--turn"];
    for (flags, hint) in [
        (&["turn.example:3478"][..], "--turn-user"),
        (
            &["turn.example:3478", "--turn-user", "me"],
            "--turn-password-file",
        ),
        (
            &["turn:turn.example:3478", "--turn-user", "me"],
            "write a host and a port",
        ),
        (
            &["turn.example", "--turn-user", "me"],
            "write a host and a port",
        ),
    ] {
        let (code, said) = listen_with(&[&webrtc, flags].concat());
        assert_eq!(code, Some(2), "{said}");
        assert!(said.contains(hint), "{said}");
    }
}

#[test]
fn a_password_for_a_turn_server_comes_from_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("password");
    let flags = [
        "--direct",
        "webrtc",
        "--turn",
        "127.0.0.1:9",
        "--turn-user",
        "me",
        "--turn-password-file",
        file.to_str().unwrap(),
    ];
    let (code, said) = listen_with(&flags);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("can't read"), "{said}");
    std::fs::write(&file, "secret\n").unwrap();
    let (code, said) = listen_with(&flags);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("the time is over"), "{said}");
}

//! Links to the peer itself, and what helps to find them.

use std::net::UdpSocket;
use std::time::Duration;

use serde_json::Value;

use crate::process::{Running, outlive};

#[test]
fn the_demo_moves_between_relay_and_direct_link_and_loses_nothing() {
    let output = outlive()
        .args(["demo", "--json", "--messages", "2000", "--cuts", "24"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let verdict: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    assert_eq!(verdict["received"], 2000);
    for wrong in ["lost", "duplicated", "out_of_order"] {
        assert_eq!(verdict[wrong], 0, "{verdict}");
    }
    for transport in ["relay", "quic"] {
        let packets = verdict["packets"][transport].as_u64();
        assert!(packets > Some(0), "{verdict}");
    }
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
    assert_eq!(verdict["packets"]["quic"], Value::Null, "{verdict}");
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
